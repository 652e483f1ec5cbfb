package raftlock

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// hello is the first thing each side of a stream says, in JSON. The dialer says
// it first; the answer is a hello too, or carries a refusal. Members that are
// not yet a cluster agree on one through nothing but hellos (see assembly).
type hello struct {
	// Protocol is the newest version of the frames that this member speaks; two
	// members speak the older one's. Entries is the newest format of log entries,
	// and of the commands and results in frames, that it reads (format.go).
	Protocol int `json:"protocol"`
	Entries  int `json:"entries"`

	Identity
	Target        string   `json:"target"`  // whom the dialer means to reach
	Initial       []string `json:"initial"` // the names of its InitialCluster
	ClientAddress string   `json:"client_address,omitempty"`
	// Frames: the dialer will send frames on this stream. Otherwise it only asks.
	Frames bool `json:"frames,omitempty"`

	Refusal *refusal `json:"refusal,omitempty"` // in an answer
}

// refusal says why a stream is not accepted.
type refusal struct {
	// DiskLost: the one who is refused has another incarnation than the one
	// this cluster knows under its name.
	DiskLost bool   `json:"disk_lost,omitempty"`
	Text     string `json:"text"`
}

// oldestProtocol and newestProtocol are the versions of the frames that this
// build speaks.
const (
	oldestProtocol = 1
	newestProtocol = 1
)

// maxHello bounds a hello's bytes.
const maxHello = 1 << 20

func (h *hello) encode() ([]byte, error) { return json.Marshal(h) }

func decodeHello(b []byte) (hello, error) {
	var h hello
	if len(b) > maxHello {
		return h, fmt.Errorf("hello of %d bytes", len(b))
	}
	if err := json.Unmarshal(b, &h); err != nil {
		return hello{}, fmt.Errorf("decode hello: %w", err)
	}
	return h, nil
}

// errRefused is in the error when a peer refuses this member, or this member a
// peer. It is tried again: a configuration may be mended while members run.
var errRefused = errors.New("refused")

func refused(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errRefused, fmt.Sprintf(format, args...))
}

// judge compares what a peer says with what this member knows. The error is
// around ErrDiskLost when it is this member that has lost its disk, around
// errDiskLostThere when it is the peer, otherwise around errRefused.
func (h *hello) judge(theirs *hello) error {
	switch {
	case theirs.Protocol < oldestProtocol:
		return refused("%s speaks protocols up to %d, this member %d and newer: upgrade it first", theirs.Name, theirs.Protocol, oldestProtocol)
	case theirs.Entries < int(oldestFormat):
		return refused("%s reads log entries up to format %d, this member writes %d and newer: upgrade it first", theirs.Name, theirs.Entries, oldestFormat)
	case theirs.ClusterName != h.ClusterName:
		return refused("%s is of cluster %q, this member of %q", theirs.Name, theirs.ClusterName, h.ClusterName)
	case theirs.Target != h.Name:
		return refused("%s means to reach %q, this is %q: check the peer addresses", theirs.Name, theirs.Target, h.Name)
	case !slices.Contains(h.Initial, theirs.Name) || theirs.Name == h.Name:
		return refused("%q is not another member of this cluster %v", theirs.Name, h.Initial)
	}
	return h.judgeMembers(theirs)
}

func (h *hello) judgeMembers(theirs *hello) error {
	if h.Members != nil && theirs.Members != nil && h.ClusterID != theirs.ClusterID {
		return refused("%s belongs to another cluster %q (id %x) than this member (id %x)",
			theirs.Name, h.ClusterName, theirs.ClusterID, h.ClusterID)
	}
	if m, ok := theirs.Members[h.Name]; ok && m.Incarnation != h.Incarnation {
		return fmt.Errorf("%w: %s knows member %q with another data directory; %s",
			ErrDiskLost, theirs.Name, h.Name, diskLostRemedy)
	}
	if m, ok := h.Members[theirs.Name]; ok && m.Incarnation != theirs.Incarnation {
		return fmt.Errorf("%w: member %q has another data directory than this cluster knows", errDiskLostThere, theirs.Name)
	}
	if h.Members == nil && theirs.Members == nil && !slices.Equal(h.Initial, theirs.Initial) {
		return refused("%s was given the initial members %v, this member %v", theirs.Name, theirs.Initial, h.Initial)
	}
	if theirs.Frames && (h.Members == nil || theirs.Members == nil) {
		return refused("the cluster is not formed yet")
	}
	return nil
}

// errDiskLostThere is in the error of judge when the peer has lost its disk.
var errDiskLostThere = errors.New("disk lost")

// diskLostRemedy is what the operator of a member that lost its disk can do,
// whichever side finds out.
const diskLostRemedy = "put that directory back, or have the member replaced"

// answer is the hello that answers theirs, and the error that its refusal says.
func (h hello) answer(theirs *hello) (hello, error) {
	h.Target, h.Frames = theirs.Name, theirs.Frames
	err := h.judge(theirs)
	if err != nil {
		h.Refusal = &refusal{Text: err.Error(), DiskLost: errors.Is(err, errDiskLostThere)}
	}
	return h, err
}

// heed turns an answer into the error that it means for the dialer.
func (h *hello) heed(answer *hello, target string) error {
	if answer.Refusal != nil && !answer.Refusal.DiskLost {
		return refused("by %s: %s", target, answer.Refusal.Text)
	}
	if answer.Refusal != nil {
		return fmt.Errorf("%w: by %s: %s; %s", ErrDiskLost, target, answer.Refusal.Text, diskLostRemedy)
	}
	if answer.Name != target {
		return refused("%q answers at the address of %q", answer.Name, target)
	}
	return h.judge(answer)
}

// newest is the newest format that a member reads.
func (h *hello) newest() format { return format(min(h.Entries, 255)) }

// memberNames lists names in order.
func memberNames[V any](members map[string]V) []string {
	return slices.Sorted(maps.Keys(members))
}

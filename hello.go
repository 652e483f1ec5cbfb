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

	// Identity says who the dialler is; its Members are those that it knows by
	// now. A member whose place waits for it has no incarnation there.
	Identity
	// MembersAt is how far in the log Members reach: of two members that know
	// each other differently, the one whose number is greater is right.
	MembersAt uint64 `json:"members_at,string,omitempty"`
	// Addresses are where the members are reached, told by who brings something, and
	// to one that is admitted or may not know them all.
	Addresses map[string]string `json:"addresses,omitempty"`

	Target        string   `json:"target"`  // whom the dialer means to reach
	Initial       []string `json:"initial"` // the names of its InitialCluster, or of Members
	ClientAddress string   `json:"client_address,omitempty"`
	// Frames: the dialer will send frames on this stream; Snapshot: a snapshot.
	// Otherwise it only asks.
	Frames   bool `json:"frames,omitempty"`
	Snapshot bool `json:"snapshot,omitempty"`

	Refusal *refusal `json:"refusal,omitempty"` // in an answer
}

// refusal says why a stream is not accepted.
type refusal struct {
	// DiskLost: the one who is refused has another incarnation than the one
	// this cluster knows under its name.
	DiskLost bool `json:"disk_lost,omitempty"`
	// Removed: it was a member, and is none any more.
	Removed bool `json:"removed,omitempty"`
	// Vacant: a place waits for it, and is not its own yet.
	Vacant bool   `json:"vacant,omitempty"`
	Text   string `json:"text"`
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
// around ErrDiskLost or ErrRemoved when it is this member that has lost its disk
// or its place, around errDiskLostThere or errRemovedThere when it is the peer,
// around errVacant when a place waits for the peer, otherwise around errRefused.
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
	case theirs.Name == h.Name, h.Members == nil && !slices.Contains(h.Initial, theirs.Name):
		return h.stranger(theirs)
	}
	return h.judgeMembers(theirs)
}

func (h *hello) stranger(theirs *hello) error {
	return refused("%q is not another member of this cluster %v", theirs.Name, h.Initial)
}

func (h *hello) judgeMembers(theirs *hello) error {
	if h.Members != nil && theirs.Members != nil && h.ClusterID != theirs.ClusterID {
		return h.judgeForeign(theirs)
	}
	us, them := h.judgeUs(theirs), h.judgeThem(theirs)
	switch removed := errors.Is(them, errRemovedThere); {
	case us != nil && (!removed || !errors.Is(us, errRefused)):
		return us
	case them != nil:
		return them // that it was removed one must hear also who does not know this member
	}
	if h.Members == nil && theirs.Members == nil && !slices.Equal(h.Initial, theirs.Initial) {
		return refused("%s was given the initial members %v, this member %v", theirs.Name, theirs.Initial, h.Initial)
	}
	if theirs.brings() && (h.Members == nil || theirs.Members == nil) {
		return refused("the cluster is not formed yet")
	}
	return nil
}

// judgeForeign looks at a member of another cluster of the same name. Neither of the
// two can tell a wrong address from a second cluster that grants the same locks, but
// for one case.
func (h *hello) judgeForeign(theirs *hello) error {
	switch {
	case h.isSplitFrom(theirs):
		return fmt.Errorf("%w: %s is of a cluster %q (id %x) that knows member %q, and not with this data directory, which has made "+
			"a cluster of its own (id %x); with all present members in InitialCluster, %s; if the two have nothing to do with each other, "+
			"give them other cluster names", errSplit, theirs.Name, h.ClusterName, theirs.ClusterID, h.Name, h.ClusterID, diskLostRemedy(h.Name))
	case theirs.isSplitFrom(h):
		return fmt.Errorf("%w: the data directory of member %q is not the one that this cluster knows, and has made a cluster of its own (id %x)",
			errDiskLostThere, theirs.Name, theirs.ClusterID)
	}
	return refused("%s belongs to another cluster %q (id %x) than this member (id %x)",
		theirs.Name, h.ClusterName, theirs.ClusterID, h.ClusterID)
}

// isSplitFrom reports whether h looks like the founder of other's cluster that has lost
// its disk since that has grown, and has founded it again: alone, as the only member
// that its configuration names. Its place there may have been emptied for it. Who has
// others, has joined them, or is known to a cluster that never grew, is nobody's lost
// founder, whatever hello reaches it.
func (h *hello) isSplitFrom(other *hello) bool {
	for name, m := range h.Members {
		if name != h.Name && m.Incarnation != 0 {
			return false
		}
	}
	was, known := other.Members[h.Name]
	return !h.Joined && other.MembersAt > firstIndex && known && was.Incarnation != h.Incarnation
}

// judgeUs looks at what a peer knows of this member.
func (h *hello) judgeUs(theirs *hello) error {
	m, known := theirs.Members[h.Name]
	switch {
	case theirs.Members == nil || known && m.Incarnation == h.Incarnation:
		return nil
	case h.Members == nil && !known:
		return refused("%s knows no member %q, only %v: add it there first", theirs.Name, h.Name, memberNames(theirs.Members))
	case h.Members == nil && m.Incarnation == 0:
		return nil // it keeps a place for this member
	case h.Members == nil || known && theirs.MembersAt == h.MembersAt:
		return fmt.Errorf("%w: %s knows member %q with another data directory; %s",
			ErrDiskLost, theirs.Name, h.Name, diskLostRemedy(h.Name))
	case theirs.MembersAt > h.MembersAt:
		return fmt.Errorf("%w, says %s: %s", ErrRemoved, theirs.Name, removedRemedy)
	}
	return refused("%s does not know this member yet", theirs.Name)
}

// judgeThem looks at what this member knows of a peer.
func (h *hello) judgeThem(theirs *hello) error {
	m, known := h.Members[theirs.Name]
	switch {
	case h.Members == nil || known && m.Incarnation == theirs.Incarnation:
		return nil
	case theirs.Members == nil && !known:
		return h.stranger(theirs)
	case theirs.Members == nil && m.Incarnation == 0:
		return fmt.Errorf("%w: member %q has not come yet", errVacant, theirs.Name)
	case theirs.Members == nil || known && theirs.MembersAt == h.MembersAt:
		return fmt.Errorf("%w: member %q has another data directory than this cluster knows", errDiskLostThere, theirs.Name)
	case h.MembersAt > theirs.MembersAt:
		return fmt.Errorf("%w: the member %q of this data directory was removed or replaced", errRemovedThere, theirs.Name)
	}
	return refused("this member does not know %s yet", theirs.Name)
}

// In the error of judge: that the peer has lost its disk, that it was removed,
// that a place waits for it.
var (
	errDiskLostThere = errors.New("disk lost")
	errRemovedThere  = errors.New("removed")
	errVacant        = errors.New("not admitted yet")
)

// errSplit is in the error of judge when this member has founded its cluster again
// and alone: see isSplitFrom.
var errSplit = fmt.Errorf("%w, but that of a second one", ErrDiskLost)

// diskLostRemedy is what the operator of a member that lost its disk can do,
// whichever side finds out.
func diskLostRemedy(name string) string {
	return fmt.Sprintf("put that directory back, or call ReplaceMember(%q) at a member that runs "+
		"(raftlock member replace %s) and start this one again, with an empty data directory", name, name)
}

// removedRemedy is the same for a member that was removed.
const removedRemedy = "its data directory is of no use any more; to have a member of this name again, start it with an empty one, " +
	"after AddMember (raftlock member add) if it was removed"

// answer is the hello that answers theirs, and the error that its refusal says.
func (h hello) answer(theirs *hello) (hello, error) {
	h.Target, h.Frames, h.Snapshot = theirs.Name, theirs.Frames, theirs.Snapshot
	err := h.judge(theirs)
	if err != nil {
		h.Refusal = &refusal{
			Text: err.Error(), DiskLost: errors.Is(err, errDiskLostThere),
			Removed: errors.Is(err, errRemovedThere), Vacant: errors.Is(err, errVacant),
		}
	}
	return h, err
}

// heed turns an answer into the error that it means for the dialer.
func (h *hello) heed(answer *hello, target string) error {
	switch r := answer.Refusal; {
	case r == nil:
	case r.Removed:
		return fmt.Errorf("%w: by %s: %s; %s", ErrRemoved, target, r.Text, removedRemedy)
	case r.DiskLost:
		return fmt.Errorf("%w: by %s: %s; %s", ErrDiskLost, target, r.Text, diskLostRemedy(h.Name))
	case r.Vacant:
		return fmt.Errorf("%w, says %s: %s", errVacant, target, r.Text)
	default:
		return refused("by %s: %s", target, r.Text)
	}
	if answer.Name != target {
		return refused("%q answers at the address of %q", answer.Name, target)
	}
	return h.judge(answer)
}

// errand is what a stream is opened for.
type errand uint8

const (
	asks errand = iota
	sendsFrames
	sendsSnapshot
)

// brings reports whether more comes on the stream than hellos: both sides must be
// members of a cluster then.
func (h *hello) brings() bool { return h.Frames || h.Snapshot }

// newest is the newest format that a member reads.
func (h *hello) newest() format { return format(min(h.Entries, 255)) }

// memberNames lists names in order.
func memberNames[V any](members map[string]V) []string {
	return slices.Sorted(maps.Keys(members))
}

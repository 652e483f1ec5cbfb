package raftlock

import (
	"errors"
	"slices"

	"go.etcd.io/raft/v3/raftpb"
)

// Storage is a member's disk. One Node owns it from Open to Close and calls it
// from one goroutine at a time; every call may block for as long as the disk
// takes. An error of any call but Load is final: the node ends and calls only
// Close, because a file whose write or fsync failed once says nothing reliable
// afterwards.
//
// The log begins after a snapshot: at first after the empty state at index 1,
// term 1, which every initial member makes in Bootstrap. Entries after it are
// kept for ever today. Compaction fits in as two more calls (one makes a newer
// snapshot durable, one lets go of what lies before the oldest one that is
// kept); Load already answers with the snapshot that the log stands on.
type Storage interface {
	// Load returns all that is durable. It is the first call, made once. It
	// repairs a torn last record, which a crash leaves behind; anything else
	// that does not read back as written is refused with an error around
	// ErrCorrupt that names file and offset, and changes nothing.
	Load() (Recovered, error)

	// SaveIdentity replaces the identity, atomically and durably. It is
	// called before Bootstrap with Members unset, and after it only to set
	// Started.
	SaveIdentity(id Identity) error

	// Bootstrap makes the first state durable: an empty log that begins after
	// index 1 of term 1 with the node ids of id.Members as voters, and id,
	// whose Members are set. It is called once, on a storage whose identity
	// has no Members. If the process dies within it, Load answers either as
	// before the call or as after it.
	Bootstrap(id Identity) error

	// Append makes a hard state (ignored when empty) and entries durable, in
	// one write and one fsync (and one more where entries come with a new
	// term, so that no crash leaves an entry of a term above the hard state's).
	// The first entry's index is at most one above the last one's; entries
	// from there on are replaced, none of which may be committed. The call
	// owns neither argument after it has returned. When it has returned nil,
	// Load answers with what it was given, whatever happens to the machine;
	// only a hard state that changes nothing but the commit index may be
	// written without fsync, and be lost with the machine or the process: raft
	// finds the commit index again.
	Append(hard *raftpb.HardState, entries []*raftpb.Entry) error

	// Close lets go of files and locks. It writes nothing that Append has not
	// written. Calls after it return an error; a second Close returns nil.
	Close() error
}

// Recovered is what Storage.Load found.
type Recovered struct {
	// Identity is nil when the storage is empty.
	Identity *Identity
	// Snapshot is the state that the log stands on; nil as long as Identity
	// has no Members.
	Snapshot *raftpb.SnapshotMetadata
	// Hard is the last hard state; nil when none was saved.
	Hard *raftpb.HardState
	// Entries follow Snapshot without a gap.
	Entries []*raftpb.Entry
}

// newborn is what Load will find after Bootstrap.
func newborn(id Identity) Recovered {
	var voters []uint64
	for _, m := range id.Members {
		voters = append(voters, m.NodeID)
	}
	slices.Sort(voters)
	index, term := uint64(firstIndex), uint64(1)
	return Recovered{
		Snapshot: &raftpb.SnapshotMetadata{ConfState: &raftpb.ConfState{Voters: voters}, Index: &index, Term: &term},
		Hard:     &raftpb.HardState{Term: &term, Commit: &index},
	}
}

// ErrCorrupt is in the error of Open when a file of the data directory does
// not read back as it was written, beyond the torn end that a crash leaves.
// The text names the file, the offset and what to do. Nothing was changed.
var ErrCorrupt = errors.New("raftlock: data directory is corrupt")

// ErrLocked is in the error of Open when another process, or another member of
// this one, has the data directory open.
var ErrLocked = errors.New("raftlock: data directory is in use")

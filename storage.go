package raftlock

import (
	"context"
	"errors"
	"io"
	"slices"

	"go.etcd.io/raft/v3/raftpb"
)

// Storage is a member's disk. One Node owns it from Open to Close and calls it
// from one goroutine at a time, but for CreateSnapshot, OpenSnapshot and what
// they return, which may be called beside all else once Load has returned.
// Every call may block for as long as the disk takes. An error of any call but
// Load, CreateSnapshot, OpenSnapshot and what these two return is final: the
// node ends and calls only Close, because a file whose write or fsync failed
// once says nothing reliable afterwards.
//
// The log stands on a snapshot: at first on the empty state at index 1, term 1,
// which every initial member makes in Bootstrap and which has no file; or on
// nothing at all, index 0, on a member that joined a running cluster and waits
// for its first snapshot. A newer snapshot is made in three steps: its bytes are
// written aside (CreateSnapshot), made durable (Commit), and named in the log
// (SaveSnapshot for an own one, InstallSnapshot for one from the leader). Only
// the last step counts, and it also begins to let go of what is not needed any more: the
// two newest snapshots that the log can stand on are kept, the first state being
// one of them while it is there, with all entries behind the older.
type Storage interface {
	// Load returns all that is durable. It is the first call, made once. It
	// repairs a torn last record, which a crash leaves behind, and removes what
	// unfinished calls have left; anything else that does not read back as
	// written is refused with an error around ErrCorrupt that names file and
	// offset, and changes nothing.
	//
	// The log stands on the newest snapshot. If its file is damaged, it stands
	// on the older one and the logger is told: nothing is lost by that, for the
	// log still has all entries in between. If no snapshot is left that the
	// log can stand on, the error is around ErrCorrupt; if the newest is of a
	// format that only a newer version knows, around ErrUnknownFormat.
	Load() (Recovered, error)

	// SaveIdentity replaces the identity, atomically and durably. It is
	// called before Bootstrap or Join with Members unset, and after it only to
	// set Started, or to unset it as the last call before Close.
	SaveIdentity(id Identity) error

	// Bootstrap makes the first state durable: an empty log that begins after
	// index 1 of term 1 with the node ids of id.Members as voters, and id,
	// whose Members are set. It is called once, on a storage whose identity
	// has no Members, and not after Join. If the process dies within it, Load
	// answers either as before the call or as after it.
	Bootstrap(id Identity) error

	// Join is Bootstrap for a member that was admitted to a running cluster:
	// id's Members, this one among them, are what the cluster told it, and
	// id.Joined is set. The log begins at nothing: index 0, no voters, no hard
	// state. Until InstallSnapshot it takes hard states that commit nothing,
	// and no entries.
	Join(id Identity) error

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

	// CreateSnapshot begins the snapshot of a state, aside. Index, term and
	// members of meta must be what the bytes say that follow. It counts for
	// nothing until it is committed and named by SaveSnapshot or
	// InstallSnapshot: if the process dies before that, Load removes it.
	//
	// Several may be under way at once, of the same index too: the one that is
	// committed last counts. An error is not final, a full disk's neither: the
	// caller decides. What is written of a large state can fill a disk on which
	// the log still has room, so that the right answer is to discard the
	// snapshot, to tell the operator and to try again later.
	CreateSnapshot(meta *raftpb.SnapshotMetadata) (SnapshotSink, error)

	// SaveSnapshot names an own, committed snapshot: one that the log has the
	// entry of, which is committed (a hard state that says so is written first
	// if the last one does not). When it has returned nil, Load answers with
	// this snapshot, unless its file is damaged. It lets go of entries and
	// snapshots that are not needed any more, see above.
	//
	// A snapshot that the log has been overtaken by (an own one that was under
	// way while a newer one was installed) is removed, and the error is nil.
	SaveSnapshot(meta *raftpb.SnapshotMetadata) error

	// InstallSnapshot names a committed snapshot from the leader, whose index
	// is above what is committed here, and makes hard durable, whose commit is
	// that index at least. If the log has the entry of that index and term, it
	// stays as it is; otherwise the snapshot takes the place of all entries, and
	// of all earlier snapshots. If the process dies within it, Load answers
	// either as before the call or as after it.
	InstallSnapshot(meta *raftpb.SnapshotMetadata, hard *raftpb.HardState) error

	// OpenSnapshot opens a committed snapshot that has not been let go of. It
	// can be read until it is closed, whatever becomes of it meanwhile. The
	// error is around fs.ErrNotExist when there is none of that index; the
	// first state, at index 1, has none.
	OpenSnapshot(index uint64) (SnapshotFile, error)

	// Close lets go of files and locks. It writes nothing that Append has not
	// written. Calls after it return an error, those of a SnapshotSink too; a
	// second Close returns nil. A SnapshotFile stays open.
	Close() error
}

// SnapshotSink is where a snapshot is written to. It is used from one goroutine
// at a time and ends with Commit or Discard. After an error of Write or Commit
// only Discard is of use.
type SnapshotSink interface {
	io.Writer

	// Commit makes the snapshot durable under its name: for OpenSnapshot at
	// once, for Load when SaveSnapshot or InstallSnapshot have named it. A disk
	// reads it back before and refuses what is not the snapshot of the meta data
	// that CreateSnapshot was given; memory does not. The end of ctx ends the
	// reading, so that a large snapshot does not hold up the end of a member.
	// After an error nothing is left of it.
	Commit(ctx context.Context) error

	// Discard removes the snapshot. After Commit or Discard it does nothing,
	// so that it can be deferred.
	Discard() error
}

// SnapshotFile is a snapshot to read, by any number of goroutines at once.
type SnapshotFile interface {
	io.ReaderAt
	io.Closer

	// Size is in bytes.
	Size() int64
}

// Recovered is what Storage.Load found.
type Recovered struct {
	// Identity is nil when the storage is empty.
	Identity *Identity
	// Snapshot is the state that the log stands on; nil as long as Identity
	// has no Members. Its bytes come from OpenSnapshot if its index is above 1.
	// Index 0 is that of a member which joined and has no state yet.
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

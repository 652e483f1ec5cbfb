package raftlock

import (
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// Snapshots says when a member takes a snapshot, and how much of the log it
// keeps behind one. Zero means the default.
type Snapshots struct {
	// MinLogBytes is how many bytes of log make a snapshot due: these, or four
	// times the last snapshot, if that is more. Default 64 MiB, at least 1 KiB, at
	// most 1 TiB. Less costs more writing; more makes a restart read more.
	MinLogBytes int
	// KeepLogBytes is about how many bytes of entries a member keeps in memory
	// behind its snapshot, for members that were away for a while: one that lacks
	// more gets a snapshot. Default 64 MiB, at least 1 KiB, at most 1 TiB.
	KeepLogBytes int
}

const (
	defaultSnapshotLog = 64 << 20
	smallestSnapshot   = 1 << 10
	largestSnapshot    = 1 << 40

	snapshotGrowth = 4  // times the last snapshot
	entryOverhead  = 48 // bytes that an entry takes besides its own
	horizonMarks   = 16 // to the bytes that are kept
)

func (s *Snapshots) setDefaults() {
	setDefault(&s.MinLogBytes, defaultSnapshotLog)
	setDefault(&s.KeepLogBytes, defaultSnapshotLog)
}

func (s *Snapshots) validate(fault func(field, format string, args ...any)) {
	within(fault, "Snapshots.MinLogBytes", s.MinLogBytes, smallestSnapshot, largestSnapshot)
	within(fault, "Snapshots.KeepLogBytes", s.KeepLogBytes, smallestSnapshot, largestSnapshot)
}

// horizon decides when a snapshot is due and from where on the log is kept. It
// counts the bytes of applied entries.
type horizon struct {
	policy Snapshots

	total uint64 // bytes, since the start
	since uint64 // total at the last snapshot
	size  uint64 // bytes of that one
	// marks are points of the log that it may be cut at, by index: one for each
	// so many bytes, or the log would need as much again to know its sizes.
	marks []horizonMark

	replay    uint64 // what was committed when the member started: until it is applied again, no snapshot is worth it
	taking    bool   // a snapshot is under way
	notBefore int    // the tick before which none is tried again
}

type horizonMark struct{ index, total uint64 }

// note counts an applied entry.
func (h *horizon) note(index uint64, bytes int) {
	h.total += uint64(bytes) + entryOverhead
	var last uint64
	if n := len(h.marks); n > 0 {
		last = h.marks[n-1].total
	}
	if h.total-last >= uint64(h.policy.KeepLogBytes)/horizonMarks {
		h.marks = append(h.marks, horizonMark{index, h.total})
	}
}

// due reports whether enough of log has gathered for a snapshot.
func (h *horizon) due() bool {
	return h.total-h.since >= max(uint64(h.policy.MinLogBytes), snapshotGrowth*h.size)
}

// cut returns up to which index the log is not needed behind a snapshot that was
// taken at total, and forgets what lies before it.
func (h *horizon) cut(total uint64) (index uint64) {
	gone := 0
	for gone < len(h.marks) && h.marks[gone].total+uint64(h.policy.KeepLogBytes) <= total {
		index = h.marks[gone].index
		gone++
	}
	h.marks = append(h.marks[:0], h.marks[gone:]...)
	return index
}

// passOver begins to count anew at a snapshot that has come from the leader.
func (h *horizon) passOver(size uint64) {
	h.since, h.size, h.marks = h.total, size, nil
}

// logStore is the log as raft reads it. Of a snapshot it gives raft the metadata
// only: its bytes go to the peer straight from the disk (snapshotsend.go).
type logStore struct {
	*raft.MemoryStorage
	// floor is the index of the last change of the members. An older snapshot
	// does not name a member that was added since, which would not take it and
	// get it again for ever. It belongs to the loop, which all calls come from.
	floor uint64
	// spoilt is the index of a snapshot that does not read back.
	spoilt uint64
	// wanted: raft has asked for a snapshot that there is not.
	wanted bool
}

// Snapshot implements raft.Storage.
func (s *logStore) Snapshot() (*raftpb.Snapshot, error) {
	snap, err := s.MemoryStorage.Snapshot()
	if err != nil {
		return nil, err
	}
	if index := snap.GetMetadata().GetIndex(); index <= max(firstIndex, s.spoilt) || index < s.floor {
		s.wanted = true
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	return snap, nil
}

package raftlock

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

var (
	errStorageClosed    = errors.New("raftlock: storage is closed, or was opened again")
	errStorageNotLoaded = errors.New("raftlock: storage is not loaded, or loaded twice")
)

// MemoryStorage is a Storage in memory, for tests: a disk and a hold of it, in
// one. The disk outlives the hold, so that a test can crash a member and start
// it again with Reopen:
//
//	disk := raftlock.NewMemoryStorage()
//	… a node runs on disk and is crashed …
//	disk = disk.Reopen()
//	… a node runs on disk again, with all that the first one was told is durable …
//
// It keeps the entries that it is given, not copies of them: raft changes no
// entry once it has passed it on, and neither may anybody else. Everything else
// is copied, in and out. No call blocks; there are no files and no goroutines.
// Beyond Storage's rules, different holds may be used at the same time.
type MemoryStorage struct {
	disk   *memoryDisk
	loaded bool // guarded by disk
}

// memoryDisk is what several holds share, one after the other.
type memoryDisk struct {
	sync.Mutex
	holder *MemoryStorage // nil: closed

	identity *Identity
	conf     *raftpb.ConfState // of the first state; nil before Bootstrap
	hard     *raftpb.HardState
	entries  []*raftpb.Entry // the first one's index is 2
}

// NewMemoryStorage returns an empty disk and the hold of it.
func NewMemoryStorage() *MemoryStorage {
	m := &MemoryStorage{disk: &memoryDisk{}}
	m.disk.holder = m
	return m
}

// Reopen returns a new hold of the same disk, for Load to begin with. It takes
// the disk away from m, closed or not: calls on m return an error from then on,
// so that a crashed member whose goroutines still run can write no more.
func (m *MemoryStorage) Reopen() *MemoryStorage {
	m.disk.Lock()
	defer m.disk.Unlock()
	again := &MemoryStorage{disk: m.disk}
	m.disk.holder = again
	return again
}

// Load implements Storage.
func (m *MemoryStorage) Load() (Recovered, error) {
	d := m.disk
	d.Lock()
	defer d.Unlock()
	switch {
	case d.holder != m:
		return Recovered{}, errStorageClosed
	case m.loaded:
		return Recovered{}, errStorageNotLoaded
	}
	m.loaded = true
	var found Recovered
	if d.identity != nil {
		found.Identity = cloneIdentity(*d.identity)
	}
	if d.conf != nil {
		found.Snapshot = &raftpb.SnapshotMetadata{
			ConfState: &raftpb.ConfState{Voters: slices.Clone(d.conf.GetVoters())},
			Index:     new(uint64(1)),
			Term:      new(uint64(1)),
		}
		found.Hard = cloneHardState(d.hard)
		found.Entries = slices.Clone(d.entries)
	}
	return found, nil
}

// SaveIdentity implements Storage.
func (m *MemoryStorage) SaveIdentity(id Identity) error {
	return m.held(func(d *memoryDisk) error {
		switch {
		case d.conf == nil && len(id.Members) > 0:
			return errors.New("raftlock: save identity: members are set by Bootstrap")
		case d.conf != nil:
			want := *cloneIdentity(*d.identity)
			want.Started = id.Started
			if !sameIdentity(want, id) {
				return errors.New("raftlock: save identity: only Started may change after Bootstrap")
			}
		}
		d.identity = cloneIdentity(id)
		return nil
	})
}

// Bootstrap implements Storage.
func (m *MemoryStorage) Bootstrap(id Identity) error {
	return m.held(func(d *memoryDisk) error {
		_, member := id.Members[id.Name]
		switch {
		case d.identity == nil:
			return errors.New("raftlock: bootstrap: no identity yet")
		case d.conf != nil:
			return errors.New("raftlock: bootstrap: done before")
		case !member || id.ClusterID == 0:
			return errors.New("raftlock: bootstrap: not a member, or no cluster")
		}
		var voters []uint64
		for _, member := range id.Members {
			voters = append(voters, member.NodeID)
		}
		slices.Sort(voters)
		if voters[0] == 0 || len(slices.Compact(slices.Clone(voters))) != len(voters) {
			return errors.New("raftlock: bootstrap: a node id is 0 or occurs twice")
		}
		d.identity = cloneIdentity(id)
		d.conf = &raftpb.ConfState{Voters: voters}
		d.hard = &raftpb.HardState{Term: new(uint64(1)), Vote: new(uint64(0)), Commit: new(uint64(1))}
		return nil
	})
}

// Append implements Storage. It refuses what no log may hold: a gap, a term
// that falls or is above the hard state's, a commit beyond the end or back, and
// another entry in the place of a committed one.
func (m *MemoryStorage) Append(hard *raftpb.HardState, entries []*raftpb.Entry) error {
	return m.held(func(d *memoryDisk) error {
		if raft.IsEmptyHardState(hard) {
			hard = nil
		}
		if hard == nil && len(entries) == 0 {
			return nil
		}
		if d.conf == nil {
			return errors.New("raftlock: append: no log before Bootstrap")
		}
		return d.append(hard, entries)
	})
}

func (d *memoryDisk) append(hard *raftpb.HardState, entries []*raftpb.Entry) error {
	if hard == nil {
		hard = d.hard
	}
	log := d.entries
	for i, e := range entries {
		last := uint64(len(log)) + 1
		if i == 0 && e.GetIndex() > d.hard.GetCommit() && e.GetIndex() <= last {
			log = slices.Clone(log[:e.GetIndex()-2])
			last = e.GetIndex() - 1
		}
		term := uint64(1)
		if len(log) > 0 {
			term = log[len(log)-1].GetTerm()
		}
		if e.GetIndex() != last+1 || e.GetTerm() < term || e.GetTerm() > hard.GetTerm() {
			return fmt.Errorf("raftlock: append: entry %d of term %d after entry %d of term %d, in term %d with %d committed",
				e.GetIndex(), e.GetTerm(), last, term, hard.GetTerm(), d.hard.GetCommit())
		}
		log = append(log, e)
	}
	if hard.GetTerm() < d.hard.GetTerm() || hard.GetCommit() < d.hard.GetCommit() || hard.GetCommit() > uint64(len(log))+1 {
		return fmt.Errorf("raftlock: append: state of term %d that commits %d, after term %d and %d; the last entry is %d",
			hard.GetTerm(), hard.GetCommit(), d.hard.GetTerm(), d.hard.GetCommit(), len(log)+1)
	}
	d.hard, d.entries = cloneHardState(hard), log
	return nil
}

// Close implements Storage.
func (m *MemoryStorage) Close() error {
	m.disk.Lock()
	defer m.disk.Unlock()
	if m.disk.holder == m {
		m.disk.holder = nil
	}
	return nil
}

// held calls do with the disk, if m still has it.
func (m *MemoryStorage) held(do func(*memoryDisk) error) error {
	m.disk.Lock()
	defer m.disk.Unlock()
	switch {
	case m.disk.holder != m:
		return errStorageClosed
	case !m.loaded:
		return errStorageNotLoaded
	}
	return do(m.disk)
}

func cloneHardState(h *raftpb.HardState) *raftpb.HardState {
	return &raftpb.HardState{Term: new(h.GetTerm()), Vote: new(h.GetVote()), Commit: new(h.GetCommit())}
}

func cloneIdentity(id Identity) *Identity {
	id.Members = maps.Clone(id.Members)
	return &id
}

// sameIdentity compares, no members and nil members being the same.
func sameIdentity(a, b Identity) bool {
	return maps.Equal(a.Members, b.Members) && a.Name == b.Name && a.ClusterName == b.ClusterName &&
		a.Incarnation == b.Incarnation && a.ClusterID == b.ClusterID && a.Started == b.Started
}

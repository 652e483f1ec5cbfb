package raftlock

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
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
// is copied, in and out, but for a snapshot's bytes, which never change once it is
// committed. No call blocks; there are no files and no goroutines.
// Beyond Storage's rules, different holds may be used at the same time.
type MemoryStorage struct {
	disk   *memoryDisk
	loaded bool // guarded by disk
}

// memoryDisk is what several holds share, one after the other.
//
// Invariant: entries follow kept[0], which hard commits; kept rises.
type memoryDisk struct {
	sync.Mutex
	holder *MemoryStorage // nil: closed

	identity *Identity
	kept     []*raftpb.SnapshotMetadata // what the log can stand on; empty before Bootstrap and Join
	hard     *raftpb.HardState
	synced   uint64 // what hard commits, as far as no power cut takes it back
	entries  []*raftpb.Entry
	files    map[uint64]memorySnapshot // the committed ones by index
}

// NewMemoryStorage returns an empty disk and the hold of it.
func NewMemoryStorage() *MemoryStorage {
	m := &MemoryStorage{disk: &memoryDisk{files: map[uint64]memorySnapshot{}}}
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

// ReopenTorn is Reopen after a power cut, which takes what was not synced. Of an
// append that was under way, and is given again, a part is there: nothing, or the
// term and the vote, or these and some of the entries, or all of it. The commit
// index may be any since the last sync. pick chooses: it returns 0 to n.
func (m *MemoryStorage) ReopenTorn(hard *raftpb.HardState, entries []*raftpb.Entry, pick func(n int) int) *MemoryStorage {
	again := m.Reopen()
	m.disk.Lock()
	defer m.disk.Unlock()
	if len(m.disk.kept) > 0 && m.disk.hard != nil {
		m.disk.tear(hard, entries, pick)
	}
	return again
}

func (d *memoryDisk) tear(hard *raftpb.HardState, entries []*raftpb.Entry, pick func(n int) int) {
	commit := d.hard.GetCommit()
	whole := hard
	if raft.IsEmptyHardState(hard) {
		hard, whole = d.hard, nil
	}
	parts := 1 + len(entries)
	if whole != nil {
		parts++
	}
	// What could not have been appended as a whole cannot have been begun.
	switch kept := pick(parts); {
	case kept == 0:
	case kept == parts:
		_ = d.append(whole, entries)
	default:
		uncommitted := &raftpb.HardState{Term: new(hard.GetTerm()), Vote: new(hard.GetVote()), Commit: new(commit)}
		_ = d.append(uncommitted, entries[:kept-1])
	}
	d.hard.Commit = new(d.hard.GetCommit() - uint64(pick(int(d.hard.GetCommit()-d.synced))))
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
	d.dropFiles(d.newest().GetIndex() + 1)
	if len(d.kept) > 0 {
		found.Snapshot = proto.CloneOf(d.newest())
		found.Entries = slices.Clone(d.entries[d.newest().GetIndex()-d.kept[0].GetIndex():])
	}
	if d.hard != nil {
		found.Hard = cloneHardState(d.hard)
	}
	return found, nil
}

// SaveIdentity implements Storage.
func (m *MemoryStorage) SaveIdentity(id Identity) error {
	return m.held(func(d *memoryDisk) error {
		switch {
		case len(d.kept) == 0 && (len(id.Members) > 0 || id.Joined):
			return errors.New("raftlock: save identity: members are set by Bootstrap and Join")
		case len(d.kept) > 0:
			want := *cloneIdentity(*d.identity)
			want.Started = id.Started
			if !sameIdentity(want, id) {
				return errors.New("raftlock: save identity: only Started may change once there are members")
			}
		}
		d.identity = cloneIdentity(id)
		return nil
	})
}

// Bootstrap implements Storage.
func (m *MemoryStorage) Bootstrap(id Identity) error {
	return m.held(func(d *memoryDisk) error {
		if id.Joined {
			return errors.New("raftlock: bootstrap: an identity that joined")
		}
		if err := d.begin(id); err != nil {
			return fmt.Errorf("raftlock: bootstrap: %w", err)
		}
		first := newborn(*d.identity)
		d.kept, d.hard = []*raftpb.SnapshotMetadata{first.Snapshot}, cloneHardState(first.Hard)
		d.synced = first.Hard.GetCommit()
		return nil
	})
}

// Join implements Storage.
func (m *MemoryStorage) Join(id Identity) error {
	return m.held(func(d *memoryDisk) error {
		if !id.Joined {
			return errors.New("raftlock: join: an identity that did not join")
		}
		if err := d.begin(id); err != nil {
			return fmt.Errorf("raftlock: join: %w", err)
		}
		d.kept = []*raftpb.SnapshotMetadata{nothing()}
		return nil
	})
}

// begin sets the identity that a log is made for.
func (d *memoryDisk) begin(id Identity) error {
	_, member := id.Members[id.Name]
	switch {
	case d.identity == nil:
		return errors.New("no identity yet")
	case len(d.kept) > 0:
		return errors.New("done before")
	case !member || id.ClusterID == 0:
		return errors.New("not a member, or no cluster")
	}
	seen := map[uint64]bool{0: true}
	for _, member := range id.Members {
		if seen[member.NodeID] {
			return errors.New("a node id is 0 or occurs twice")
		}
		seen[member.NodeID] = true
	}
	d.identity = cloneIdentity(id)
	return nil
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
		if len(d.kept) == 0 {
			return errors.New("raftlock: append: no log yet")
		}
		return d.append(hard, entries)
	})
}

func (d *memoryDisk) append(hard *raftpb.HardState, entries []*raftpb.Entry) error {
	if hard == nil {
		hard = d.hard
	}
	log, base := d.entries, d.kept[0].GetIndex()
	for i, e := range entries {
		last := base + uint64(len(log))
		if i == 0 && e.GetIndex() > max(base, d.hard.GetCommit()) && e.GetIndex() <= last {
			log = slices.Clone(log[:e.GetIndex()-base-1])
			last = e.GetIndex() - 1
		}
		term := d.kept[0].GetTerm()
		if len(log) > 0 {
			term = log[len(log)-1].GetTerm()
		}
		if base == 0 || e.GetIndex() != last+1 || e.GetTerm() < term || e.GetTerm() > hard.GetTerm() {
			return fmt.Errorf("raftlock: append: entry %d of term %d after entry %d of term %d, in term %d with %d committed",
				e.GetIndex(), e.GetTerm(), last, term, hard.GetTerm(), d.hard.GetCommit())
		}
		log = append(log, e)
	}
	last := base + uint64(len(log))
	if hard.GetTerm() < d.hard.GetTerm() || hard.GetCommit() < d.hard.GetCommit() || hard.GetCommit() > last {
		return fmt.Errorf("raftlock: append: state of term %d that commits %d, after term %d and %d; the last entry is %d",
			hard.GetTerm(), hard.GetCommit(), d.hard.GetTerm(), d.hard.GetCommit(), last)
	}
	if len(entries) > 0 || hard.GetTerm() != d.hard.GetTerm() || hard.GetVote() != d.hard.GetVote() {
		d.synced = hard.GetCommit()
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
	id.Members, id.Configured = maps.Clone(id.Members), slices.Clone(id.Configured)
	return &id
}

// sameIdentity compares, no members and nil members being the same.
func sameIdentity(a, b Identity) bool {
	return maps.Equal(a.Members, b.Members) && a.Name == b.Name && a.ClusterName == b.ClusterName &&
		a.Incarnation == b.Incarnation && a.ClusterID == b.ClusterID &&
		a.Started == b.Started && a.Joined == b.Joined && a.JoinedAt == b.JoinedAt &&
		slices.Equal(a.Configured, b.Configured)
}

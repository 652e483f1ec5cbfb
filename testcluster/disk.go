package testcluster

import (
	"errors"
	"sync"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftlock/raftlock"
)

// errDiskFails is what a disk that FailDisk broke says.
var errDiskFails = errors.New("testcluster: the disk fails")

// faults are what a member's disk suffers; they outlive the member's crashes.
type faults struct {
	mu struct {
		sync.Mutex
		mended chan struct{} // nil while the disk answers; closed when it does again
		fails  bool
	}
}

// hang lets writes block from now on; it may be called again.
func (f *faults) hang() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.mended == nil {
		f.mu.mended = make(chan struct{})
	}
}

func (f *faults) fail() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.fails = true
}

func (f *faults) mend() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.fails = false
	if f.mu.mended != nil {
		close(f.mu.mended)
		f.mu.mended = nil
	}
}

// meet waits as long as the disk hangs, or until gone is closed, and says
// whether it fails.
func (f *faults) meet(gone <-chan struct{}) error {
	f.mu.Lock()
	mended := f.mu.mended
	f.mu.Unlock()
	if mended != nil {
		select {
		case <-mended:
		case <-gone:
			return raftlock.ErrClosed
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.fails {
		return errDiskFails
	}
	return nil
}

// faultyDisk is one member's hold of its disk, until it is crashed or closed.
type faultyDisk struct {
	*raftlock.MemoryStorage
	faults *faults
	gone   chan struct{} // closed by pull
	pulled sync.Once
}

func newFaultyDisk(disk *raftlock.MemoryStorage, f *faults) *faultyDisk {
	return &faultyDisk{MemoryStorage: disk, faults: f, gone: make(chan struct{})}
}

// pull ends the hold: a write that hangs ends with an error.
func (d *faultyDisk) pull() { d.pulled.Do(func() { close(d.gone) }) }

// Append implements raftlock.Storage.
func (d *faultyDisk) Append(hard *raftpb.HardState, entries []*raftpb.Entry) error {
	if err := d.faults.meet(d.gone); err != nil {
		return err
	}
	return d.MemoryStorage.Append(hard, entries)
}

// CreateSnapshot implements raftlock.Storage.
func (d *faultyDisk) CreateSnapshot(meta *raftpb.SnapshotMetadata) (raftlock.SnapshotSink, error) {
	if err := d.faults.meet(d.gone); err != nil {
		return nil, err
	}
	return d.MemoryStorage.CreateSnapshot(meta)
}

// SaveSnapshot implements raftlock.Storage.
func (d *faultyDisk) SaveSnapshot(meta *raftpb.SnapshotMetadata) error {
	if err := d.faults.meet(d.gone); err != nil {
		return err
	}
	return d.MemoryStorage.SaveSnapshot(meta)
}

// InstallSnapshot implements raftlock.Storage.
func (d *faultyDisk) InstallSnapshot(meta *raftpb.SnapshotMetadata, hard *raftpb.HardState) error {
	if err := d.faults.meet(d.gone); err != nil {
		return err
	}
	return d.MemoryStorage.InstallSnapshot(meta, hard)
}

// HangDisk lets every write to member i's disk block, as a dying disk or a
// stalled volume does, until MendDisk. The member runs on: a leader gives its
// leadership away after two election time-outs.
func (c *Cluster) HangDisk(i int) {
	if !c.isAlive("HangDisk") {
		return
	}
	c.roll.list()[i].faults.hang()
}

// FailDisk lets every write to member i's disk fail, until MendDisk. The member
// ends with its next write (Node(i).Err says why), and counts as crashed from
// then on: Restart starts it again.
func (c *Cluster) FailDisk(i int) {
	if !c.isAlive("FailDisk") {
		return
	}
	c.roll.list()[i].faults.fail()
}

// MendDisk ends what HangDisk and FailDisk did. The end of the test does the
// same for every disk.
func (c *Cluster) MendDisk(i int) {
	if !c.isAlive("MendDisk") {
		return
	}
	c.roll.list()[i].faults.mend()
}

// LoseDisk crashes member i, if it runs, and takes all that is on its disk. After
// a Restart it comes with an empty one, and ends with raftlock.ErrDiskLost, unless
// another member's ReplaceMember was called before.
func (c *Cluster) LoseDisk(i int) {
	if !c.isAlive("LoseDisk") {
		return
	}
	c.crash(i)
	m := c.roll.list()[i]
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.disk, m.mu.initial, m.mu.lost = raftlock.NewMemoryStorage(), nil, true
}

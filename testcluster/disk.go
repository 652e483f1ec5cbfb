package testcluster

import (
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/internal/clock"
)

// errDiskFails is what a disk that FailDisk broke says.
var errDiskFails = errors.New("testcluster: the disk fails")

// faults are what a member's disk suffers; they outlive the member's crashes.
type faults struct {
	mu struct {
		sync.Mutex
		mended        chan struct{} // nil while the disk answers; closed when it does again
		fails         error         // what the disk says
		delay, jitter time.Duration
		dice          *rand.Rand // of the delays, and of what a power cut leaves
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

func (f *faults) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.fails = err
}

func (f *faults) slow(delay, jitter time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.delay, f.mu.jitter = delay, jitter
}

func (f *faults) mend() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.fails = nil
	f.mu.delay, f.mu.jitter = 0, 0
	if f.mu.mended != nil {
		close(f.mu.mended)
		f.mu.mended = nil
	}
}

// pick chooses one of 0 to n.
func (f *faults) pick(n int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.dice.IntN(n + 1)
}

// next is how long the next write takes, and a channel that is closed when the
// disk answers again, nil if it does.
func (f *faults) next() (time.Duration, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.delay == 0 && f.mu.jitter == 0 {
		return 0, f.mu.mended
	}
	return f.mu.delay + time.Duration(f.mu.dice.Float64()*float64(f.mu.jitter)), f.mu.mended
}

// meet waits as long as a write takes and the disk hangs, or until gone is
// closed, and says whether it fails.
func (f *faults) meet(gone <-chan struct{}) error {
	delay, mended := f.next()
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-gone:
			return raftlock.ErrClosed
		}
	}
	if mended != nil {
		select {
		case <-mended:
		case <-gone:
			return raftlock.ErrClosed
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.fails
}

// faultyDisk is one member's hold of its disk, until it is crashed or closed.
type faultyDisk struct {
	*raftlock.MemoryStorage
	faults  *faults
	process process
	gone    chan struct{} // closed by pull
	pulled  sync.Once

	mu struct {
		sync.Mutex
		writing bool // an Append of what follows is under way
		hard    *raftpb.HardState
		entries []*raftpb.Entry
	}
}

func newFaultyDisk(disk *raftlock.MemoryStorage, f *faults, own clock.Clock) *faultyDisk {
	gone := make(chan struct{})
	return &faultyDisk{MemoryStorage: disk, faults: f, process: process{own, gone}, gone: gone}
}

// Clock is that of the machine: the member lives by it.
func (d *faultyDisk) Clock() clock.Clock { return d.process.clock }

// pull ends the hold: a write that hangs ends with an error.
func (d *faultyDisk) pull() { d.pulled.Do(func() { close(d.gone) }) }

// meet waits for process and disk before a write.
func (d *faultyDisk) meet() error {
	if !d.process.stand() {
		return raftlock.ErrClosed
	}
	return d.faults.meet(d.gone)
}

// Append implements raftlock.Storage.
func (d *faultyDisk) Append(hard *raftpb.HardState, entries []*raftpb.Entry) error {
	d.mu.Lock()
	d.mu.writing, d.mu.hard, d.mu.entries = true, hard, entries
	d.mu.Unlock()
	err := d.meet()
	d.mu.Lock()
	if d.mu.writing = false; err == nil {
		err = d.MemoryStorage.Append(hard, entries)
	}
	d.mu.Unlock()
	d.process.stand() // the answer comes to a process that goes on
	return err
}

// tear takes the disk away in a power cut: of an append that is under way any
// part may be there.
func (d *faultyDisk) tear() *raftlock.MemoryStorage {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.mu.writing {
		d.mu.hard, d.mu.entries = nil, nil
	}
	return d.MemoryStorage.ReopenTorn(d.mu.hard, d.mu.entries, d.faults.pick)
}

// CreateSnapshot implements raftlock.Storage.
func (d *faultyDisk) CreateSnapshot(meta *raftpb.SnapshotMetadata) (raftlock.SnapshotSink, error) {
	if err := d.meet(); err != nil {
		return nil, err
	}
	return d.MemoryStorage.CreateSnapshot(meta)
}

// SaveSnapshot implements raftlock.Storage.
func (d *faultyDisk) SaveSnapshot(meta *raftpb.SnapshotMetadata) error {
	if err := d.meet(); err != nil {
		return err
	}
	return d.MemoryStorage.SaveSnapshot(meta)
}

// InstallSnapshot implements raftlock.Storage.
func (d *faultyDisk) InstallSnapshot(meta *raftpb.SnapshotMetadata, hard *raftpb.HardState) error {
	if err := d.meet(); err != nil {
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
	c.roll.list()[i].faults.fail(errDiskFails)
}

// MendDisk ends what HangDisk, FailDisk and DelayDisk did. The end of the test does the
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
	c.crash(i, (*faultyDisk).keep)
	m := c.roll.list()[i]
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.disk, m.mu.initial, m.mu.lost = raftlock.NewMemoryStorage(), nil, true
}

// DelayDisk has every write to member i's disk take delay, and up to jitter more,
// until MendDisk. Zeros end it.
func (c *Cluster) DelayDisk(i int, delay, jitter time.Duration) {
	if !c.isAlive("DelayDisk") {
		return
	}
	c.roll.list()[i].faults.slow(max(0, delay), max(0, jitter))
}

// LoseUnsynced is Crash by a power cut in the middle of a write: of what member i
// was writing any part may be on its disk, chosen by the seed, and what it had
// written without a sync may be gone. HangDisk and DelayDisk see to it that
// something is under way. Nothing is lost that the member was told is durable.
func (c *Cluster) LoseUnsynced(i int) {
	c.tb.Helper()
	if !c.isAlive("LoseUnsynced") {
		return
	}
	if !c.crash(i, (*faultyDisk).tear) {
		c.tb.Fatalf("testcluster: member %d is down already", i)
	}
}

// keep takes the disk away with all that was written.
func (d *faultyDisk) keep() *raftlock.MemoryStorage { return d.MemoryStorage.Reopen() }

package raftlock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// simDisk is a member's disk and the goroutine that writes to it: one write at a
// time, in order. What has gathered during a write goes with the next. A power cut
// leaves any part of the write that was under way.
type simDisk struct {
	m    *simMember
	hold *MemoryStorage

	appender    *appender
	queue, now  []*raftpb.Message // to be written, and under way
	tasks, then []func() error
	given, done uint64
	busy        bool
	overdue     bool // the write under way would be done, did the disk not hang

	hung, failing bool
	slow          time.Duration
}

var errSimDisk = errors.New("the disk fails")

func newSimDisk(m *simMember) *simDisk {
	d := &simDisk{m: m}
	d.hold = NewMemoryStorage()
	return d
}

func (d *simDisk) state() string {
	return fmt.Sprintf("hung %v, failing %v, %d of %d written", d.hung, d.failing, d.done, d.given)
}

// begin is the start of a member on it.
func (d *simDisk) begin(m *simMember) {
	d.queue, d.now, d.tasks, d.then = nil, nil, nil, nil
	d.given, d.done, d.busy, d.overdue = 0, 0, false, false
	d.appender = newAppender(d.hold, m.log, m.deliver)
}

func (d *simDisk) append(messages []*raftpb.Message) {
	d.queue = append(d.queue, messages...)
	d.given += uint64(len(messages))
	d.kick()
}

// do has something done between two writes.
func (d *simDisk) do(task func() error) {
	d.tasks = append(d.tasks, task)
	d.kick()
}

func (d *simDisk) kick() {
	if d.busy || len(d.queue)+len(d.tasks) == 0 {
		return
	}
	d.busy = true
	d.now, d.then = d.queue, d.tasks
	d.queue, d.tasks = nil, nil
	s := d.m.s
	d.m.after(20*time.Microsecond+s.draw(200*time.Microsecond)+s.draw(d.slow), d.written)
}

// written is the end of a write.
func (d *simDisk) written() {
	switch {
	case d.hung:
		d.overdue = true
		return
	case d.failing:
		d.m.s.tally.Faults["failed write"]++
		d.m.end(errSimDisk)
		return
	}
	now, then := d.now, d.then
	d.now, d.then, d.busy = nil, nil, false
	if err := d.appender.writeAll(now); err != nil {
		d.m.s.fail("%s: write: %w", d.m.name, err)
		return
	}
	d.done += uint64(len(now))
	for _, task := range then {
		if err := task(); err != nil {
			d.m.s.fail("%s: disk: %w", d.m.name, err)
		}
	}
	d.kick()
}

func (d *simDisk) mend() {
	d.hung, d.failing, d.slow = false, false, 0
	if d.overdue {
		d.overdue = false
		d.m.after(0, d.written)
	}
}

// crash takes the disk away from its member.
func (d *simDisk) crash(torn bool) {
	d.overdue = false // a disk that is replaced may hang until later
	if !torn {
		d.hold = d.hold.Reopen()
		return
	}
	var hard *raftpb.HardState
	var entries []*raftpb.Entry
	for _, msg := range d.now {
		if !raft.IsEmptySnap(msg.GetSnapshot()) {
			break
		}
		if msg.Term != nil {
			hard = &raftpb.HardState{Term: msg.Term, Vote: msg.Vote, Commit: msg.Commit}
		}
		entries = mergeEntries(entries, msg.GetEntries())
	}
	d.hold = d.hold.ReopenTorn(hard, entries, func(n int) int { return d.m.s.dice.IntN(n + 1) })
}

// takeSnapshot writes a state beside all else, while the table goes on to change.
func (m *simMember) takeSnapshot(t *takenSnapshot) {
	s := m.s
	m.after(s.draw(20*time.Millisecond), func() {
		if err := t.write(context.Background(), m.disk.hold); err != nil {
			s.fail("%s: snapshot: %w", m.name, err)
			return
		}
		if s.one(12) {
			s.tally.Faults["no room for a snapshot"]++
			m.request((*replica).snapshotFailed)
			return
		}
		m.disk.do(func() error { return m.nameSnapshot(t) })
	})
}

// nameSnapshot is Node.nameSnapshot.
func (m *simMember) nameSnapshot(t *takenSnapshot) error {
	if err := t.name(m.disk.hold, m.log); err != nil {
		return err
	}
	m.s.tally.Taken++
	m.request(func(r *replica) { r.cutLog(r.snapshotTaken(t)) })
	return nil
}

package raftlock

import (
	"errors"
	"testing"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
)

func TestHorizon(t *testing.T) {
	h := horizon{policy: Snapshots{MinLogBytes: 10_000, KeepLogBytes: 4_000}}
	const entry = 1000 - entryOverhead
	for i := range 9 {
		h.note(uint64(i+2), entry)
	}
	if h.due() {
		t.Error("due too early")
	}
	h.note(11, entry)
	if !h.due() {
		t.Fatal("not due")
	}
	if cut := h.cut(h.total); cut != 7 {
		t.Errorf("the log is cut at %d, which keeps %d entries; want 4", cut, 11-cut)
	}
	h.since, h.size = h.total, 5000
	for i := range 19 {
		h.note(uint64(i+12), entry)
	}
	if h.due() {
		t.Error("due before four times the last snapshot")
	}
	h.note(31, entry)
	if !h.due() {
		t.Error("not due after four times the last snapshot")
	}
	if cut := h.cut(15_000); cut != 12 {
		t.Errorf("a snapshot of earlier cuts at %d, want 12", cut)
	}
	h.passOver(100)
	if h.due() || h.cut(h.total) != 0 {
		t.Error("something is left from before the leader's snapshot")
	}
}

// A snapshot that does not name the newest member would loop for ever on it.
func TestSnapshotOlderThanTheMembersIsNotSent(t *testing.T) {
	log := &logStore{MemoryStorage: labLog([]uint64{1})}
	wanted := func(when string) {
		t.Helper()
		if _, err := log.Snapshot(); !errors.Is(err, raft.ErrSnapshotTemporarilyUnavailable) || !log.wanted {
			t.Errorf("%s: %v", when, err)
		}
		log.wanted = false
	}
	wanted("the first state, which has no file")
	if err := log.Append(entriesOf(1, 2, 20)); err != nil {
		t.Fatal(err)
	}
	if _, err := log.CreateSnapshot(10, &raftpb.ConfState{Voters: []uint64{1}}, nil); err != nil {
		t.Fatal(err)
	}
	log.floor = 11
	wanted("a member was added since")
	log.floor = 10
	if snap, err := log.Snapshot(); err != nil || snap.GetMetadata().GetIndex() != 10 || log.wanted {
		t.Errorf("snapshot: %v, %v", snap, err)
	}
}

// What a snapshot stands for is not answered as if it had been refused.
func TestCallsThatASnapshotPassesOver(t *testing.T) {
	l := newLab(t, 3)
	n := l.nodes[0]
	l.elect(n)
	n.cut = true
	c := l.submit(n, command{kind: cmdAcquire, lock: "a", client: "me", attempt: 1, ttl: 1e9})
	l.settle()
	later := l.submit(n, command{kind: cmdAcquire, lock: "b", client: "me", attempt: 1, ttl: 1e9})
	l.settle()
	if len(n.r.proposals.flight) == 0 {
		t.Fatal("nothing is in flight")
	}
	n.r.passOver(n.r.proposals.flight[0].index)
	if rep := waitFor(c); rep.failure == nil || rep.failure.outcome() != outcomeUnknown {
		t.Errorf("the call ended with %+v", rep.failure)
	}
	if later.answered {
		t.Error("a call behind the snapshot was answered too")
	}
}

// A leader that has fallen silent does not send a snapshot either; raft must not
// wait for its end, or the peer never gets one.
func TestSilentLeaderSendsNoSnapshot(t *testing.T) {
	l := newLab(t, 3)
	n := l.leader()
	far := l.nodes[0]
	if far == n {
		far = l.nodes[1]
	}
	far.cut = true
	n.r.begin(l.now)
	n.r.peerDown(far.id)
	for range 50 {
		l.acquire(n, "kept", "me", time.Hour)
	}
	l.pass(3 * labElection)
	if _, err := n.log.CreateSnapshot(n.r.applied, n.r.conf, nil); err != nil {
		t.Fatal(err)
	}
	if err := n.log.Compact(n.r.applied); err != nil {
		t.Fatal(err)
	}
	for _, other := range l.nodes {
		other.refuses = raftpb.MsgTimeoutNow // nobody takes the leadership
	}
	n.diskHung = true
	l.submit(n, command{kind: cmdAcquire, lock: "lost", client: "me", attempt: 1, ttl: span(time.Hour)})
	l.settle()
	for !n.r.disk.muted {
		l.pass(labTick)
	}
	n.inbox = append(n.inbox, &raftpb.Message{Type: raftpb.MsgHeartbeatResp.Enum(), From: new(far.id), To: new(n.id), Term: new(n.r.term)})
	l.turn(n, 0)
	if len(n.r.sending) > 0 {
		t.Error("it sends a snapshot")
	}
	n.r.raw.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		if id == far.id && pr.State == tracker.StateSnapshot {
			t.Error("raft waits for the end of a snapshot that nobody sends")
		}
	})
}

// A snapshot that raft wants is taken once, and again only if it asks again.
func TestSnapshotThatIsWantedIsTakenOnce(t *testing.T) {
	l := newLab(t, 3)
	n := l.leader()
	l.acquire(n, "kept", "me", time.Hour)
	take := func() *takenSnapshot {
		n.r.tendSnapshot()
		s := n.r.out.snapshot
		n.r.out.snapshot = nil
		return s
	}
	if take() != nil {
		t.Fatal("one is taken that nobody wants")
	}
	n.r.log.wanted = true
	s := take()
	if s == nil {
		t.Fatal("none is taken")
	}
	_, _ = n.r.log.Snapshot() // raft asks with every answer to a heartbeat while it is written
	if take() != nil {
		t.Error("two are taken at a time")
	}
	if _, err := n.log.CreateSnapshot(s.header.index, n.r.conf, nil); err != nil {
		t.Fatal(err)
	}
	l.acquire(n, "other", "me", time.Hour)
	n.r.cutLog(n.r.snapshotTaken(s))
	if take() != nil {
		t.Error("another one is taken at once")
	}
	n.r.log.spoilt = s.header.index
	if _, err := n.r.log.Snapshot(); err == nil {
		t.Error("raft is given a snapshot that does not read back")
	}
	if take() == nil {
		t.Error("it is not replaced")
	}
}

// What a peer that is being sent a snapshot needs behind it stays in the log, and
// what a snapshot of the leader's stands for is the time from which one goes on.
func TestSnapshotsAndWhatGoesOnBehindThem(t *testing.T) {
	l := newLab(t, 3)
	n := l.leader()
	n.r.horizon.policy.KeepLogBytes = 1
	for range 20 {
		l.acquire(n, "kept", "me", time.Hour)
	}
	taken := func() *takenSnapshot {
		return &takenSnapshot{frozen: &frozen{header: snapshotHeader{index: n.r.applied}}, total: n.r.horizon.total}
	}
	n.r.sending[l.nodes[1].id] = 5
	if cut := n.r.snapshotTaken(taken()); cut != 5 {
		t.Errorf("the log is cut at %d, a peer is on its way to 5", cut)
	}
	clear(n.r.sending)
	l.acquire(n, "kept", "me", time.Hour)
	if cut := n.r.snapshotTaken(taken()); cut <= 5 || cut > n.r.applied {
		t.Errorf("the log is cut at %d of %d when nobody is on the way", cut, n.r.applied)
	}

	state := newTable()
	state.apply(&entry{stamp: n.r.table.now().plus(span(time.Hour))})
	header := snapshotHeader{index: n.r.applied + 5, term: n.r.term, members: membersOf(n.r.roster)}
	n.r.adopt(&loaded{header: &header, table: state})
	if n.r.clock.anchor.stamp != state.now() || n.r.clock.anchor.at != n.r.clock.counted {
		t.Errorf("the anchor is %+v, the snapshot is of %v", n.r.clock.anchor, state.now())
	}
}

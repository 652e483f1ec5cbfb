package raftlock

import (
	"errors"
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
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

package raftlock

import (
	"testing"
	"time"
)

// labRead hands a read of one lock to a node, which does not act on it yet.
func labRead(l *lab, n *labNode) *call {
	c := &call{
		cmd: command{lock: "a"}, read: readLock, lane: laneNormal,
		arrived: l.now, since: l.now, patience: holdLimit, done: make(chan struct{}, 1),
	}
	n.r.begin(l.now)
	n.r.submit(c)
	return c
}

// What was committed when the round began is in the table before it is read.
func TestReadWaitsForWhatWasCommitted(t *testing.T) {
	l := newLab(t, 3)
	n := l.leader()
	l.acquire(n, "a", "me", time.Minute)
	c := labRead(l, n)
	n.r.startReads()
	round := n.r.reads.rounds[0]
	round.confirmed, round.index = true, n.r.applied+1
	n.r.serveReads()
	if rep, ok := repliedTo(c); ok {
		t.Fatalf("answered before entry %d is applied: %+v", round.index, rep)
	}
	l.acquire(n, "b", "me", time.Minute)
	l.settle()
	if rep, ok := repliedTo(c); !ok || rep.result.lock.owner != "me" || n.r.applied < round.index {
		t.Errorf("%+v, %t, applied %d of %d", rep, ok, n.r.applied, round.index)
	}
}

// Each round has a context of its own, also one that asks again: a late answer to
// an earlier one says nothing about what was committed since.
func TestEachRoundOfReadsHasItsOwnContext(t *testing.T) {
	l := newLab(t, 3)
	n := l.leader()
	n.cut = true
	seen := map[uint64]bool{}
	note := func() {
		t.Helper()
		n.r.startReads()
		for _, round := range n.r.reads.rounds {
			if seen[round.id] {
				t.Errorf("context %d is used again", round.id)
			}
			seen[round.id] = true
		}
	}
	labRead(l, n)
	note()
	n.r.rerouteReads()
	labRead(l, n)
	note()
	clear(seen)
	labRead(l, n)
	note()
	if len(seen) != 2 {
		t.Errorf("%d rounds are under way", len(seen))
	}
}

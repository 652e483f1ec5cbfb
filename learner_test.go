package raftlock

import (
	"testing"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// learnerLab is a lab of three that vote, and of a fourth that does not yet, of
// whom the rosters of the others do not tell.
func learnerLab(t *testing.T) *lab {
	l := &lab{t: t, now: time.Unix(1_000_000, 0)}
	for id := uint64(1); id <= 4; id++ {
		log := raft.NewMemoryStorage()
		err := log.ApplySnapshot(&raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
			ConfState: &raftpb.ConfState{Voters: []uint64{1, 2, 3}, Learners: []uint64{4}},
			Index:     new(uint64(firstIndex)), Term: new(uint64(1)),
		}})
		if err == nil {
			err = log.SetHardState(&raftpb.HardState{Term: new(uint64(1)), Commit: new(uint64(firstIndex))})
		}
		if err != nil {
			t.Fatal(err)
		}
		l.nodes = append(l.nodes, &labNode{id: id, log: log})
	}
	for i := range l.nodes {
		l.boot(l.nodes[len(l.nodes)-1-i])
	}
	return l
}

// A member that has no vote is not given the leadership, and no vote before what
// it lacks of the log is on its way.
func TestLearnerIsNoSuccessorAndIsPromotedWhenItHasTheLog(t *testing.T) {
	l := learnerLab(t)
	n := l.nodes[0]
	l.elect(n)
	l.acquire(n, "a", "me", time.Hour)
	n.r.begin(l.now)
	if n.r.successor() == 0 || !n.r.reaches(4) {
		t.Fatal("the members do not reach each other")
	}
	n.r.up[2], n.r.up[3] = false, false
	if to := n.r.successor(); to != 0 {
		t.Errorf("%d is to lead, which has no vote", to)
	}
	n.r.up[2], n.r.up[3] = true, true

	l.nodes[3].cut = true
	for range promoteBehind + 10 {
		l.acquire(n, "a", "me", time.Hour)
	}
	for _, at := range l.nodes[:3] {
		told := *at.r.roster
		told.records = append(append([]record(nil), told.records...), record{name: "n4", since: firstIndex, node: 4, incarnation: 4})
		at.r.roster = &told
	}
	tend := func() {
		n.r.begin(l.now)
		n.r.heard[4] = n.r.ticks
		n.r.changes.stir = true
		n.r.tendChanges()
	}
	if tend(); n.r.changes.flight != nil {
		t.Error("a member that is far behind is let vote")
	}
	l.nodes[3].cut = false
	l.pass(labElection)
	if tend(); n.r.changes.flight == nil && !n.r.roster.find("n4").voter {
		t.Error("a member that has the log is not let vote")
	}
}

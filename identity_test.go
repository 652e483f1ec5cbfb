package raftlock

import (
	"log/slog"
	"testing"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// voteFor starts a member on its disk, as Open does, has a candidate ask it for its
// vote in a term, and returns the answer that leaves when all is written.
func voteFor(t *testing.T, disk *MemoryStorage, candidate, term uint64) (granted bool) {
	t.Helper()
	found, err := disk.Load()
	if err != nil {
		t.Fatal(err)
	}
	known, err := recall(&Config{Storage: disk, newest: newestFormat}, found)
	if err != nil {
		t.Fatal(err)
	}
	log := raft.NewMemoryStorage()
	if err := known.fill(log); err != nil {
		t.Fatal(err)
	}
	limits := Limits{}
	limits.setDefaults()
	r, err := newReplica(replicaConfig{
		self: found.Identity.nodeID(), cluster: found.Identity.ClusterID, log: log, state: known.state, snapshots: labSnapshots(),
		electionTicks: labElectionTicks, tick: labTick, requestTimeout: time.Second,
		limits: &limits, logger: slog.New(slog.DiscardHandler), newest: newestFormat, roster: known.members,
	})
	if err != nil {
		t.Fatal(err)
	}
	r.begin(time.Unix(1_000_000, 0))
	ask := &raftpb.Message{
		Type: raftpb.MsgVote.Enum(), From: new(candidate), To: new(r.self), Term: new(term),
		Index: new(uint64(firstIndex)), LogTerm: new(uint64(1)),
	}
	if err := r.step(ask); err != nil {
		t.Fatal(err)
	}
	answers := 0
	disks := newAppender(disk, log, func(responses []*raftpb.Message) {
		for _, m := range responses {
			if m.GetType() == raftpb.MsgVoteResp && m.GetTo() == candidate {
				answers++
				granted = !m.GetReject()
			}
		}
	})
	var appends []*raftpb.Message
	if err := r.advance(func() { appends, r.out = append(appends, r.out.appends...), outputs{} }); err != nil {
		t.Fatal(err)
	}
	if err := disks.writeAll(appends); err != nil {
		t.Fatal(err)
	}
	if answers != 1 {
		t.Fatalf("%d answers to a candidate", answers)
	}
	return granted
}

// A member that starts again knows whom it gave its vote in a term: with a second
// one there would be two leaders of it.
func TestVoteIsRememberedAcrossAStart(t *testing.T) {
	disk := bornDisk(t, map[string]MemberID{"n1": {NodeID: 1, Incarnation: 1}, "n2": {NodeID: 2, Incarnation: 2}, "n3": {NodeID: 3, Incarnation: 3}})
	for _, ask := range []struct {
		candidate, term uint64
		want            bool
	}{{2, 2, true}, {3, 2, false}, {2, 2, true}, {3, 3, true}, {2, 3, false}} {
		disk = disk.Reopen()
		if granted := voteFor(t, disk, ask.candidate, ask.term); granted != ask.want {
			t.Errorf("the vote for %d in term %d: %t, want %t", ask.candidate, ask.term, granted, ask.want)
		}
	}
}

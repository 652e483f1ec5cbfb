package raftlock

import (
	"testing"
	"time"

	"github.com/raftlock/raftlock/pb"
)

// withoutQuorum is a lab whose leader gets nothing committed and stays in office:
// one member is stopped, the other one hears it, and its disk hangs.
func withoutQuorum(t *testing.T) (l *lab, leader, follower *labNode) {
	l = newLab(t, 3)
	leader = l.leader()
	follower = l.nodes[leader.id%3]
	l.acquire(leader, "a", "holder", time.Minute)
	l.pass(2 * labTick)
	l.nodes[follower.id%3].stopped = true
	follower.diskHung = true
	return l, leader, follower
}

// reborn starts a member again. Its disk has lost nothing that it acknowledged.
func (l *lab) reborn(n, leader *labNode) {
	l.t.Helper()
	n.life++
	l.boot(n)
	for range labElectionTicks {
		if n.r.lead == leader.id {
			return
		}
		l.pass(labTick)
	}
	l.t.Fatal("the member that was born again hears no leader")
}

// The answer to a call of an earlier life is not taken for that to a call of ours.
func TestAnswerToAnEarlierLifeIsNotTaken(t *testing.T) {
	l, leader, follower := withoutQuorum(t)
	old := l.submit(follower, labAcquire("old", "old"))
	l.settle()
	l.reborn(follower, leader)
	again := l.submit(follower, labAcquire("new", "new"))
	l.settle()
	for _, c := range []*call{old, again} {
		if rep, ok := repliedTo(c); ok {
			t.Fatalf("answered without a majority: %+v", rep)
		}
	}
	follower.diskHung = false
	l.flush(follower)
	l.pass(2 * labElection)
	rep, ok := repliedTo(again)
	if !ok || rep.failure != nil || rep.result.code != pb.ErrorCode_OK || rep.result.lock.id != "new" {
		t.Errorf("%+v, %t", rep, ok)
	}
	if leader.r.office != officeOpen || leader.owner("old") != "old" {
		t.Errorf("the call of the earlier life did not come through: office %d, owner %q", leader.r.office, leader.owner("old"))
	}
}

// The numbers of two lives of a member are far from each other.
func TestNumbersOfForwardedCallsBeginAtRandom(t *testing.T) {
	disk := NewMemoryStorage()
	var begun [2]uint64
	for i := range begun {
		n, err := Open(Config{Name: "n1", Storage: disk, Transport: nowhere{}})
		if err != nil {
			t.Fatal(err)
		}
		<-n.Ready()
		begun[i], err = lookInOrder(n, func(r *replica) uint64 { return r.forwards.last })
		if closed := n.Close(); err != nil || closed != nil {
			t.Fatal(err, closed)
		}
		disk = disk.Reopen()
	}
	if apart := begun[1] - begun[0]; apart < 1<<24 || -apart < 1<<24 {
		t.Errorf("the numbers of two lives begin at %d and %d", begun[0], begun[1])
	}
}

// A member that is told that a call of an earlier life waits says that nobody waits
// for it: or its lock would be granted to nobody, for its whole TTL.
func TestWaitOfAnEarlierLifeIsLeft(t *testing.T) {
	l, leader, follower := withoutQuorum(t)
	wait := labAcquire("a", "gone")
	wait.wait, wait.timeout, wait.request = true, span(time.Minute), "r"
	l.submit(follower, wait)
	l.settle()
	l.reborn(follower, leader)
	follower.diskHung = false
	l.flush(follower)
	l.pass(labElection)
	w, ok := leader.r.table.queue.find("a", wait.identity())
	if !ok || w.flags&waiterDetached == 0 || len(leader.r.waits.attached) != 0 || len(leader.r.waits.guests) != 0 {
		t.Errorf("it waits: %t, with flags %b; %d calls wait, %d of others", ok, w.flags, len(leader.r.waits.attached), len(leader.r.waits.guests))
	}
}

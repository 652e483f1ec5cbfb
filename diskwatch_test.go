package raftlock

import (
	"testing"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftlock/raftlock/client"
)

// A disk hangs when it has finished nothing for as long as it is given, however
// much it is given meanwhile; one that is slow but moves does not.
func TestDiskWatch(t *testing.T) {
	var w diskWatch
	at := func(tick int, given, done uint64) bool {
		w.observe(given, done)
		return w.look(tick, 20)
	}
	if at(1, 0, 0) || at(100, 0, 0) {
		t.Error("an idle disk hangs")
	}
	for tick := 101; tick < 200; tick++ { // each write takes 10 ticks, and the next waits already
		if done := uint64(tick-101) / 10; at(tick, done+1, done) {
			t.Fatalf("a slow disk hangs at tick %d", tick)
		}
	}
	w = diskWatch{}
	at(1, 1, 0)
	if at(20, 50, 0) {
		t.Error("it hangs too early")
	}
	if !at(21, 60, 0) {
		t.Error("it does not hang")
	}
	if at(22, 60, 1) {
		t.Error("it hangs though it moves")
	}
}

// hangLeader takes a leader with a lock, and lets its disk hang with a call
// under way.
func hangLeader(l *lab) (*labNode, *call) {
	l.t.Helper()
	n := l.leader()
	l.acquire(n, "kept", "me", time.Hour)
	n.diskHung = true
	under := l.submit(n, command{kind: cmdAcquire, lock: "lost", client: "me", attempt: 1, ttl: span(time.Hour)})
	l.settle()
	return n, under
}

// otherLeader lets time pass until another than n leads, and returns how long
// that took.
func otherLeader(l *lab, n *labNode, limit time.Duration) (*labNode, time.Duration) {
	l.t.Helper()
	begun := l.now
	for l.now.Sub(begun) < limit {
		l.pass(labTick)
		for _, other := range l.nodes {
			if other != n && other.r.office == officeOpen && !other.cut {
				return other, l.now.Sub(begun)
			}
		}
	}
	l.t.Fatalf("no other leader within %v", limit)
	return nil, 0
}

// mend lets a disk answer, and holds the members' tables against each other.
func mendDisk(l *lab, n *labNode) {
	l.t.Helper()
	n.diskHung = false
	l.pass(3 * labElection)
	for _, other := range l.nodes {
		if other.r.applied != n.r.applied || other.r.table.hash() != n.r.table.hash() {
			l.t.Errorf("member %d is at %d with %x, member %d at %d with %x",
				n.id, n.r.applied, n.r.table.hash(), other.id, other.r.applied, other.r.table.hash())
		}
	}
}

// A leader whose disk hangs hands over, at once when it is found out; it does
// not campaign again, and what was proposed under it stands.
func TestLeaderWithAHangingDisk(t *testing.T) {
	l := newLab(t, 3)
	n, _ := hangLeader(l)
	next, took := otherLeader(l, n, 10*labElection)
	if took < 2*labElection || took > 2*labElection+5*labTick {
		t.Errorf("the leadership moved after %v", took)
	}
	if next.owner("kept") != "me" || next.owner("lost") != "me" {
		t.Error("what the followers had written is not in the new leader's table")
	}
	l.acquire(next, "new", "you", time.Hour)
	term := next.r.term
	l.pass(60 * time.Second)
	if l.leader() != next || next.r.term != term {
		t.Errorf("the leadership moved again: from term %d to %d", term, next.r.term)
	}
	mendDisk(l, n)
}

// When its successor does not take the leadership, the leader falls silent, and
// the others elect one.
func TestLeaderWithAHangingDiskWhoseOfferIsLost(t *testing.T) {
	l := newLab(t, 3)
	n, _ := hangLeader(l)
	for _, other := range l.nodes {
		other.refuses = raftpb.MsgTimeoutNow
	}
	next, took := otherLeader(l, n, 10*labElection)
	if took < 3*labElection || took > 6*labElection {
		t.Errorf("another leads after %v", took)
	}
	l.acquire(next, "new", "you", time.Hour)
	l.pass(10 * labElection)
	mendDisk(l, n)
}

// Without a majority of disks that answer nothing can be done. It comes back
// with the disk.
func TestHangingDiskThatIsNeeded(t *testing.T) {
	l := newLab(t, 3)
	n := l.leader()
	for _, other := range l.nodes {
		if other != n {
			other.cut = true
			break
		}
	}
	hangLeader(l)
	l.pass(time.Minute)
	n.diskHung = false
	begun := l.now
	l.leader()
	if took := l.now.Sub(begun); took > 4*labElection {
		t.Errorf("a leader after %v", took)
	}
	for _, other := range l.nodes {
		other.cut = false
	}
	l.pass(3 * labElection)
	if l.leader().owner("kept") != "me" {
		t.Error("the lock is lost")
	}
	mendDisk(l, n)
}

// A follower whose disk hangs harms nobody, and does not campaign when its
// leader dies; nor does it keep its vote back once its disk answers.
func TestFollowerWithAHangingDisk(t *testing.T) {
	l := newLab(t, 3)
	leader := l.leader()
	hung := l.nodes[leader.id%3]
	hung.diskHung = true
	l.acquire(leader, "a", "me", time.Hour)
	term := leader.r.term
	l.pass(10 * labElection)
	if leader.r.office != officeOpen || leader.r.term != term {
		t.Fatal("the leader was disturbed")
	}
	l.acquire(leader, "b", "me", time.Hour)
	leader.cut = true
	l.pass(10 * labElection)
	if hung.r.role != raft.StateFollower || hung.r.lead != 0 {
		t.Errorf("the member without a disk is %v, with leader %d", hung.r.role, hung.r.lead)
	}
	hung.diskHung = false
	next, took := otherLeader(l, leader, 4*labElection)
	if next.owner("a") != "me" || next.owner("b") != "me" {
		t.Errorf("after %v the locks are %q and %q", took, next.owner("a"), next.owner("b"))
	}
	leader.cut = false
	l.pass(3 * labElection)
	mendDisk(l, hung)
}

// A member whose disk hangs says so, instead of letting reads wait for what it
// cannot apply; commands it passes on.
func TestCallsAtAHangingDisk(t *testing.T) {
	l := newLab(t, 3)
	n, under := hangLeader(l)
	waits := l.submit(n, command{kind: cmdAcquire, lock: "lost", client: "you", request: "r", attempt: 1, wait: true, ttl: 1e9, timeout: 60e9})
	next, _ := otherLeader(l, n, 10*labElection)
	l.pass(2 * labTick)
	if rep, ok := repliedTo(under); !ok || rep.failure != leaderLost {
		t.Errorf("the call under way: %+v", rep.failure)
	}
	if waits.place != placeAway || next.r.table.waiterCount() != 1 {
		t.Error("the call that was not proposed does not wait at the new leader")
	}
	read := &call{read: readLock, cmd: command{lock: "kept"}, lane: laneUrgent, done: make(chan struct{}, 1), patience: holdLimit, since: l.now}
	n.r.submit(read)
	l.settle()
	if rep, ok := repliedTo(read); !ok || rep.failure != diskHangs || client.ErrorFromCode(rep.failure.code) != client.ErrUnavailable {
		t.Errorf("a read: %+v", rep.failure)
	}
	rep := l.do(n, command{kind: cmdAcquire, lock: "new", client: "me", attempt: 1, ttl: span(time.Hour)})
	if rep.failure != nil || next.owner("new") != "me" || !rep.timed {
		t.Errorf("an acquire: %+v", rep)
	}
	mendDisk(l, n)
	l.do(next, command{kind: cmdRelease, lock: "lost", client: "me", version: lockOn(next, "lost").version})
	if rep, ok := repliedTo(waits); !ok || rep.result.lock.owner != "you" {
		t.Errorf("the call that waits: %+v, %v", rep, ok)
	}
}

func lockOn(n *labNode, lock string) lockView {
	v, _ := n.r.table.info(lock)
	return v
}

// repliedTo takes the reply of a call, if it has one.
func repliedTo(c *call) (reply, bool) {
	select {
	case <-c.done:
		return c.reply, true
	default:
		return reply{}, false
	}
}

package raftlock

import (
	"testing"
	"time"
)

// labAcquire is an Acquire as a caller makes it.
func labAcquire(lock, client string) command {
	return command{kind: cmdAcquire, lock: lock, client: client, attempt: 1, ttl: span(time.Minute)}
}

// What was proposed may yet be applied: nobody is told that it was not.
func TestProposedCallThatRunsOutOfTimeIsUnknown(t *testing.T) {
	l := newLab(t, 3)
	n := l.leader()
	for _, other := range l.nodes {
		other.cut = true
	}
	c := l.submit(n, labAcquire("a", "me"))
	l.settle()
	l.pass(31 * time.Second)
	if rep, ok := repliedTo(c); !ok || rep.failure == nil || rep.failure.outcome() != outcomeUnknown {
		t.Errorf("%+v, %t", rep, ok)
	}
}

// The same is true of a call at a leader that cannot be asked any more.
func TestCallAtALostLeaderIsUnknown(t *testing.T) {
	l := newLab(t, 3)
	n := l.leader()
	from := l.nodes[n.id%3]
	n.stopped = true
	c := l.submit(from, labAcquire("a", "me"))
	l.turn(from, 0)
	from.r.begin(l.now)
	from.r.peerDown(n.id)
	if rep, ok := repliedTo(c); !ok || rep.failure == nil || rep.failure.outcome() != outcomeUnknown {
		t.Errorf("%+v, %t", rep, ok)
	}
}

// Whose caller has gone was told that it would not be proposed.
func TestCallThatWasLeftIsNotProposed(t *testing.T) {
	l := newLab(t, 3)
	n := l.leader()
	left := l.submit(n, labAcquire("a", "me"))
	late := l.submit(n, labAcquire("b", "me"))
	stays := l.submit(n, labAcquire("c", "me"))
	left.state.Store(callLeft)
	late.since = l.now.Add(-time.Hour)
	l.settle()
	if rep, ok := repliedTo(stays); !ok || rep.failure != nil {
		t.Errorf("the one that stays: %+v, %t", rep, ok)
	}
	if a, b := n.owner("a"), n.owner("b"); a != "" || b != "" {
		t.Errorf("the locks of the others are held by %q and %q", a, b)
	}
}

// waitOfAGuest is a lab in which a call of another member waits at the leader.
func waitOfAGuest(t *testing.T) (l *lab, leader *labNode, from uint64, detached func() bool) {
	t.Helper()
	l = newLab(t, 3)
	n := l.leader()
	l.acquire(n, "a", "me", time.Minute)
	guest := l.nodes[n.id%3]
	guest.cut = true // or it would say that it knows of no such call
	wait := labAcquire("a", "you")
	wait.wait, wait.timeout, wait.request = true, span(time.Minute), "r"
	n.r.begin(l.now)
	n.r.receive(guest.id, 1, forward{kind: forwardCall, id: 1 << 40, cmd: wait})
	l.settle()
	if len(n.r.waits.guests) != 1 {
		t.Fatalf("%d calls of others wait", len(n.r.waits.guests))
	}
	return l, n, guest.id, func() bool {
		w, ok := n.r.table.queue.find("a", wait.identity())
		return ok && w.flags&waiterDetached != 0
	}
}

// A wait whose member is gone is detached: nobody there can use the grant.
func TestWaitOfALostMemberIsDetached(t *testing.T) {
	l, n, from, detached := waitOfAGuest(t)
	n.r.begin(l.now)
	n.r.dropGuests(from, 2)
	l.settle()
	if len(n.r.waits.guests) != 1 || detached() {
		t.Error("the end of another stream takes it away")
	}
	n.r.begin(l.now)
	n.r.sessionLost(from, 1)
	l.settle()
	if len(n.r.waits.guests) != 0 || !detached() {
		t.Errorf("%d calls of others wait, detached: %t", len(n.r.waits.guests), detached())
	}
}

// A member that opens another stream has lost the old one, also when nobody has
// noticed that yet: what waited there is detached.
func TestWaitOfAnOlderStreamIsDetached(t *testing.T) {
	l, n, from, detached := waitOfAGuest(t)
	n.r.begin(l.now)
	n.r.sessionUp(from, 1)
	l.settle()
	if len(n.r.waits.guests) != 1 || detached() {
		t.Error("the same stream takes it away")
	}
	n.r.begin(l.now)
	n.r.sessionUp(from, 2)
	l.settle()
	if len(n.r.waits.guests) != 0 || !detached() {
		t.Errorf("%d calls of others wait, detached: %t", len(n.r.waits.guests), detached())
	}
}

// A wait whose call was answered before its entry was applied, as its time was up,
// is detached: nobody would know of the grant.
func TestWaitOfAnAnsweredCallIsDetached(t *testing.T) {
	l, n, other := withoutQuorum(t)
	wait := labAcquire("a", "you")
	wait.wait, wait.timeout, wait.request = true, span(time.Hour), "r"
	c := l.submit(n, wait)
	l.settle()
	l.pass(31 * time.Second)
	if rep, ok := repliedTo(c); !ok || rep.failure == nil || rep.failure.outcome() != outcomeUnknown {
		t.Fatalf("its time is up: %+v, %t", rep, ok)
	}
	other.diskHung = false
	l.flush(other)
	l.pass(labElection)
	w, ok := n.r.table.queue.find("a", wait.identity())
	if n.r.office != officeOpen || !ok || w.flags&waiterDetached == 0 || len(n.r.waits.attached) != 0 {
		t.Errorf("office %d, it waits: %t, with flags %b; %d calls wait", n.r.office, ok, w.flags, len(n.r.waits.attached))
	}
}

// A leader that leads no more interrupts the calls that wait there: the next leader
// does not know of them.
func TestWaitsAreInterruptedWhenTheLeadershipIsLost(t *testing.T) {
	l := newLab(t, 3)
	n := l.leader()
	l.acquire(n, "a", "me", time.Minute)
	wait := labAcquire("a", "you")
	wait.wait, wait.timeout = true, span(time.Minute)
	c := l.submit(n, wait)
	l.settle()
	if rep, ok := repliedTo(c); ok || len(n.r.waits.attached) != 1 {
		t.Fatalf("it does not wait: %+v", rep)
	}
	n.cut = true
	otherLeader(l, n, 10*labElection)
	l.pass(2 * labElection)
	if rep, ok := repliedTo(c); !ok || rep.failure != waitInterrupted || len(n.r.waits.attached) != 0 {
		t.Errorf("%+v, %t; %d calls wait at the old leader", rep, ok, len(n.r.waits.attached))
	}
}

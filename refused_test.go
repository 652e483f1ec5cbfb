package raftlock

import (
	"testing"
	"time"

	"github.com/raftlock/raftlock/pb"
)

// An Acquire of a lock that another holds is refused by a confirmed read and
// leaves no trace in the log, on the leader and from a follower.
func TestRefusedAcquireNeedsNoEntry(t *testing.T) {
	l := newLab(t, 3)
	n := l.leader()
	kept := l.acquire(n, "a", "me", time.Minute).result.lock
	last, _ := n.log.LastIndex()
	for _, at := range l.nodes {
		rep := l.do(at, command{kind: cmdAcquire, lock: "a", client: "you", request: "r", attempt: 1})
		if rep.failure != nil || rep.result.code != pb.ErrorCode_LOCK_HELD || rep.result.lock.owner != "me" ||
			rep.result.lock.version != kept.version || !rep.timed || rep.remaining <= 0 {
			t.Errorf("at %d: %+v", at.id, rep)
		}
	}
	if now, _ := n.log.LastIndex(); now != last {
		t.Errorf("the log has grown by %d", now-last)
	}
	if n.r.load != ([lanes]load{}) {
		t.Errorf("the load is %+v when all is done", n.r.load)
	}
	// A repeat must be remembered, hence be an entry.
	if rep := l.do(n, command{kind: cmdAcquire, lock: "a", client: "you", request: "r", attempt: 2}); rep.result.code != pb.ErrorCode_LOCK_HELD {
		t.Errorf("a repeat: %+v", rep)
	}
	if now, _ := n.log.LastIndex(); now != last+1 {
		t.Errorf("a repeat made %d entries", now-last)
	}
	// The holder's own call, and one whose lock has run out, go the usual way.
	if rep := l.do(n, command{kind: cmdAcquire, lock: "a", client: "me", attempt: 1}); rep.result.code != pb.ErrorCode_OK {
		t.Errorf("the holder's own: %+v", rep)
	}
	l.acquire(n, "b", "me", time.Second)
	l.pass(time.Second + labTick)
	if rep := l.do(n, command{kind: cmdAcquire, lock: "b", client: "you", attempt: 1}); rep.result.code != pb.ErrorCode_OK {
		t.Errorf("after the end: %+v", rep)
	}
}

// What is confirmed counts, not what was so when the call came: a lock that is
// given back meanwhile is granted.
func TestAcquireThatIsNotRefusedAfterAll(t *testing.T) {
	l := newLab(t, 3)
	n := l.leader()
	kept := l.acquire(n, "a", "me", time.Minute).result.lock
	c := l.submit(n, command{kind: cmdAcquire, lock: "a", client: "you", attempt: 1})
	if len(n.r.reads.queue) != 1 {
		t.Fatal("it does not ask first")
	}
	l.submit(n, command{kind: cmdRelease, lock: "a", client: "me", version: kept.version})
	n.r.propose()
	n.r.drain() // the release is ahead of the round
	l.settle()
	if rep, ok := repliedTo(c); !ok || rep.failure != nil {
		t.Fatalf("the call: %+v, %t", rep, ok)
	} else if rep.result.code == pb.ErrorCode_OK && n.owner("a") != "you" || rep.result.code != pb.ErrorCode_OK && n.owner("a") != "" {
		t.Errorf("answered %v, the lock is %q's", rep.result.code, n.owner("a"))
	}
}

// A leader that was deposed without knowing it refuses nobody: the lock may be
// free by now.
func TestDeposedLeaderDoesNotRefuse(t *testing.T) {
	l := newLab(t, 3)
	n := l.leader()
	kept := l.acquire(n, "a", "me", time.Minute).result.lock
	n.cut = true
	c := l.submit(n, command{kind: cmdAcquire, lock: "a", client: "you", attempt: 1})
	l.settle()
	if rep, ok := repliedTo(c); ok {
		t.Fatalf("answered without a majority: %+v", rep)
	}
	next, _ := otherLeader(l, n, 10*labElection)
	if rep := l.do(next, command{kind: cmdRelease, lock: "a", client: "me", version: kept.version}); rep.result.code != pb.ErrorCode_OK {
		t.Fatalf("release: %+v", rep)
	}
	n.cut = false
	l.pass(3 * labElection)
	if rep, ok := repliedTo(c); !ok || rep.failure != nil || rep.result.code != pb.ErrorCode_OK {
		t.Errorf("after the mending: %+v, %t", rep, ok)
	}
}

// A refusal without an entry is for a lock that another holds at that time, and
// for a call of which nothing else may come.
func TestRefusesOnlyWhatIsHeld(t *testing.T) {
	tb := newTable()
	open := bounds{lockWaiters: 9, locks: 9, waiters: 9}
	tb.apply(&entry{stamp: 1, bounds: open, commands: []command{
		{kind: cmdAcquire, lock: "a", client: "me", attempt: 1, ttl: 10},
		{kind: cmdWithdraw, lock: "a", client: "you", request: "gone"},
	}})
	you := command{kind: cmdAcquire, lock: "a", client: "you", request: "r", attempt: 1}
	with := func(change func(c *command)) command {
		c := you
		change(&c)
		return c
	}
	for _, tt := range []struct {
		name string
		c    command
		at   logTime
		want bool
	}{
		{"before the end", you, 10, true},
		{"at the end, which no entry has brought about yet", you, 11, false},
		{"of a lock that nobody has", with(func(c *command) { c.lock = "b" }), 10, false},
		{"the holder's own", with(func(c *command) { c.client, c.request = "me", "" }), 10, false},
		{"one that waits", with(func(c *command) { c.wait = true }), 10, false},
		{"a repeat", with(func(c *command) { c.attempt = 2 }), 10, false},
		{"one that was withdrawn", with(func(c *command) { c.request = "gone" }), 10, false},
		{"a renewal", with(func(c *command) { c.kind = cmdRenew }), 10, false},
	} {
		if _, refused := tb.refuses(&tt.c, tt.at); refused != tt.want {
			t.Errorf("%s: refused: %t", tt.name, refused)
		}
	}
}

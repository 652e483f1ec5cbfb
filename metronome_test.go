package raftlock

import (
	"testing"
	"time"

	"go.etcd.io/raft/v3"

	"github.com/raftlock/raftlock/pb"
)

// Ticks come on a grid, whenever the loop looks; those that were slept over by
// plan are made up for, those that were missed otherwise are not.
func TestMetronome(t *testing.T) {
	begun := time.Unix(1000, 0)
	m := metronome{interval: 10 * time.Millisecond, last: begun, rest: 1}
	for _, step := range []struct {
		at   time.Duration // the next turn
		due  int
		rest int           // planned then
		next time.Duration // when that ends
	}{
		{0, 0, 1, 10},
		{9, 0, 1, 10}, // woken early
		{10, 1, 3, 40},
		{25, 1, 2, 40}, // woken early: one of three has passed
		{40, 2, 1, 50},
		{57, 1, 1, 60},  // late, but the grid stays
		{60, 1, 5, 110}, //
		{110, 5, 1, 120},
		{500, 1, 2, 520},   // it was stopped
		{1500, 2, 1, 1510}, // and again
	} {
		now := begun.Add(step.at * time.Millisecond)
		if due := m.due(now); due != step.due {
			t.Fatalf("at %d ms %d ticks are due, want %d", step.at, due, step.due)
		}
		if next := m.next(now, step.rest); next != (step.next-step.at)*time.Millisecond {
			t.Fatalf("at %d ms it sleeps for %v, want until %d ms", step.at, next, step.next)
		}
	}
}

// restingLab is a lab whose members sleep as the loop of a Node does.
type restingLab struct {
	*lab
	ticks map[*labNode]*metronome
	until map[*labNode]time.Time
	wakes map[*labNode]int // by their own plan, not by a message
	due   map[*labNode]int // ticks that each has taken together
}

func newRestingLab(l *lab) *restingLab {
	rl := &restingLab{l, map[*labNode]*metronome{}, map[*labNode]time.Time{}, map[*labNode]int{}, map[*labNode]int{}}
	for _, n := range l.nodes {
		rl.ticks[n] = &metronome{interval: labTick, last: l.now, rest: 1}
		rl.until[n] = l.now.Add(labTick)
	}
	return rl
}

// pass lets ticks pass, and wakes whoever has to.
func (l *restingLab) pass(ticks int, see func()) {
	l.t.Helper()
	for range ticks {
		l.now = l.now.Add(labTick)
		clear(l.due)
		for stirs := true; stirs; {
			stirs = false
			for _, n := range l.nodes {
				planned := !l.until[n].After(l.now)
				if planned {
					l.wakes[n]++
				}
				if planned || len(n.inbox)+len(n.calls) > 0 || n.r.wantsTurn() {
					stirs = true
					due := l.ticks[n].due(l.now)
					l.due[n] += due
					l.turn(n, due)
					l.until[n] = l.now.Add(l.ticks[n].next(l.now, n.r.rest()))
				}
			}
		}
		see()
	}
}

// An idle leader wakes to send heartbeats, an idle follower when it gets one.
func TestIdleMembersRest(t *testing.T) {
	l := newRestingLab(newLab(t, 3))
	leader := l.leader()
	l.acquire(leader, "a", "holder", time.Hour)
	waiter := l.submit(l.nodes[1], command{kind: cmdAcquire, lock: "a", client: "waiter", attempt: 1, wait: true, timeout: span(time.Hour), ttl: span(time.Hour)})
	l.settle()
	l.pass(10, func() {}) // all is told
	clear(l.wakes)
	before := map[*labNode]int{}
	for _, n := range l.nodes {
		before[n] = n.r.ticks
	}
	const span = 1000
	l.pass(span, func() {})
	for _, n := range l.nodes {
		want := 0
		if n == leader {
			want = span / 2
		}
		if l.wakes[n] != want {
			t.Errorf("member %d woke %d times in %d ticks, want %d", n.id, l.wakes[n], span, want)
		}
		if passed := n.r.ticks - before[n]; passed < span-1 || passed > span {
			t.Errorf("member %d counted %d of %d ticks", n.id, passed, span)
		}
		if n.r.lead != leader.id {
			t.Errorf("member %d follows %d", n.id, n.r.lead)
		}
	}
	if rep, ok := repliedTo(waiter); ok {
		t.Errorf("the wait has ended: %+v", rep)
	}
}

// A member that sleeps over ticks campaigns as early as one that does not.
func TestRestDelaysNoElection(t *testing.T) {
	for range 20 {
		l := newRestingLab(newLab(t, 3))
		leader := l.leader()
		l.pass(labElectionTicks, func() {})
		leader.cut = true
		begun := l.now
		stood := map[*labNode]bool{}
		l.pass(2*labElectionTicks, func() {
			for _, n := range l.nodes {
				if n == leader || n.r.role == raft.StateFollower || stood[n] {
					continue
				}
				stood[n] = true
				if due := l.due[n]; due > 1 {
					t.Errorf("member %d campaigns with the last of %d ticks", n.id, due)
				}
			}
		})
		var next *labNode
		for _, n := range l.nodes {
			if n != leader && n.r.leads() {
				next = n
			}
		}
		if next == nil {
			t.Fatalf("no leader %v after the last one's fall", l.now.Sub(begun))
		}
	}
}

// What is looked after at every tick keeps a member from sleeping over any.
func TestWorkEndsTheRest(t *testing.T) {
	l := newLab(t, 3)
	leader, follower := l.nodes[0], l.nodes[1]
	l.elect(leader)
	l.acquire(leader, "a", "holder", time.Hour)
	l.pass(5 * labTick)
	rests := func(want bool, when string) {
		t.Helper()
		for _, n := range []*labNode{leader, follower} {
			if rest := n.r.rest(); !want && rest != 1 {
				t.Errorf("%s: member %d sleeps over %d ticks", when, n.id, rest)
			}
			if quiet := n.r.quiet(); quiet != want {
				t.Errorf("%s: member %d is quiet: %t", when, n.id, quiet)
			}
		}
	}
	rests(true, "nothing to do")
	for _, n := range l.nodes {
		n.diskHung = true
	}
	c := l.submit(follower, command{kind: cmdAcquire, lock: "b", client: "me", attempt: 1, ttl: span(time.Hour)})
	l.settle()
	rests(false, "a call on its way")
	for _, n := range l.nodes {
		n.diskHung = false
		l.flush(n)
	}
	l.settle()
	if rep, ok := repliedTo(c); !ok || rep.result.code != pb.ErrorCode_OK {
		t.Fatalf("the call: %t %+v", ok, rep)
	}
	l.pass(labTick)
	rests(true, "the call is answered")
	leader.cut = true
	l.submit(follower, command{kind: cmdAcquire, lock: "c", client: "me", attempt: 1, ttl: span(time.Hour)})
	l.submit(leader, command{kind: cmdAcquire, lock: "d", client: "me", attempt: 1, ttl: span(time.Hour)})
	l.settle()
	rests(false, "calls that are not answered")
}

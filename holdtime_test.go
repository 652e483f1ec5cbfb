package raftlock

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/raftlock/raftlock/client"
)

// A step is at most a fifth below the length that it stands for, whatever that is.
func TestHoldTimeOf(t *testing.T) {
	for _, us := range []int64{math.MinInt64, -1, 0, 1, 2} {
		if got := holdTimeOf(us).span(); got != 2000 {
			t.Errorf("%d µs: %d", us, got)
		}
	}
	for range 10_000 {
		us := rand.Int64() >> rand.IntN(62)
		got, want := holdTimeOf(us).span(), span(min(max(us, 2), int64(never)/1000)*1000)
		if us < 1<<60 && (got > want || got < want/5*4) {
			t.Fatalf("%d µs: %d", us, got)
		}
	}
	if holdTimeOf(math.MaxInt64).span() < span(100*365*24*time.Hour) {
		t.Error("the longest length is short")
	}
}

// What is usual follows what happens, within a few times, up and down.
func TestUsualHoldFollows(t *testing.T) {
	var h holdTime
	for _, us := range []int64{1_000, 60_000_000, 20_000} {
		for range 12 {
			h = h.after(us)
		}
		if got := int64(h.span()) / 1000; got < us/2 || got > 2*us {
			t.Errorf("after many holds of %d µs: %d", us, got)
		}
	}
}

// Advice grows with what the grant has left, with how long the lock is usually
// held, and with its queue, and never exceeds what is left.
func TestAdviceGrows(t *testing.T) {
	advise := func(remaining, usual time.Duration, waiters int32) *client.BackoffAdvice {
		l := lockView{owner: "me", waiters: waiters}
		got := adviceFor(&l, &reply{remaining: span(remaining), usual: span(usual)})
		if got.InitialBackoff > remaining || got.MaxBackoff > remaining || got.InitialBackoff > got.MaxBackoff || got.InitialBackoff <= 0 {
			t.Errorf("with %v left, usually %v, %d waiters: %+v", remaining, usual, waiters, got)
		}
		return got
	}
	lengths := []time.Duration{time.Millisecond, 40 * time.Millisecond, time.Second, 10 * time.Second, time.Minute, time.Hour, 24 * time.Hour}
	grows := func(what string, next func(i int) *client.BackoffAdvice) {
		first, last := next(0), next(0)
		for i := 1; i < len(lengths); i++ {
			got := next(i)
			if got.InitialBackoff < last.InitialBackoff || got.MaxBackoff < last.MaxBackoff {
				t.Errorf("with more of %s: %+v after %+v", what, got, last)
			}
			last = got
		}
		if last.InitialBackoff <= first.InitialBackoff {
			t.Errorf("%s does not count: %+v", what, last)
		}
	}
	grows("the time left", func(i int) *client.BackoffAdvice { return advise(lengths[i], time.Second, 1) })
	grows("the time left, of a lock that is not known", func(i int) *client.BackoffAdvice { return advise(lengths[i], 0, 1) })
	grows("the usual time", func(i int) *client.BackoffAdvice { return advise(time.Minute, lengths[i], 1) })
	grows("the queue", func(i int) *client.BackoffAdvice { return advise(time.Minute, time.Second, int32(i)) })
	if short, long := advise(time.Minute, 10*time.Millisecond, 0), advise(time.Minute, 0, 0); short.InitialBackoff >= long.InitialBackoff {
		t.Error("that the lock is usually held for a moment does not help")
	}
}

// The table knows how long a lock was held, also over a promotion and an expiry,
// and so does one that was loaded, from then on.
func TestUsualHoldOfTheTable(t *testing.T) {
	tbl := newTable()
	wall := int64(1_000_000)
	apply := func(after time.Duration, commands ...command) outcome {
		wall += after.Microseconds()
		for i := range commands {
			c := &commands[i]
			c.lock, c.attempt, c.ttl, c.timeout = "a", 1, span(time.Minute), span(time.Hour)
		}
		at := tbl.now().plus(span(after))
		return tbl.apply(&entry{stamp: at, wall: wall, commands: commands, bounds: bounds{10, 10, 10}})
	}
	apply(0, command{kind: cmdAcquire, client: "A"}, command{kind: cmdAcquire, client: "B", wait: true})
	if tbl.usualHold("a") != 0 || tbl.usualHold("b") != 0 {
		t.Error("something is usual before the first hold has ended")
	}
	out := apply(time.Second, command{kind: cmdRelease, client: "A", version: 1})
	if out.granted != 1 || out.ended != 1 || out.expired != 0 || out.heldFor != 1e6 {
		t.Errorf("a promotion: %+v", out)
	}
	near := func(want time.Duration) {
		t.Helper()
		if got := time.Duration(tbl.usualHold("a")); got > want || got < want*3/4 {
			t.Errorf("usually %v, want %v", got, want)
		}
	}
	near(time.Second)
	out = apply(time.Minute)
	if out.granted != 0 || out.ended != 1 || out.expired != 1 || out.heldFor != 60e6 {
		t.Errorf("an expiry: %+v", out)
	}
	if got := time.Duration(tbl.usualHold("a")); got < 2*time.Second || got > 10*time.Second {
		t.Errorf("after a long hold: usually %v", got)
	}
	tbl = restore(tbl.clone())
	out = apply(time.Second, command{kind: cmdAcquire, client: "A"})
	if out.granted != 1 || out.ended != 0 {
		t.Errorf("a grant: %+v", out)
	}
}

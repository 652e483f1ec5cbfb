package history

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"
)

// seedCount is how many of n random histories a test looks at: all, a twentieth where
// time is short, and again a third of them if that is under the race detector,
// which looks for what shows in the first of them.
func seedCount(n int) int {
	if testing.Short() || underRace {
		n /= 20
	}
	if testing.Short() && underRace {
		n /= 3
	}
	return n
}

// Correct histories break no rule, whatever was lost, late and without a leader
// in them; and they are long enough for every rule to have something to say.
func TestCorrectHistories(t *testing.T) {
	seeds := seedCount(2000)
	compared := map[Rule]int{}
	for seed := range uint64(seeds) {
		report := simulate(seed, sound).Check(Bounds{})
		if err := report.Err(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for rule, n := range report.Compared {
			compared[rule] += n
		}
	}
	for _, rule := range Rules() {
		if compared[rule] < seeds/10 {
			t.Errorf("%s compared %d operations in %d histories", rule, compared[rule], seeds)
		}
	}
}

// A table that does one thing wrong is caught by the rule about it.
func TestBrokenTables(t *testing.T) {
	for f, rule := range map[fault]Rule{
		grantsTwice: MutualExclusion, repeatsTokens: UniqueTokens, shrinksTokens: GrowingTokens, expiresEarly: NotEarly,
		expiresLate: Expiry, revives: NoStaleToken, readsOld: NoStaleRead, servesBackward: QueueOrder,
		forgetsWaiters: WaitersServed, forgetsRequest: OneToken, foresees: NotUnasked,
	} {
		t.Run(fmt.Sprint(rule), func(t *testing.T) {
			caught := 0
			others := map[Rule]int{}
			seeds := 30
			if testing.Short() && underRace {
				seeds = 10
			}
			for seed := range uint64(seeds) {
				report := simulate(seed, f).Check(Bounds{})
				if report.Broken[rule] > 0 {
					caught++
				}
				for _, other := range slices.Sorted(maps.Keys(report.Broken)) {
					others[other]++
				}
			}
			t.Logf("broken in %d histories: %v", seeds, others)
			if caught < (seeds+3)/4 {
				t.Errorf("caught in %d histories of %d", caught, seeds)
			}
		})
	}
}

// The bounds are what they are said to be.
func TestBoundsDefaults(t *testing.T) {
	got := Bounds{Late: -1}.withDefaults()
	want := Bounds{Late: time.Second, Quick: 100 * time.Millisecond, Keeps: 2 * time.Second, Echo: 10 * time.Second}
	if got != want {
		t.Errorf("%+v", got)
	}
}

// change is that somebody renews another lock, which shows that changes are made.
func change(at time.Duration) Op {
	return Op{Call: Renew, ClientID: "other", Lock: "another", Token: 1 << 40, From: at, To: at + time.Millisecond, Outcome: OK, TTL: time.Hour, Expires: at + time.Hour}
}

// shownUntil adds looks at lock "l" that show it held by "a" under a token until an
// instant, and free for a while after that.
func shownUntil(h *History, token int64, from, until, to time.Duration) {
	const ms = time.Millisecond
	for at := from; at < to; at += 10 * ms {
		h.Ops = append(h.Ops, Op{Call: Look, Lock: "l", From: at, To: at + ms, Outcome: OK,
			Seen: []Sight{{Lock: "l", Owner: "a", Held: at < until, Token: token}}}, change(at))
	}
}

// The first attempt of a renewal reaches a member whose way to the leader hangs, and
// its connection breaks; the second one, at another member, is answered within 3 ms.
// 2.9 s later the leader hears of the first one, too: a renewal never shortens, so
// that the grant ends 3 s after that.
func TestLateAttemptOfRenewal(t *testing.T) {
	const ms = time.Millisecond
	h := &History{Ops: []Op{
		{Call: Acquire, ClientID: "a", RequestID: "r", Lock: "l", Token: 1, From: 0, To: ms, Outcome: OK, TTL: 3000 * ms, Expires: 3000 * ms},
		{Call: Renew, ClientID: "a", Lock: "l", Token: 1, From: 500 * ms, To: 503 * ms, Outcome: OK, TTL: 3000 * ms, Expires: 3500 * ms},
	}}
	shownUntil(h, 1, 600*ms, 6400*ms, 7000*ms)
	if v := h.Check(Bounds{}).Violations; len(v) > 0 {
		t.Errorf("%d violations, the first: %v", len(v), v[0])
	}
	h.Ops = h.Ops[:2]
	shownUntil(h, 1, 600*ms, 30_000*ms, 30_000*ms)
	if r := h.Check(Bounds{}); r.Broken[Expiry] == 0 {
		t.Error("a grant is held for ever by a renewal")
	}
}

// An Acquire without a RequestID is refused, and the next one is granted; then an
// attempt of the first comes late, and prolongs the grant of the second.
func TestLateAttemptOfEarlierAcquire(t *testing.T) {
	const ms = time.Millisecond
	h := &History{Ops: []Op{
		{Call: Acquire, ClientID: "a", Lock: "l", From: 0, To: ms, Outcome: Refused, Code: "LOCK_HELD", TTL: 9000 * ms},
		{Call: Acquire, ClientID: "a", Lock: "l", Token: 1, From: 500 * ms, To: 503 * ms, Outcome: OK, TTL: 100 * ms, Expires: 600 * ms},
	}}
	shownUntil(h, 1, 510*ms, 15_000*ms, 16_000*ms)
	if v := h.Check(Bounds{}).Violations; len(v) > 0 {
		t.Errorf("%d violations, the first: %v", len(v), v[0])
	}
	h.Ops[0].ClientID = "b"
	if r := h.Check(Bounds{}); r.Broken[Expiry] == 0 {
		t.Error("another's attempt prolongs a grant")
	}
}

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
	seeds := seedCount(3000)
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

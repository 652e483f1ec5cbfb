package raftlock

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/cryptotest"
	"time"
)

// What a seed does to a cluster, no promise is broken by, and after it all works
// again. The environment says how many seeds are tried:
//
//	RAFTLOCK_SIM_SEED=n    this one only
//	RAFTLOCK_SIM_SEEDS=n   so many, from that one on if it is given
//	RAFTLOCK_SIM_FOR=d     as many as take so long
func TestSimulation(t *testing.T) {
	plan := simPlanOf(t)
	var sum simTally
	seeds, begun, told := 0, time.Now(), time.Now()
	for seed := range plan.seeds(begun) {
		seeds++
		t.Run(fmt.Sprint(seed), func(t *testing.T) { sum.add(simulate(t, seed)) })
		if t.Failed() {
			break
		}
		if time.Since(told) > time.Minute {
			told = time.Now()
			sum.report(t, seeds)
		}
	}
	sum.report(t, seeds)
	plan.require(t, seeds, &sum)
}

func simulate(t *testing.T, seed uint64) *simTally {
	over := tellSeed(t, seed)
	cryptotest.SetGlobalRandom(t, seed) // raft draws its election time-outs there
	s := newSim(seed)
	if err := s.run(); err != nil {
		t.Error(err)
	}
	over()
	return &s.tally
}

// tellSeed prints how to see a seed again that fails, in whichever way it does: a test
// that panics has not failed yet when it cleans up, nor has it called over.
func tellSeed(t *testing.T, seed uint64) (over func()) {
	name, _, _ := strings.Cut(t.Name(), "/")
	panics := true
	t.Cleanup(func() {
		if panics || t.Failed() {
			t.Logf("to see it again: RAFTLOCK_SIM_SEED=%d go test -run '^%s$' -count=1 .", seed, name)
		}
	})
	return func() { panics = false }
}

// The same seed makes the same run.
func TestSimulationRepeats(t *testing.T) {
	plan, seeds := simPlanOf(t), 10
	switch {
	case plan.only && !plan.asked:
		seeds = 1
	case plan.asked:
		seeds = 100
	case testing.Short():
		seeds = 1
	}
	for n := range seeds {
		seed := plan.first + uint64(n)
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			over := tellSeed(t, seed)
			var traces [2]simTrace
			for i := range traces {
				cryptotest.SetGlobalRandom(t, seed)
				s := newSim(seed)
				s.trace.keeps = true
				if err := s.run(); err != nil {
					t.Fatal(err)
				}
				traces[i] = s.trace
			}
			if traces[0].sum != traces[1].sum {
				same := 0
				for same < min(len(traces[0].steps), len(traces[1].steps)) && traces[0].steps[same] == traces[1].steps[same] {
					same++
				}
				t.Errorf("two runs of seed %d part after step %d of %d and %d", seed, same, len(traces[0].steps), len(traces[1].steps))
			}
			over()
		})
	}
}

// simPlan is which seeds are tried, and what has to come of it.
type simPlan struct {
	first  uint64
	only   bool
	count  int
	length time.Duration
	asked  bool // by the environment: then there is a minimum
}

func simPlanOf(t *testing.T) simPlan {
	t.Helper()
	p := simPlan{first: rand.Uint64(), count: 12}
	if testing.Short() {
		p.count = 2
	}
	if v := os.Getenv("RAFTLOCK_SIM_SEED"); v != "" {
		seed, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			t.Fatalf("RAFTLOCK_SIM_SEED: %v", err)
		}
		p.first, p.only, p.count = seed, true, 1
	}
	if v := os.Getenv("RAFTLOCK_SIM_SEEDS"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil {
			t.Fatalf("RAFTLOCK_SIM_SEEDS: %v", err)
		}
		p.count, p.asked = n, true
	}
	if v := os.Getenv("RAFTLOCK_SIM_FOR"); v != "" {
		d, err := time.ParseDuration(v)
		if err != nil {
			t.Fatalf("RAFTLOCK_SIM_FOR: %v", err)
		}
		p.length, p.asked = d, true
	}
	return p
}

func (p *simPlan) seeds(begun time.Time) func(func(uint64) bool) {
	return func(yield func(uint64) bool) {
		for n := 0; n < p.count || time.Since(begun) < p.length; n++ {
			if !yield(p.first + uint64(n)) {
				return
			}
		}
	}
}

// simMinimum is how many acknowledged operations a seed must have on average, where
// there are seeds enough for an average: one that suffers much has few.
const (
	simMinimum = 1000
	simEnough  = 100
)

// require fails a run in which too little happened.
func (p *simPlan) require(t *testing.T, seeds int, sum *simTally) {
	t.Helper()
	if t.Failed() || !p.asked {
		return
	}
	if seeds < p.count {
		t.Errorf("%d seeds, at least %d are wanted", seeds, p.count)
	}
	if seeds < simEnough {
		return
	}
	if sum.Answers < seeds*simMinimum {
		t.Errorf("%d acknowledged operations in %d seeds: at least %d are wanted", sum.Answers, seeds, seeds*simMinimum)
	}
	for _, kind := range []string{
		"crash", "power cut", "restart of all", "pause", "isolation", "one-way cut", "delays", "breaking streams", "broken stream",
		"slow disk", "hanging disk", "failing disk", "failed write", "no room for a snapshot", "clock rate", "broken snapshot",
		"client cut off", "answers lost", "client vanishes", "call given up", "same call twice",
		"lost disk", "transfer", "member: add", "member: remove", "member: replace",
	} {
		if sum.Faults[kind] == 0 {
			t.Errorf("%q never happened", kind)
		}
	}
	if sum.Gaps == 0 || sum.Installs == 0 || sum.Taken == 0 || sum.Handed == 0 {
		t.Errorf("%d gaps between leaders, %d snapshots taken, %d installed, %d hand-overs", sum.Gaps, sum.Taken, sum.Installs, sum.Handed)
	}
	if sum.Compared == 0 || sum.Renewals == 0 || sum.Withdrawals == 0 || sum.Enqueues == 0 || sum.Limited == 0 || sum.QueueFull == 0 {
		t.Errorf("%d states compared, %d renewals, %d withdrawals, %d enqueues, %d calls too many, %d full queues",
			sum.Compared, sum.Renewals, sum.Withdrawals, sum.Enqueues, sum.Limited, sum.QueueFull)
	}
}

func (t *simTally) report(to *testing.T, seeds int) {
	to.Helper()
	to.Logf("%d seeds: %d acknowledged operations, %d grants, %d of them handed over by a release, %d renewals, %d withdrawals, %d enqueues, %d calls too many, %d full queues, %d unknown outcomes; %d entries, %d states compared, %d terms, %d gaps between leaders, %d snapshots taken and %d installed, %d changes of the members; %v of virtual time",
		seeds, t.Answers, t.Grants, t.Handed, t.Renewals, t.Withdrawals, t.Enqueues, t.Limited, t.QueueFull, t.Unknown, t.Entries, t.Compared, t.Terms, t.Gaps, t.Taken, t.Installs, t.Changes, t.Virtual.Round(time.Second))
	text := ""
	for _, kind := range slices.Sorted(maps.Keys(t.Faults)) {
		text += fmt.Sprintf(", %s %d", kind, t.Faults[kind])
	}
	to.Logf("faults%s", text)
}

package testcluster_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/raftlock/raftlock/history"
	"github.com/raftlock/raftlock/pb"
)

// counts counts things by kind.
type counts struct {
	mu sync.Mutex
	of map[string]int
}

func (c *counts) add(kind string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of == nil {
		c.of = map[string]int{}
	}
	c.of[kind] += n
}

func (c *counts) merge(other *counts) {
	for kind, n := range other.of {
		c.add(kind, n)
	}
}

func (c *counts) String() string {
	var b strings.Builder
	for i, kind := range slices.Sorted(maps.Keys(c.of)) {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s %d", kind, c.of[kind])
	}
	return b.String()
}

// sum is how many there were of all kinds.
func (c *counts) sum() (n int) {
	for _, k := range c.of {
		n += k
	}
	return n
}

// tally is what a run of many seeds came to.
type tally struct {
	seeds                          int
	answered, granted, handed      int
	faults, changes, works, checks counts
	overloads                      counts // refusals that say so
	virtual                        time.Duration
	kinds                          []string // of faults that there are
}

// overloadCodes are what a cluster says when there is too much.
func overloadCodes() []string {
	return []string{pb.ErrorCode_WAIT_QUEUE_FULL.String(), pb.ErrorCode_RATE_LIMITED.String()}
}

func newTally() *tally { return &tally{} }

func (y *tally) add(l *lab) {
	y.seeds++
	y.virtual += l.ended
	tokens := map[int64]bool{}
	for i := range l.ops {
		o := &l.ops[i]
		if o.Outcome == history.OK || o.Outcome == history.Refused {
			y.answered++
		}
		if o.Outcome == history.OK && o.Call == history.Acquire {
			tokens[o.Token] = true
		}
		if o.Promoted {
			y.handed++
		}
		if slices.Contains(overloadCodes(), o.Code) {
			y.overloads.add(o.Code, 1)
		}
	}
	y.granted += len(tokens)
	y.kinds = faultKinds()
	y.faults.merge(&l.nemesis.struck)
	y.changes.merge(&l.nemesis.changed)
	y.works.merge(&l.works)
	for rule, n := range l.report.Compared {
		y.checks.add(string(rule), n)
	}
}

func (y *tally) summary() string {
	return fmt.Sprintf("%d seeds, %d acknowledged operations, %d grants, %d hand-overs, %d faults, %d changes of the members, %v of virtual time",
		y.seeds, y.answered, y.granted, y.handed, y.faults.sum(), y.changes.sum(), y.virtual.Round(time.Second))
}

func (y *tally) String() string {
	return fmt.Sprintf("%s\nfaults: %v\nchanges: %v\nworkloads that came to what they are for: %v\noverload: %v\ncompared: %v",
		y.summary(), &y.faults, &y.changes, &y.works, &y.overloads, &y.checks)
}

// simAnswers is how many operations of a seed must be answered, on average, for the
// run to count.
const simAnswers = 1000

// simComplete is how many seeds must have had one of everything: members are removed
// in half of them only.
const simComplete = 20

// simSurfeit is how many seeds must have had too much of something.
const simSurfeit = 100

// check fails a run that has done less than it says.
func (y *tally) check(t *testing.T, seeds int) {
	t.Helper()
	if y.seeds < seeds {
		t.Errorf("%d seeds, want %d", y.seeds, seeds)
	}
	if y.answered < simAnswers*y.seeds {
		t.Errorf("%d operations were acknowledged by %d seeds, want %d by each on average", y.answered, y.seeds, simAnswers)
	}
	if y.seeds < simComplete {
		return
	}
	want := func(what string, c *counts, kinds []string) {
		for _, kind := range kinds {
			if c.of[kind] == 0 {
				t.Errorf("there was no %s of the kind %q", what, kind)
			}
		}
	}
	want("fault", &y.faults, y.kinds)
	want("change", &y.changes, changeKinds())
	want("workload", &y.works, workKinds())
	for _, rule := range history.Rules() {
		if y.checks.of[string(rule)] == 0 {
			t.Errorf("the rule %q had nothing to compare", rule)
		}
	}
	if y.seeds >= simSurfeit && y.overloads.sum() == 0 {
		t.Errorf("nothing was refused with one of %v", overloadCodes())
	}
}

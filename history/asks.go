package history

import (
	"cmp"
	"math"
	"slices"
	"sort"
	"time"
)

// asks are the calls with which one identity asks for one lock, Acquire and
// Enqueue, whatever came of them. What they mean for its grants is worked out once
// and not for each grant: a plain identity may have as many of both as the history
// is long.
type asks struct {
	ops      []int     // in the order of the history
	won      []*grant  // by token
	first    int       // called before all others
	unknown  int       // called before all others without an answer, -1 for none
	gaveUp   int       // called before all others that may have been called off, -1 for none
	cancel   int       // the Cancel of it that was called first, -1 for none
	until    []lasting // see mayProlong; nil until it is asked for
	priority int32     // the greatest that it waits with; the smallest if it does not
}

// lasting is until when the calls up to one may prolong a grant of their identity.
type lasting struct{ from, over time.Duration }

func newAsks() *asks {
	return &asks{first: -1, unknown: -1, gaveUp: -1, cancel: -1, priority: math.MinInt32}
}

func (l *lock) asksOf(who identity) *asks {
	a := l.asks[who]
	if a == nil {
		a = newAsks()
		l.asks[who] = a
	}
	return a
}

func (a *asks) add(x *index, i int) {
	o := &x.ops[i]
	a.ops = append(a.ops, i)
	a.first = x.earlier(a.first, i)
	if o.Outcome == Unknown || o.Outcome == Open {
		a.unknown = x.earlier(a.unknown, i)
	}
	if o.gaveUp() {
		a.gaveUp = x.earlier(a.gaveUp, i)
	}
	if o.Wait {
		a.priority = max(a.priority, o.Priority)
	}
}

// earlier is which of two operations was called first; -1 is none.
func (x *index) earlier(a, b int) int {
	if a < 0 || x.ops[b].From < x.ops[a].From {
		return b
	}
	return a
}

// finish works out what the calls mean for the grants. None of those was made
// before the first call, whichever call it was that won it: an attempt that was
// late may have. A call with a RequestID whose outcome is unknown may have been
// withdrawn, and what it had won with it; and so may one that was not proposed or has
// timed out, whose context may have ended, and so it is with a Cancel of the
// RequestID, while one without a RequestID ends waits only.
func (a *asks) finish(x *index, who identity) {
	for _, g := range a.won {
		g.bornAfter, g.askedBy = x.ops[a.first].From, a.first
		g.maybe = g.maybe || a.unknown >= 0
		if who.requestID == "" {
			continue
		}
		for _, i := range []int{a.cancel, a.unknown, a.gaveUp} {
			if i >= 0 {
				g.endAt(x.ops[i].From, i)
			}
		}
	}
	won := 0
	for _, i := range a.ops {
		if who.requestID != "" && x.ops[i].extends() {
			won++
		}
	}
	for ; won > 1; won-- {
		x.report.compared(OneToken)
	}
}

// mayProlong is until when a grant may last because of the calls before an
// instant, whatever they won: while an identity holds the lock, each attempt of an
// Acquire without a RequestID prolongs its grant, and that of an earlier call, which
// was refused or has given its grant back, may come late. It is zero if none can.
func (a *asks) mayProlong(x *index, before time.Duration) time.Duration {
	if len(a.ops) > 0 && x.ops[a.first].RequestID != "" {
		return 0
	}
	if a.until == nil {
		a.sort(x)
	}
	n := sort.Search(len(a.until), func(i int) bool { return a.until[i].from >= before })
	if n == 0 {
		return 0
	}
	return a.until[n-1].over
}

func (a *asks) sort(x *index) {
	a.until = make([]lasting, 0, len(a.ops))
	for _, i := range a.ops {
		if o := &x.ops[i]; o.Call == Acquire && o.Outcome != Failed {
			a.until = append(a.until, lasting{o.From, x.over(i)})
		}
	}
	slices.SortStableFunc(a.until, func(a, b lasting) int { return cmp.Compare(a.from, b.from) })
	for i := 1; i < len(a.until); i++ {
		a.until[i].over = max(a.until[i].over, a.until[i-1].over)
	}
}

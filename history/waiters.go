package history

import (
	"cmp"
	"slices"
	"sort"
	"time"
)

// checkWaiters holds that waiters are served: a lock that is free has none. It is
// broken when two looks show the same free lock with waiters, and more than
// Bounds.Late was served between them, or when a wait that is known to stand in
// the queue sees the lock free for that long.
func (l *lock) checkWaiters(x *index) {
	l.checkIdle(x)
	gaps := l.gaps(x)
	stays := l.stays(x)
	for _, op := range sortedKeys(stays) {
		l.checkNeglect(x, stays[op], gaps)
	}
}

func sortedKeys(stays map[int]*stay) (keys []int) {
	for op := range stays {
		keys = append(keys, op)
	}
	slices.Sort(keys)
	return keys
}

// checkIdle is about looks that show waiters at a free lock. One alone may: what
// has ended is shown as free before the waiter is served.
func (l *lock) checkIdle(x *index) {
	first := map[*grant]int{} // the look that was answered first
	var idle []sighting
	for _, s := range l.sights {
		if o := &x.ops[s.op]; o.Call == Look && s.seen != nil && !s.held && s.seen.Waiters > 0 {
			idle = append(idle, s)
			if f, ok := first[s.grant]; !ok || o.To < x.ops[f].To {
				first[s.grant] = s.op
			}
		}
	}
	for _, s := range idle {
		f := first[s.grant]
		if f == s.op {
			continue
		}
		x.report.compared(WaitersServed)
		if served := x.service.between(x.ops[f].To, x.ops[s.op].From); served > x.bounds.Late {
			x.broken(WaitersServed, f, s.op, "both show lock %q free and with waiters, as token %d left it, and the cluster served for %v between them",
				l.name, s.grant.token, round(served))
		}
	}
}

// gap is a time in which nobody can have had the lock.
type gap struct {
	from, to time.Duration
	after    int // what the last one who had it did last
}

// gaps finds the times, of which more than Bounds.Late was served, in which nobody
// can have had the lock: before a grant was asked for, or after it was over for
// certain. A call without an answer may have it for ever.
func (l *lock) gaps(x *index) (gaps []gap) {
	type span struct {
		from, to time.Duration
		op       int
	}
	var spans []span
	for _, g := range l.grants {
		last := g.firstSeen
		if g.releasedBy >= 0 {
			last = g.releasedBy
		} else if len(g.extensions) > 0 {
			last = g.extensions[len(g.extensions)-1]
		}
		spans = append(spans, span{g.bornAfter, g.mayLast(x), last})
	}
	for _, a := range l.asks {
		for _, i := range a.ops {
			if to, may := mayHold(x, i); may {
				spans = append(spans, span{x.ops[i].From, to, i})
			}
		}
	}
	slices.SortFunc(spans, func(a, b span) int { return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.op, b.op)) })
	last := span{op: -1}
	for _, s := range append(spans, span{from: never}) {
		if last.op >= 0 && last.to < s.from && x.service.between(last.to, s.from) > x.bounds.Late {
			gaps = append(gaps, gap{last.to, s.from, last.op})
		}
		if last.op < 0 || s.to > last.to {
			last = s
		}
	}
	return gaps
}

// mayHold reports whether a call may have won a grant that nobody saw, and until
// when that may stand.
func mayHold(x *index, i int) (until time.Duration, may bool) {
	o := &x.ops[i]
	switch {
	case o.Outcome == Unknown || o.Outcome == Open, o.Call == Enqueue && o.Outcome == OK:
		return never, true
	case o.Call == Acquire && o.Wait && o.RequestID == "" && o.Outcome != Failed:
		return x.over(i), true // a late attempt may stand in the queue, and win
	case o.Code == "NOT_WAITING" && o.Call == Acquire:
		return o.To + x.bounds.Echo, true
	}
	return 0, false
}

// checkNeglect is about one wait. All but the first and the last of the gaps that
// it meets lie within it, so that it does not look at more than two.
func (l *lock) checkNeglect(x *index, s *stay, gaps []gap) {
	end := min(s.until, x.ops[s.op].To)
	if x.ops[s.op].Outcome == Open {
		end = s.until
	}
	x.report.compared(WaitersServed)
	for i := sort.Search(len(gaps), func(i int) bool { return gaps[i].to > s.from }); i < len(gaps) && gaps[i].from < end; i++ {
		from, to := max(gaps[i].from, s.from), min(gaps[i].to, end)
		if served := x.service.between(from, to); served > x.bounds.Late {
			x.broken(WaitersServed, gaps[i].after, s.op, "lock %q was free from %v to %v, of which the cluster served %v, and operation %d shows the second in its queue by %v",
				l.name, round(from), round(to), round(served), s.proof+1, round(s.from))
			return
		}
	}
}

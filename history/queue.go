package history

import (
	"cmp"
	"math"
	"slices"
	"sort"
	"time"
)

// waits are the calls of one ClientID that wait for one lock.
type waits struct {
	ops       []int
	last      []lastTwo // of the calls up to here; nil until it is asked for
	cancelled bool      // some may have been ended by hand
}

// lastTwo are the two calls that last longest.
type lastTwo struct {
	op             int
	until, another time.Duration
}

func (l *lock) waitsOf(clientID string) *waits {
	w := l.waits[clientID]
	if w == nil {
		w = &waits{}
		l.waits[clientID] = w
	}
	return w
}

func (w *waits) add(i int) { w.ops = append(w.ops, i) }

// in returns the one call that can be behind a place which was seen in a queue,
// -1 if there are several, or none.
func (w *waits) in(x *index, from, to time.Duration) int {
	if w.last == nil {
		w.sort(x)
	}
	begun := sort.Search(len(w.ops), func(i int) bool { return x.ops[w.ops[i]].From > to })
	if begun == 0 {
		return -1
	}
	last := w.last[begun-1]
	if last.another >= from || last.until < from || x.ops[last.op].answeredBefore(from) {
		return -1
	}
	return last.op
}

func (w *waits) sort(x *index) {
	slices.SortStableFunc(w.ops, func(a, b int) int { return cmp.Compare(x.ops[a].From, x.ops[b].From) })
	last := lastTwo{op: -1, until: -1, another: -1}
	for _, i := range w.ops {
		if until := x.lasts(&x.ops[i]); until > last.until {
			last = lastTwo{i, until, last.until}
		} else {
			last.another = max(last.another, until)
		}
		w.last = append(w.last, last)
	}
}

// lasts is until when a call may have a place in the queue. Without an answer it
// may have it for ever. An attempt that comes late takes one more, but for a
// RequestID, which is known to have been answered.
func (x *index) lasts(o *Op) time.Duration {
	if !o.answeredBefore(never) {
		return never
	}
	return o.To + x.echo(o)
}

// answeredBefore reports whether the wait itself was over for certain. A place that
// is seen after that is one of a late attempt.
func (o *Op) answeredBefore(t time.Duration) bool {
	open := o.Outcome == Unknown || o.Outcome == Open || o.Outcome == OK && o.Call == Enqueue
	return !open && o.To < t
}

// stay is a wait that is known to have stood in the queue, and when.
type stay struct {
	op    int // the call that waits
	proof int // what shows it
	from  time.Duration
	until time.Duration // it may have lost its place from here on
	token int64         // what it was granted in the end
}

// stays finds the Acquires that are known to stand in the queue, by a look that
// lists them.
func (l *lock) stays(x *index) map[int]*stay {
	found := map[int]*stay{}
	for _, look := range l.lists(x) {
		for _, op := range look.calls {
			if op < 0 || x.ops[op].Call != Acquire || x.ops[op].Outcome == Failed {
				continue
			}
			s := &stay{
				op: op, proof: look.op, from: x.ops[look.op].To, token: x.ops[op].Token,
				until: x.keeps(op),
			}
			if old := found[op]; old == nil || s.from < old.from {
				found[op] = s
			}
		}
	}
	return found
}

// list is a queue as a look shows it, with the calls that wait, -1 where it is not
// certain which.
type list struct {
	op    int
	calls []int
}

func (l *lock) lists(x *index) (lists []list) {
	for _, s := range l.sights {
		o := &x.ops[s.op]
		if s.seen == nil || o.Call != Look {
			continue
		}
		shown := list{op: s.op}
		for _, place := range s.seen.Queue {
			call := -1
			if w := l.waits[place.ClientID]; w != nil && !w.cancelled {
				call = w.in(x, o.From, o.To)
			}
			shown.calls = append(shown.calls, call)
		}
		lists = append(lists, shown)
	}
	return lists
}

// keeps is until when a call that a look shows in the queue has its place for
// certain. A caller that is cut off comes back, and to the end of the queue if its
// place is gone: because nobody claimed it, because the wait was over in the table,
// or because its turn came and what it had won lapsed before anybody heard of it.
// The TTL counts from when its turn was proposed, which may be before the look.
func (x *index) keeps(op int) time.Duration {
	o := &x.ops[op]
	d := x.bounds.Keeps
	if o.Timeout > 0 {
		d = min(d, o.Timeout)
	}
	if o.TTL > 0 {
		d = min(d, o.TTL)
	}
	return o.From + atLeast(d)
}

// checkQueue holds that waiters are served by priority, then in order of arrival.
// Only what is certain counts: a wait stood in the queue when somebody saw it
// there, and kept its place as long as keeps says. Within that time nobody may be
// granted the lock who asked for it after that, with no greater priority, or who
// stood behind it in a queue that somebody saw.
func (l *lock) checkQueue(x *index) {
	for _, shown := range l.lists(x) {
		l.checkList(x, shown)
	}
	var stays []*stay
	for _, s := range l.stays(x) {
		if s.token > 0 {
			stays = append(stays, s)
		}
	}
	slices.SortFunc(stays, func(a, b *stay) int {
		if c := cmp.Compare(x.ops[a.op].Priority, x.ops[b.op].Priority); c != 0 {
			return c
		}
		return cmp.Compare(a.op, b.op)
	})
	l.checkOvertaking(x, stays)
}

// checkList is about the order in which a look shows a queue.
func (l *lock) checkList(x *index, shown list) {
	ahead := -1 // who has the greatest token of those ahead
	for _, call := range shown.calls {
		if call < 0 || !x.ops[call].extends() {
			continue
		}
		if ahead < 0 {
			ahead = call
			continue
		}
		x.report.compared(QueueOrder)
		if g := l.byToken[x.ops[call].Token]; g.token < x.ops[ahead].Token && g.exists < x.keeps(ahead) {
			x.broken(QueueOrder, ahead, call, "operation %d shows the first ahead of the second in the queue of lock %q, and the second was served before it",
				shown.op+1, l.name)
		}
		if x.ops[call].Token > x.ops[ahead].Token {
			ahead = call
		}
	}
}

// checkOvertaking looks, for each stay, at the grants with smaller tokens that
// became known while it kept its place: the one that was asked for last must not
// have been asked for after the stay was seen. Stays are ordered by priority, so
// that grants of no greater priority are added as they go.
func (l *lock) checkOvertaking(x *index, stays []*stay) {
	var known []time.Duration // when the grants up to here are all known
	var order []int           // grants by priority, those that did not wait first
	priorities := make([]int32, len(l.grants))
	for rank, g := range l.grants {
		known = append(known, g.exists)
		if rank > 0 {
			known[rank] = max(known[rank], known[rank-1])
		}
		priorities[rank] = math.MinInt32
		if a := l.asks[g.owner]; a != nil {
			priorities[rank] = a.priority
		}
		if g.known {
			order = append(order, rank)
		}
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(priorities[a], priorities[b]), cmp.Compare(a, b))
	})
	asked := newPrefixMax(len(l.grants))
	for _, s := range stays {
		for len(order) > 0 && priorities[order[0]] <= x.ops[s.op].Priority {
			g := l.grants[order[0]]
			asked.raise(order[0], g.bornAfter, g.firstSeen)
			order = order[1:]
		}
		own, _ := slices.BinarySearchFunc(l.grants, s.token, func(g *grant, token int64) int { return cmp.Compare(g.token, token) })
		within := sort.Search(len(known), func(i int) bool { return known[i] >= s.until })
		born, by := asked.below(min(own, within))
		if by < 0 {
			continue
		}
		x.report.compared(QueueOrder)
		if born > s.from {
			x.broken(QueueOrder, s.op, by, "operation %d shows the first in the queue of lock %q by %v, the second asked for it after that with no greater priority, and was served before it",
				s.proof+1, l.name, round(s.from))
		}
	}
}

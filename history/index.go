package history

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// Check holds a history against the rules, in O(n log n) of its operations and
// what they show.
//
// Everything that ends a hold must be in the history: where a release is missing,
// the next grant looks like a second one beside the first.
func (h *History) Check(bounds Bounds) *Report {
	x := newIndex(h.Ops, bounds.withDefaults())
	for _, lock := range x.locks {
		lock.checkExclusion(x)
		lock.checkOrderOfTokens(x)
		lock.checkReleased(x)
		lock.checkWrites(x)
		lock.checkLosses(x)
		lock.checkExpiry(x)
		lock.checkQueue(x)
		lock.checkWaiters(x)
	}
	x.checkUniqueTokens()
	x.checkGrowingTokens()
	x.checkAsked()
	slices.SortStableFunc(x.report.Violations, func(a, b Violation) int {
		return slices.Index(Rules(), a.Rule) - slices.Index(Rules(), b.Rule)
	})
	return x.report
}

// index is a history as the rules want to see it.
type index struct {
	ops     []Op
	bounds  Bounds
	service *service
	locks   []*lock // by name
	report  *Report
}

// lock is what a history says about one lock. Lists of operations are in the
// order of the history.
type lock struct {
	name    string
	grants  []*grant // by token
	byToken map[int64]*grant
	sights  []sighting

	asks      map[identity]*asks
	waits     map[string]*waits // those with a wait, by ClientID
	renews    []int
	releases  []int
	withdraws []int // Cancel
	writes    []int
	lookedFor []int // looks at this one lock that found nothing
}

// identity is who holds and waits.
type identity struct{ clientID, requestID string }

// grant is one token of a lock.
type grant struct {
	lock  *lock
	token int64

	owner identity
	known bool // owner is known with its RequestID; otherwise a ClientID, or nothing

	// firstSeen is the operation by whose answer the grant existed for certain.
	firstSeen int
	exists    time.Duration
	// bornAfter is an instant before which it did not exist: the first call of its
	// owner, askedBy. That is -1 if it is not known.
	bornAfter time.Duration
	askedBy   int

	// end is until when it was guaranteed, endBy by what; -1 if it never was.
	end   time.Duration
	endBy int
	// extensions granted or prolonged it for certain.
	extensions []int
	// maybe says that others may have.
	maybe bool
	// cut is when somebody may have ended it; cutBy is who, -1 for nobody.
	cut   time.Duration
	cutBy int
	// next is when a grant with a greater token was known for certain, never if none
	// is.
	next time.Duration
	// released is when it had been released for certain; releasedBy is how, -1 if
	// it was not.
	released   time.Duration
	releasedBy int
}

// sighting is an answer that shows a grant: the present one, or the last one of a
// lock that is free.
type sighting struct {
	op    int
	grant *grant
	owner string // a ClientID, if it is told
	held  bool
	seen  *Sight // what a look shows; nil otherwise
}

func newIndex(ops []Op, bounds Bounds) *index {
	x := &index{
		ops: ops, bounds: bounds, service: serviceIn(ops, bounds.Quick),
		report: &Report{Broken: map[Rule]int{}, Compared: map[Rule]int{}},
	}
	byName := map[string]*lock{}
	at := func(name string) *lock {
		l := byName[name]
		if l == nil {
			l = &lock{name: name, byToken: map[int64]*grant{}, asks: map[identity]*asks{}, waits: map[string]*waits{}}
			byName[name] = l
		}
		return l
	}
	for i := range ops {
		if o := &ops[i]; o.Lock != "" {
			at(o.Lock).take(x, i)
		}
		for j := range ops[i].Seen {
			s := &ops[i].Seen[j]
			at(s.Lock).see(x, i, s)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		l := byName[name]
		l.finish(x)
		x.locks = append(x.locks, l)
	}
	return x
}

// take sorts an operation in.
func (l *lock) take(x *index, i int) {
	o := &x.ops[i]
	switch o.Call {
	case Acquire, Enqueue:
		who := identity{o.ClientID, o.RequestID}
		l.asksOf(who).add(x, i)
		if o.Wait {
			l.waitsOf(o.ClientID).add(i)
		}
		if o.extends() {
			g := l.show(x, i, o.Token, o.ClientID, true)
			g.extensions = append(g.extensions, i)
			if !g.known {
				g.owner, g.known = who, true
			}
		}
	case Renew:
		l.renews = append(l.renews, i)
		if o.extends() {
			g := l.show(x, i, o.Token, o.ClientID, true)
			g.extensions = append(g.extensions, i)
		}
	case Release:
		l.releases = append(l.releases, i)
		if o.Outcome == OK && o.Promoted && o.Token > 0 {
			l.show(x, i, o.Token, o.ClientID, true)
		}
	case Cancel:
		l.withdraws = append(l.withdraws, i)
		if o.hasEffect() {
			l.waitsOf(o.ClientID).cancelled = true
		}
	case Write:
		l.writes = append(l.writes, i)
	case Look:
		if o.Outcome == Refused {
			l.lookedFor = append(l.lookedFor, i)
		}
	}
}

// see sorts in what an answer shows.
func (l *lock) see(x *index, i int, s *Sight) {
	if s.Token > 0 {
		l.show(x, i, s.Token, s.Owner, s.Held)
		l.sights[len(l.sights)-1].seen = s
	}
}

// show adds a sighting and returns its grant.
func (l *lock) show(x *index, i int, token int64, owner string, held bool) *grant {
	o := &x.ops[i]
	g := l.byToken[token]
	if g == nil {
		g = &grant{lock: l, token: token, firstSeen: i, exists: o.To, askedBy: -1, cut: never, cutBy: -1, released: never, releasedBy: -1, endBy: -1}
		l.byToken[token] = g
		l.grants = append(l.grants, g)
	}
	if o.To < g.exists {
		g.firstSeen, g.exists = i, o.To
	}
	if g.owner.clientID == "" && held {
		g.owner.clientID = owner
	}
	l.sights = append(l.sights, sighting{op: i, grant: g, owner: owner, held: held})
	return g
}

// finish works out what depends on the whole history.
func (l *lock) finish(x *index) {
	slices.SortFunc(l.grants, func(a, b *grant) int { return cmp.Compare(a.token, b.token) })
	for _, g := range l.grants {
		if g.known {
			who := l.asks[g.owner]
			who.won = append(who.won, g)
		}
	}
	next := never
	for _, g := range slices.Backward(l.grants) {
		g.next = next
		next = min(next, g.exists)
	}
	for _, i := range l.renews {
		o := &x.ops[i]
		// One that was refused may have been made before, and its answer have been lost.
		if g := l.byToken[o.Token]; g != nil && o.Outcome != OK && o.Outcome != Failed {
			g.maybe = true
		}
	}
	for _, i := range l.releases {
		l.finishRelease(x, i)
	}
	for _, i := range l.withdraws {
		o := &x.ops[i]
		if a := l.asks[identity{o.ClientID, o.RequestID}]; a != nil && o.hasEffect() {
			a.cancel = x.earlier(a.cancel, i)
		}
	}
	for who, a := range l.asks {
		a.finish(x, who)
	}
	for _, g := range l.grants {
		g.finish(x)
	}
}

// finish works out the guaranteed end.
func (g *grant) finish(x *index) {
	for _, i := range g.extensions {
		if end := g.guaranteed(x, i); g.endBy < 0 || end > g.end {
			g.end, g.endBy = end, i
		}
	}
}

func (l *lock) finishRelease(x *index, i int) {
	o := &x.ops[i]
	g := l.byToken[o.Token]
	if g == nil || !o.hasEffect() {
		return
	}
	g.endAt(o.From, i)
	if o.Outcome == OK && o.To < g.released {
		g.released, g.releasedBy = o.To, i
	}
}

func (g *grant) endAt(t time.Duration, by int) {
	if t < g.cut {
		g.cut, g.cutBy = t, by
	}
}

// asks are those of the grant's identity, nil if it is not known.
func (g *grant) asks() *asks { return g.lock.asks[g.owner] }

// guaranteed is until when an extension lets its grant stand for certain, if
// nobody ends it: as long as its answer promised, and for its TTL since it was
// asked for. Of an identity that asked more than once nobody knows which call the
// TTL was counted from.
func (g *grant) guaranteed(x *index, i int) time.Duration {
	o := &x.ops[i]
	end := o.From
	if o.Expires != 0 {
		end = o.Expires - o.measured()/drift
	}
	if o.Call == Renew || len(g.lock.asks[identity{o.ClientID, o.RequestID}].ops) == 1 {
		end = max(end, o.From+atLeast(o.TTL))
	}
	return min(end, g.cut)
}

// measured is how long another clock than the caller's has counted what was left of
// a grant when the answer told it, at most.
func (o *Op) measured() time.Duration {
	if o.TTL == 0 {
		return max(0, o.Expires-o.From)
	}
	return max(o.TTL, o.Expires-o.To)
}

// over is when a grant was over for certain as far as an operation knows that may
// have granted or prolonged it, never if that cannot be told.
func (x *index) over(i int) time.Duration {
	o := &x.ops[i]
	lasts := max(o.TTL, o.Expires-o.From)
	if o.TTL == 0 && o.Expires == 0 {
		return never // the cluster's default
	}
	return x.service.after(o.To+x.echo(o), atMost(lasts)+x.bounds.Late)
}

// echo is for how long after its answer an operation may still prolong a grant. A
// call that was answered in a moment may have had an attempt before that, which
// hangs somewhere on its way: how long a call took says nothing about that. One
// with a RequestID does not prolong what it has won.
func (x *index) echo(o *Op) time.Duration {
	if o.RequestID != "" {
		return 0
	}
	return x.bounds.Echo
}

// bounded reports whether all that may have granted or prolonged it is known.
func (g *grant) bounded() bool { return g.known && !g.maybe && len(g.extensions) > 0 }

// mayLast is when a grant was over for certain, released or expired.
func (g *grant) mayLast(x *index) time.Duration {
	end := never
	if g.bounded() {
		end = g.asks().mayProlong(x, g.next)
		for _, i := range g.extensions {
			end = max(end, x.over(i))
		}
	}
	return min(end, g.released)
}

// Guarantees tells for each operation until when it lets a grant stand for
// certain, as the rules count it: what its answer promised, less what clocks may
// disagree about, and not beyond the call of what may have ended the grant. It is
// zero for what neither grants nor prolongs. O(n log n).
func (h *History) Guarantees() []time.Duration {
	ends := make([]time.Duration, len(h.Ops))
	x := newIndex(h.Ops, Bounds{}.withDefaults())
	for _, l := range x.locks {
		for _, g := range l.grants {
			for _, i := range g.extensions {
				ends[i] = g.guaranteed(x, i)
			}
		}
	}
	return ends
}

package history

import (
	"cmp"
	"slices"
)

// checkLosses holds that what was guaranteed is not taken away: until the
// guaranteed end the holder's renewals and releases are not refused as those of a
// grant that is over, and nobody sees the lock free. That another has it instead
// is a matter of mutual exclusion.
func (l *lock) checkLosses(x *index) {
	for _, list := range [][]int{l.renews, l.releases} {
		for _, i := range list {
			l.checkRefusal(x, i)
		}
	}
	for _, s := range l.sights {
		o := &x.ops[s.op]
		own := o.Call != Look && o.Token == s.grant.token && o.ClientID == s.grant.owner.clientID
		if !s.held && !own && o.From >= s.grant.exists {
			l.checkLoss(x, s.grant, s.op, "was free")
		}
	}
	l.checkNotFound(x)
}

// checkRefusal is about a renewal or a release that its own grant should have
// allowed.
func (l *lock) checkRefusal(x *index, i int) {
	o := &x.ops[i]
	g := l.byToken[o.Token]
	known := g != nil && o.Outcome == Refused && g.owner.clientID == o.ClientID && o.From >= g.exists
	if known && slices.Contains([]string{"LOCK_NOT_HELD", "NOT_LOCK_OWNER", "VERSION_MISMATCH", "LOCK_NOT_FOUND"}, o.Code) {
		l.checkLoss(x, g, i, "was over")
	}
}

// checkLoss is about an answer that says a grant is over.
func (l *lock) checkLoss(x *index, g *grant, op int, what string) {
	end, by := g.end, g.endBy
	if by < 0 {
		return
	}
	x.report.compared(NotEarly)
	if x.ops[op].To < end {
		x.broken(NotEarly, by, op, "lock %q was guaranteed under token %d until %v, and %s by %v",
			l.name, g.token, round(end), what, round(x.ops[op].To))
	}
}

// checkNotFound is about looks that do not find a lock which somebody has.
func (l *lock) checkNotFound(x *index) {
	known := slices.Clone(l.grants)
	slices.SortStableFunc(known, func(a, b *grant) int { return cmp.Compare(a.exists, b.exists) })
	looks := slices.Clone(l.lookedFor)
	slices.SortStableFunc(looks, func(a, b int) int { return cmp.Compare(x.ops[a].From, x.ops[b].From) })
	var longest *grant
	next := 0
	for _, i := range looks {
		for ; next < len(known) && known[next].exists <= x.ops[i].From; next++ {
			if g := known[next]; g.endBy >= 0 && (longest == nil || g.end > longest.end) {
				longest = g
			}
		}
		if longest != nil {
			l.checkLoss(x, longest, i, "was not there")
		}
	}
}

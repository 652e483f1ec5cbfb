package history

import (
	"cmp"
	"slices"
	"time"
)

// checkExpiry holds that what has passed is over: nothing shows a grant as held
// when the TTL of everything that may have prolonged it, and Bounds.Late, have
// passed while the cluster was seen to serve. A grant of which some renewal has
// no answer may have been prolonged at any time.
func (l *lock) checkExpiry(x *index) {
	held := map[*grant][]int{}
	for _, s := range l.sights {
		if s.held && s.grant.bounded() {
			held[s.grant] = append(held[s.grant], s.op)
		}
	}
	for _, g := range l.grants {
		g.checkExpiry(x, held[g])
	}
}

// checkExpiry is about the answers that show one grant as held. Extensions that
// began with one of them, or that are it, could have prolonged the grant only if
// it was there: the earlier ones decide.
func (g *grant) checkExpiry(x *index, shown []int) {
	byFrom := func(a, b int) int { return cmp.Compare(x.ops[a].From, x.ops[b].From) }
	slices.SortStableFunc(shown, byFrom)
	extensions := slices.Clone(g.extensions)
	slices.SortStableFunc(extensions, byFrom)
	var over time.Duration
	by, next := -1, 0
	for _, i := range shown {
		for ; next < len(extensions) && x.ops[extensions[next]].From < x.ops[i].From; next++ {
			if t := x.over(extensions[next]); by < 0 || t > over {
				over, by = t, extensions[next]
			}
		}
		if by < 0 {
			continue
		}
		x.report.compared(Expiry)
		over := max(over, g.asks().mayProlong(x, x.ops[i].From))
		if x.ops[i].From > over {
			x.broken(Expiry, by, i, "the first ends by %v at the latest, and lock %q was still held under token %d",
				round(over), g.lock.name, g.token)
		}
	}
}

package history

import (
	"cmp"
	"slices"
	"time"
)

// checkExclusion holds that nobody is granted a lock while another certainly has
// it. A grant is guaranteed from the call that granted or prolonged it to the end
// that was promised, or to the call of a release. Another one with a greater
// token, whose existence is known before that end, began within that time: tokens
// grow, so it did not begin before. What was prolonged after the other was known
// is a stale token's renewal, another rule.
//
// Two such grants of one RequestID break the rule about those instead.
func (l *lock) checkExclusion(x *index) {
	type event struct {
		at    time.Duration
		rank  int
		grant *grant
		op    int // the extension, -1 when the grant becomes known
	}
	var events []event
	for rank, g := range l.grants {
		events = append(events, event{g.exists, rank, g, -1})
		for _, i := range g.extensions {
			events = append(events, event{x.ops[i].From, rank, g, i})
		}
	}
	slices.SortStableFunc(events, func(a, b event) int {
		if c := cmp.Compare(a.at, b.at); c != 0 {
			return c
		}
		return cmp.Compare(b.op, a.op) // extensions first
	})
	ends := newPrefixMax(len(l.grants))
	for _, e := range events {
		if e.op >= 0 {
			ends.raise(e.rank, e.grant.guaranteed(x, e.op), e.op)
			continue
		}
		end, op := ends.below(e.rank)
		if op < 0 {
			continue
		}
		x.report.compared(MutualExclusion)
		first := &x.ops[op]
		same := first.RequestID != "" && e.grant.known && e.grant.owner == identity{first.ClientID, first.RequestID}
		switch {
		case end <= e.at:
		case same:
			x.broken(OneToken, op, e.grant.firstSeen,
				"a RequestID wins one grant, and has token %d beside token %d", e.grant.token, first.Token)
		default:
			x.broken(MutualExclusion, op, e.grant.firstSeen,
				"the first has lock %q under token %d until %v at least, and token %d was granted by %v",
				l.name, first.Token, round(end), e.grant.token, round(e.at))
		}
	}
}

// prefixMax is a Fenwick tree: a value for each rank, and the greatest of those
// below a rank.
type prefixMax struct {
	values []time.Duration
	ops    []int // whose value it is, -1 for none
}

func newPrefixMax(n int) *prefixMax {
	p := &prefixMax{values: make([]time.Duration, n+1), ops: make([]int, n+1)}
	for i := range p.ops {
		p.ops[i] = -1
	}
	return p
}

// raise lets a rank have at least this value.
func (p *prefixMax) raise(rank int, value time.Duration, op int) {
	for i := rank + 1; i < len(p.values); i += i & -i {
		if p.ops[i] < 0 || value > p.values[i] {
			p.values[i], p.ops[i] = value, op
		}
	}
}

// below returns the greatest value of the ranks below this one, and whose it is.
func (p *prefixMax) below(rank int) (value time.Duration, op int) {
	op = -1
	for i := rank; i > 0; i -= i & -i {
		if p.ops[i] >= 0 && (op < 0 || p.values[i] > value) {
			value, op = p.values[i], p.ops[i]
		}
	}
	return value, op
}

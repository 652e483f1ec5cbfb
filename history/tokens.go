package history

import (
	"cmp"
	"slices"
)

// checkUniqueTokens holds that a token belongs to one grant: of one lock, to one
// ClientID, by one RequestID.
func (x *index) checkUniqueTokens() {
	first := map[int64]sighting{}
	told := map[int64]sighting{} // the first Acquire of it: it tells the RequestID
	for _, l := range x.locks {
		for _, s := range l.sights {
			token := s.grant.token
			f, ok := first[token]
			if ok {
				x.report.compared(UniqueTokens)
				x.checkSameGrant(f, s)
			}
			if !ok || f.owner == "" && f.grant == s.grant {
				first[token] = s
			}
			if o := &x.ops[s.op]; o.Call != Acquire || o.Outcome != OK {
				continue
			}
			if t, ok := told[token]; ok {
				x.checkSameRequest(t, s)
			} else {
				told[token] = s
			}
		}
	}
}

func (x *index) checkSameGrant(a, b sighting) {
	sameOwner := a.owner == "" || b.owner == "" || a.owner == b.owner
	if a.grant != b.grant || !sameOwner {
		x.broken(UniqueTokens, a.op, b.op, "token %d belongs to %q of lock %q and to %q of lock %q",
			a.grant.token, a.owner, a.grant.lock.name, b.owner, b.grant.lock.name)
	}
}

func (x *index) checkSameRequest(a, b sighting) {
	one, other := &x.ops[a.op], &x.ops[b.op]
	if a.grant == b.grant && one.ClientID == other.ClientID && one.RequestID != other.RequestID {
		x.broken(UniqueTokens, a.op, b.op, "token %d is that of request %q and of request %q",
			a.grant.token, one.RequestID, other.RequestID)
	}
}

// checkOrderOfTokens holds that the token of one lock does not go back: what was
// seen before a call began is not younger than what the call shows. Who shows it
// says which rule is broken. An old token that is acquired again breaks that of
// growing tokens, one that is renewed that of stale tokens, one that is looked at
// that of stale reads.
func (l *lock) checkOrderOfTokens(x *index) {
	byFrom := slices.Clone(l.sights)
	slices.SortStableFunc(byFrom, func(a, b sighting) int { return cmp.Compare(x.ops[a.op].From, x.ops[b.op].From) })
	byTo := slices.Clone(l.sights)
	slices.SortStableFunc(byTo, func(a, b sighting) int { return cmp.Compare(x.ops[a.op].To, x.ops[b.op].To) })
	var youngest *sighting
	for next := 0; len(byFrom) > 0; byFrom = byFrom[1:] {
		s := &byFrom[0]
		for next < len(byTo) && x.ops[byTo[next].op].To < x.ops[s.op].From {
			if youngest == nil || byTo[next].grant.token > youngest.grant.token {
				youngest = &byTo[next]
			}
			next++
		}
		if youngest == nil {
			continue
		}
		rule := ruleOfSight(&x.ops[s.op], GrowingTokens)
		x.report.compared(rule)
		if s.grant.token < youngest.grant.token {
			x.broken(rule, youngest.op, s.op, "lock %q had token %d by then, and not token %d any more",
				l.name, youngest.grant.token, s.grant.token)
		}
	}
}

// ruleOfSight is the rule that an answer breaks which shows what is over.
func ruleOfSight(o *Op, ofAcquire Rule) Rule {
	switch {
	case o.Outcome == OK && o.Call == Acquire:
		return ofAcquire
	case o.Outcome == OK && (o.Call == Renew || o.Call == Release):
		return NoStaleToken
	}
	return NoStaleRead
}

// checkReleased holds that nothing shows a grant which had been released before
// it was called.
func (l *lock) checkReleased(x *index) {
	for _, s := range l.sights {
		o := &x.ops[s.op]
		if !s.held || o.From <= s.grant.released {
			continue
		}
		x.broken(ruleOfSight(o, UniqueTokens), s.grant.releasedBy, s.op,
			"token %d of lock %q was given back by %v", s.grant.token, l.name, round(s.grant.released))
	}
}

// checkWrites holds that the resource takes no write under a smaller token than
// one whose write it had taken before.
func (l *lock) checkWrites(x *index) {
	var byFrom []int
	for _, i := range l.writes {
		if x.ops[i].Outcome == OK {
			byFrom = append(byFrom, i)
		}
	}
	byTo := slices.Clone(byFrom)
	slices.SortStableFunc(byFrom, func(a, b int) int { return cmp.Compare(x.ops[a].From, x.ops[b].From) })
	slices.SortStableFunc(byTo, func(a, b int) int { return cmp.Compare(x.ops[a].To, x.ops[b].To) })
	greatest := -1
	next := 0
	for _, i := range byFrom {
		for ; next < len(byTo) && x.ops[byTo[next]].To < x.ops[i].From; next++ {
			if greatest < 0 || x.ops[byTo[next]].Token > x.ops[greatest].Token {
				greatest = byTo[next]
			}
		}
		if greatest < 0 {
			continue
		}
		x.report.compared(NoStaleToken)
		if x.ops[i].Token < x.ops[greatest].Token {
			x.broken(NoStaleToken, greatest, i, "what lock %q protects took a write under token %d after one under token %d",
				l.name, x.ops[i].Token, x.ops[greatest].Token)
		}
	}
}

// checkGrowingTokens holds that tokens grow over all locks: a grant that was
// called for when another one was known has the greater token. Within one lock
// checkOrderOfTokens says more.
func (x *index) checkGrowingTokens() {
	var born, known []*grant
	for _, l := range x.locks {
		for _, g := range l.grants {
			known = append(known, g)
			if g.known {
				born = append(born, g)
			}
		}
	}
	slices.SortStableFunc(known, func(a, b *grant) int { return cmp.Compare(a.exists, b.exists) })
	slices.SortStableFunc(born, func(a, b *grant) int { return cmp.Compare(a.bornAfter, b.bornAfter) })
	var greatest, second *grant // second is the greatest of another lock
	next := 0
	for _, g := range born {
		for ; next < len(known) && known[next].exists < g.bornAfter; next++ {
			greatest, second = rank(greatest, second, known[next])
		}
		other := greatest
		if other != nil && other.lock == g.lock {
			other = second
		}
		if other == nil {
			continue
		}
		x.report.compared(GrowingTokens)
		if g.token < other.token {
			x.broken(GrowingTokens, other.firstSeen, g.firstSeen, "token %d was known by %v, and token %d was asked for after that",
				other.token, round(other.exists), g.token)
		}
	}
}

func rank(greatest, second, g *grant) (*grant, *grant) {
	switch {
	case greatest == nil:
		return g, nil
	case g.lock == greatest.lock:
		if g.token > greatest.token {
			greatest = g
		}
		return greatest, second
	case g.token > greatest.token:
		return g, greatest
	case second == nil || g.token > second.token:
		return greatest, g
	}
	return greatest, second
}

// checkAsked holds that nothing shows a grant before its owner has asked for it,
// with whichever of the calls of its identity.
func (x *index) checkAsked() {
	for _, l := range x.locks {
		for _, g := range l.grants {
			if g.askedBy < 0 {
				continue
			}
			x.report.compared(NotUnasked)
			if g.exists < g.bornAfter {
				x.broken(NotUnasked, g.firstSeen, g.askedBy, "token %d of lock %q was known by %v, and asked for after that",
					g.token, l.name, round(g.exists))
			}
		}
	}
}

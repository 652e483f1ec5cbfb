package main

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/raftlock/raftlock/history"
)

// lockState is a lock as far as operations in some order have shown it. What ends
// without an answer is not guessed in advance: a grant ends when an operation that
// is to be explained needs it to have ended, and not before its guaranteed end.
// That can be at any time after that, because time without a leader is added to
// what a holder has. So there is one state, where a table that forks at each
// possible end would have many.
type lockState struct {
	token int64 // of the present grant, or of the last one
	owner string
	held  bool
	// end is when the grant can end by itself at the earliest.
	end time.Duration
	// now is an instant that has come for certain: something had to end first.
	now time.Duration

	// shown is how many of the deeds that name a token are done, need how many
	// must be before the present grant can end: those of tokens up to it that need
	// it held. sights are those that show the lock as it is now.
	shown, need, sights int
}

// deed is what an operation does to one lock, or shows of it.
type deed struct {
	op     *history.Op
	number int // in the history, from 1
	// sight is what its answer shows; nil if it is the operation itself that
	// counts.
	sight *history.Sight
	end   time.Duration // see History.Guarantees
	// unasked says that nobody had asked for the token yet when it was shown.
	unasked bool

	// Tokens do not go back. So the deeds that need a smaller one come first, and
	// of those with the same one those that need it held. To hold the search to
	// that keeps it from trying everything that happens at the same time.
	before int // how many deeds need a smaller token
	held   int // how many need this one held
	rank   int // of a sight: how many that show the same were called earlier
}

// token is the one that a deed names, zero for none.
func (d *deed) token() int64 {
	switch {
	case d.sight != nil:
		return d.sight.Token
	case d.op.Call == history.Look || d.op.Outcome == history.Refused:
		return 0
	}
	return d.op.Token
}

// needs reports whether a deed needs its token to be the present one, and whether
// held. A release does not: the grant may be over by itself, and another there.
func (d *deed) needs() (present, held bool) {
	if d.sight != nil {
		return true, d.sight.Held
	}
	present = d.token() != 0 && d.op.Call != history.Release
	return present, present
}

// deedsOf sorts a history by locks. Operations of unknown outcome are none: that
// they may have ended a grant is in the guarantees, and a grant that nobody was
// told of shows by its token, as one of a client that was not recorded does. Each
// would otherwise overlap with all that follows, and the search would not end.
func deedsOf(h *history.History) map[string][]deed {
	ends, asked := h.Guarantees(), askedFor(h)
	deeds := map[string][]deed{}
	for i := range h.Ops {
		op := &h.Ops[i]
		if op.Outcome != history.OK && op.Outcome != history.Refused {
			continue
		}
		shown := false
		for j := range op.Seen {
			if s := &op.Seen[j]; s.Token > 0 {
				deeds[s.Lock] = append(deeds[s.Lock], deed{op: op, number: i + 1, sight: s, unasked: op.To < asked[tokenOf{s.Lock, s.Token}]})
				shown = true
			}
		}
		if !shown && op.Lock != "" && speaks(op) {
			deeds[op.Lock] = append(deeds[op.Lock], deed{op: op, number: i + 1, end: ends[i], unasked: op.To < asked[tokenOf{op.Lock, op.Token}]})
		}
	}
	for _, list := range deeds {
		rank(list)
	}
	return deeds
}

// tokenOf is a token of a lock.
type tokenOf struct {
	lock  string
	token int64
}

// askedFor tells when each token that an Acquire was answered with was asked for:
// not before the first call of its identity, whichever of them it was that won it.
func askedFor(h *history.History) map[tokenOf]time.Duration {
	type identity struct{ lock, clientID, requestID string }
	first := map[identity]time.Duration{}
	for i := range h.Ops {
		op := &h.Ops[i]
		if op.Call != history.Acquire && op.Call != history.Enqueue {
			continue
		}
		who := identity{op.Lock, op.ClientID, op.RequestID}
		if at, ok := first[who]; !ok || op.From < at {
			first[who] = op.From
		}
	}
	asked := map[tokenOf]time.Duration{}
	for i := range h.Ops {
		if op := &h.Ops[i]; op.Call == history.Acquire && op.Outcome == history.OK {
			asked[tokenOf{op.Lock, op.Token}] = first[identity{op.Lock, op.ClientID, op.RequestID}]
		}
	}
	return asked
}

// rank sorts the deeds of a lock by their calls and fills in what comes before
// each. Two sights of the same change nothing, so that it loses no order to have
// the one first that was called first.
func rank(deeds []deed) {
	slices.SortStableFunc(deeds, func(a, b deed) int { return cmp.Compare(a.op.From, b.op.From) })
	type kind struct {
		token int64
		held  bool
	}
	present, held, sights := map[int64]int{}, map[int64]int{}, map[kind]int{}
	for i := range deeds {
		d := &deeds[i]
		token := d.token()
		needsPresent, needsHeld := d.needs()
		if needsPresent {
			present[token]++
		}
		if needsHeld {
			held[token]++
		}
		if d.sight != nil {
			k := kind{token, needsHeld}
			d.rank = sights[k]
			sights[k]++
		}
	}
	sum, before := 0, map[int64]int{}
	var tokens []int64
	for i := range deeds {
		tokens = append(tokens, deeds[i].token())
	}
	slices.Sort(tokens)
	for _, token := range slices.Compact(tokens) {
		before[token] = sum
		sum += present[token]
	}
	for i := range deeds {
		token := deeds[i].token()
		deeds[i].before, deeds[i].held = before[token], held[token]
	}
}

// speaks reports whether an operation that shows nothing says something by its
// outcome.
func speaks(op *history.Op) bool {
	switch op.Call {
	case history.Renew, history.Release:
		return true
	case history.Acquire:
		return op.Outcome == history.OK
	case history.Look:
		return op.Outcome == history.Refused // there is no such lock
	case history.Enqueue, history.Cancel, history.Write:
	}
	return false
}

// model is a lock as porcupine wants it. Nothing can be done any more when ctx has
// ended, or after so many steps: porcupine knows no other way to be told, and then
// takes back what it has tried, without trying more. stopped reports that, and is
// not to be asked while porcupine is at work.
func model(ctx context.Context, from lockState, steps int64) (m porcupine.Model, stopped func() bool) {
	return porcupine.Model{
		Init: func() any { return from },
		Step: func(state, input, _ any) (bool, any) {
			if steps <= 0 || ctx.Err() != nil {
				return false, state
			}
			next, ok := state.(lockState).after(input.(deed))
			if ok {
				steps--
			}
			return ok, next
		},
	}, func() bool { return steps <= 0 }
}

// after is the state when a deed was done, and whether it could be.
func (l lockState) after(d deed) (lockState, bool) {
	op := d.op
	switch {
	case op.To < l.now || d.unasked:
		return l, false
	case d.sight != nil:
		return l.see(d)
	case op.Call == history.Look:
		return l.over(op.To)
	case op.Outcome == history.Refused:
		if l.token == op.Token && l.owner == op.ClientID {
			return l.over(op.To)
		}
		return l, true
	case op.Call == history.Release:
		return l.release(d)
	}
	return l.hold(d, op.ClientID)
}

// over lets the present grant end by an instant, if there is one.
func (l lockState) over(by time.Duration) (lockState, bool) {
	if !l.held {
		return l, true
	}
	if by < l.end || l.shown < l.need {
		return l, false
	}
	l.now, l.held, l.sights = max(l.now, l.end), false, 0
	return l, true
}

// see is what an answer shows of the lock.
func (l lockState) see(d deed) (lockState, bool) {
	var ok bool
	if d.sight.Held {
		l, ok = l.hold(d, d.sight.Owner)
	} else {
		l, ok = l.free(d)
		l.shown++
	}
	if !ok || l.sights != d.rank {
		return l, false
	}
	l.sights++
	return l, true
}

// hold is what shows that an owner has the lock. A token that is greater than all
// before is another grant, whoever was told of it.
func (l lockState) hold(d deed, owner string) (lockState, bool) {
	if token := d.token(); token != l.token || !l.held {
		next, ok := l.over(d.op.To)
		if !ok || token <= l.token || next.shown != d.before {
			return l, false
		}
		l = next
		l.token, l.owner, l.held, l.end = token, owner, true, 0
		l.need, l.sights = d.before+d.held, 0
	}
	if l.owner == "" {
		l.owner = owner
	}
	if owner != "" && owner != l.owner {
		return l, false
	}
	l.end = max(l.end, d.end)
	l.shown++
	return l, true
}

// free is what shows that nobody has the lock, and whose token was the last.
func (l lockState) free(d deed) (lockState, bool) {
	next, ok := l.over(d.op.To)
	token := d.token()
	if !ok || token < l.token {
		return l, false
	}
	if token > l.token {
		if next.shown != d.before || d.held > 0 {
			return l, false
		}
		next.token, next.owner, next.sights = token, "", 0
	}
	return next, true
}

// release ends a grant. One that is over already may be given back again.
func (l lockState) release(d deed) (lockState, bool) {
	switch {
	case d.op.Token > l.token:
		return l.free(d)
	case d.op.Token < l.token || !l.held:
		return l, true
	case l.shown < l.need:
		return l, false
	}
	l.held, l.sights = false, 0
	return l, true
}

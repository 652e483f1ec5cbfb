package main

import "time"

// piece is a part of what is known of one lock. All that comes before it in the
// history had been answered when the first of it was called, and left the lock in
// one certain state, in whatever order it was done: so each piece can be explained
// alone. The search for an order takes memory by the square of what it looks at.
type piece struct {
	from  lockState
	deeds []deed
}

// leastPiece is how many deeds a piece has at least, but for the last one: enough
// for the search not to be started too often.
const leastPiece = 256

// cut cuts deeds that are sorted by their calls.
func cut(deeds []deed, least int) (pieces []piece) {
	var sum summary
	var from lockState
	var until time.Duration // when all before was answered
	start := 0
	for i := range deeds {
		d := &deeds[i]
		if i-start >= least && until < d.op.From {
			if state, certain := sum.state(); certain {
				pieces = append(pieces, piece{from, deeds[start:i]})
				from, start = state, i
			}
		}
		sum.add(d)
		until = max(until, d.op.To)
	}
	return append(pieces, piece{from, deeds[start:]})
}

// summary is what deeds say together about the lock as they leave it.
type summary struct {
	last  *deed // one that names the greatest token
	shown int   // as in lockState
	owner string
	end   time.Duration

	held, free int  // how many of the last token need it held, or show it as free
	sights     int  // how many of the former are sights
	freed      bool // it is over for certain
}

func (s *summary) add(d *deed) {
	token := d.token()
	present, held := d.needs()
	if present {
		s.shown++
	}
	if token == 0 || s.last != nil && token < s.last.token() {
		return
	}
	if s.last == nil || token > s.last.token() {
		*s = summary{last: d, shown: s.shown}
	}
	switch {
	case held:
		s.held++
		owner := d.op.ClientID
		if d.sight != nil {
			s.sights++
			owner = d.sight.Owner
		}
		if s.owner == "" {
			s.owner = owner
		}
		s.end = max(s.end, d.end)
	case d.sight != nil:
		s.free++
		s.freed = true
	default:
		s.freed = true // by a release
	}
}

// state is the one that every order of the deeds leaves the lock in, if that is
// certain. A grant that is shown as held later on has not ended yet: lockState.over
// would not let it. Otherwise one that was given back, or shown as free, has. What
// may have ended it by itself, or not, is not certain. That something had to end
// first is no matter any more: all instants up to here are over.
func (s *summary) state() (state lockState, certain bool) {
	switch {
	case s.last == nil:
		return lockState{}, true
	case 0 < s.held && s.held < s.last.held:
		return lockState{
			token: s.last.token(), owner: s.owner, held: true, end: s.end,
			shown: s.shown, need: s.last.before + s.last.held, sights: s.sights,
		}, true
	case s.freed && s.held == s.last.held:
		return lockState{token: s.last.token(), shown: s.shown, sights: s.free}, true
	}
	return lockState{}, false
}

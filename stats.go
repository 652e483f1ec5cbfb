package raftlock

import "time"

// statsWindow is the span over which rates and averages are told.
const statsWindow = 60 // seconds

// stats counts what happened to grants in the last minute, for GetStatus. Every
// member counts as it applies, by cluster time, so that what it reads back at a
// start counts as old as it is. Nothing depends on it, and its memory is fixed.
type stats struct {
	seconds [statsWindow]tally // of the second that each stands for, see at
	at      [statsWindow]int64
	begun   logTime // of the first entry that was counted
	counts  bool    // there was one
}

// tally is what became of grants.
type tally struct {
	granted, ended, expired int
	held                    time.Duration // by those that ended, together
}

func (t *tally) add(more tally) {
	t.granted += more.granted
	t.ended += more.ended
	t.expired += more.expired
	t.held += more.held
}

// note counts an entry with the stamp at. Only the first entries of a member
// can be noted late, and only among each other, so that a slot is never older
// than what it is to count.
func (s *stats) note(at logTime, t tally) {
	if !s.counts {
		s.begun, s.counts = at, true
	}
	if t == (tally{}) {
		return
	}
	second := int64(at) / int64(time.Second)
	slot := second % statsWindow
	if s.at[slot] != second {
		s.seconds[slot], s.at[slot] = tally{}, second
	}
	s.seconds[slot].add(t)
}

// last is the sum of the minute that ends at now, and how long that is: less
// than a minute for a member that has not counted for that long.
func (s *stats) last(now logTime) (sum tally, over time.Duration) {
	second := int64(now) / int64(time.Second)
	first := second - statsWindow + 1
	for i, at := range s.at {
		if at >= first && at <= second {
			sum.add(s.seconds[i])
		}
	}
	begun := max(s.begun, logTime(first*int64(time.Second)))
	return sum, max(time.Second, time.Duration(now-begun))
}

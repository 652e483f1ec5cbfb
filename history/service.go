package history

import (
	"cmp"
	"slices"
	"sort"
	"time"
)

// never is an instant behind all others.
const never = time.Duration(1<<63 - 1)

// service is the time in which the cluster is seen to serve. What ends late is
// measured by it: time without a leader is added to what a holder has, and a
// history does not show such time otherwise than by answers that are missing. And
// reads need no majority whose disks write, as the end of a grant does: what is late
// for certain is what a later change of anything has overtaken.
type service struct {
	from, to []time.Duration // spans, in order and apart
	before   []time.Duration // the length of all earlier ones

	began, made  []time.Duration // when changes began, in order; the first that is made of those from here on
	ended, since []time.Duration // when changes were made, in order; the last beginning of those up to here
}

// serviceIn finds the spans between answers that follow each other quickly.
func serviceIn(ops []Op, quick time.Duration) *service {
	var signs, changes []*Op
	for i := range ops {
		o := &ops[i]
		if o.Outcome == OK && o.Call != Write && o.Call != Look {
			changes = append(changes, o)
		}
		if (o.Outcome == OK || o.Outcome == Refused) && o.Call != Write && o.To-o.From <= quick {
			signs = append(signs, o)
		}
	}
	slices.SortFunc(signs, func(a, b *Op) int { return cmp.Compare(a.From, b.From) })
	s := &service{}
	s.index(changes)
	for i := 1; i < len(signs); i++ {
		from, to := signs[i-1].From, signs[i].To
		if to-from > quick {
			continue
		}
		if last := len(s.to) - 1; last >= 0 && from <= s.to[last] {
			s.to[last] = max(s.to[last], to)
			continue
		}
		s.from, s.to = append(s.from, from), append(s.to, to)
	}
	var sum time.Duration
	for i := range s.from {
		s.before = append(s.before, sum)
		sum += s.to[i] - s.from[i]
	}
	return s
}

// index prepares the changes for after and between.
func (s *service) index(changes []*Op) {
	slices.SortFunc(changes, func(a, b *Op) int { return cmp.Compare(a.From, b.From) })
	for _, o := range changes {
		s.began, s.made = append(s.began, o.From), append(s.made, o.To)
	}
	for i := len(s.made) - 2; i >= 0; i-- {
		s.made[i] = min(s.made[i], s.made[i+1])
	}
	slices.SortFunc(changes, func(a, b *Op) int { return cmp.Compare(a.To, b.To) })
	for i, o := range changes {
		s.ended, s.since = append(s.ended, o.To), append(s.since, o.From)
		if i > 0 {
			s.since[i] = max(s.since[i], s.since[i-1])
		}
	}
}

// until is how much of the time until t was served.
func (s *service) until(t time.Duration) time.Duration {
	i, found := slices.BinarySearch(s.from, t)
	if !found {
		i-- // the span that begins before t
	}
	if i < 0 {
		return 0
	}
	return s.before[i] + min(t, s.to[i]) - s.from[i]
}

// between is how much of the time between two instants was served for certain: up to
// the beginning of a change that was made by then.
func (s *service) between(a, b time.Duration) time.Duration {
	i := sort.Search(len(s.ended), func(i int) bool { return s.ended[i] > b })
	if i == 0 {
		return 0
	}
	return max(0, s.until(min(b, s.since[i-1]))-s.until(a))
}

// after is the first instant by which a change was made that began when d was served
// since t, never if none was.
func (s *service) after(t, d time.Duration) time.Duration {
	i, _ := slices.BinarySearch(s.began, s.served(t, d))
	if i == len(s.began) {
		return never
	}
	return s.made[i]
}

// served is the first instant at which d was served since t, never if it was not.
func (s *service) served(t, d time.Duration) time.Duration {
	if d <= 0 {
		return t
	}
	want := s.until(t) + d
	i, _ := slices.BinarySearch(s.before, want) // the span before i reaches it, or none
	if i--; i < 0 {
		return never
	}
	if end := s.from[i] + want - s.before[i]; end <= s.to[i] {
		return end
	}
	return never
}

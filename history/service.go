package history

import (
	"cmp"
	"slices"
	"time"
)

// never is an instant behind all others.
const never = time.Duration(1<<63 - 1)

// service is the time in which the cluster is seen to serve. What ends late is
// measured by it: time without a leader is added to what a holder has, and a
// history does not show such time otherwise than by answers that are missing.
type service struct {
	from, to []time.Duration // spans, in order and apart
	before   []time.Duration // the length of all earlier ones
}

// serviceIn finds the spans between answers that follow each other quickly.
func serviceIn(ops []Op, quick time.Duration) *service {
	var signs []*Op
	for i := range ops {
		o := &ops[i]
		if (o.Outcome == OK || o.Outcome == Refused) && o.Call != Write && o.To-o.From <= quick {
			signs = append(signs, o)
		}
	}
	slices.SortFunc(signs, func(a, b *Op) int { return cmp.Compare(a.From, b.From) })
	s := &service{}
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

// between is how much of the time between two instants was served.
func (s *service) between(a, b time.Duration) time.Duration {
	return max(0, s.until(b)-s.until(a))
}

// after is the first instant at which d was served since t, never if it was not.
func (s *service) after(t, d time.Duration) time.Duration {
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

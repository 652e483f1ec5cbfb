package raftlock

import "math/bits"

// holdTime is how long a lock is usually held, for advice: a quarter of an
// octave is one step, so that a byte beside each lock reaches from a microsecond
// to any number of years, and memory for it is bounded by the locks themselves.
// It is neither hashed nor in snapshots: members may differ in it. 0 is unknown.
type holdTime uint8

// holdTimeOf is the step of a length in microseconds.
func holdTimeOf(us int64) holdTime {
	n := uint64(max(us, 2))
	octave := bits.Len64(n) - 1
	quarter := n << (63 - octave) >> 61 & 3 // the two bits behind the first
	return holdTime(octave<<2 | int(quarter))
}

// span is the length that begins the step.
func (h holdTime) span() span {
	if h == 0 {
		return 0
	}
	us := uint64(4|h&3) << (h >> 2) >> 2
	if h >= 61<<2 {
		us = uint64(never) // 73 000 years; the shift would lose bits
	}
	return span(min(us, uint64(never)/1000) * 1000)
}

// after is what is usual after one more: an average over the last few, of
// steps and not of lengths, so that one long hold does not outweigh them.
func (h holdTime) after(us int64) holdTime {
	now := holdTimeOf(us)
	if h == 0 {
		return now
	}
	return holdTime((3*int(h) + int(now) + 2) / 4)
}

// usualHold is how long a lock was held lately; 0 when that is not known.
func (t *table) usualHold(lock string) span {
	l, _ := t.locks.get(lock)
	return l.usual.span()
}

package clock

import "time"

// Mark is an instant from which a holder counts how long it has held.
type Mark struct {
	at    time.Time
	slept time.Duration // how long the machine had slept by then, from anywhere
}

// Mark returns the present instant.
func (c Clock) Mark() Mark { return Mark{at: c.Now(), slept: c.slept()} }

// Time is the instant as Now told it.
func (m Mark) Time() time.Time { return m.at }

// Since is how long ago a mark was made, the time included that the machine has
// slept since. The monotonic clock of Go stands still in a sleeping machine:
// that is harmless for a member, whose locks then last longer, but a holder that
// relied on it would believe in a lock which the cluster has long given away.
func (c Clock) Since(m Mark) time.Duration {
	return c.Now().Sub(m.at) + c.SleptSince(m)
}

// SleptSince is how much of the time since a mark the machine has slept.
func (c Clock) SleptSince(m Mark) time.Duration {
	if slept := c.slept() - m.slept; slept >= sleepNoise {
		return slept
	}
	return 0
}

// sleepNoise is what two readings of slept differ by at most without a sleep.
// In a synctest bubble, whose time has nothing to do with the machine's, a
// sleep therefore counts as nothing.
const sleepNoise = 5 * time.Millisecond

func (c Clock) slept() time.Duration {
	if c.warp != nil {
		return c.warp.sleptSoFar()
	}
	return machineSlept()
}

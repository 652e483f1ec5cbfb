package history

import "time"

// Bounds are the times that the rules allow. The zero value means the defaults,
// which are those of a cluster with its own defaults; greater ones let the rules
// be silent more often, but for Keeps, which is the other way around.
type Bounds struct {
	// Late is how much later than promised a grant may end, or a waiter be
	// served, while the cluster is seen to serve, and to make changes: 20 ms are
	// promised, and a busy machine adds to that. Default 1 s.
	Late time.Duration

	// Quick is how far apart answers may be for the cluster to count as serving
	// in between. It must be shorter than an election takes: time without a leader
	// is added to what holders have. Default 100 ms.
	Quick time.Duration

	// Keeps is for how long a waiting Acquire keeps its place for certain: a
	// caller that is cut off for longer than 2 s may lose it, and a history does
	// not show who was cut off. Where nothing was, let it be an hour. Its own
	// timeout and TTL bound it too. Default 2 s.
	Keeps time.Duration

	// Echo is for how long an attempt that was given up may still have an effect
	// when another one of the call was answered. What renews, or has no RequestID, may
	// have had several, and can be known to be over only after that. Default 10 s.
	Echo time.Duration
}

func (b Bounds) withDefaults() Bounds {
	set := func(d *time.Duration, otherwise time.Duration) {
		if *d <= 0 {
			*d = otherwise
		}
		*d = min(*d, longest)
	}
	set(&b.Late, time.Second)
	set(&b.Quick, 100*time.Millisecond)
	set(&b.Keeps, 2*time.Second)
	set(&b.Echo, 10*time.Second)
	return b
}

// drift is the share of a time by which clocks may disagree about it: two of 500
// ppm, one going fast and one slow.
const drift = 1000

// atLeast is how long a time lasts that another machine has measured, at least.
func atLeast(d time.Duration) time.Duration { return d - max(d, 0)/drift }

// atMost is how long it lasts at most.
func atMost(d time.Duration) time.Duration { return d + max(d, 0)/drift }

package clock

import (
	"time"

	"golang.org/x/sys/unix"
)

// machineSlept is how long the machine has been suspended since it was started:
// what CLOCK_BOOTTIME has gained on CLOCK_MONOTONIC. The two cannot be read at
// the same instant. A reading between two of the other that are close together
// is off by a millisecond at most.
func machineSlept() time.Duration {
	const close, tries = time.Millisecond, 10
	var slept time.Duration
	for range tries {
		before, ok1 := read(unix.CLOCK_BOOTTIME)
		awake, ok2 := read(unix.CLOCK_MONOTONIC)
		after, ok3 := read(unix.CLOCK_BOOTTIME)
		if !ok1 || !ok2 || !ok3 {
			return 0 // a kernel without it: time asleep cannot be known
		}
		slept = before - awake
		if after-before <= close {
			break
		}
	}
	return slept
}

func read(id int32) (time.Duration, bool) {
	var t unix.Timespec
	if err := unix.ClockGettime(id, &t); err != nil {
		return 0, false
	}
	return time.Duration(t.Nano()), true
}

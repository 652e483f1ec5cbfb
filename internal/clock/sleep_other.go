//go:build !linux

package clock

import "time"

// machineSlept would be how long the machine has been suspended. Here it is not
// known: a holder on a machine that slept is told by its next renewal, and its
// token is refused.
func machineSlept() time.Duration { return 0 }

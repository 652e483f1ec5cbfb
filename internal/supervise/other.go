//go:build !linux

package supervise

import (
	"io"
	"math"
	"os"
)

// Supported says whether Run can work here.
const Supported = false

// Now is never before any end, where there is no clock to share.
func Now() Instant { return math.MaxInt64 }

// Run returns ErrUnsupported.
func Run(Spec) (Result, error) { return Result{}, ErrUnsupported }

func deaf() []os.Signal { return nil }

func watch(_ io.Reader, _, log io.Writer) int {
	complain(log, ErrUnsupported.Error())
	return 1
}

func passGate(_ []string, log io.Writer) int {
	complain(log, ErrUnsupported.Error())
	return 1
}

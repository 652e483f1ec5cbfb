// Package clock is one machine's sense of time: a member has one, a client has
// one. Whatever waits or measures in this module asks it and not package time,
// so that one machine of a test can be given a time of its own: a Warp makes a
// clock that runs too fast or too slow, or stands still for a while.
//
// The zero Clock is package time, virtual time included when it is used within
// a testing/synctest bubble.
package clock

import (
	"context"
	"time"
)

// Clock tells the time and makes timers. Its methods may be called concurrently.
type Clock struct {
	warp *Warp // nil for package time
}

// Of is the clock that something lives by, a client or the disk of a member, so
// that who uses it counts in the same time: what its method Clock returns, and
// package time for what has none, as whatever other modules make.
func Of(c any) Clock {
	if machine, ok := c.(interface{ Clock() Clock }); ok {
		return machine.Clock()
	}
	return Clock{}
}

// Now is the present instant with its monotonic reading.
func (c Clock) Now() time.Time {
	if c.warp != nil {
		return c.warp.now()
	}
	return time.Now()
}

// Await blocks while the clock stands still, at most until done is closed. A
// process that is stopped does nothing: who asks for that waits here.
func (c Clock) Await(done <-chan struct{}) {
	if c.warp != nil {
		c.warp.await(done)
	}
}

// NewTimer returns a timer that fires once after d.
func (c Clock) NewTimer(d time.Duration) Timer {
	if c.warp != nil {
		t := c.warp.newTimer(d, 0, nil)
		return Timer{C: t.c, warped: t}
	}
	t := time.NewTimer(d)
	return Timer{C: t.C, real: t}
}

// NewTicker returns a ticker that fires every d, which must be positive.
func (c Clock) NewTicker(d time.Duration) Ticker {
	if c.warp != nil {
		t := c.warp.newTimer(d, d, nil)
		return Ticker{C: t.c, warped: t}
	}
	t := time.NewTicker(d)
	return Ticker{C: t.C, real: t}
}

// AfterFunc runs f in a goroutine of its own after d. The timer has no channel.
func (c Clock) AfterFunc(d time.Duration, f func()) Timer {
	if c.warp != nil {
		return Timer{warped: c.warp.newTimer(d, 0, f)}
	}
	return Timer{real: time.AfterFunc(d, f)}
}

// WithTimeout returns a context that ends after d, if ctx does not end before.
func (c Clock) WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if c.warp != nil {
		return c.warp.withTimeout(ctx, d)
	}
	return context.WithTimeout(ctx, d)
}

// Timer is a time.Timer of a clock. It is used by value, and never zero.
type Timer struct {
	C <-chan time.Time // what the timer fires on; never closed

	real   *time.Timer
	warped *warpTimer
}

// Stop keeps the timer from firing, and reports whether it would have. Nothing
// is received from C afterwards.
func (t Timer) Stop() bool {
	if t.warped != nil {
		return t.warped.stop()
	}
	return t.real.Stop()
}

// Reset has the timer fire after d instead, and reports whether it would have
// fired before. An earlier firing is not received from C afterwards.
func (t Timer) Reset(d time.Duration) bool {
	if t.warped != nil {
		return t.warped.reset(d)
	}
	return t.real.Reset(d)
}

// Ticker is a time.Ticker of a clock. It is used by value, and never zero.
type Ticker struct {
	C <-chan time.Time // what the ticker fires on; never closed

	real   *time.Ticker
	warped *warpTimer
}

// Stop ends the ticking.
func (t Ticker) Stop() {
	if t.warped != nil {
		t.warped.stop()
		return
	}
	t.real.Stop()
}

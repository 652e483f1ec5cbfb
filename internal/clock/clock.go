// Package clock is one machine's sense of time: a member has one, a client has
// one. Whatever waits or measures in this module asks it and not package time,
// so that one machine of a test can be given a time of its own.
//
// The zero value is package time, virtual time included when it is used within
// a testing/synctest bubble.
package clock

import (
	"context"
	"time"
)

// Clock tells the time and makes timers. Its methods may be called concurrently.
type Clock struct{}

// Now is the present instant with its monotonic reading.
func (Clock) Now() time.Time { return time.Now() }

// NewTimer returns a timer that fires once after d.
func (Clock) NewTimer(d time.Duration) *time.Timer { return time.NewTimer(d) }

// NewTicker returns a ticker that fires every d.
func (Clock) NewTicker(d time.Duration) *time.Ticker { return time.NewTicker(d) }

// AfterFunc runs f in a goroutine of its own after d.
func (Clock) AfterFunc(d time.Duration, f func()) *time.Timer { return time.AfterFunc(d, f) }

// WithTimeout returns a context that ends after d, if ctx does not end before.
func (Clock) WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, d)
}

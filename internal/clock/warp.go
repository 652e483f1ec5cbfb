package clock

import (
	"context"
	"math"
	"sync"
	"time"
)

// Warp makes a clock that a test moves: at another rate than package time, or
// not at all for a while. Its methods may be called concurrently. It works on
// timers of package time, and so in a synctest bubble as well.
type Warp struct {
	mu struct {
		sync.Mutex
		rate   float64 // own seconds for each of package time
		paused bool
		goesOn chan struct{} // closed by the end of the pause that lasts
		real   time.Time     // of the last change, by package time; of the pause while it lasts
		own    time.Time     // the same instant by this clock
		slept  time.Duration // in pauses that ended with Wake
		timers map[*warpTimer]struct{}
	}
}

// NewWarp returns a clock in step with package time.
func NewWarp() *Warp {
	w := &Warp{}
	now := time.Now()
	w.mu.rate, w.mu.real, w.mu.own = 1, now, now
	w.mu.timers = map[*warpTimer]struct{}{}
	return w
}

// Clock returns the clock that this one moves.
func (w *Warp) Clock() Clock { return Clock{warp: w} }

// SkewRate lets the clock gain ppm microseconds in each second from now on, or
// lose them if it is negative. It must be above minus a million.
func (w *Warp) SkewRate(ppm float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.settle()
	w.mu.rate = 1 + ppm/1e6
	w.reschedule()
}

// Pause stops the clock: Now stands still and no timer fires. It ends with
// Resume or Wake; a second Pause changes nothing.
func (w *Warp) Pause() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.settle()
	if !w.mu.paused {
		w.mu.paused, w.mu.goesOn = true, make(chan struct{})
	}
	w.reschedule()
}

// Resume ends a pause as a stopped process goes on: the time has passed, and
// what was due meanwhile fires at once.
func (w *Warp) Resume() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.own = w.mu.own.Add(w.endPause())
	w.reschedule()
}

// Wake ends a pause as a machine wakes up: its monotonic clock has stood still,
// and timers fire as much later. Only Since knows.
func (w *Warp) Wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.slept += w.endPause()
	w.reschedule()
}

// Paused reports whether the clock stands still.
func (w *Warp) Paused() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.paused
}

// await waits until the clock goes, or done is closed.
func (w *Warp) await(done <-chan struct{}) {
	w.mu.Lock()
	paused, goesOn := w.mu.paused, w.mu.goesOn
	w.mu.Unlock()
	if !paused {
		return
	}
	select {
	case <-goesOn:
	case <-done:
	}
}

// Here is an instant of package time as a machine with this clock tells it that
// learns now how long it is until then.
func (w *Warp) Here(t time.Time) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	return w.at(now).Add(t.Sub(now))
}

// There is an instant of this clock as package time tells it that learns how long it
// is until then: now, or before the clock stood still.
func (w *Warp) There(t time.Time) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if w.mu.paused {
		now = w.mu.real
	}
	return now.Add(t.Sub(w.at(now)))
}

// endPause returns how long the pause was, by this clock.
func (w *Warp) endPause() time.Duration {
	if !w.mu.paused {
		return 0
	}
	now := time.Now()
	length := w.scale(now.Sub(w.mu.real))
	w.mu.paused, w.mu.real = false, now
	close(w.mu.goesOn)
	return length
}

// settle moves the reference to now.
func (w *Warp) settle() {
	if w.mu.paused {
		return // it stays where the pause began
	}
	now := time.Now()
	w.mu.own = w.mu.own.Add(w.scale(now.Sub(w.mu.real)))
	w.mu.real = now
}

func (w *Warp) scale(d time.Duration) time.Duration {
	return time.Duration(math.Round(float64(d) * w.mu.rate))
}

// unscale is the first span of package time after which d has passed here.
func (w *Warp) unscale(d time.Duration) time.Duration {
	return time.Duration(math.Ceil(float64(d) / w.mu.rate))
}

func (w *Warp) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.nowLocked()
}

func (w *Warp) nowLocked() time.Time { return w.at(time.Now()) }

// at is what this clock says at an instant of package time, now or a moment ago.
func (w *Warp) at(real time.Time) time.Time {
	if w.mu.paused {
		return w.mu.own
	}
	return w.mu.own.Add(w.scale(real.Sub(w.mu.real)))
}

func (w *Warp) sleptSoFar() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.slept
}

// reschedule sets every timer anew, after time has changed its course.
func (w *Warp) reschedule() {
	for t := range w.mu.timers {
		t.schedule()
	}
}

// warpTimer is a timer or a ticker of a warped clock. The mutex of its warp
// guards it.
type warpTimer struct {
	warp   *Warp
	c      chan time.Time // one slot; nil with f
	f      func()
	when   time.Time     // by the warped clock
	period time.Duration // of a ticker
	real   *time.Timer   // nil until the first schedule
	round  int           // of schedule: an older one's firing is void
}

func (w *Warp) newTimer(d, period time.Duration, f func()) *warpTimer {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := &warpTimer{warp: w, f: f, period: period, when: w.nowLocked().Add(d)}
	if f == nil {
		t.c = make(chan time.Time, 1)
	}
	w.mu.timers[t] = struct{}{}
	t.schedule()
	return t
}

// schedule arms the timer of package time, unless the clock is paused.
func (t *warpTimer) schedule() {
	t.round++
	if t.real != nil {
		t.real.Stop()
	}
	if t.warp.mu.paused {
		return
	}
	round := t.round
	wait := t.warp.unscale(t.when.Sub(t.warp.nowLocked()))
	t.real = time.AfterFunc(max(0, wait), func() { t.fire(round) })
}

func (t *warpTimer) fire(round int) {
	w := t.warp
	w.mu.Lock()
	defer w.mu.Unlock()
	if t.round != round {
		return
	}
	now := w.nowLocked()
	if t.when.After(now) { // rounded
		t.schedule()
		return
	}
	if t.f != nil {
		go t.f()
	} else {
		select {
		case t.c <- now:
		default: // as package time does with a tick that nobody took
		}
	}
	if t.period == 0 {
		delete(w.mu.timers, t)
		t.round++
		return
	}
	for !t.when.After(now) {
		t.when = t.when.Add(t.period)
	}
	t.schedule()
}

func (t *warpTimer) stop() (active bool) {
	t.warp.mu.Lock()
	defer t.warp.mu.Unlock()
	return t.stopLocked()
}

func (t *warpTimer) stopLocked() (active bool) {
	_, active = t.warp.mu.timers[t]
	delete(t.warp.mu.timers, t)
	t.round++
	if t.real != nil {
		t.real.Stop()
	}
	if t.c != nil {
		select {
		case <-t.c:
			active = true // it was not received, so it has not fired yet
		default:
		}
	}
	return active
}

func (t *warpTimer) reset(d time.Duration) (active bool) {
	w := t.warp
	w.mu.Lock()
	defer w.mu.Unlock()
	active = t.stopLocked()
	t.when = w.nowLocked().Add(d)
	w.mu.timers[t] = struct{}{}
	t.schedule()
	return active
}

// withTimeout is context.WithTimeout by this clock.
func (w *Warp) withTimeout(parent context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	w.mu.Lock()
	deadline := time.Now().Add(w.unscale(d)) // a guess, for those who ask
	w.mu.Unlock()
	if earlier, ok := parent.Deadline(); ok && earlier.Before(deadline) {
		deadline = earlier
	}
	c := &timeoutContext{Context: parent, deadline: deadline, done: make(chan struct{})}
	if err := parent.Err(); err != nil {
		c.end(err) // now, not a moment later
	}
	timer := w.newTimer(d, 0, func() { c.end(context.DeadlineExceeded) })
	stop := context.AfterFunc(parent, func() { c.end(parent.Err()) })
	return c, func() {
		timer.stop()
		stop()
		c.end(context.Canceled)
	}
}

// timeoutContext ends by a warped clock. The contexts of package context can
// end by package time only.
type timeoutContext struct {
	context.Context
	deadline time.Time
	done     chan struct{} // closed with the end

	mu struct {
		sync.Mutex
		err error
	}
}

func (c *timeoutContext) Deadline() (time.Time, bool) { return c.deadline, true }
func (c *timeoutContext) Done() <-chan struct{}       { return c.done }

func (c *timeoutContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.err
}

func (c *timeoutContext) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.err == nil {
		c.mu.err = err
		close(c.done)
	}
}

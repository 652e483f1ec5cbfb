package clock

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// machine is a client with a clock of its own.
type machine struct{ clock Clock }

func (m machine) Clock() Clock { return m.clock }

func TestOf(t *testing.T) {
	warped := NewWarp().Clock()
	if got := Of(machine{warped}); got != warped {
		t.Error("the clock of a machine is not its own")
	}
	for _, foreign := range []any{nil, struct{}{}, "client"} {
		if got := Of(foreign); got != (Clock{}) {
			t.Errorf("the clock of %v is not package time", foreign)
		}
	}
}

// everyClock runs a test of what all clocks do.
func everyClock(t *testing.T, test func(t *testing.T, c Clock)) {
	t.Run("package time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { test(t, Clock{}) })
	})
	t.Run("warped", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { test(t, NewWarp().Clock()) })
	})
}

func TestTimersFireInTime(t *testing.T) {
	everyClock(t, func(t *testing.T, c Clock) {
		begun := c.Now()
		if at := <-c.NewTimer(time.Second).C; at.Sub(begun) != time.Second {
			t.Errorf("fired at %v", at.Sub(begun))
		}
		called := make(chan time.Duration)
		c.AfterFunc(time.Minute, func() { called <- c.Now().Sub(begun) })
		if after := <-called; after != time.Minute+time.Second {
			t.Errorf("called at %v", after)
		}
		<-c.NewTimer(-time.Second).C // at once
		if after := c.Now().Sub(begun); after != time.Minute+time.Second {
			t.Errorf("a timer of the past fired at %v", after)
		}
	})
}

func TestTicker(t *testing.T) {
	everyClock(t, func(t *testing.T, c Clock) {
		begun := c.Now()
		ticker := c.NewTicker(time.Second)
		for i := range 3 {
			if after := (<-ticker.C).Sub(begun); after != time.Duration(i+1)*time.Second {
				t.Errorf("tick %d at %v", i, after)
			}
		}
		ticker.Stop()
		time.Sleep(10 * time.Second)
		if _, ticked := poll(ticker.C); ticked {
			t.Error("ticked after Stop")
		}
	})
}

func poll(c <-chan time.Time) (at time.Time, fired bool) {
	select {
	case at = <-c:
		return at, true
	default:
		return at, false
	}
}

// A timer that was stopped or set anew delivers nothing from before.
func TestStopAndReset(t *testing.T) {
	everyClock(t, func(t *testing.T, c Clock) {
		timer := c.NewTimer(time.Second)
		if !timer.Stop() || timer.Stop() {
			t.Error("Stop does not say whether the timer would have fired")
		}
		time.Sleep(time.Minute)
		if _, fired := poll(timer.C); fired {
			t.Error("fired after Stop")
		}
		if timer.Reset(time.Second) {
			t.Error("Reset takes a stopped timer for a running one")
		}
		time.Sleep(time.Minute) // it is due, and nobody looks
		timer.Reset(time.Hour)
		if _, fired := poll(timer.C); fired {
			t.Error("fired before Reset, and was received after it")
		}
		begun := c.Now()
		if at := <-timer.C; at.Sub(begun) != time.Hour {
			t.Errorf("fired %v after Reset", at.Sub(begun))
		}
		if timer.Stop() {
			t.Error("Stop takes a timer that fired for a running one")
		}
	})
}

func TestWithTimeout(t *testing.T) {
	everyClock(t, func(t *testing.T, c Clock) {
		type key struct{}
		parent, cancelParent := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
		begun := c.Now()
		ctx, cancel := c.WithTimeout(parent, time.Minute)
		defer cancel()
		child, cancelChild := context.WithCancel(ctx)
		defer cancelChild()
		if at, ok := ctx.Deadline(); !ok || at.Sub(begun) != time.Minute {
			t.Errorf("the deadline is %v, %v", at.Sub(begun), ok)
		}
		if ctx.Value(key{}) != "value" || ctx.Err() != nil {
			t.Error("a context that runs:", ctx.Value(key{}), ctx.Err())
		}
		<-ctx.Done()
		<-child.Done()
		if after := c.Now().Sub(begun); after != time.Minute {
			t.Errorf("ended after %v", after)
		}
		for _, ended := range []context.Context{ctx, child} {
			if !errors.Is(ended.Err(), context.DeadlineExceeded) || !errors.Is(context.Cause(ended), context.DeadlineExceeded) {
				t.Errorf("ended with %v, because of %v", ended.Err(), context.Cause(ended))
			}
		}

		ctx, cancel = c.WithTimeout(parent, time.Minute)
		defer cancel()
		cancelParent()
		<-ctx.Done()
		if !errors.Is(ctx.Err(), context.Canceled) {
			t.Errorf("ended with its parent, by %v", ctx.Err())
		}
		ctx, cancel = c.WithTimeout(parent, time.Minute)
		if ctx.Err() == nil {
			t.Error("a child of a context that has ended runs")
		}
		cancel()
		ctx, cancel = c.WithTimeout(t.Context(), time.Minute)
		cancel()
		if !errors.Is(ctx.Err(), context.Canceled) {
			t.Errorf("cancelled, and ended by %v", ctx.Err())
		}
	})
}

// A sleep of the test within a bubble is not a sleep of the machine.
func TestSinceIsElapsedTime(t *testing.T) {
	everyClock(t, func(t *testing.T, c Clock) {
		m := c.Mark()
		if !m.Time().Equal(c.Now()) {
			t.Error("the mark is not now")
		}
		time.Sleep(36 * time.Hour)
		if got := c.Since(m); got != 36*time.Hour {
			t.Errorf("after 36 hours Since is %v", got)
		}
	})
}

package clock

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestSkewRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := NewWarp()
		c := w.Clock()
		real := time.Now()
		early := c.NewTimer(10 * time.Second) // set before the rate changes
		w.SkewRate(500)
		<-early.C
		if got := time.Since(real); got >= 10*time.Second || got < 10*time.Second-6*time.Millisecond {
			t.Errorf("ten fast seconds took %v", got)
		}
		w.SkewRate(-500_000)
		own := c.Now()
		real = time.Now()
		time.Sleep(time.Hour)
		if got := c.Now().Sub(own); got != 30*time.Minute {
			t.Errorf("an hour at half the rate counts as %v", got)
		}
		<-c.NewTimer(time.Minute).C
		if got := time.Since(real); got != 62*time.Minute {
			t.Errorf("a minute at half the rate took %v", got-time.Hour)
		}
	})
}

// What waits for the clock to go waits as long as the pause, or its own end.
func TestAwait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := NewWarp()
		Clock{}.Await(nil) // package time never stands still
		w.Clock().Await(nil)
		for range 2 {
			begun := time.Now()
			w.Pause()
			w.Pause()
			time.AfterFunc(time.Minute, w.Resume)
			done := make(chan struct{})
			time.AfterFunc(time.Second, func() { close(done) })
			w.Clock().Await(done)
			if took := time.Since(begun); took != time.Second {
				t.Errorf("who waits for a second at most has waited for %v", took)
			}
			if !w.Paused() {
				t.Error("the clock goes before the end of its pause")
			}
			w.Clock().Await(nil)
			if took := time.Since(begun); took != time.Minute {
				t.Errorf("a pause of a minute has lasted %v", took)
			}
			if w.Paused() {
				t.Error("the clock stands still after its pause")
			}
		}
	})
}

// What a machine is told is so and so far away is that far away by its clock.
func TestHere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := NewWarp()
		then := time.Now().Add(time.Minute)
		if got := w.Here(then); got != then {
			t.Errorf("a clock in step says %v, not %v", got, then)
		}
		w.SkewRate(-500_000)
		time.Sleep(time.Minute)
		if got := w.Here(time.Now().Add(time.Hour)).Sub(w.Clock().Now()); got != time.Hour {
			t.Errorf("an hour from now is %v from now", got)
		}
	})
}

// Where an instant of a clock lies does not depend on whether that stands still.
func TestThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		w := NewWarp()
		check := func(when string, own time.Time, want time.Duration) {
			t.Helper()
			if got := w.There(own).Sub(begun); got != want {
				t.Errorf("%s: the instant is %v from the beginning, want %v", when, got, want)
			}
		}
		end := w.Clock().Now().Add(time.Minute)
		check("in step", end, time.Minute)
		time.Sleep(time.Second)
		w.Pause()
		time.Sleep(10 * time.Second)
		check("paused", end, time.Minute)
		w.Resume()
		check("resumed", end, time.Minute)
		w.SkewRate(-500_000)
		time.Sleep(10 * time.Second)
		check("half as fast", end, 65*time.Second) // 44 s are left by this clock
	})
}

// A rate that divides into no whole number of nanoseconds still fires, and
// never before its time.
func TestRoundingFiresLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := NewWarp()
		c := w.Clock()
		for _, ppm := range []float64{1. / 3, -1. / 3, 499.99, -499.99, 1e6, -999_999} {
			w.SkewRate(ppm)
			for d := range 50 {
				want := c.Now().Add(time.Duration(d * 7919))
				if at := <-c.NewTimer(time.Duration(d * 7919)).C; at.Before(want) {
					t.Fatalf("at %v ppm a timer fired %v early", ppm, want.Sub(at))
				}
			}
		}
	})
}

// A process that was stopped goes on: time has passed, timers are due at once.
func TestResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := NewWarp()
		c := w.Clock()
		mark, begun := c.Mark(), c.Now()
		due, later := c.NewTimer(time.Minute), c.NewTimer(2*time.Hour)
		time.Sleep(time.Second)
		w.Pause()
		time.Sleep(time.Hour)
		w.Pause() // nothing new
		if got := c.Now().Sub(begun); got != time.Second {
			t.Errorf("a stopped clock says %v", got)
		}
		if _, fired := poll(due.C); fired {
			t.Error("a timer fires in the pause")
		}
		fresh := c.NewTimer(time.Minute)
		w.Resume()
		w.Resume() // nothing new
		synctest.Wait()
		for _, timer := range []Timer{due, fresh} {
			if _, fired := poll(timer.C); !fired {
				t.Error("a timer that was due in the pause does not fire after it")
			}
		}
		if got := c.Now().Sub(begun); got != time.Hour+time.Second {
			t.Errorf("after the pause it is %v", got)
		}
		if got := c.Since(mark); got != time.Hour+time.Second {
			t.Errorf("and since the mark %v", got)
		}
		if at := <-later.C; at.Sub(begun) != 2*time.Hour {
			t.Errorf("a later timer fires at %v", at.Sub(begun))
		}
	})
}

// A machine that slept: its clock has stood still, timers are late, and only
// Since knows.
func TestWake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := NewWarp()
		c := w.Clock()
		mark, begun, real := c.Mark(), c.Now(), time.Now()
		timer := c.NewTimer(time.Minute)
		time.Sleep(time.Second)
		w.Pause()
		time.Sleep(time.Hour)
		w.Wake()
		if got := c.Now().Sub(begun); got != time.Second {
			t.Errorf("after the sleep it is %v", got)
		}
		if got := c.Since(mark); got != time.Hour+time.Second {
			t.Errorf("and since the mark %v", got)
		}
		if got := c.SleptSince(mark); got != time.Hour {
			t.Errorf("of that it slept %v", got)
		}
		<-timer.C
		if got := time.Since(real); got != time.Hour+time.Minute {
			t.Errorf("the timer fired after %v", got)
		}
		if got := c.Since(c.Mark()); got != 0 {
			t.Errorf("since a mark after the sleep %v have passed", got)
		}
	})
}

// The clock is moved in real time too, and by many at once.
func TestWarpInRealTime(t *testing.T) {
	w := NewWarp()
	c := w.Clock()
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 20 {
				w.SkewRate(float64(i * 1000))
				timer := c.NewTimer(time.Millisecond)
				w.Pause()
				timer.Reset(2 * time.Millisecond)
				w.Resume()
				w.Pause()
				w.Wake()
				<-timer.C
				c.Since(c.Mark())
			}
		})
	}
	all.Wait()
	ctx, cancel := c.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	<-ctx.Done()
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		t.Error(ctx.Err())
	}
}

// Two readings of a machine that does not sleep are as good as equal.
func TestMachineSleptIsSteady(t *testing.T) {
	first := machineSlept()
	for range 1000 {
		if d := machineSlept() - first; d <= -sleepNoise || d >= sleepNoise {
			t.Fatalf("the machine seems to have slept for %v", d)
		}
	}
}

package memnet_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/internal/memnet"
)

func TestDelay(t *testing.T) {
	inBubble(t, func(t *testing.T, p *place) {
		p.SetWeather("a", "b", memnet.Weather{Delay: 300 * time.Millisecond})
		p.SetWeather("b", "a", memnet.Weather{Delay: 200 * time.Millisecond})
		begun := time.Now()
		a, b := p.connect(t, "a", "b")
		took(t, "to open a stream", begun, 500*time.Millisecond)

		begun = time.Now()
		send(t, a, "1", "2")
		receive(t, b, "1", "2")
		took(t, "a frame there", begun, 300*time.Millisecond)
		send(t, b, "3")
		receive(t, a, "3")
		took(t, "and one back", begun, 500*time.Millisecond)

		begun = time.Now()
		send(t, a, "4")
		p.SetWeather("a", "b", memnet.Weather{})
		send(t, a, "5")
		receive(t, b, "4", "5")
		took(t, "a frame that the weather's end does not let overtake", begun, 300*time.Millisecond)

		begun = time.Now()
		p.SetWeather("a", "b", memnet.Weather{Delay: time.Second})
		send(t, a, "6")
		_ = a.Close()
		receive(t, b, "6")
		if _, err := b.Recv(); err == nil {
			t.Error("no end")
		}
		took(t, "the end", begun, time.Second)
	})
}

func took(t *testing.T, what string, begun time.Time, want time.Duration) {
	t.Helper()
	if got := time.Since(begun); got != want {
		t.Errorf("%s takes %v, not %v", what, got, want)
	}
}

// What is under way when a link is cut is lost.
func TestCutLosesWhatIsUnderWay(t *testing.T) {
	inBubble(t, func(t *testing.T, p *place) {
		a, b := p.connect(t, "a", "b")
		send(t, a, "there")
		p.SetWeather("a", "b", memnet.Weather{Delay: time.Second})
		send(t, a, "under way")
		p.Cut("a", "b")
		receive(t, b, "there")
		if took, _ := ends(t, b); took != memnet.DefaultStallTimeout {
			t.Errorf("b learns after %v", took)
		}
	})
}

// Jitter lets no frame overtake another one.
func TestJitter(t *testing.T) {
	inBubble(t, func(t *testing.T, p *place) {
		a, b := p.connect(t, "a", "b")
		p.SetWeather("a", "b", memnet.Weather{Delay: time.Second, Jitter: time.Second})
		different := map[time.Duration]bool{}
		for i := range 50 {
			begun := time.Now()
			send(t, a, fmt.Sprint(i))
			receive(t, b, fmt.Sprint(i))
			took := time.Since(begun)
			if took < time.Second || took >= 2*time.Second {
				t.Errorf("a frame takes %v", took)
			}
			different[took] = true
		}
		if len(different) < 40 {
			t.Errorf("50 frames have %d delays", len(different))
		}
		for i := range 50 {
			send(t, a, fmt.Sprint(i))
		}
		for i := range 50 {
			receive(t, b, fmt.Sprint(i))
		}
	})
}

// A frame is lost with all behind it, and both ends learn that.
func TestDrop(t *testing.T) {
	inBubble(t, func(t *testing.T, p *place) {
		a, b := p.connect(t, "a", "b")
		send(t, a, "before")
		p.SetWeather("a", "b", memnet.Weather{Drop: 1})
		send(t, a, "lost")
		receive(t, b, "before")
		for _, end := range []raftlock.PeerStream{a, b} {
			if took, _ := ends(t, end); took != 0 {
				t.Errorf("an end learns after %v", took)
			}
		}
		p.Heal()
		a, b = p.connect(t, "a", "b")
		send(t, a, "after")
		receive(t, b, "after")
	})
}

// The sender is told that the stream broke, and the frame arrives.
func TestDuplicate(t *testing.T) {
	inBubble(t, func(t *testing.T, p *place) {
		a, b := p.connect(t, "a", "b")
		p.SetWeather("a", "b", memnet.Weather{Duplicate: 1})
		send(t, a, "whole")
		if took, _ := ends(t, a); took != 0 {
			t.Errorf("the sender learns after %v", took)
		}
		_ = a.Close()
		receive(t, b, "whole")
		if took, _ := ends(t, b); took != 0 {
			t.Errorf("the receiver learns after %v", took)
		}
	})
}

// What a stream has under way is overtaken by the next stream.
func TestReorder(t *testing.T) {
	inBubble(t, func(t *testing.T, p *place) {
		a, b := p.connect(t, "a", "b")
		p.SetWeather("a", "b", memnet.Weather{Delay: time.Millisecond, Reorder: 1, Late: time.Hour})
		begun := time.Now()
		send(t, a, "first")
		if took, _ := ends(t, a); took != 0 {
			t.Errorf("the sender learns after %v", took)
		}
		_ = a.Close() // which nobody hears of before the frame
		p.SetWeather("a", "b", memnet.Weather{})
		a2, b2 := p.connect(t, "a", "b")
		send(t, a2, "second")
		receive(t, b2, "second")
		took(t, "the second frame", begun, 0)
		receive(t, b, "first")
		if took := time.Since(begun); took <= time.Millisecond || took > time.Hour {
			t.Errorf("the first frame takes %v", took)
		}
		if took, _ := ends(t, b); took != 0 {
			t.Errorf("the receiver learns %v after the frame", took)
		}
	})
}

// Both ends may be told so: then the stream is simply broken. Nothing is held up
// for a transport that is closed.
func TestReorderBothWays(t *testing.T) {
	inBubble(t, func(t *testing.T, p *place) {
		foul := memnet.Weather{Reorder: 1, Late: time.Hour}
		p.SetWeather("a", "b", foul)
		p.SetWeather("b", "a", foul)
		begun := time.Now()
		for range 2 {
			a, b := p.connect(t, "a", "b")
			send(t, a, "there")
			send(t, b, "back") // to nobody
			if _, err := a.Recv(); err == nil {
				t.Error("a receives over a stream that broke")
			}
			p.crash(t, "b")
			if _, err := b.Recv(); err == nil {
				t.Error("b receives after its end")
			}
			p.start(t, "b")
		}
		took(t, "all of it", begun, 0)
	})
}

// The same seed gives the same fates, whatever else there is; another one others.
func TestSeed(t *testing.T) {
	foul := memnet.Weather{Delay: time.Second, Jitter: time.Second, Drop: 0.1, Duplicate: 0.1, Reorder: 0.1, Late: time.Minute}
	var first []string
	for run, seed := range []uint64{1, 1, 2} {
		inBubble(t, func(t *testing.T, p *place) {
			p.Seed = seed
			other, _ := p.connect(t, "c", "b")
			send(t, other, "another link's")
			p.SetWeather("c", "b", foul)
			_ = other.Send([]byte("another link's"))
			trace := fates(t, p, foul)
			switch {
			case run == 0:
				first = trace
			case slices.Equal(trace, first) != (seed == 1):
				t.Errorf("seed %d:\n%v\nafter seed 1:\n%v", seed, trace, first)
			}
		})
	}
	for _, kind := range []string{"arrives", "lost", "told"} {
		if !slices.ContainsFunc(first, func(s string) bool { return s[:len(kind)] == kind }) {
			t.Errorf("no frame of a hundred: %s", kind)
		}
	}
}

// fates is what becomes of a hundred frames.
func fates(t *testing.T, p *place, w memnet.Weather) (trace []string) {
	t.Helper()
	for range 100 {
		p.SetWeather("a", "b", memnet.Weather{})
		a, b := p.connect(t, "a", "b")
		p.SetWeather("a", "b", w)
		begun := time.Now()
		send(t, a, "frame")
		told := a.Send(nil) != nil // a lost frame breaks it as well
		_, err := b.Recv()
		what := "arrives"
		switch {
		case err != nil:
			what = "lost"
		case told:
			what = "told"
		}
		trace = append(trace, fmt.Sprint(what, time.Since(begun)))
		_, _ = a.Close(), b.Close()
	}
	return trace
}

package memnet

import (
	"hash/fnv"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// Weather is what befalls the frames of one direction between two addresses that
// is not cut. The zero Weather is fair: every frame arrives at once.
//
// A stream loses, repeats and reorders nothing within itself, so whatever does
// happen to frames happens as it does over TCP: the stream breaks, and the ends
// know different things about what has arrived.
type Weather struct {
	// Delay is how long a frame is under way, and Jitter what that may take
	// longer, drawn for each frame. No frame overtakes another one on its
	// stream. To open a stream takes as long as a frame there and one back.
	Delay, Jitter time.Duration
	// Drop is how likely a frame is lost. The stream breaks there, and with it
	// goes whatever is sent later.
	Drop float64
	// Duplicate is how likely a frame arrives and its sender is told that the
	// stream broke. It cannot know, and what it repeats arrives twice.
	Duplicate float64
	// Reorder is how likely a frame is held up, with all that is under way on
	// its stream, by up to Late; its sender is told that the stream broke. What
	// it sends over the next one arrives before.
	Reorder float64
	Late    time.Duration
}

// sky is the weather over one link, and its dice.
type sky struct {
	seed    uint64
	weather atomic.Pointer[Weather] // nil while it is fair
	frames  atomic.Uint64           // that it has decided on
}

// fate is what becomes of one frame.
type fate struct {
	delay time.Duration
	lost  bool          // and the stream breaks
	told  bool          // the sender, that the stream broke, while the frame arrives
	late  time.Duration // beyond delay, with all that is under way
}

func newSky(seed uint64, l link) *sky {
	h := fnv.New64a()
	_, _ = h.Write([]byte(l.from + "\x00" + l.to)) // a hash has no errors
	return &sky{seed: seed ^ h.Sum64()}
}

// set changes the weather. The dice roll on where they were.
func (s *sky) set(w Weather) {
	if w == (Weather{}) {
		s.weather.Store(nil)
		return
	}
	s.weather.Store(&w)
}

// crossing is how long a frame takes of which nothing else is known.
func (s *sky) crossing() time.Duration {
	if w := s.weather.Load(); w != nil {
		return w.Delay
	}
	return 0
}

// next decides on the next frame. The n-th frame's fate depends on nothing but
// the seed, the link, n, and how likely each fate is: every draw is made for every
// frame, so that one fault more leaves the others where they were.
func (s *sky) next() fate {
	w := s.weather.Load()
	if w == nil {
		return fate{}
	}
	dice := rand.New(rand.NewPCG(s.seed, s.frames.Add(1)))
	drop, duplicate, reorder := dice.Float64(), dice.Float64(), dice.Float64()
	jitter, late := dice.Float64(), dice.Float64()
	f := fate{delay: w.Delay + part(jitter, w.Jitter)}
	switch {
	case drop < w.Drop:
		f.lost = true
	case duplicate < w.Duplicate:
		f.told = true
	case reorder < w.Reorder:
		f.told, f.late = true, part(late, w.Late)
	}
	return f
}

func part(share float64, of time.Duration) time.Duration {
	return time.Duration(share * float64(of))
}

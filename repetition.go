package raftlock

import (
	"sync"
	"time"

	"github.com/raftlock/raftlock/internal/clock"
)

// repetition keeps the log readable when peers meet at every tick and cannot come to
// terms: what was said already is not said again for a while.
type repetition struct {
	clock clock.Clock

	mu   sync.Mutex
	said map[string]time.Time // when each text was last said
}

const (
	// silence is how long a text is not said again.
	silence = time.Minute
	// maxSaid bounds the texts that are remembered, since peers choose them.
	maxSaid = 100
)

// isNew reports whether a text is to be said now.
func (r *repetition) isNew(text string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock.Now()
	if at, ok := r.said[text]; ok && now.Sub(at) < silence {
		return false
	}
	if r.said == nil || len(r.said) >= maxSaid {
		r.said = map[string]time.Time{}
	}
	r.said[text] = now
	return true
}

package main

import (
	"context"
	"sync"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/internal/supervise"
)

// witness is a client that notes, in the time that all processes of the machine
// share, until when each answered call lets its holder go on.
type witness struct {
	client.Client
	ttl time.Duration

	mu    sync.Mutex
	begun supervise.Instant
	ends  chan supervise.Instant // has the newest that was not taken; never closed
}

func newWitness(c client.Client, ttl time.Duration) *witness {
	return &witness{Client: c, ttl: ttl, ends: make(chan supervise.Instant, 1)}
}

// first is the end that came with the grant.
func (w *witness) first() supervise.Instant {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.begun
}

// Acquire implements client.RaftLockClient.
func (w *witness) Acquire(ctx context.Context, req *client.AcquireRequest) (*client.AcquireResult, error) {
	ends := w.clock()
	res, err := w.Client.Acquire(ctx, req)
	if err == nil && res.Acquired && res.Lock != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.begun = ends(res.Lock)
	}
	return res, err
}

// Renew implements client.RaftLockClient.
func (w *witness) Renew(ctx context.Context, req *client.RenewRequest) (*client.RenewResult, error) {
	ends := w.clock()
	res, err := w.Client.Renew(ctx, req)
	if err == nil && res.Renewed && res.Lock != nil {
		w.note(ends(res.Lock))
	}
	return res, err
}

// clock is taken before a call, and then turns the end of a grant, which is in
// this process's own time, into the time that is shared. The two run apart while
// the machine is suspended; counting from before the call, such a span makes an
// end earlier, never later.
func (w *witness) clock() (ends func(*client.Lock) supervise.Instant) {
	shared, own := supervise.Now(), time.Now()
	return func(lock *client.Lock) supervise.Instant {
		return shared.Add(lock.ExpiresAt.Sub(own)).Add(-margin(w.ttl))
	}
}

// margin is by how much a holder stops before the end in the cluster's table:
// that of client.Hold, for a grant that has its whole time before it.
func margin(ttl time.Duration) time.Duration {
	return min(max(ttl/100, 50*time.Millisecond), ttl/2)
}

// note leaves an end to be taken. A supervisor that does not take them, as one
// that has ended, does not keep renewals from being answered.
func (w *witness) note(end supervise.Instant) {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case older := <-w.ends:
		end = max(end, older)
	default:
	}
	w.ends <- end // there is room: only this method sends
}

package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jonboulle/clockwork"

	"github.com/raftlock/raftlock/internal/clock"
)

// AutoRenewer renews the lock of a handle in the background, until it is told
// to stop or the lock is lost. All methods may be called from any number of
// goroutines.
type AutoRenewer interface {
	// Start begins to renew. It returns at once; when ctx ends, so does the
	// renewing. Only the first call starts anything.
	Start(ctx context.Context)

	// Stop ends the renewing and waits until it is over, or until ctx ends. It
	// does not release the lock. It returns what Err returns, or the error of
	// ctx.
	Stop(ctx context.Context) error

	// Done is closed, by the renewer, when it has ended for whatever reason.
	Done() <-chan struct{}

	// Err returns nil while the renewer runs, after Stop, and after the context
	// given to Start has ended; otherwise an error that is ErrLockLost. A
	// renewal that fails is not an end: it is tried again for as long as the
	// grant lasts.
	Err() error
}

// AutoRenewerOption adjusts an AutoRenewer when it is made.
type AutoRenewerOption func(*AutoRenewerOptions)

// AutoRenewerOptions is what the options of an AutoRenewer set.
type AutoRenewerOptions struct {
	// Clock tells the renewer when to renew; nil means the clock of the client.
	Clock clockwork.Clock
}

// WithClock has an AutoRenewer wait by the given clock instead of that of its
// client, for tests that move time by hand. Nil changes nothing.
func WithClock(clock clockwork.Clock) AutoRenewerOption {
	return func(o *AutoRenewerOptions) {
		if clock != nil {
			o.Clock = clock
		}
	}
}

// NewAutoRenewer returns a renewer of a handle's lock, which does nothing before
// Start. Every interval it renews, to last for another ttl each time; interval
// must be shorter than ttl, a third of it is a good choice. A grant that has less
// left than ttl is renewed sooner: when a third of that has passed.
//
// Errors: ErrInvalidArgument, and ErrInvalidTTL when ttl is not positive.
func NewAutoRenewer(handle LockHandle, interval, ttl time.Duration, opts ...AutoRenewerOption) (AutoRenewer, error) {
	const op = "NewAutoRenewer"
	switch {
	case handle == nil:
		return nil, badArgument(op, "handle", nil, "must not be nil")
	case ttl <= 0:
		return nil, badArgument(op, "ttl", ttl, "must be positive")
	case interval <= 0 || interval >= ttl:
		return nil, badArgument(op, "interval", interval, "must be positive and shorter than the ttl")
	}
	var o AutoRenewerOptions
	for _, opt := range opts {
		if opt != nil {
			opt(&o)
		}
	}
	return &autoRenewer{
		handle: handle, interval: interval, ttl: ttl,
		pace: o.Clock, clock: clock.Of(handle), done: make(chan struct{}),
	}, nil
}

type autoRenewer struct {
	handle        LockHandle
	interval, ttl time.Duration
	pace          clockwork.Clock // says when to renew; nil for clock
	clock         clock.Clock     // in which the handle's lock ends
	horizon       horizon         // for run alone

	done chan struct{} // closed by run, or by a Stop that comes before Start

	mu struct {
		sync.Mutex
		begun  bool // by Start, or forestalled by Stop
		cancel context.CancelFunc
		err    error // set before done is closed
	}
}

func (r *autoRenewer) Start(ctx context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.begun {
		return
	}
	r.mu.begun = true
	ctx, cancel := context.WithCancel(ctx)
	r.mu.cancel = cancel
	go func() {
		defer cancel()
		r.run(ctx)
	}()
}

func (r *autoRenewer) Stop(ctx context.Context) error {
	r.mu.Lock()
	if !r.mu.begun {
		r.mu.begun = true
		close(r.done)
	} else if r.mu.cancel != nil {
		r.mu.cancel()
	}
	r.mu.Unlock()
	select {
	case <-r.done:
		return r.Err()
	default:
	}
	select {
	case <-r.done:
		return r.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *autoRenewer) Done() <-chan struct{} { return r.done }

func (r *autoRenewer) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.err
}

func (r *autoRenewer) run(ctx context.Context) {
	defer close(r.done)
	interval := r.due()
	wait := interval
	for r.sleep(ctx, wait) {
		err := r.renew(ctx, interval)
		switch {
		case err == nil:
			interval = r.due()
			wait = interval
		case errors.Is(err, errReleased):
			return // its holder did not want it any more
		case r.isLost(err):
			r.mu.Lock()
			r.mu.err = asLoss(err)
			r.mu.Unlock()
			return
		default:
			wait = retryPause(interval)
		}
	}
}

// due is how long to wait before the next renewal of what is held now.
func (r *autoRenewer) due() time.Duration {
	left, tells := r.horizon.left(r.handle, r.clock.Now())
	if !tells {
		return r.interval
	}
	return renewalDue(left, r.interval, r.ttl)
}

// isLost reports whether a renewal that failed was the last one.
func (r *autoRenewer) isLost(err error) bool {
	return errors.Is(err, ErrLockLost) || isRefusal(err) || !r.handle.IsHeld()
}

func asLoss(err error) error {
	if errors.Is(err, ErrLockLost) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrLockLost, err)
}

// renew makes one attempt, which leaves time for another one.
func (r *autoRenewer) renew(ctx context.Context, interval time.Duration) error {
	if left, ok := r.horizon.left(r.handle, r.clock.Now()); ok {
		limited, cancel := r.clock.WithTimeout(ctx, attemptLimit(left, interval))
		defer cancel()
		ctx = limited
	}
	return r.handle.Renew(ctx, r.ttl)
}

// sleep waits for the next renewal, or until the lock's end if that is earlier,
// and returns false when ctx has ended.
func (r *autoRenewer) sleep(ctx context.Context, wait time.Duration) bool {
	left, tells := r.horizon.left(r.handle, r.clock.Now())
	if r.handle.Lock() == nil && !r.handle.IsHeld() {
		return ctx.Err() == nil // the renewal will say why
	}
	var due <-chan time.Time
	if r.pace != nil {
		timer := r.pace.NewTimer(wait)
		defer timer.Stop()
		due = timer.Chan()
	} else {
		timer := r.clock.NewTimer(wait)
		defer timer.Stop()
		due = timer.C
	}
	var end <-chan time.Time
	if tells && left > 0 {
		timer := r.clock.NewTimer(left)
		defer timer.Stop()
		end = timer.C
	}
	select {
	case <-due:
	case <-end:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// horizon is when the lock of a handle ends for its holder, less what a holder
// leaves. It is reckoned once for each end that the handle tells.
type horizon struct{ expires, end time.Time }

// left is how long the lock is held at most unless it is renewed; false if the
// handle does not say when it ends.
func (h *horizon) left(handle LockHandle, now time.Time) (left time.Duration, ok bool) {
	lock := handle.Lock()
	if lock == nil || lock.ExpiresAt.IsZero() {
		return 0, false
	}
	if !lock.ExpiresAt.Equal(h.expires) {
		h.expires = lock.ExpiresAt
		h.end = lock.ExpiresAt.Add(-margin(lock.ExpiresAt.Sub(now)))
	}
	return h.end.Sub(now), true
}

package client

import (
	"context"
	"time"
)

// HoldOption adjusts what Hold and Do ask for.
type HoldOption func(*holdOptions)

type holdOptions struct {
	ttl time.Duration
	req AcquireRequest
	bad error // the first option that makes no sense
}

// WithTTL sets how long the lock outlives a holder that has died, and how long a
// holder may be cut off without losing it. It is renewed every third of that.
// The default is 30 s; the cluster takes 100 ms to 24 h unless it is told
// otherwise (ErrInvalidTTL).
func WithTTL(ttl time.Duration) HoldOption {
	return func(o *holdOptions) {
		if ttl <= 0 {
			o.refuse("ttl", ttl, "must be positive")
		}
		o.ttl = ttl
	}
}

// WithWait bounds the stay in the lock's queue, 24 h at most; after it the error
// is ErrTimeout. The default is to wait for as long as the context allows.
func WithWait(longest time.Duration) HoldOption {
	return func(o *holdOptions) {
		if longest <= 0 {
			o.refuse("wait", longest, "must be positive; use NoWait")
		}
		o.req.Wait, o.req.WaitTimeout = true, longest
	}
}

// NoWait tries once. If another holds the lock the error is ErrLockHeld.
func NoWait() HoldOption {
	return func(o *holdOptions) { o.req.Wait, o.req.WaitTimeout = false, 0 }
}

// WithPriority sets the place in the queue: higher first, equal ones in order of
// arrival, −1000 to 1000. The default is 0.
func WithPriority(priority int32) HoldOption {
	return func(o *holdOptions) { o.req.Priority = priority }
}

// WithMetadata has the lock show these entries to whoever looks at it.
func WithMetadata(metadata map[string]string) HoldOption {
	return func(o *holdOptions) { o.req.Metadata = metadata }
}

// WithClientID holds in the name of this ClientID instead of a fresh one. Holds
// of one ClientID exclude each other all the same.
func WithClientID(id string) HoldOption {
	return func(o *holdOptions) { o.req.ClientID = id }
}

func (o *holdOptions) refuse(field string, value any, message string) {
	if o.bad == nil {
		o.bad = badArgument("Hold", field, value, message)
	}
}

// Held is a lock that is held and kept. All methods may be called from any
// number of goroutines.
type Held struct {
	lease  *lease
	ctx    workContext
	parent context.Context
	unbind func() bool // keeps the end of parent from releasing
}

// Hold takes a lock and keeps it until Release, or until ctx ends, renewing it
// in the background. It waits in the lock's queue; see the options. When it
// returns an error nothing is held and nothing waits, or will soon: what an
// Acquire of unknown outcome (ErrOutcomeUnknown) may have won lapses with its TTL.
//
// The work that the lock protects takes its context from Context: that ends
// before the cluster may grant the lock to another, also when the network is
// gone, as long as this process runs. A process that was stopped meanwhile is
// told when it looks the next time, by Err or by any method of the context; what
// it has under way by then only its token can stop. So send the Token along
// with every write, and have the other side refuse smaller ones than it has
// seen.
//
// The end of ctx ends the hold and releases the lock at once, in the
// background: whoever needs time to stop takes it before ctx ends, or uses Do.
// A release in the background needs the client: before Close, call Release, which
// waits for it. A client that is closed under a hold can neither renew nor release; the hold
// is told so at the next renewal, and ends as lost.
//
// A hold has one goroutine of its own and one timer, which end with it.
//
// Errors: those of RaftLockClient.Acquire, and an error around ErrLockLost when
// the grant was over by the time that this process heard of it.
func Hold(ctx context.Context, c RaftLockClient, lockID string, opts ...HoldOption) (*Held, error) {
	h, err := hold(ctx, c, lockID, opts)
	if err != nil {
		return nil, err
	}
	h.unbind = context.AfterFunc(ctx, func() { _ = h.lease.release(ctx) }) // ctx is done: it takes its own time
	return h, nil
}

// hold is Hold without the release at the end of ctx.
func hold(ctx context.Context, c RaftLockClient, lockID string, opts []HoldOption) (*Held, error) {
	o := holdOptions{ttl: defaultTTL, req: AcquireRequest{LockID: lockID, Wait: true}}
	for _, opt := range opts {
		opt(&o)
	}
	switch {
	case o.bad != nil:
		return nil, o.bad
	case c == nil:
		return nil, badArgument("Hold", "client", nil, "must not be nil")
	case o.req.ClientID == "":
		o.req.ClientID = NewClientID("")
	}
	o.req.TTL = o.ttl
	l, err := acquire(ctx, c, o.req)
	if err != nil {
		return nil, err
	}
	work, cancel := context.WithCancelCause(ctx)
	l.onEnd(cancel)
	go l.keep(o.ttl)
	return &Held{lease: l, ctx: workContext{work, func() { _ = l.look() }}, parent: ctx}, nil
}

// Context is for the work: a child of the context given to Hold that ends with
// the hold. When the lock was lost, context.Cause of it is ErrLockLost.
func (h *Held) Context() context.Context { return h.ctx }

// Done is closed when the hold has ended for whatever reason.
func (h *Held) Done() <-chan struct{} { return h.ctx.Done() }

// Err returns nil while the lock is held, and otherwise why it is not: an error
// around ErrLockLost, the cause of the context given to Hold, or, after Release,
// one around ErrNotLockOwner. It reads the clock and does not block: the answer
// is true even if the process was stopped until a moment ago.
func (h *Held) Err() error {
	_ = h.ctx.Err() // looks
	return context.Cause(h.ctx)
}

// Token is the fencing token of the grant (Lock.Version). It is the same for the
// whole hold, and greater than every token granted before.
func (h *Held) Token() int64 { return h.lease.version }

// Lock returns a copy of the grant as last heard of, also after its end. Its
// ExpiresAt is the end in the cluster; the hold ends a little before.
func (h *Held) Lock() *Lock { return h.lease.grant() }

// Release ends the hold and gives the lock back; the first of the queue holds it
// from the same instant. It may be called again: after a success it returns nil,
// after a failure it tries again. It works when ctx is done, too: then it takes
// up to 5 s of its own. When it cannot reach the cluster the lock lapses at its
// end.
//
// Of a hold that was lost it returns why, around ErrLockLost, after giving back
// what the cluster may still hold for it. Other errors: those of
// RaftLockClient.Release.
func (h *Held) Release(ctx context.Context) error {
	if h.unbind != nil {
		h.unbind()
	}
	lost := h.lease.loss()
	err := h.lease.release(ctx)
	if lost != nil {
		return lost
	}
	return err
}

// workContext is the context of work under a lock. Whoever asks it looks at the
// clock: a timer alone tells a process that was stopped too late.
type workContext struct {
	context.Context
	look func()
}

func (c workContext) Done() <-chan struct{} {
	c.look()
	return c.Context.Done()
}

func (c workContext) Err() error {
	c.look()
	return c.Context.Err()
}

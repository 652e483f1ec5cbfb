package client

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/raftlock/raftlock/internal/clock"
	"github.com/raftlock/raftlock/pb"
)

// LockHandle is one lock in the hands of one client: it remembers the token
// and the end of its grant, so that the caller need not. All methods may be
// called from any number of goroutines.
type LockHandle interface {
	// Acquire takes the lock for ttl (zero means the cluster's default), under
	// an identity of its own: handles that share a ClientID exclude each other.
	// With wait it blocks in the queue until it is granted or ctx ends, for 24
	// hours at most; without, it tries once.
	//
	// Errors: ErrLockHeld (another has it, or this handle has it already), and
	// those of RaftLockClient.Acquire.
	Acquire(ctx context.Context, ttl time.Duration, wait bool) error

	// Release gives the lock back. From the call on the handle holds it no
	// more, whatever the outcome. It may be called again: after a success it
	// returns nil, after a failure it tries again with the token that it kept. It
	// works when ctx is done, and then takes up to 5 s of its own. A lock that
	// was lost is released too, in case the cluster still holds it for the
	// handle; if it does not, the error says so.
	//
	// Errors: ErrNotLockOwner if the handle never held the lock, and those of
	// RaftLockClient.Release.
	Release(ctx context.Context) error

	// Renew lets the grant last for newTTL from now; an end that is later
	// already stays. It returns at the end of the grant, too. If the outcome is
	// unknown the lock stays held until the end that is known for sure; after
	// that end it never comes back, and what a late renewal has won is released.
	//
	// Errors: ErrNotLockOwner if the handle does not hold the lock, with
	// ErrLockLost unless it gave it back itself, and those of
	// RaftLockClient.Renew. A refusal, or a client that is closed, is the loss of
	// the lock.
	Renew(ctx context.Context, newTTL time.Duration) error

	// IsHeld reports whether the lock is held now. It reads the clock, does not
	// block, and turns false by itself before the grant ends in the cluster (by
	// 1 %, at least 50 ms, at most half of what was left), network or not.
	IsHeld() bool

	// Lock returns a copy of the grant, or nil when IsHeld is false. It does
	// not block.
	Lock() *Lock

	// Close releases the lock if it was held, ends an Acquire that waits, and
	// refuses further use with ErrClientClosed. It may be called again, as
	// Release may, and returns nil when there is nothing left to release.
	Close(ctx context.Context) error
}

// The published way to replace the handles and renewers of DoWithLock and
// RunWithLock in tests. They are for tests alone, and must not be set while
// either runs.
var (
	// NewLockHandleFunc makes the handles of DoWithLock and RunWithLock.
	NewLockHandleFunc = func(client RaftLockClient, lockID, clientID string) (LockHandle, error) {
		return NewLockHandle(client, lockID, clientID)
	}

	// NewAutoRenewerFunc makes the renewers of RunWithLock.
	NewAutoRenewerFunc = func(handle LockHandle, interval, ttl time.Duration, opts ...AutoRenewerOption) (AutoRenewer, error) {
		return NewAutoRenewer(handle, interval, ttl, opts...)
	}
)

// NewLockHandle returns a handle for one lock, which is not held yet. It sends
// nothing. Handles with the same clientID exclude each other.
//
// Errors: ErrInvalidArgument when client is nil or one of the names is empty.
func NewLockHandle(client RaftLockClient, lockID, clientID string) (LockHandle, error) {
	const op = "NewLockHandle"
	switch {
	case client == nil:
		return nil, badArgument(op, "client", nil, "must not be nil")
	case lockID == "":
		return nil, badArgument(op, "lock_id", lockID, "must not be empty")
	case clientID == "":
		return nil, badArgument(op, "client_id", clientID, "must not be empty")
	}
	h := &lockHandle{client: client, lockID: lockID, clientID: clientID, turn: make(chan struct{}, 1)}
	h.open, h.shut = context.WithCancelCause(context.Background())
	return h, nil
}

// errShut is why nothing can be done with a handle after its Close: it gave back
// what it held.
var errShut = fmt.Errorf("%w: the handle was closed: %w", ErrClientClosed, errReleased)

type lockHandle struct {
	client           RaftLockClient
	lockID, clientID string

	turn chan struct{}   // one slot: who puts a token in may acquire
	open context.Context // ends with Close
	shut context.CancelCauseFunc

	mu struct {
		sync.Mutex
		lease *lease // the last one, nil if there was none
	}
}

// Clock is the client's.
func (h *lockHandle) Clock() clock.Clock { return clock.Of(h.client) }

func (h *lockHandle) Acquire(ctx context.Context, ttl time.Duration, wait bool) error {
	const op = "Acquire"
	if ttl < 0 {
		return badArgument(op, "ttl", ttl, "must not be negative")
	}
	if h.open.Err() != nil {
		return shutError(op)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(h.open, func() { cancel(errShut) })()
	if err := h.takeTurn(ctx, wait); err != nil {
		return err
	}
	defer func() { <-h.turn }()
	l, err := h.acquire(ctx, ttl, wait)
	if err != nil && h.open.Err() != nil {
		return NewClientError(op, fmt.Errorf("%w: %w", errShut, err), pb.ErrorCode_UNAVAILABLE, nil)
	}
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.open.Err() != nil { // Close did not see it
		l.releaseBehind()
		return shutError(op)
	}
	h.mu.lease = l
	return nil
}

// takeTurn waits while another call acquires. One that shall not wait is
// refused: the lock is about to be this handle's, or is another's.
func (h *lockHandle) takeTurn(ctx context.Context, wait bool) error {
	select {
	case h.turn <- struct{}{}:
		return nil
	default:
	}
	if !wait {
		return h.heldError()
	}
	select {
	case h.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		if h.open.Err() != nil {
			return shutError("Acquire")
		}
		return endedError("Acquire", ctx)
	}
}

func (h *lockHandle) acquire(ctx context.Context, ttl time.Duration, wait bool) (*lease, error) {
	if last := h.last(); last != nil {
		if last.look() == nil {
			return nil, h.heldError()
		}
		if !last.settled.Load() {
			_ = last.release(ctx) // or the next grant would wait for what is left of it
		}
	}
	l, err := acquire(ctx, h.client, AcquireRequest{LockID: h.lockID, ClientID: h.clientID, TTL: ttl, Wait: wait})
	if err == nil {
		l.eager = true
	}
	return l, err
}

func (h *lockHandle) last() *lease {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.lease
}

func (h *lockHandle) Release(ctx context.Context) error {
	l := h.last()
	switch {
	case h.open.Err() != nil && (l == nil || l.settled.Load()):
		return shutError("Release")
	case l == nil:
		return notHeldError("Release")
	}
	return l.release(ctx)
}

func (h *lockHandle) Renew(ctx context.Context, newTTL time.Duration) error {
	const op = "Renew"
	l := h.last()
	switch {
	case newTTL <= 0:
		return badArgument(op, "ttl", newTTL, "must be positive")
	case h.open.Err() != nil:
		return shutError(op)
	case l == nil:
		return notHeldError(op)
	}
	err := l.renew(ctx, newTTL)
	if err != nil && !isRefusal(err) && l.look() != nil {
		return NewClientError(op, fmt.Errorf("%w: %w", ErrNotLockOwner, err), pb.ErrorCode_LOCK_NOT_HELD, nil)
	}
	return err
}

func (h *lockHandle) IsHeld() bool {
	l := h.last()
	return l != nil && l.look() == nil
}

func (h *lockHandle) Lock() *Lock {
	l := h.last()
	if l == nil || l.look() != nil {
		return nil
	}
	return l.grant()
}

func (h *lockHandle) Close(ctx context.Context) error {
	h.mu.Lock()
	h.shut(errShut) // under the mutex: an Acquire either sees it, or has stored its lease
	l := h.mu.lease
	h.mu.Unlock()
	if l == nil {
		return nil
	}
	if err := l.release(ctx); !isRefusal(err) {
		return err
	}
	return nil // the grant is over
}

func shutError(op string) error {
	return NewClientError(op, errShut, pb.ErrorCode_UNAVAILABLE, nil)
}

func notHeldError(op string) error {
	return NewClientError(op, ErrNotLockOwner, pb.ErrorCode_LOCK_NOT_HELD, nil)
}

func (h *lockHandle) heldError() error {
	return NewClientError("Acquire", ErrLockHeld, pb.ErrorCode_LOCK_HELD, map[string]string{"owner_id": h.clientID})
}

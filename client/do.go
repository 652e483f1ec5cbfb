package client

import (
	"context"
	"errors"
	"time"

	"github.com/raftlock/raftlock/internal/clock"
)

// Do calls fn while it holds a lock, and gives it back when fn has returned,
// panicked, or ended its goroutine. It waits in the lock's queue for its turn and
// renews the lock in the background; the options are those of Hold.
//
// The context that fn gets is a child of ctx. It ends, with a cause around
// ErrLockLost, before the cluster may grant the lock to another; see Hold. When
// ctx ends, fn's context ends too, and the lock is kept until fn has returned.
// The token goes with every write that the lock protects.
//
// Do returns what fn returned, and if the lock was lost before that also an
// error around ErrLockLost, the two joined. A release that fails is no error of
// Do's: the lock lapses. When the lock was not acquired, fn is not called, and
// the error is that of Hold.
func Do(ctx context.Context, c RaftLockClient, lockID string, fn func(ctx context.Context, token int64) error, opts ...HoldOption) error {
	if fn == nil {
		return badArgument("Do", "fn", nil, "must not be nil")
	}
	h, err := hold(ctx, c, lockID, opts)
	if err != nil {
		return err
	}
	defer func() { _ = afterWork(ctx, h.lease.clock, h.Release) }() // also when fn panics
	err = fn(h.ctx, h.Token())
	return withLoss(err, h.lease.loss())
}

// DoWithLock tries once to take a lock for ttl (zero means the cluster's
// default), calls fn if it was free, and gives it back when fn has returned,
// panicked, or ended its goroutine. It does not renew: fn's context ends with
// the TTL, with a cause around ErrLockLost, before the cluster may grant the
// lock to another. See Do for a lock that is kept, and waited for.
//
// Calls that share a clientID exclude each other. DoWithLock returns what fn
// returned, joined with an error around ErrLockLost if the TTL was over first.
// Errors without a call of fn: ErrLockHeld and the others of
// RaftLockClient.Acquire. It makes its handle with NewLockHandleFunc.
func DoWithLock(
	ctx context.Context, client RaftLockClient, lockID, clientID string, ttl time.Duration,
	fn func(ctx context.Context) error,
) (err error) {
	if fn == nil {
		return badArgument("DoWithLock", "fn", nil, "must not be nil")
	}
	handle, err := NewLockHandleFunc(client, lockID, clientID)
	if err != nil {
		return err
	}
	defer func() { _ = afterWork(ctx, clock.Of(client), handle.Close) }()
	if err := handle.Acquire(ctx, ttl, false); err != nil {
		return err
	}
	work, cancel := context.WithCancelCause(ctx)
	defer cancel(errReleased)
	own := clock.Of(handle)
	if left, ok := new(horizon).left(handle, own.Now()); ok {
		timer := own.AfterFunc(left, func() { cancel(errExpired) })
		defer timer.Stop()
	}
	err = fn(heldContext(work, cancel, handle))
	return withLoss(err, lossOf(handle, nil))
}

// RunWithLock waits for a lock, calls fn while it holds it, and gives it back
// when fn has returned, panicked, or ended its goroutine. Meanwhile it renews the
// lock every interval, to last for another ttl each time; interval must be
// shorter than ttl, a third of it is a good choice. A grant that has less left
// than ttl is renewed sooner, see NewAutoRenewer. It is Do for programs that have
// a ClientID, and makes its parts with NewLockHandleFunc and
// NewAutoRenewerFunc.
//
// What is said at Do of fn's context and of what is returned holds here too.
// Calls that share a clientID exclude each other.
func RunWithLock(
	ctx context.Context, client RaftLockClient, lockID, clientID string, ttl, interval time.Duration,
	fn func(context.Context) error,
) (err error) {
	if fn == nil {
		return badArgument("RunWithLock", "fn", nil, "must not be nil")
	}
	handle, err := NewLockHandleFunc(client, lockID, clientID)
	if err != nil {
		return err
	}
	own := clock.Of(client)
	defer func() { _ = afterWork(ctx, own, handle.Close) }()
	renewer, err := NewAutoRenewerFunc(handle, interval, ttl) // before the lock is taken: it refuses bad arguments
	if err != nil {
		return err
	}
	if err := handle.Acquire(ctx, ttl, true); err != nil {
		return err
	}
	work, cancel := context.WithCancelCause(ctx)
	defer cancel(errReleased)
	renewer.Start(context.WithoutCancel(ctx)) // the lock is kept until fn has returned
	defer func() { _ = afterWork(ctx, own, renewer.Stop) }()
	go watch(work, cancel, handle, renewer)
	err = fn(heldContext(work, cancel, handle))
	loss := context.Cause(work) // what the work was told, so that it is told once
	if !errors.Is(loss, ErrLockLost) {
		loss = lossOf(handle, renewer.Err())
	}
	return withLoss(err, loss)
}

// watch ends the work when its renewer gives up, and at the end of the lock,
// whatever keeps the renewer: a renewal may hang beyond its context.
func watch(work context.Context, cancel context.CancelCauseFunc, handle LockHandle, renewer AutoRenewer) {
	own := clock.Of(handle)
	var end horizon
	for {
		left, tells := end.left(handle, own.Now())
		if !handle.IsHeld() || tells && left <= 0 {
			cancel(lossOf(handle, renewer.Err()))
			return
		}
		timer := own.NewTimer(left)
		due := timer.C
		if !tells {
			due = nil
		}
		select {
		case <-due:
			timer.Stop()
			continue
		case <-renewer.Done():
			if err := renewer.Err(); err != nil {
				cancel(err)
			}
		case <-work.Done():
		}
		timer.Stop()
		return
	}
}

// afterWork ends something that a lock needed, in a time that is not bounded by
// the context of the work, which may be over.
func afterWork(ctx context.Context, c clock.Clock, end func(context.Context) error) error {
	ctx, cancel := c.WithTimeout(context.WithoutCancel(ctx), releaseLimit)
	defer cancel()
	return end(ctx)
}

// heldContext is the context of work under a handle's lock.
func heldContext(work context.Context, cancel context.CancelCauseFunc, handle LockHandle) context.Context {
	return workContext{work, func() {
		if !handle.IsHeld() {
			cancel(errExpired)
		}
	}}
}

// lossOf is how a handle has lost its lock, as its renewer says or the clock;
// nil if it has not.
func lossOf(handle LockHandle, renewing error) error {
	if renewing == nil && !handle.IsHeld() {
		return errExpired
	}
	return renewing
}

// withLoss adds the loss of a lock to what the work returned.
func withLoss(err, loss error) error {
	switch {
	case loss == nil || err != nil && errors.Is(err, loss):
		return err
	case err == nil:
		return loss
	}
	return errors.Join(err, loss)
}

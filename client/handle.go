package client

import (
	"context"
	"time"
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
	// more, whatever the outcome. After a failure it may be called again, also
	// with a context that is done: it retries with the token that it kept.
	//
	// Errors: those of RaftLockClient.Release.
	Release(ctx context.Context) error

	// Renew lets the grant last for newTTL from now. If the outcome is unknown
	// the lock stays held until the end that is known for sure; after that end
	// it never comes back, even if the renewal turns out to have succeeded.
	//
	// Errors: ErrNotLockOwner if the handle does not hold the lock, and those
	// of RaftLockClient.Renew.
	Renew(ctx context.Context, newTTL time.Duration) error

	// IsHeld reports whether the lock is held now. It reads the clock, does not
	// block, and turns false by itself when the grant ends, network or not.
	IsHeld() bool

	// Lock returns a copy of the grant, or nil when IsHeld is false. It does
	// not block.
	Lock() *Lock

	// Close releases the lock if it is held and refuses further use with
	// ErrClientClosed. It may be called again, as Release may.
	Close(ctx context.Context) error
}

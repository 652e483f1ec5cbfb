package client

import "time"

// AcquireRequest asks for a lock.
type AcquireRequest struct {
	// LockID names the lock: 1 to 256 bytes of UTF-8 without control
	// characters.
	LockID string

	// ClientID names the running process that asks, with the same bounds. See
	// NewClientID.
	ClientID string

	// TTL is how long the grant lasts unless it is renewed. Zero means the
	// cluster's default (30 s). Out of bounds (100 ms to 24 h): ErrInvalidTTL.
	TTL time.Duration

	// Wait says whether to join the queue when the lock is held.
	Wait bool

	// WaitTimeout bounds the stay in the queue. Zero means the cluster's
	// default (60 s); at most 24 h. It means nothing when Wait is false.
	WaitTimeout time.Duration

	// Priority orders the queue: higher first, equal ones in order of arrival.
	// −1000 to 1000, 0 by default.
	Priority int32

	// Metadata stays with the grant and is shown to whoever looks at the lock:
	// at most 32 entries, keys of 1 to 64 bytes, values of up to 256.
	Metadata map[string]string

	// RequestID names this call over all its attempts, up to 128 bytes. Calls
	// with the same ClientID and different RequestIDs exclude each other; a
	// call that is repeated with its RequestID gets its own grant back. Empty
	// is a value like any other.
	RequestID string

	// Attempt counts the attempts of this call from 1; zero means unknown. The
	// clients of this project set it themselves.
	Attempt int32
}

// ReleaseRequest gives a lock back.
type ReleaseRequest struct {
	// LockID names the lock.
	LockID string

	// ClientID is the one that the lock was acquired with.
	ClientID string

	// Version is the one of the grant (Lock.Version).
	Version int64
}

// RenewRequest prolongs a grant.
type RenewRequest struct {
	// LockID names the lock.
	LockID string

	// ClientID is the one that the lock was acquired with.
	ClientID string

	// Version is the one of the grant (Lock.Version). Renewing keeps it.
	Version int64

	// NewTTL is how long the grant lasts from now on. Zero and anything else
	// out of bounds (100 ms to 24 h): ErrInvalidTTL.
	NewTTL time.Duration
}

// GetLockInfoRequest asks about one lock.
type GetLockInfoRequest struct {
	// LockID names the lock.
	LockID string

	// IncludeWaiters asks for the queue, too.
	IncludeWaiters bool
}

// GetLocksRequest asks for a list of locks.
type GetLocksRequest struct {
	// Filter selects the locks; nil selects all.
	Filter *LockFilter

	// Limit bounds the size of the answer. Zero gathers everything; otherwise
	// at most Limit locks come back, fewer if the answer would get too large,
	// and HasMore says whether some are left.
	Limit int32

	// Offset skips that many of the locks that match. Locks that come and go
	// between two calls shift the rest, so that some may be seen twice and some
	// not at all: StartAfter is not subject to that.
	Offset int32

	// IncludeWaiters asks for the queue of each lock, too.
	IncludeWaiters bool

	// StartAfter begins the list behind this LockID. Pass the last one of a
	// page to get the next: no lock that stands is repeated or skipped.
	StartAfter string
}

// EnqueueWaiterRequest joins the queue of a lock.
type EnqueueWaiterRequest struct {
	// LockID names the lock.
	LockID string

	// ClientID names the running process that waits.
	ClientID string

	// Timeout bounds the stay in the queue. Zero means the cluster's default
	// (60 s); at most 24 h.
	Timeout time.Duration

	// Priority orders the queue: higher first, −1000 to 1000.
	Priority int32

	// Version is the caller's own mark of this wait, for CancelWait to name. It
	// is not a fencing token.
	Version int64
}

// CancelWaitRequest leaves the queue of a lock.
type CancelWaitRequest struct {
	// LockID names the lock.
	LockID string

	// ClientID is the one that waits.
	ClientID string

	// Version is the mark given to EnqueueWaiter. Zero ends the wait whatever
	// its mark.
	Version int64

	// RequestID withdraws the Acquire that carries it: a wait ends, a grant
	// that it won meanwhile ends too, and a late attempt of it is refused with
	// ErrNotWaiting. Empty means the plain wait of ClientID.
	RequestID string
}

// BackoffAdviceRequest asks how to pace attempts on a lock.
type BackoffAdviceRequest struct {
	// LockID names the lock.
	LockID string
}

// GetStatusRequest asks a member for its state.
type GetStatusRequest struct {
	// IncludeReplicationDetails asks how far each peer has come. Only the
	// leader knows.
	IncludeReplicationDetails bool
}

// HealthRequest asks a member whether it can serve.
type HealthRequest struct {
	// ServiceName says which service is meant; empty is the whole member.
	ServiceName string
}

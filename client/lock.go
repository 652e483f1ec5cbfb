package client

import "time"

// Lock is a grant: who holds a lock, under which token, until when.
type Lock struct {
	// LockID names the lock.
	LockID string

	// OwnerID is the ClientID that holds it.
	OwnerID string

	// Version is the fencing token: one per grant, unique and growing over all
	// locks of the cluster, unchanged by a renewal and never used again. Pass
	// it to whatever the lock protects, and have that refuse a smaller one than
	// it has seen.
	Version int64

	// AcquiredAt is when the lock was granted, by the wall clock of the leader
	// of that time. It is for people to read; nothing compares it.
	AcquiredAt time.Time

	// ExpiresAt is when the grant ends unless it is renewed, by this process's
	// own monotonic clock: the instant before the answered request was sent
	// plus the time that the leader said was left. Comparing it with time.Now
	// is right, printing it and comparing it elsewhere is not.
	ExpiresAt time.Time

	// Metadata came with the Acquire.
	Metadata map[string]string
}

// LockInfo describes a lock, held or free. A lock that was freed stays listed
// for about a minute.
type LockInfo struct {
	// LockID names the lock.
	LockID string

	// OwnerID is the ClientID that holds it, empty when it is free.
	OwnerID string

	// Version is the fencing token of the present grant, or of the last one.
	Version int64

	// AcquiredAt is when it was granted, by the leader's wall clock.
	AcquiredAt time.Time

	// ExpiresAt is when the grant ends unless it is renewed, by this process's
	// own clock; see Lock. Zero when the lock is free.
	ExpiresAt time.Time

	// WaiterCount is how many identities wait.
	WaiterCount int32

	// WaitersInfo is the queue in its order, if it was asked for.
	WaitersInfo []*WaiterInfo

	// Metadata came with the Acquire.
	Metadata map[string]string

	// LastModifiedAt is when the lock last changed, by the leader's wall clock.
	LastModifiedAt time.Time
}

// WaiterInfo describes one place in a queue.
type WaiterInfo struct {
	// ClientID is the one that waits.
	ClientID string

	// EnqueuedAt is when it joined, by the leader's wall clock.
	EnqueuedAt time.Time

	// TimeoutAt is when it gives up.
	TimeoutAt time.Time

	// Priority is the one it joined with.
	Priority int32

	// Position is its place, 0 being the front.
	Position int32
}

// LockFilter selects locks. A lock must pass every condition that is set; the
// zero filter selects all.
type LockFilter struct {
	// LockIDPattern must match the whole LockID: `*` is any run of characters,
	// `?` is one. Empty matches everything.
	LockIDPattern string

	// OwnerIDPattern is the same for OwnerID.
	OwnerIDPattern string

	// OnlyHeld leaves out free locks.
	OnlyHeld bool

	// OnlyContested leaves out locks that nobody waits for.
	OnlyContested bool

	// ExpiresBefore selects locks that end at this time or sooner.
	ExpiresBefore *time.Time

	// ExpiresAfter selects locks that end at this time or later.
	ExpiresAfter *time.Time

	// MetadataFilter selects locks that have all of these entries.
	MetadataFilter map[string]string
}

// BackoffAdvice paces repeated attempts on a lock: pause InitialBackoff before
// the first one, then each time Multiplier times longer, up to MaxBackoff.
type BackoffAdvice struct {
	// InitialBackoff is the pause before the first repeat.
	InitialBackoff time.Duration

	// MaxBackoff is the longest pause. For a held lock it is never longer than
	// the time that the grant has left.
	MaxBackoff time.Duration

	// Multiplier is by how much each pause is longer than the one before.
	Multiplier float64

	// JitterFactor is the share of each pause that should be random, 0 to 1, so
	// that callers who were refused together do not come back together.
	JitterFactor float64
}

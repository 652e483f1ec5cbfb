package client

import "context"

// RaftLockClient takes, keeps and gives back locks, and looks at them.
//
// All methods may be called from any number of goroutines. A context bounds
// how long the caller waits; a command that is on its way when the context
// ends may still be applied, and the error then is ErrOutcomeUnknown. Requests
// are read during the call only and may be used again after it; results belong
// to the caller.
//
// Any call may end with ErrInvalidArgument (a field is out of bounds; nothing
// was changed), ErrLeaderUnavailable (no leader within the time that the call
// has), ErrUnavailable (no member can be reached), ErrTimeout, ErrRateLimit
// (the cluster is at a limit; try later) or ErrClientClosed. What else to
// expect stands with each method.
type RaftLockClient interface {
	// Acquire takes a lock for req.TTL.
	//
	// With req.Wait false it answers at once: the grant, or ErrLockHeld with
	// BackoffAdvice in the result. With req.Wait true it joins the queue and
	// blocks until it is granted, until req.WaitTimeout has passed (ErrTimeout;
	// the lock was not acquired), or until ctx ends. When ctx ends, a call with
	// a RequestID is withdrawn: its wait ends, and so does a grant that won the
	// race. A call without one may leave a grant behind, because another call
	// of the same ClientID could be using it.
	//
	// The identity that holds the lock already gets the same grant again, with
	// the same Version; without a RequestID its end may move to later, never to
	// sooner. Goroutines or processes that pass the same ClientID and no
	// RequestID therefore share the lock and its token.
	//
	// Errors: ErrLockHeld; ErrWaitQueueFull; ErrNotWaiting (the wait was
	// cancelled, or its turn came and went while it was cut off from the cluster:
	// a call with a RequestID does not wait again after it had the lock);
	// ErrInvalidTTL; ErrTimeout.
	Acquire(ctx context.Context, req *AcquireRequest) (*AcquireResult, error)

	// Release gives back the grant that req.Version names. If somebody waits,
	// the first of the queue holds the lock from the same instant, and the
	// result says so.
	//
	// Errors: ErrNotLockOwner (another client has the lock, or nobody);
	// ErrVersionMismatch (it is ours, under another grant); ErrLockNotFound.
	// None of them needs a retry: the grant is over.
	Release(ctx context.Context, req *ReleaseRequest) (*ReleaseResult, error)

	// Renew lets the grant that req.Version names last for req.NewTTL from now.
	// An end that is later already stays: a renewal never shortens, so that a
	// late or repeated one does no harm. It never brings a lost lock back. It
	// returns without an error only when a majority has it on disk.
	//
	// Errors: ErrNotLockOwner, ErrVersionMismatch and ErrLockNotFound (the lock
	// is lost: stop the work); ErrInvalidTTL.
	Renew(ctx context.Context, req *RenewRequest) (*RenewResult, error)

	// GetLockInfo describes one lock as it stood at some moment during the call
	// (the read is linearizable).
	//
	// Errors: ErrLockNotFound.
	GetLockInfo(ctx context.Context, req *GetLockInfoRequest) (*LockInfo, error)

	// GetLocks lists the locks that a filter selects, ordered by LockID. With
	// req.Limit 0 it gathers all of them, page by page: each page is a
	// linearizable read, the list as a whole is not.
	GetLocks(ctx context.Context, req *GetLocksRequest) (*GetLocksResult, error)

	// Close ends the client and returns nil, also the second time; later calls
	// return ErrClientClosed. What becomes of calls that are under way is for
	// the client to say: one in process lets them run on, until their contexts
	// end; one over the network ends them with ErrClientClosed, and with
	// ErrOutcomeUnknown if they may have been applied; see Dial. No lock is released: what is held lapses when its time is over.
	Close() error
}

// AdminClient looks at members and their raft group, for tools and dashboards.
//
// All methods may be called from any number of goroutines, and end with
// ErrUnavailable, ErrTimeout or ErrClientClosed if no answer can be had.
type AdminClient interface {
	// GetStatus describes the member that answers: its part in the raft group,
	// counts over the table of locks, its health.
	GetStatus(ctx context.Context, req *GetStatusRequest) (*ClusterStatus, error)

	// Health says whether the member that answers can serve calls now. When it
	// cannot, the status is HealthStatusNotServing and the error is
	// ErrUnavailable.
	Health(ctx context.Context, req *HealthRequest) (*HealthStatus, error)

	// GetBackoffAdvice says how to pace attempts on a lock that is held by
	// another. It knows every lock, also one that was never taken.
	GetBackoffAdvice(ctx context.Context, req *BackoffAdviceRequest) (*BackoffAdvice, error)

	// Close ends the client and returns nil, also the second time; see
	// RaftLockClient.
	Close() error
}

// AdvancedClient handles queues by hand and adjusts the client itself. Most
// programs want Acquire with Wait instead.
//
// All methods may be called from any number of goroutines; those with a
// context fail like the ones of RaftLockClient.
type AdvancedClient interface {
	// EnqueueWaiter joins the queue of a lock as (ClientID, no RequestID) and
	// returns at once with the place it got. A free lock is granted at once:
	// Enqueued, Position 0. A later grant lasts for the cluster's default
	// time-to-live; a plain Acquire of the same ClientID picks it up. Calling
	// it again changes timeout and priority.
	//
	// Errors: ErrLockHeld (the caller holds the lock itself); ErrWaitQueueFull.
	EnqueueWaiter(ctx context.Context, req *EnqueueWaiterRequest) (*EnqueueResult, error)

	// CancelWait leaves the queue of a lock. Every call that waits with the
	// same identity ends with ErrNotWaiting. With req.RequestID it withdraws
	// that one Acquire instead, and succeeds whatever it finds.
	//
	// Errors: ErrNotWaiting (the caller is not in the queue);
	// ErrVersionMismatch (it is, with another Version).
	CancelWait(ctx context.Context, req *CancelWaitRequest) (*CancelWaitResult, error)

	// GetLeaderAddress returns the leader's address for clients as last heard,
	// or "" when none is known. It does not block.
	GetLeaderAddress() string

	// IsConnected reports whether a call could be sent now. It does not block.
	IsConnected() bool

	// SetRetryPolicy replaces the retry policy for calls that begin after it.
	// The policy is copied.
	SetRetryPolicy(policy RetryPolicy)

	// GetMetrics returns the counters of this client, or nil if it was made
	// with EnableMetrics off.
	GetMetrics() Metrics

	// Close ends the client and returns nil, also the second time; see
	// RaftLockClient.
	Close() error
}

// Client is everything a cluster answers to. Programs that accept a client
// should ask for the smallest of the three interfaces that they need; code
// that provides one gives a Client.
type Client interface {
	RaftLockClient
	AdminClient
	AdvancedClient
}

package client

import "time"

// AcquireResult answers an AcquireRequest. It comes with the refusals too,
// beside the error.
type AcquireResult struct {
	// Acquired says whether the caller holds the lock.
	Acquired bool

	// Lock is the grant, nil without one.
	Lock *Lock

	// BackoffAdvice says when to try again; set when the lock is held by
	// another and the call did not wait.
	BackoffAdvice *BackoffAdvice

	// QueuePosition is the place in the queue, 0 being its front.
	QueuePosition int32

	// EstimatedWaitDuration is a guess of the time until the grant.
	EstimatedWaitDuration time.Duration

	// Error says why the lock was refused, nil if it was not.
	Error *ErrorDetail
}

// ReleaseResult answers a ReleaseRequest.
type ReleaseResult struct {
	// Released says whether the grant is over by this call.
	Released bool

	// WaiterPromoted says whether the first of the queue holds the lock now.
	WaiterPromoted bool

	// Error says why nothing was released, nil if it was.
	Error *ErrorDetail
}

// RenewResult answers a RenewRequest.
type RenewResult struct {
	// Renewed says whether the grant stands and lasts at least as long as
	// asked.
	Renewed bool

	// Lock is the grant with its end as it is now, nil if it is lost.
	Lock *Lock

	// Error says why the grant was not renewed, nil if it was.
	Error *ErrorDetail
}

// GetLocksResult answers a GetLocksRequest.
type GetLocksResult struct {
	// Locks are ordered by LockID.
	Locks []*LockInfo

	// TotalMatching counts all locks that the filter selects, on this page or
	// not.
	TotalMatching int32

	// HasMore says whether locks that match follow behind the last one here.
	HasMore bool
}

// EnqueueResult answers an EnqueueWaiterRequest.
type EnqueueResult struct {
	// Enqueued says whether the caller waits, or was granted the lock at once.
	Enqueued bool

	// Position is the place in the queue at that moment, 0 being its front.
	Position int32

	// EstimatedWaitDuration is a guess of the time until the grant.
	EstimatedWaitDuration time.Duration

	// Error says why the caller is not in the queue, nil if it is.
	Error *ErrorDetail
}

// CancelWaitResult answers a CancelWaitRequest.
type CancelWaitResult struct {
	// Cancelled says whether the wait is over by this call.
	Cancelled bool

	// Error says why it is not, nil if it is.
	Error *ErrorDetail
}

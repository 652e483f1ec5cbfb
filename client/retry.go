package client

import (
	"time"

	"github.com/raftlock/raftlock/pb"
)

// RetryPolicy says when and how often a client repeats a call that failed. One
// retry is one pass over all endpoints. A refusal by the cluster (the lock is
// held, the token is old, …) is final and never repeated, whatever the policy.
type RetryPolicy struct {
	// MaxRetries is how many times a call is repeated after its first attempt.
	// Default 3; 0 is none.
	MaxRetries int

	// InitialBackoff is the pause before the first repeat. Default 100 ms.
	InitialBackoff time.Duration

	// MaxBackoff is the longest pause. Default 5 s.
	MaxBackoff time.Duration

	// BackoffMultiplier is by how much each pause is longer than the one
	// before. Default 2; below 1 the pauses shrink.
	BackoffMultiplier float64

	// JitterFactor is the share of each pause that is random, 0 to 1, so that
	// clients that failed together do not come back together. Default 0.1.
	JitterFactor float64

	// RetryableErrors are the codes that a call is repeated on. Default:
	// NO_LEADER, NOT_LEADER, UNAVAILABLE, TIMEOUT; none: no call is.
	RetryableErrors []pb.ErrorCode
}

// DefaultRetryPolicy returns the policy of a client that was given none: it
// bears with a change of the leader and with a member that is gone. The caller
// may change every part of it.
func DefaultRetryPolicy() RetryPolicy {
	return RetryPolicy{
		MaxRetries:        3,
		InitialBackoff:    100 * time.Millisecond,
		MaxBackoff:        5 * time.Second,
		BackoffMultiplier: 2.0,
		JitterFactor:      0.1,
		RetryableErrors: []pb.ErrorCode{
			pb.ErrorCode_NO_LEADER,
			pb.ErrorCode_NOT_LEADER,
			pb.ErrorCode_UNAVAILABLE,
			pb.ErrorCode_TIMEOUT,
		},
	}
}

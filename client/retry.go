package client

import (
	"math"
	"math/rand/v2"
	"slices"
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

	// MaxBackoff is the longest pause. Default 5 s. A call that may stand in a
	// queue pauses 1 s at most, since the cluster keeps its place for 2 s.
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

// isZero reports whether nothing of the policy was written.
func (p *RetryPolicy) isZero() bool {
	return p.MaxRetries == 0 && p.InitialBackoff == 0 && p.MaxBackoff == 0 &&
		p.BackoffMultiplier == 0 && p.JitterFactor == 0 && p.RetryableErrors == nil
}

// check hands each of the policy's fields, and whether it is in bounds, on.
func (p *RetryPolicy) check(field func(ok bool, name string, value any, message string)) {
	field(p.MaxRetries >= 0, "RetryPolicy.MaxRetries", p.MaxRetries, "must not be negative")
	field(p.InitialBackoff >= 0, "RetryPolicy.InitialBackoff", p.InitialBackoff, "must not be negative")
	field(p.MaxBackoff >= 0, "RetryPolicy.MaxBackoff", p.MaxBackoff, "must not be negative")
	field(p.BackoffMultiplier >= 0 && !math.IsInf(p.BackoffMultiplier, 1), "RetryPolicy.BackoffMultiplier", p.BackoffMultiplier, "must be a number that is not negative")
	field(p.JitterFactor >= 0 && p.JitterFactor <= 1, "RetryPolicy.JitterFactor", p.JitterFactor, "must be within 0 and 1")
}

// repeats reports whether a call that failed with the code may be repeated.
func (p *RetryPolicy) repeats(code pb.ErrorCode) bool {
	return slices.Contains(p.RetryableErrors, code)
}

// minPause keeps repeats apart whatever a policy says: nobody is helped by a
// client that spins.
const minPause = time.Millisecond

// pause is how long to wait before the repeat that follows on tries others. It
// bears with any policy, since SetRetryPolicy takes every one.
func (p *RetryPolicy) pause(tries int) time.Duration {
	d := float64(p.InitialBackoff) * math.Pow(p.BackoffMultiplier, float64(tries))
	d *= 1 + p.JitterFactor*(2*rand.Float64()-1)
	if !(d > float64(minPause)) { // also when it is not a number
		return minPause
	}
	return max(minPause, time.Duration(min(d, float64(p.MaxBackoff))))
}

package raftlock

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/raftlock/raftlock/internal/input"
	"github.com/raftlock/raftlock/pb"
)

// failure is why a call did not get a result of the table: it was refused
// before it was proposed, or its outcome is not known. It travels between
// members as it is.
type failure struct {
	code    pb.ErrorCode
	message string
	details map[string]string // the keys are API

	// again: this member did not propose the call and never will, but another
	// may. It is for the forwarding member only.
	again bool
	// interrupted: the call stood in a queue when its leader was lost. It has
	// kept its place, and the same call, made again at once, claims it.
	interrupted bool
	// closed: this member itself is closed. It never travels.
	closed bool
}

// The keys and values of details that say how a call ended.
const (
	detailOutcome      = "outcome"
	outcomeNotAcquired = "not_acquired"
	outcomeNotProposed = "not_proposed"
	outcomeUnknown     = "unknown"
)

func (f *failure) outcome() string { return f.details[detailOutcome] }

func failed(code pb.ErrorCode, outcome, format string, args ...any) *failure {
	return &failure{
		code:    code,
		message: fmt.Sprintf(format, args...),
		details: map[string]string{detailOutcome: outcome},
	}
}

// ended is the failure of a call to a member that is closed.
func ended(outcome, message string) *failure {
	f := failed(pb.ErrorCode_UNAVAILABLE, outcome, "%s", message)
	f.closed = true
	return f
}

// The failures that do not depend on the call. They are shared, and never changed.
var (
	noLeader     = failed(pb.ErrorCode_NO_LEADER, outcomeNotProposed, "no leader is known")
	notProposed  = failed(pb.ErrorCode_UNAVAILABLE, outcomeNotProposed, "the leader did not propose the call in time")
	overloaded   = failed(pb.ErrorCode_RATE_LIMITED, outcomeNotProposed, "too many calls are under way")
	timedOut     = failed(pb.ErrorCode_TIMEOUT, outcomeUnknown, "no answer within the request time-out")
	readTimedOut = failed(pb.ErrorCode_TIMEOUT, outcomeNotProposed, "no answer within the request time-out")
	leaderLost   = failed(pb.ErrorCode_UNAVAILABLE, outcomeUnknown, "the leader was lost before it answered")
	diskHangs    = failed(pb.ErrorCode_UNAVAILABLE, outcomeNotProposed, "the disk of this member does not answer: ask another member")
	memberClosed = ended(outcomeUnknown, "the member was closed before the call was answered")
	memberGone   = ended(outcomeNotProposed, "the member is closed")

	clientClosed = failed(pb.ErrorCode_UNAVAILABLE, outcomeNotProposed, "the client is closed")
	nilRequest   = failed(pb.ErrorCode_INVALID_ARGUMENT, outcomeNotProposed, "request is nil")

	elsewhere = &failure{
		code: pb.ErrorCode_NOT_LEADER, message: "not the leader", again: true,
		details: map[string]string{detailOutcome: outcomeNotProposed},
	}
	waitInterrupted = &failure{
		code: pb.ErrorCode_UNAVAILABLE, message: "the leader was lost during the wait", interrupted: true,
		details: map[string]string{detailOutcome: outcomeUnknown},
	}
)

// endedBy is the failure of a call whose context ended.
func endedBy(err error, outcome string) *failure {
	if errors.Is(err, context.DeadlineExceeded) {
		return failed(pb.ErrorCode_TIMEOUT, outcome, "the deadline of the call has passed")
	}
	return failed(pb.ErrorCode_UNAVAILABLE, outcome, "the call was cancelled")
}

// atClosing is f from a member that is about to end: when its streams break
// first, a call seems to have lost its leader.
func (f *failure) atClosing() *failure {
	if f.code != pb.ErrorCode_UNAVAILABLE && f.code != pb.ErrorCode_NO_LEADER {
		return f
	}
	closing := *f
	closing.closed = true
	return &closing
}

// stillUnknown is f for a call of which an earlier attempt may have been
// applied. Its code says so too: NO_LEADER would mean that nothing was proposed.
func stillUnknown(f *failure) *failure {
	unknown := *f
	if f.code == pb.ErrorCode_NO_LEADER {
		unknown.code = pb.ErrorCode_UNAVAILABLE
	}
	unknown.details = maps.Clone(f.details)
	unknown.details[detailOutcome] = outcomeUnknown
	return &unknown
}

// faulty is the refusal of a request's field.
func faulty(code pb.ErrorCode, fault *input.Fault) *failure {
	if fault == nil {
		return nil
	}
	f := failed(code, outcomeNotProposed, "%s", fault.Why)
	f.details["field"], f.details["value"] = fault.Field, fault.Value
	if fault.Max != "" {
		f.details["min"], f.details["max"] = fault.Min, fault.Max
	}
	return f
}

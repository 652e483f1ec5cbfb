package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/raftlock/raftlock/pb"
)

// failure is why an attempt, or the call as a whole, has no result.
type failure struct {
	code    pb.ErrorCode
	message string            // for people; "" if the code says it all
	details map[string]string // the keys are API

	// final: the cluster has decided; no other attempt could change it.
	final bool
	// sent: a member may have received the attempt.
	sent bool
	// unfit: the server has said that it cannot serve now, or not at all.
	unfit bool
	// leader is where a member that cannot pass the call on sends its caller.
	leader string
	// closed: this client was closed.
	closed bool
	// cause is the error of the caller's context, if that ended the call.
	cause error
}

// The key and the values of the detail that says how a call ended.
const (
	detailOutcome      = "outcome"
	outcomeNotProposed = "not_proposed"
	outcomeUnknown     = "unknown"
)

func failed(code pb.ErrorCode, outcome, format string, args ...any) *failure {
	return &failure{
		code:    code,
		message: fmt.Sprintf(format, args...),
		details: map[string]string{detailOutcome: outcome},
	}
}

func (f *failure) unknown() bool { return f.details[detailOutcome] == outcomeUnknown }

// as is f with another outcome.
func (f *failure) as(outcome string) *failure {
	other := *f
	other.details = maps.Clone(f.details)
	if other.details == nil {
		other.details = map[string]string{}
	}
	other.details[detailOutcome] = outcome
	if outcome == outcomeUnknown && (f.code == pb.ErrorCode_NO_LEADER || f.code == pb.ErrorCode_NOT_LEADER) {
		other.code = pb.ErrorCode_UNAVAILABLE // those two say that nothing was proposed
	}
	return &other
}

// closedBefore is the failure of a call on a closed client.
func closedBefore() *failure {
	f := failed(pb.ErrorCode_UNAVAILABLE, outcomeNotProposed, "")
	f.closed = true
	return f
}

// endedBy is the failure of a call whose context ended.
func endedBy(cause error) *failure {
	f := failed(pb.ErrorCode_UNAVAILABLE, outcomeNotProposed, "the call was cancelled")
	if errors.Is(cause, context.DeadlineExceeded) {
		f = failed(pb.ErrorCode_TIMEOUT, outcomeNotProposed, "the deadline of the call has passed")
	}
	f.cause = cause
	return f
}

// err is the error of a failed operation.
func (f *failure) err(op string) error {
	err := ErrorFromCode(f.code)
	switch {
	case err == nil: // OK is no failure, whoever says so
		err = codeError(f.code)
	case f.closed && f.unknown():
		err = fmt.Errorf("%w: %w", ErrClientClosed, err)
	case f.closed:
		err = ErrClientClosed
	}
	if text := f.text(err); f.details["field"] != "" {
		err = fmt.Errorf("%w: %w", err, NewValidationError(f.details["field"], f.details["value"], text))
	} else if text != "" && !f.final {
		err = fmt.Errorf("%w: %s", err, text)
	}
	if f.unknown() {
		if f.code != pb.ErrorCode_TIMEOUT && f.code != pb.ErrorCode_UNAVAILABLE {
			err = fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		err = fmt.Errorf("%w: %w", err, ErrOutcomeUnknown)
	}
	if f.cause != nil {
		err = fmt.Errorf("%w: %w", err, f.cause)
	}
	return NewClientError(op, err, f.code, f.details)
}

// text is the message without what the error around it says anyway: members
// word their messages as this package words its errors.
func (f *failure) text(around error) string {
	text := f.message
	if field := f.details["field"]; field != "" {
		if _, rest, ok := strings.Cut(text, "for field '"+field+"': "); ok {
			return rest
		}
	}
	text = strings.TrimSuffix(strings.TrimSuffix(text, ErrOutcomeUnknown.Error()), ": ")
	if text == around.Error() {
		return ""
	}
	return strings.TrimPrefix(text, around.Error()+": ")
}

// refuse is what a failed operation returns: the error, and the detail that goes
// into its result.
func (f *failure) refuse(op string) (*ErrorDetail, error) {
	err := f.err(op)
	message := errors.Unwrap(err).Error()
	if f.final && f.sent && f.message != "" {
		message = f.message // a member's own words
	}
	return &ErrorDetail{Code: f.code, Message: message, Details: f.details}, err
}

// decided are the codes with which the cluster refuses for good.
var decided = map[pb.ErrorCode]bool{
	pb.ErrorCode_LOCK_HELD:        true,
	pb.ErrorCode_LOCK_NOT_HELD:    true,
	pb.ErrorCode_NOT_LOCK_OWNER:   true,
	pb.ErrorCode_VERSION_MISMATCH: true,
	pb.ErrorCode_LOCK_NOT_FOUND:   true,
	pb.ErrorCode_INVALID_TTL:      true,
	pb.ErrorCode_WAIT_QUEUE_FULL:  true,
	pb.ErrorCode_NOT_WAITING:      true,
	pb.ErrorCode_INVALID_ARGUMENT: true,
}

// failureOf is what a member's ErrorDetail means; in an answer, as opposed to a
// gRPC status, a TIMEOUT is that of a wait.
func failureOf(d *pb.ErrorDetail, inAnswer bool) *failure {
	f := &failure{code: d.GetCode(), message: printable(d.GetMessage(), 4*maxShown), details: maps.Clone(d.GetDetails()), sent: true}
	if f.details == nil {
		f.details = map[string]string{}
	}
	if f.code == pb.ErrorCode_NOT_LEADER {
		f.leader = f.details["leader_address"]
	}
	f.final = decided[f.code] || inAnswer && f.code == pb.ErrorCode_TIMEOUT
	f.unfit = f.code == pb.ErrorCode_NO_LEADER || f.code == pb.ErrorCode_UNAVAILABLE
	if f.final || f.details[detailOutcome] != "" {
		return f
	}
	switch f.code {
	case pb.ErrorCode_NOT_LEADER, pb.ErrorCode_NO_LEADER, pb.ErrorCode_RATE_LIMITED, pb.ErrorCode_PERMISSION_DENIED:
		f.details[detailOutcome] = outcomeNotProposed
	default:
		f.details[detailOutcome] = outcomeUnknown
	}
	return f
}

// failureOfStatus is what the gRPC status of an attempt means. One without an
// ErrorDetail does not come from a member's table, but from the connection, from
// something in between, or from a server of another kind.
func failureOfStatus(err error, sent *atomic.Bool) *failure {
	st := status.Convert(err)
	for _, d := range st.Details() {
		if detail, ok := d.(*pb.ErrorDetail); ok && detail.GetCode() != pb.ErrorCode_OK {
			return failureOf(detail, false)
		}
	}
	f := failed(codeOfStatus(st.Code()), outcomeUnknown, "%s", printable(st.Message(), 4*maxShown))
	f.sent = sent.Load()
	switch st.Code() {
	case codes.Unimplemented:
		f.unfit = true
		f.message = "it does not serve raftlock.RaftLock, or not this call: is it a member of a raftlock cluster? (" + f.message + ")"
		return f.as(outcomeNotProposed)
	case codes.Unauthenticated, codes.PermissionDenied, codes.InvalidArgument:
		return f.as(outcomeNotProposed)
	}
	if !f.sent {
		return f.as(outcomeNotProposed)
	}
	return f
}

func codeOfStatus(code codes.Code) pb.ErrorCode {
	switch code {
	case codes.DeadlineExceeded:
		return pb.ErrorCode_TIMEOUT
	case codes.ResourceExhausted:
		return pb.ErrorCode_RATE_LIMITED
	case codes.InvalidArgument:
		return pb.ErrorCode_INVALID_ARGUMENT
	case codes.Unauthenticated, codes.PermissionDenied:
		return pb.ErrorCode_PERMISSION_DENIED
	case codes.Unavailable, codes.Canceled, codes.Unimplemented, codes.FailedPrecondition, codes.Aborted:
		return pb.ErrorCode_UNAVAILABLE
	}
	return pb.ErrorCode_INTERNAL_ERROR
}

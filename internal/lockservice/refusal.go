package lockservice

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/pb"
)

// The key and values of the detail that says how a call ended.
const (
	detailOutcome      = "outcome"
	outcomeNotAcquired = "not_acquired"
	outcomeNotProposed = "not_proposed"
	outcomeUnknown     = "unknown"
)

// statusOfCode is the gRPC status that goes with each code. A code that the
// table of locks refuses with has none here: it travels in the answer, with
// status OK.
var statusOfCode = map[pb.ErrorCode]codes.Code{
	pb.ErrorCode_INVALID_ARGUMENT:  codes.InvalidArgument,
	pb.ErrorCode_NOT_LEADER:        codes.FailedPrecondition,
	pb.ErrorCode_NO_LEADER:         codes.Unavailable,
	pb.ErrorCode_UNAVAILABLE:       codes.Unavailable,
	pb.ErrorCode_RATE_LIMITED:      codes.ResourceExhausted,
	pb.ErrorCode_TIMEOUT:           codes.DeadlineExceeded,
	pb.ErrorCode_PERMISSION_DENIED: codes.PermissionDenied,
	pb.ErrorCode_INTERNAL_ERROR:    codes.Internal,

	pb.ErrorCode_REPLICATION_FAILURE: codes.Unavailable,
}

// decided are the codes with which the table of locks refuses a call.
var decided = map[pb.ErrorCode]bool{
	pb.ErrorCode_LOCK_HELD:        true,
	pb.ErrorCode_LOCK_NOT_HELD:    true,
	pb.ErrorCode_NOT_LOCK_OWNER:   true,
	pb.ErrorCode_VERSION_MISMATCH: true,
	pb.ErrorCode_LOCK_NOT_FOUND:   true,
	pb.ErrorCode_INVALID_TTL:      true,
	pb.ErrorCode_WAIT_QUEUE_FULL:  true,
	pb.ErrorCode_NOT_WAITING:      true,
}

// inBand reports whether a refusal is part of the answer: the table has decided,
// a wait that is over included.
func inBand(detail *pb.ErrorDetail) bool {
	return decided[detail.Code] ||
		detail.Code == pb.ErrorCode_TIMEOUT && detail.Details[detailOutcome] == outcomeNotAcquired
}

// statusOf is the gRPC error that carries a detail.
func statusOf(detail *pb.ErrorDetail) error {
	code, ok := statusOfCode[detail.Code]
	if !ok {
		code = codes.FailedPrecondition // a decision, where the answer has no place for one
		if !decided[detail.Code] {
			code = codes.Internal
		}
	}
	st := status.New(code, detail.Message)
	if with, err := st.WithDetails(detail); err == nil {
		st = with
	}
	return st.Err()
}

// refusal is a call that has failed, before it is known whether its answer has a
// place for the reason.
type refusal struct{ detail *pb.ErrorDetail }

func (r refusal) Error() string { return r.detail.Message }

// GRPCStatus makes a refusal that is returned as it is a status.
func (r refusal) GRPCStatus() *status.Status { return status.Convert(statusOf(r.detail)) }

// settle splits the error of a call into what its answer says and what its
// status says.
func settle(err error) (*pb.ErrorDetail, error) {
	var refused refusal
	if errors.As(err, &refused) && inBand(refused.detail) {
		return refused.detail, nil
	}
	return nil, err
}

// detailOf is what an error of a client says on the wire.
func (s *Service) detailOf(err error) *pb.ErrorDetail {
	detail := &pb.ErrorDetail{Code: codeOf(err), Message: err.Error(), Details: map[string]string{}}
	var ce *client.ClientError
	if errors.As(err, &ce) {
		detail.Details = maps.Clone(ce.Details)
		if ce.Err != nil {
			detail.Message = ce.Err.Error()
		}
	}
	if detail.Details == nil {
		detail.Details = map[string]string{}
	}
	var invalid *client.ValidationError
	if errors.As(err, &invalid) && detail.Details["field"] == "" {
		detail.Details["field"] = invalid.Field
	}
	if errors.Is(err, client.ErrOutcomeUnknown) {
		detail.Details[detailOutcome] = outcomeUnknown
	}
	detail.Message = strings.ToValidUTF8(detail.Message, "\uFFFD")
	for key, value := range detail.Details {
		detail.Details[key] = strings.ToValidUTF8(value, "\uFFFD")
	}
	return detail
}

// codeOf is the code of an error: the one that it bears, otherwise the first
// whose error it is, by the table of package client.
func codeOf(err error) pb.ErrorCode {
	var ce *client.ClientError
	if errors.As(err, &ce) && ce.Code != pb.ErrorCode_ERROR_CODE_UNSPECIFIED && ce.Code != pb.ErrorCode_OK {
		return ce.Code
	}
	for _, number := range slices.Sorted(maps.Keys(pb.ErrorCode_name)) {
		code := pb.ErrorCode(number)
		if code == pb.ErrorCode_OK || code == pb.ErrorCode_ERROR_CODE_UNSPECIFIED || code == pb.ErrorCode_NOT_LEADER {
			continue // to say NOT_LEADER one must know that
		}
		if errors.Is(err, client.ErrorFromCode(code)) {
			return code
		}
	}
	switch {
	case errors.Is(err, client.ErrClientClosed), errors.Is(err, context.Canceled):
		return pb.ErrorCode_UNAVAILABLE
	case errors.Is(err, context.DeadlineExceeded):
		return pb.ErrorCode_TIMEOUT
	}
	return pb.ErrorCode_INTERNAL_ERROR
}

// badField is the refusal of a message before any client has seen it.
func badField(field, why string) error {
	return statusOf(&pb.ErrorDetail{
		Code:    pb.ErrorCode_INVALID_ARGUMENT,
		Message: client.ErrInvalidArgument.Error() + ": " + client.NewValidationError(field, nil, field+" "+why).Error(),
		Details: map[string]string{"field": field, detailOutcome: outcomeNotProposed},
	})
}

package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/raftlock/raftlock/pb"
)

func TestErrorTexts(t *testing.T) {
	for err, want := range map[error]string{
		ErrLockHeld:          "lock is already held by another client",
		ErrNotLockOwner:      "client does not own the lock",
		ErrVersionMismatch:   "lock version mismatch",
		ErrLockNotFound:      "lock not found",
		ErrInvalidTTL:        "invalid TTL value",
		ErrWaitQueueFull:     "wait queue is full",
		ErrNotWaiting:        "client is not waiting in the queue",
		ErrTimeout:           "operation timed out",
		ErrLeaderUnavailable: "no leader available",
		ErrInvalidArgument:   "invalid argument",
		ErrUnavailable:       "service unavailable",
		ErrRateLimit:         "request rate limited",
		ErrClientClosed:      "client is closed",
		ErrLockLost:          "lock lost",
		ErrOutcomeUnknown:    "outcome unknown: the command may have been applied",
	} {
		if err.Error() != want {
			t.Errorf("got %q, want %q", err, want)
		}
	}
}

func TestErrorFromCode(t *testing.T) {
	want := map[pb.ErrorCode]error{
		pb.ErrorCode_OK:               nil,
		pb.ErrorCode_LOCK_HELD:        ErrLockHeld,
		pb.ErrorCode_LOCK_NOT_HELD:    ErrNotLockOwner,
		pb.ErrorCode_NOT_LOCK_OWNER:   ErrNotLockOwner,
		pb.ErrorCode_VERSION_MISMATCH: ErrVersionMismatch,
		pb.ErrorCode_LOCK_NOT_FOUND:   ErrLockNotFound,
		pb.ErrorCode_INVALID_TTL:      ErrInvalidTTL,
		pb.ErrorCode_WAIT_QUEUE_FULL:  ErrWaitQueueFull,
		pb.ErrorCode_NOT_WAITING:      ErrNotWaiting,
		pb.ErrorCode_NOT_LEADER:       ErrLeaderUnavailable,
		pb.ErrorCode_NO_LEADER:        ErrLeaderUnavailable,
		pb.ErrorCode_TIMEOUT:          ErrTimeout,
		pb.ErrorCode_RATE_LIMITED:     ErrRateLimit,
		pb.ErrorCode_UNAVAILABLE:      ErrUnavailable,
		pb.ErrorCode_INVALID_ARGUMENT: ErrInvalidArgument,
	}
	nameOnly := map[pb.ErrorCode]string{
		pb.ErrorCode_ERROR_CODE_UNSPECIFIED: "error code ERROR_CODE_UNSPECIFIED",
		pb.ErrorCode_REPLICATION_FAILURE:    "error code REPLICATION_FAILURE",
		pb.ErrorCode_INTERNAL_ERROR:         "error code INTERNAL_ERROR",
		pb.ErrorCode_PERMISSION_DENIED:      "error code PERMISSION_DENIED",
		pb.ErrorCode(999):                   "error code 999",
		pb.ErrorCode(-1):                    "error code -1",
	}
	for code, want := range want {
		if got := ErrorFromCode(code); got != want {
			t.Errorf("%s: got %v, want %v", code, got, want)
		}
	}
	for code, want := range nameOnly {
		if got := ErrorFromCode(code); got == nil || got.Error() != want {
			t.Errorf("%s: got %v, want %q", code, got, want)
		}
	}
	for number := range pb.ErrorCode_name {
		code := pb.ErrorCode(number)
		_, a := want[code]
		_, b := nameOnly[code]
		if !a && !b {
			t.Errorf("%s is in neither table of this test", code)
		}
	}
}

func TestErrorsOfOneCodeAreEqual(t *testing.T) {
	internal := fmt.Errorf("wrapped: %w", ErrorFromCode(pb.ErrorCode_INTERNAL_ERROR))
	if !errors.Is(internal, ErrorFromCode(pb.ErrorCode_INTERNAL_ERROR)) {
		t.Error("two errors of INTERNAL_ERROR differ")
	}
	if errors.Is(internal, ErrorFromCode(pb.ErrorCode_PERMISSION_DENIED)) {
		t.Error("errors of two codes are equal")
	}
}

func TestClientErrorText(t *testing.T) {
	for _, c := range []struct {
		name string
		err  *ClientError
		want string
	}{
		{
			"without details",
			NewClientError("Renew", ErrNotLockOwner, pb.ErrorCode_NOT_LOCK_OWNER, nil),
			"client Renew failed: client does not own the lock (code: NOT_LOCK_OWNER)",
		},
		{
			"empty details",
			NewClientError("Renew", ErrNotLockOwner, pb.ErrorCode_NOT_LOCK_OWNER, map[string]string{}),
			"client Renew failed: client does not own the lock (code: NOT_LOCK_OWNER)",
		},
		{
			"details in the order of their keys",
			NewClientError("Acquire", ErrLockHeld, pb.ErrorCode_LOCK_HELD, map[string]string{"version": "7", "owner_id": "web-1"}),
			"client Acquire failed: lock is already held by another client (code: LOCK_HELD, details: map[owner_id:web-1 version:7])",
		},
		{
			"a code of a newer server",
			NewClientError("Acquire", ErrorFromCode(777), 777, nil),
			"client Acquire failed: error code 777 (code: 777)",
		},
		{
			"zero",
			&ClientError{},
			"client  failed: <nil> (code: ERROR_CODE_UNSPECIFIED)",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.err.Error(); got != c.want {
				t.Errorf("\n got %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestNewClientErrorKeepsItsParts(t *testing.T) {
	details := map[string]string{"depth": "10"}
	e := NewClientError("Acquire", ErrWaitQueueFull, pb.ErrorCode_WAIT_QUEUE_FULL, details)
	if e.Op != "Acquire" || e.Err != ErrWaitQueueFull || e.Code != pb.ErrorCode_WAIT_QUEUE_FULL || e.Details["depth"] != "10" {
		t.Errorf("got %#v", e)
	}
	if e.Unwrap() != ErrWaitQueueFull {
		t.Errorf("unwraps to %v", e.Unwrap())
	}
}

func TestClientErrorIs(t *testing.T) {
	one := NewClientError("Release", fmt.Errorf("release: %w", ErrVersionMismatch), pb.ErrorCode_VERSION_MISMATCH, nil)
	unknown := NewClientError("Acquire", fmt.Errorf("%w: %w: %w", ErrTimeout, ErrOutcomeUnknown, context.DeadlineExceeded), pb.ErrorCode_TIMEOUT, nil)
	joined := NewClientError("Acquire", errors.Join(ErrUnavailable, ErrOutcomeUnknown), pb.ErrorCode_UNAVAILABLE, nil)
	for _, c := range []struct {
		name   string
		err    *ClientError
		target error
		want   bool
	}{
		{"its reason", one, ErrVersionMismatch, true},
		{"another reason", one, ErrNotLockOwner, false},
		{"itself", one, one, true},
		{"the first of several", unknown, ErrTimeout, true},
		{"the second of several", unknown, ErrOutcomeUnknown, true},
		{"the end of the context", unknown, context.DeadlineExceeded, true},
		{"not another end of a context", unknown, context.Canceled, false},
		{"joined, first", joined, ErrUnavailable, true},
		{"joined, second", joined, ErrOutcomeUnknown, true},
		{"joined, none", joined, ErrTimeout, false},
		{"no reason", &ClientError{}, ErrTimeout, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := errors.Is(fmt.Errorf("outer: %w", c.err), c.target); got != c.want {
				t.Errorf("wrapped: errors.Is is %v", got)
			}
			if c.target != error(c.err) && c.err.Is(c.target) != c.want {
				t.Errorf("Is is %v", !c.want)
			}
		})
	}
}

func TestValidationError(t *testing.T) {
	v := NewValidationError("priority", 5000, "must be at most 1000")
	if got, want := v.Error(), "validation error for field 'priority': must be at most 1000"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if v.Field != "priority" || v.Value != 5000 || v.Message != "must be at most 1000" {
		t.Errorf("got %#v", v)
	}
}

func TestValidationErrorIsFoundInAClientError(t *testing.T) {
	v := NewValidationError("lock_id", "", "must not be empty")
	var err error = NewClientError("Acquire", fmt.Errorf("%w: %w", ErrInvalidArgument, v), pb.ErrorCode_INVALID_ARGUMENT, nil)
	var found *ValidationError
	if !errors.As(err, &found) || found != v {
		t.Errorf("found %v", found)
	}
	if !errors.Is(err, ErrInvalidArgument) {
		t.Error("is not ErrInvalidArgument")
	}
	if strings.ContainsRune(err.Error(), '\n') {
		t.Errorf("more than one line: %s", err)
	}
}

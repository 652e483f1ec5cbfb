package client

import (
	"errors"
	"fmt"

	"github.com/raftlock/raftlock/pb"
)

// The errors of the calls. They come wrapped: test with errors.Is.
var (
	// ErrLockHeld is returned by Acquire without Wait when another identity
	// holds the lock, and by EnqueueWaiter when the caller itself does. Nothing
	// was changed; try again after the BackoffAdvice, or wait in the queue.
	ErrLockHeld = errors.New("lock is already held by another client")

	// ErrNotLockOwner is returned by Release and Renew when another client
	// holds the lock, or nobody. The grant is over: stop the work that it
	// protected. A retry cannot help.
	ErrNotLockOwner = errors.New("client does not own the lock")

	// ErrVersionMismatch is returned by Release and Renew when the caller holds
	// the lock under another grant than the one it named, and by CancelWait
	// when its wait has another mark. The grant that was named is over. A retry
	// cannot help.
	ErrVersionMismatch = errors.New("lock version mismatch")

	// ErrLockNotFound is returned by Release, Renew and GetLockInfo when the
	// cluster does not know the lock: it was never taken, or was free for long
	// enough to be forgotten. A retry cannot help.
	ErrLockNotFound = errors.New("lock not found")

	// ErrInvalidTTL is returned by Acquire and Renew when the time-to-live is
	// out of the cluster's bounds, which the details name. Nothing was changed.
	ErrInvalidTTL = errors.New("invalid TTL value")

	// ErrWaitQueueFull is returned by Acquire with Wait and by EnqueueWaiter
	// when the queue of the lock takes no more waiters. Nothing was changed; a
	// retry after a pause is safe.
	ErrWaitQueueFull = errors.New("wait queue is full")

	// ErrNotWaiting is returned by CancelWait when the caller is not in the
	// queue, and by an Acquire whose wait was cancelled meanwhile, or that was
	// granted the lock while it was cut off from the cluster and did not come back
	// in time. The caller neither waits nor holds by that call.
	ErrNotWaiting = errors.New("client is not waiting in the queue")

	// ErrTimeout is returned by an Acquire whose WaitTimeout has passed (the
	// lock was not acquired), and by any call that ran out of time. If it is
	// ErrOutcomeUnknown as well, a command may have been applied.
	ErrTimeout = errors.New("operation timed out")

	// ErrLeaderUnavailable is returned by any call that met no leader for as
	// long as it was allowed to take. It was not proposed; a retry is safe.
	ErrLeaderUnavailable = errors.New("no leader available")

	// ErrInvalidArgument is returned by any call with a field out of bounds,
	// which a *ValidationError or the details name. Nothing was changed; the
	// same request will fail again.
	ErrInvalidArgument = errors.New("invalid argument")

	// ErrUnavailable is returned by any call when no member can be reached or
	// none can serve. If it is ErrOutcomeUnknown as well, a command may have
	// been applied; otherwise a retry is safe.
	ErrUnavailable = errors.New("service unavailable")

	// ErrRateLimit is returned when the cluster is at one of its limits. The
	// call changed nothing; come back after a pause.
	ErrRateLimit = errors.New("request rate limited")

	// ErrClientClosed is returned by every call on a client, or on what was
	// made from it, after its Close. Calls that were under way may be
	// ErrOutcomeUnknown too.
	ErrClientClosed = errors.New("client is closed")

	// ErrLockLost is the cause of a hold that ended without the will of its
	// holder: it expired, or could not be renewed in time. Stop the work;
	// another may be granted the lock.
	ErrLockLost = errors.New("lock lost")

	// ErrOutcomeUnknown is returned, together with ErrTimeout or
	// ErrUnavailable, by a call whose command was sent and not answered: the
	// cluster may have applied it, may still do so, or never. It is not a
	// refusal. Repeating the call with the same identity (or the same Version)
	// is safe, and tells.
	ErrOutcomeUnknown = errors.New("outcome unknown: the command may have been applied")
)

// errorOfCode is what each code means to a caller. Codes that are not in it
// become a codeError.
var errorOfCode = map[pb.ErrorCode]error{
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

// ErrorFromCode returns the error of this package that a code stands for. For
// OK it returns nil. A code without an error of its own, be it unset, internal
// or of a newer server, gives an error that names it and that equals every
// other error of the same code, so that errors.Is works on it as well.
func ErrorFromCode(code pb.ErrorCode) error {
	if code == pb.ErrorCode_OK {
		return nil
	}
	if err, ok := errorOfCode[code]; ok {
		return err
	}
	return codeError(code)
}

// codeError is the error of a code that has none of its own.
type codeError pb.ErrorCode

func (e codeError) Error() string {
	return "error code " + pb.ErrorCode(e).String()
}

// ErrorDetail is a refusal as the server words it. Results carry it; the error
// that is returned beside them is the one to act on.
type ErrorDetail struct {
	// Code says what went wrong, for programs.
	Code pb.ErrorCode

	// Message says it for people.
	Message string

	// Details are facts about it; which keys are there depends on the code.
	Details map[string]string
}

// ClientError is what a call of a client fails with: the operation, and what
// became of it. It is made once and not changed, so that goroutines may share
// it.
type ClientError struct {
	// Op is the method that failed, such as "Acquire".
	Op string

	// Err is the reason: one of the errors of this package, or several of them
	// joined, if the call is more than one thing at once. A call whose command
	// went unanswered until the context ended is ErrOutcomeUnknown, ErrTimeout
	// and the error of that context.
	Err error

	// Code is the server's code, or the one that the client gave to a failure
	// of its own; ERROR_CODE_UNSPECIFIED if none fits.
	Code pb.ErrorCode

	// Details are the server's facts about the failure. The key "outcome" says
	// what is known of the command: not_acquired, not_proposed or unknown.
	Details map[string]string
}

// NewClientError returns the error of an operation. The details are kept, not
// copied.
func NewClientError(op string, err error, code pb.ErrorCode, details map[string]string) *ClientError {
	return &ClientError{Op: op, Err: err, Code: code, Details: details}
}

// Error names the operation, its reason and the code, and the details if there
// are any, ordered by their keys.
func (e *ClientError) Error() string {
	if len(e.Details) == 0 {
		return fmt.Sprintf("client %s failed: %v (code: %s)", e.Op, e.Err, e.Code)
	}
	return fmt.Sprintf("client %s failed: %v (code: %s, details: %v)", e.Op, e.Err, e.Code, e.Details)
}

// Is reports whether Err is the target, or has it anywhere in its chain.
func (e *ClientError) Is(target error) bool {
	return errors.Is(e.Err, target)
}

// Unwrap returns Err.
func (e *ClientError) Unwrap() error {
	return e.Err
}

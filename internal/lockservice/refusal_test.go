package lockservice_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/internal/lockservice"
	"github.com/raftlock/raftlock/pb"
)

// want is how each code travels: OK for what is part of the answer.
var want = map[pb.ErrorCode]codes.Code{
	pb.ErrorCode_LOCK_HELD:           codes.OK,
	pb.ErrorCode_LOCK_NOT_HELD:       codes.OK,
	pb.ErrorCode_NOT_LOCK_OWNER:      codes.OK,
	pb.ErrorCode_VERSION_MISMATCH:    codes.OK,
	pb.ErrorCode_LOCK_NOT_FOUND:      codes.OK,
	pb.ErrorCode_INVALID_TTL:         codes.OK,
	pb.ErrorCode_WAIT_QUEUE_FULL:     codes.OK,
	pb.ErrorCode_NOT_WAITING:         codes.OK,
	pb.ErrorCode_INVALID_ARGUMENT:    codes.InvalidArgument,
	pb.ErrorCode_NOT_LEADER:          codes.FailedPrecondition,
	pb.ErrorCode_NO_LEADER:           codes.Unavailable,
	pb.ErrorCode_UNAVAILABLE:         codes.Unavailable,
	pb.ErrorCode_REPLICATION_FAILURE: codes.Unavailable,
	pb.ErrorCode_RATE_LIMITED:        codes.ResourceExhausted,
	pb.ErrorCode_TIMEOUT:             codes.DeadlineExceeded,
	pb.ErrorCode_PERMISSION_DENIED:   codes.PermissionDenied,
	pb.ErrorCode_INTERNAL_ERROR:      codes.Internal,
}

// Every code comes out as it should, with its details.
func TestEveryCode(t *testing.T) {
	locks := &fake{}
	d := openDesk(t, lockservice.Config{Client: locks, Cluster: none, Leader: nobody})
	for number := range pb.ErrorCode_name {
		code := pb.ErrorCode(number)
		if code == pb.ErrorCode_OK || code == pb.ErrorCode_ERROR_CODE_UNSPECIFIED {
			continue
		}
		locks.err = client.NewClientError("Release", client.ErrorFromCode(code), code, map[string]string{"key": "value"})
		answer, _, err := call(t, d.rpc.Release, &pb.ReleaseRequest{LockId: "a", ClientId: "one"})
		expected, known := want[code]
		if !known || status.Code(err) != expected {
			t.Errorf("%v travels as %v, want %v", code, status.Code(err), expected)
			continue
		}
		got := answer.GetError()
		if err != nil {
			got = detail(t, err)
		}
		if got.GetCode() != code || got.GetDetails()["key"] != "value" || got.GetMessage() != client.ErrorFromCode(code).Error() {
			t.Errorf("%v is told as %v", code, got)
		}
	}
}

// The time-out of a wait is part of the answer, that of a call is not. A decision
// that an answer has no place for is a status.
func TestTimeouts(t *testing.T) {
	locks := &fake{err: client.NewClientError("Acquire", client.ErrTimeout, pb.ErrorCode_TIMEOUT, map[string]string{"outcome": "not_acquired"})}
	d := openDesk(t, lockservice.Config{Client: locks, Cluster: none, Leader: nobody})
	answer := must(t, d.rpc.Acquire, &pb.AcquireRequest{LockId: "a", ClientId: "one", Wait: true})
	if answer.GetError().GetCode() != pb.ErrorCode_TIMEOUT {
		t.Errorf("the wait is over: %v", answer)
	}
	_, _, err := call(t, d.rpc.GetLocks, &pb.GetLocksRequest{})
	if status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("a listing: %v", err)
	}
	locks.err = client.NewClientError("GetLocks", client.ErrLockHeld, pb.ErrorCode_LOCK_HELD, nil)
	if _, _, err = call(t, d.rpc.GetLocks, &pb.GetLocksRequest{}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("a listing: %v", err)
	}
}

// Errors of clients of others are told by what they are.
func TestForeignErrors(t *testing.T) {
	locks := &fake{}
	d := openDesk(t, lockservice.Config{Client: locks, Cluster: none, Leader: nobody})
	for _, test := range []struct {
		err  error
		code pb.ErrorCode
	}{
		{fmt.Errorf("so it is: %w", client.ErrRateLimit), pb.ErrorCode_RATE_LIMITED},
		{client.ErrLeaderUnavailable, pb.ErrorCode_NO_LEADER},
		{client.ErrClientClosed, pb.ErrorCode_UNAVAILABLE},
		{context.DeadlineExceeded, pb.ErrorCode_TIMEOUT},
		{errors.Join(client.ErrUnavailable, client.ErrOutcomeUnknown), pb.ErrorCode_UNAVAILABLE},
		{errors.New("\xff"), pb.ErrorCode_INTERNAL_ERROR},
	} {
		locks.err = test.err
		_, _, err := call(t, d.rpc.Release, &pb.ReleaseRequest{LockId: "a", ClientId: "one"})
		got := detail(t, err)
		if got.GetCode() != test.code {
			t.Errorf("%v is told as %v", test.err, got)
		}
		if unknown := got.GetDetails()["outcome"] == "unknown"; unknown != errors.Is(test.err, client.ErrOutcomeUnknown) {
			t.Errorf("%v is told as %v", test.err, got)
		}
	}
}

// A NOT_LEADER points at the leader that is known, and otherwise nowhere.
func TestNotLeaderPointsAtTheLeader(t *testing.T) {
	for _, leader := range []struct{ name, address string }{{"n2", "n2.example:7001"}, {"n2", ""}, {"", ""}} {
		locks := &fake{err: client.NewClientError("Release", client.ErrLeaderUnavailable, pb.ErrorCode_NOT_LEADER, map[string]string{"leader_address": "old:1"})}
		d := openDesk(t, lockservice.Config{
			Client: locks, Cluster: none, Leader: func() (string, string) { return leader.name, leader.address },
		})
		_, _, err := call(t, d.rpc.Release, &pb.ReleaseRequest{LockId: "a", ClientId: "one"})
		if got := detail(t, err).GetDetails(); got["leader_address"] != leader.address || got["leader_id"] != leader.name {
			t.Errorf("%v: %v", leader, got)
		}
	}
}

func TestPanicIsAnAnswer(t *testing.T) {
	var log bytes.Buffer
	d := openDesk(t, lockservice.Config{
		Client: &fake{panics: true}, Cluster: none, Leader: nobody, Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	for range 2 {
		_, _, err := call(t, d.rpc.Release, &pb.ReleaseRequest{LockId: "a", ClientId: "one"})
		if status.Code(err) != codes.Internal || detail(t, err).GetCode() != pb.ErrorCode_INTERNAL_ERROR {
			t.Errorf("a panic: %v", err)
		}
	}
	if err := d.service.Drain(within(t)); err != nil {
		t.Errorf("after a panic: %v", err)
	}
	if !strings.Contains(log.String(), "value=broken") || !strings.Contains(log.String(), "fake_test.go") {
		t.Errorf("the log does not say where: %s", log.String())
	}
}

// A member whose health is not to be had does not serve.
func TestSickHealth(t *testing.T) {
	d := openDesk(t, lockservice.Config{Client: &fake{err: client.ErrUnavailable}, Cluster: none, Leader: nobody})
	got := must(t, d.rpc.Health, &pb.HealthRequest{})
	if got.GetStatus() != pb.HealthStatus_NOT_SERVING || got.GetMessage() != client.ErrUnavailable.Error() {
		t.Errorf("health: %v", got)
	}
}

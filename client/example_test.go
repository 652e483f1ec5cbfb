package client_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/pb"
)

// A lock is taken, its token travels with the work, and it is given back. Do
// does the same, and renews.
func ExampleRaftLockClient() {
	var c client.RaftLockClient = &shelf{} // a cluster's client takes its place
	defer c.Close()

	ctx := context.Background()
	id := client.NewClientID("invoices")
	res, err := c.Acquire(ctx, &client.AcquireRequest{LockID: "invoices/2024", ClientID: id, TTL: 30 * time.Second, Wait: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("working with token", res.Lock.Version)

	_, err = c.Acquire(ctx, &client.AcquireRequest{LockID: "invoices/2024", ClientID: client.NewClientID("other")})
	fmt.Println("for others it is held:", errors.Is(err, client.ErrLockHeld))

	out, err := c.Release(ctx, &client.ReleaseRequest{LockID: "invoices/2024", ClientID: id, Version: res.Lock.Version})
	fmt.Println("released:", out.Released, err)
	// Output:
	// working with token 1
	// for others it is held: true
	// released: true <nil>
}

// A refused call returns its result as well: it says when to come back.
func ExampleAcquireResult() {
	c := &shelf{owner: "web-1", version: 1}
	res, err := c.Acquire(context.Background(), &client.AcquireRequest{LockID: "reports", ClientID: "web-2"})
	if errors.Is(err, client.ErrLockHeld) {
		fmt.Println("held by", res.Error.Details["owner_id"])
		fmt.Println("come back in", res.BackoffAdvice.InitialBackoff)
	}
	// Output:
	// held by web-1
	// come back in 50ms
}

// A ClientError is asked with errors.Is what it means, and with errors.As for
// the details. One that may have been applied says so.
func ExampleClientError() {
	err := error(client.NewClientError(
		"Release",
		fmt.Errorf("%w: %w", client.ErrUnavailable, client.ErrOutcomeUnknown),
		pb.ErrorCode_UNAVAILABLE,
		map[string]string{"outcome": "unknown"},
	))

	if errors.Is(err, client.ErrOutcomeUnknown) {
		fmt.Println("repeat it with the same version")
	}
	if e, ok := errors.AsType[*client.ClientError](err); ok {
		fmt.Println(e.Op, e.Code, e.Details["outcome"])
	}
	// Output:
	// repeat it with the same version
	// Release UNAVAILABLE unknown
}

func ExampleErrorFromCode() {
	fmt.Println(client.ErrorFromCode(pb.ErrorCode_LOCK_HELD))
	fmt.Println(client.ErrorFromCode(pb.ErrorCode_INTERNAL_ERROR))
	fmt.Println(client.ErrorFromCode(pb.ErrorCode_OK))
	// Output:
	// lock is already held by another client
	// error code INTERNAL_ERROR
	// <nil>
}

func ExampleNewValidationError() {
	fmt.Println(client.NewValidationError("lock_id", "", "must not be empty"))
	// Output: validation error for field 'lock_id': must not be empty
}

// The defaults, with endpoints and more patience with a cluster that is
// electing a leader.
func ExampleDefaultClientConfig() {
	cfg := client.DefaultClientConfig()
	cfg.Endpoints = []string{"n1.example:7001", "n2.example:7001", "n3.example:7001"}
	cfg.RetryPolicy.MaxRetries = 10
	fmt.Println(cfg.RequestTimeout, cfg.RetryPolicy.InitialBackoff, cfg.RetryPolicy.RetryableErrors)
	// Output: 30s 100ms [NO_LEADER NOT_LEADER UNAVAILABLE TIMEOUT]
}

func ExampleNewClientID() {
	id := client.NewClientID("billing") // such as billing-web1-4711-K3MJZ7QWXT2NPA5C
	fmt.Println(strings.HasPrefix(id, "billing-"))
	// Output: true
}

// A shelf is one lock without a cluster, just enough for the examples. It is
// also the proof that a mock of the interface needs nothing else.
type shelf struct {
	owner   string
	version int64
}

var _ client.RaftLockClient = (*shelf)(nil)

func (s *shelf) Acquire(_ context.Context, req *client.AcquireRequest) (*client.AcquireResult, error) {
	if s.owner != "" && s.owner != req.ClientID {
		detail := &client.ErrorDetail{Code: pb.ErrorCode_LOCK_HELD, Details: map[string]string{"owner_id": s.owner}}
		return &client.AcquireResult{
			BackoffAdvice: &client.BackoffAdvice{InitialBackoff: 50 * time.Millisecond, MaxBackoff: time.Second, Multiplier: 1.5, JitterFactor: 0.2},
			Error:         detail,
		}, client.NewClientError("Acquire", client.ErrorFromCode(detail.Code), detail.Code, detail.Details)
	}
	s.owner = req.ClientID
	s.version++
	return &client.AcquireResult{
		Acquired: true,
		Lock:     &client.Lock{LockID: req.LockID, OwnerID: s.owner, Version: s.version, ExpiresAt: time.Now().Add(req.TTL)},
	}, nil
}

func (s *shelf) Release(context.Context, *client.ReleaseRequest) (*client.ReleaseResult, error) {
	s.owner = ""
	return &client.ReleaseResult{Released: true}, nil
}

func (s *shelf) Renew(context.Context, *client.RenewRequest) (*client.RenewResult, error) {
	return nil, client.ErrUnavailable
}

func (s *shelf) GetLockInfo(context.Context, *client.GetLockInfoRequest) (*client.LockInfo, error) {
	return nil, client.ErrUnavailable
}

func (s *shelf) GetLocks(context.Context, *client.GetLocksRequest) (*client.GetLocksResult, error) {
	return nil, client.ErrUnavailable
}

func (s *shelf) Close() error { return nil }

package client

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
)

func TestAClosedClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.member(n1, nil)
		c := f.client(nil, n1)
		ctx := t.Context()
		if _, err := c.Acquire(ctx, acquireReq()); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
		for name, call := range everyCall(c) {
			if err := call(ctx); !is(err, ErrClientClosed) || is(err, ErrOutcomeUnknown) {
				t.Errorf("%s ended with %v", name, err)
			}
		}
		if c.IsConnected() {
			t.Error("it is connected")
		}
		_ = c.GetLeaderAddress()
		c.SetRetryPolicy(RetryPolicy{})
	})
}

// everyCall makes each call with a request that is fine.
func everyCall(c Client) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"Acquire": func(ctx context.Context) error { _, err := c.Acquire(ctx, acquireReq()); return err },
		"Release": func(ctx context.Context) error {
			_, err := c.Release(ctx, &ReleaseRequest{LockID: "l", ClientID: "me", Version: 7})
			return err
		},
		"Renew": func(ctx context.Context) error {
			_, err := c.Renew(ctx, &RenewRequest{LockID: "l", ClientID: "me", Version: 7, NewTTL: time.Second})
			return err
		},
		"GetLockInfo": func(ctx context.Context) error {
			_, err := c.GetLockInfo(ctx, &GetLockInfoRequest{LockID: "l"})
			return err
		},
		"GetLocks": func(ctx context.Context) error { _, err := c.GetLocks(ctx, &GetLocksRequest{}); return err },
		"EnqueueWaiter": func(ctx context.Context) error {
			_, err := c.EnqueueWaiter(ctx, &EnqueueWaiterRequest{LockID: "l", ClientID: "me"})
			return err
		},
		"CancelWait": func(ctx context.Context) error {
			_, err := c.CancelWait(ctx, &CancelWaitRequest{LockID: "l", ClientID: "me"})
			return err
		},
		"GetStatus": func(ctx context.Context) error { _, err := c.GetStatus(ctx, &GetStatusRequest{}); return err },
		"Health":    func(ctx context.Context) error { _, err := c.Health(ctx, &HealthRequest{}); return err },
		"GetBackoffAdvice": func(ctx context.Context) error {
			_, err := c.GetBackoffAdvice(ctx, &BackoffAdviceRequest{LockID: "l"})
			return err
		},
	}
}

// Close ends what is under way, withdraws it, and leaves nothing behind; the
// bubble would not end otherwise.
func TestCloseDuringCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		m := f.member(n1, silent)
		c := f.client(nil, n1)
		var calls sync.WaitGroup
		for name, call := range everyCall(c) {
			if name == "CancelWait" {
				continue
			}
			calls.Go(func() {
				err := call(t.Context())
				reads := name == "GetLockInfo" || name == "GetLocks" || name == "GetStatus" || name == "Health" || name == "GetBackoffAdvice"
				if !is(err, ErrClientClosed) || is(err, ErrOutcomeUnknown) == reads {
					t.Errorf("%s ended with %v", name, err)
				}
			})
		}
		synctest.Wait()
		begun := time.Now()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took != 0 {
			t.Errorf("Close took %v", took)
		}
		calls.Wait()
		if n := len(m.heardOf("CancelWait")); n != 1 {
			t.Errorf("%d withdrawals", n)
		}
	})
}

// A withdrawal that nobody answers does not keep Close for long.
func TestCloseIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.member(n1, func(ctx context.Context, _ string, _ proto.Message) (proto.Message, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		c := f.client(nil, n1)
		var call sync.WaitGroup
		call.Go(func() { _, _ = c.Acquire(t.Context(), acquireReq()) })
		synctest.Wait()
		begun := time.Now()
		_ = c.Close()
		if took := time.Since(begun); took != closeGrace {
			t.Errorf("Close took %v", took)
		}
		call.Wait()
	})
}

func TestCloseWhileConnecting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		c := f.client(nil, blackhole)
		var call sync.WaitGroup
		call.Go(func() {
			if _, err := c.Acquire(t.Context(), acquireReq()); !is(err, ErrClientClosed) || is(err, ErrOutcomeUnknown) {
				t.Errorf("%v", err)
			}
		})
		synctest.Wait()
		begun := time.Now()
		_ = c.Close()
		call.Wait()
		if took := time.Since(begun); took != 0 {
			t.Errorf("Close took %v", took)
		}
	})
}

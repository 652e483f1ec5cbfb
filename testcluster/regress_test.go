package testcluster_test

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/testcluster"
)

// Advice from a follower counted from the beginning of cluster time.
func TestAdviceOfAFollowerInAnOldCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testcluster.New(t, 3)
		time.Sleep(2 * time.Minute)
		leader := c.Leader()
		_, err := c.ClientOn(leader).Acquire(t.Context(), &client.AcquireRequest{LockID: "a", ClientID: "me", TTL: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			res, err := c.ClientOn(i).Acquire(t.Context(), &client.AcquireRequest{LockID: "a", ClientID: "you"})
			var ce *client.ClientError
			if !errors.As(err, &ce) || !errors.Is(err, client.ErrLockHeld) {
				t.Fatal(err)
			}
			after, err := strconv.Atoi(ce.Details["retry_after_ms"])
			if err != nil || after > 1000 || res.BackoffAdvice.MaxBackoff > time.Second {
				t.Errorf("member %d (leader %d): after %d ms, %+v", i, leader, after, res.BackoffAdvice)
			}
		}
	})
}

// A call of unknown outcome was withdrawn although its caller had not given up:
// the same request, made again, was refused.
func TestUnknownOutcomeIsNotWithdrawn(t *testing.T) {
	// Now and then the follower finds out before it has sent the call, which
	// then is no call of unknown outcome.
	for range 20 {
		if unknownOutcomeConverges(t) {
			return
		}
	}
	t.Error("no call was of unknown outcome")
}

// unknownOutcomeConverges makes a call at a follower whose leader is cut off,
// and reports whether its outcome was unknown; then the same request must succeed.
func unknownOutcomeConverges(t *testing.T) (unknown bool) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := testcluster.New(t, 3)
		leader := c.Leader()
		cl := c.Node((leader + 1) % 3).Client()
		cl.SetRetryPolicy(client.RetryPolicy{})
		req := &client.AcquireRequest{LockID: "a", ClientID: "me", RequestID: "r1"}
		c.Isolate(leader)
		_, err := cl.Acquire(t.Context(), req)
		unknown = errors.Is(err, client.ErrOutcomeUnknown)
		c.Leader()
		time.Sleep(time.Second)
		req.Attempt = 2
		if _, err := cl.Acquire(t.Context(), req); unknown && err != nil {
			t.Error(err)
		}
	})
	return unknown
}

// A look at the member raced with its caller when the context ended first.
func TestStatusWithAContextThatEnds(t *testing.T) {
	c := testcluster.New(t, 1)
	cl := c.ClientOn(0)
	for range 200 {
		ctx, cancel := context.WithCancel(t.Context())
		go cancel()
		if status, err := cl.GetStatus(ctx, &client.GetStatusRequest{}); (status == nil) == (err == nil) {
			t.Fatalf("%v, %v", status, err)
		}
	}
}

// A call whose context was over before it began could still be made, and have its
// answer: which of the two came first was a matter of luck.
func TestCallAfterTheEndOfItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testcluster.New(t, 1)
		cl := c.Client()
		over, cancel := context.WithCancel(t.Context())
		cancel()
		for i := range 200 {
			lock := strconv.Itoa(i)
			if _, err := cl.Acquire(over, &client.AcquireRequest{LockID: lock, ClientID: "me"}); !errors.Is(err, context.Canceled) {
				t.Fatalf("call %d ended with %v", i, err)
			}
			if _, err := cl.GetLockInfo(t.Context(), &client.GetLockInfoRequest{LockID: lock}); !errors.Is(err, client.ErrLockNotFound) {
				t.Fatalf("call %d was made: %v", i, err)
			}
		}
	})
}

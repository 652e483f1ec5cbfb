package client

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/raftlock/raftlock/internal/callctx"
	"github.com/raftlock/raftlock/pb"
)

func TestACancelledCallIsWithdrawnOnce(t *testing.T) {
	for _, c := range []struct {
		name      string
		requestID string
		end       func(context.Context) (context.Context, context.CancelFunc)
		want      []error
		withdrawn int
	}{
		{"cancelled", "r1", cancelAfter(time.Second, nil), []error{ErrUnavailable, ErrOutcomeUnknown, context.Canceled}, 1},
		{"deadline", "r1", func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Second)
		}, []error{ErrTimeout, ErrOutcomeUnknown, context.DeadlineExceeded}, 1},
		{"plain", "", cancelAfter(time.Second, nil), []error{ErrUnavailable, ErrOutcomeUnknown, context.Canceled}, 0},
		{"a server's lost caller", "r1", cancelAfter(time.Second, callctx.ErrConnectionLost), []error{ErrOutcomeUnknown}, 0},
		{"request time-out", "r1", cancelAfter(time.Hour, nil), []error{ErrTimeout, ErrOutcomeUnknown}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t)
				m := f.member(n1, silent)
				client := f.client(fewRetries(0), n1)
				ctx, cancel := c.end(t.Context())
				defer cancel()
				begun := time.Now()
				req := acquireReq()
				req.RequestID = c.requestID
				_, err := client.Acquire(ctx, req)
				if !is(err, c.want...) || outcome(t, err) != outcomeUnknown {
					t.Errorf("%v", err)
				}
				if took := time.Since(begun); took > 30*time.Second {
					t.Errorf("it took %v", took)
				}
				synctest.Wait()
				got := m.heardOf("CancelWait")
				if len(got) != c.withdrawn {
					t.Fatalf("%d withdrawals", len(got))
				}
				for _, w := range got {
					w := w.(*pb.CancelWaitRequest)
					if w.RequestId != "r1" || w.LockId != "l" || w.ClientId != "me" {
						t.Errorf("withdrew %v", w)
					}
				}
				if client.GetMetrics().GetRequestCount("CancelWait") != 0 {
					t.Error("the client's own call is counted as its caller's")
				}
			})
		})
	}
}

func cancelAfter(d time.Duration, cause error) func(context.Context) (context.Context, context.CancelFunc) {
	return func(ctx context.Context) (context.Context, context.CancelFunc) {
		ctx, cancel := context.WithCancelCause(ctx)
		timer := time.AfterFunc(d, func() { cancel(cause) })
		return ctx, func() {
			timer.Stop()
			cancel(nil)
		}
	}
}

// What was never sent cannot have been applied, and needs no withdrawal.
func TestACallThatWasNotSentIsNotWithdrawn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		c := f.client(nil, blackhole)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := c.Acquire(ctx, acquireReq())
		if !is(err, ErrTimeout, context.DeadlineExceeded) || outcome(t, err) != outcomeNotProposed {
			t.Errorf("%v", err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.mu.running != 0 {
			t.Error("a withdrawal is under way")
		}
	})
}

// A withdrawal that is not answered is repeated, within bounds.
func TestAWithdrawalIsRepeatedUntilAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		var lost atomic.Int64
		m := f.member(n1, nil)
		m.script = func(ctx context.Context, method string, req proto.Message) (proto.Message, error) {
			if method == "CancelWait" && lost.Add(1) == 1 {
				return nil, noLeader()
			}
			return silent(ctx, method, req)
		}
		c := f.client(nil, n1)
		ctx, cancel := cancelAfter(time.Second, nil)(t.Context())
		defer cancel()
		_, _ = c.Acquire(ctx, acquireReq())
		time.Sleep(withdrawLimit)
		if got := m.heardOf("CancelWait"); len(got) != 2 {
			t.Errorf("%d attempts of the withdrawal", len(got))
		}
	})
}

package client

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/raftlock/raftlock/pb"
)

// Calls that wait in a queue.

// grantsAfter grants a lock after d, unless the caller goes away.
func grantsAfter(d time.Duration) script {
	return func(ctx context.Context, method string, req proto.Message) (proto.Message, error) {
		if method != "Acquire" {
			return yes(ctx, method, req)
		}
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			return yes(ctx, method, req)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func waitReq(timeout time.Duration) *AcquireRequest {
	req := acquireReq()
	req.Wait, req.WaitTimeout = true, timeout
	return req
}

// A wait outlives the request time-out, and its grant is counted from after the
// wait, not from before it.
func TestAWaitOutlivesTheRequestTimeout(t *testing.T) {
	for name, timeout := range map[string]time.Duration{"its own": 10 * time.Minute, "the cluster's": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t)
				m := f.member(n1, grantsAfter(55*time.Second))
				c := f.client(nil, n1)
				res, err := c.Acquire(t.Context(), waitReq(timeout))
				if err != nil {
					t.Fatal(err)
				}
				if left := time.Until(res.Lock.ExpiresAt); left != grantedTTL {
					t.Errorf("the grant has %v left", left)
				}
				if len(m.acquires()) != 1 || len(m.heardOf("GetLockInfo")) != 1 {
					t.Errorf("heard %v", m.calls)
				}
				if got := c.GetMetrics().GetMaxLatency("Acquire"); got != 55*time.Second {
					t.Errorf("the latency is %v", got)
				}
				if c.GetMetrics().GetRequestCount("GetLockInfo") != 0 {
					t.Error("the client's own read is counted as its caller's")
				}
			})
		})
	}
}

// A grant without a wait needs no second exchange.
func TestAGrantAtOnceIsNotConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		m := f.member(n1, grantsAfter(10*time.Millisecond))
		sent := time.Now()
		res, err := f.client(nil, n1).Acquire(t.Context(), waitReq(0))
		if err != nil || len(m.heardOf("GetLockInfo")) != 0 {
			t.Errorf("heard %v, %v", m.calls, err)
		}
		if got := res.Lock.ExpiresAt.Sub(sent); got != grantedTTL {
			t.Errorf("it ends %v after it was sent", got)
		}
	})
}

func TestAGrantThatIsNotConfirmed(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer func() (proto.Message, error)
		want   time.Duration // from when the attempt was sent
	}{
		{"granted to another since", func() (proto.Message, error) {
			return &pb.GetLockInfoResponse{LockInfo: &pb.LockInfo{OwnerId: "other", Version: 8, Remaining: askDuration(time.Hour)}}, nil
		}, 0},
		{"free since", func() (proto.Message, error) {
			return &pb.GetLockInfoResponse{LockInfo: &pb.LockInfo{Version: 7, Remaining: askDuration(time.Hour)}}, nil
		}, 0},
		{"forgotten since", func() (proto.Message, error) {
			return &pb.GetLockInfoResponse{Error: detailOf(pb.ErrorCode_LOCK_NOT_FOUND)}, nil
		}, 0},
		{"no answer", func() (proto.Message, error) { return nil, noLeader() }, grantedTTL},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t)
				f.member(n1, func(ctx context.Context, method string, req proto.Message) (proto.Message, error) {
					if method == "GetLockInfo" {
						return c.answer()
					}
					return grantsAfter(10*time.Second)(ctx, method, req)
				})
				sent := time.Now()
				res, err := f.client(nil, n1).Acquire(t.Context(), waitReq(time.Minute))
				if err != nil || !res.Acquired {
					t.Fatal(err)
				}
				if got := res.Lock.ExpiresAt.Sub(sent); got != c.want {
					t.Errorf("it ends %v after it was sent, want %v", got, c.want)
				}
			})
		})
	}
}

// A wait whose connection breaks is taken up again, at another member, with what
// is left of it, as often as it takes.
func TestAnInterruptedWaitIsTakenUpAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		var m *fakeMember
		var breaks atomic.Int64
		s := func(ctx context.Context, method string, req proto.Message) (proto.Message, error) {
			if method == "Acquire" && breaks.Add(1) <= 9 {
				time.Sleep(20 * time.Second)
				m.cut()
				return nil, context.Canceled
			}
			return yes(ctx, method, req)
		}
		m = f.member(n1, s)
		c := f.client(fewRetries(0), n1)
		res, err := c.Acquire(t.Context(), waitReq(10*time.Minute))
		if err != nil || !res.Acquired {
			t.Fatal(err)
		}
		got := m.acquires()
		if len(got) != 10 {
			t.Fatalf("%d attempts", len(got))
		}
		for i, req := range got {
			left := 10*time.Minute - time.Duration(i)*20*time.Second
			if wait := req.WaitTimeout.AsDuration(); wait > left || wait < left-time.Second*time.Duration(i) || req.Attempt != int32(i+1) {
				t.Errorf("attempt %d asks for %v of %v", req.Attempt, wait, left)
			}
		}
	})
}

// gapsOf makes a call that waits for a minute at a member that fails each attempt
// after d, and returns how long it was between one and the next.
func gapsOf(t *testing.T, d time.Duration, policy RetryPolicy) (gaps []time.Duration) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		var mu sync.Mutex
		var failed time.Time
		f.member(n1, func(ctx context.Context, method string, req proto.Message) (proto.Message, error) {
			if method != "Acquire" {
				return yes(ctx, method, req)
			}
			mu.Lock()
			if !failed.IsZero() {
				gaps = append(gaps, time.Since(failed))
			}
			mu.Unlock()
			timer := time.NewTimer(d)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			mu.Lock()
			failed = time.Now()
			mu.Unlock()
			return nil, status.Error(codes.Unavailable, "the upstream is gone")
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := f.client(func(c *Config) { c.RetryPolicy = policy }, n1).Acquire(ctx, waitReq(time.Hour))
		if !is(err, ErrOutcomeUnknown, context.DeadlineExceeded) {
			t.Errorf("the call ends as %v", err)
		}
	})
	return gaps
}

// The place of a wait that was interrupted is kept for 2 s. Whatever the policy,
// the next attempt comes within that time; but waits that are interrupted at once,
// again and again, are not taken up again at once for ever.
func TestPausesOfInterruptedWaits(t *testing.T) {
	slow := DefaultRetryPolicy()
	slow.InitialBackoff, slow.MaxBackoff = 5*time.Second, 5*time.Second
	for _, c := range []struct {
		name     string
		lasts    time.Duration // each attempt
		policy   RetryPolicy
		attempts int // at most
		latest   time.Duration
	}{
		{"at once", settled, DefaultRetryPolicy(), 62, claimWithin},
		{"at once, by a slow policy", settled, slow, 62, claimWithin},
		{"after a while, by a slow policy", steady, slow, 6, claimWithin},
		{"after a while", steady, DefaultRetryPolicy(), 6, 120 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			gaps := gapsOf(t, c.lasts, c.policy)
			if len(gaps) < 4 || len(gaps) > c.attempts {
				t.Errorf("%d repeats in a minute", len(gaps))
			}
			for i, gap := range gaps {
				if gap > c.latest {
					t.Errorf("repeat %d comes after %v", i+1, gap)
				}
			}
		})
	}
}

// An attempt that was lost may stand in the queue, whatever those after it say, and
// however short it was.
func TestPausesAfterALostAttempt(t *testing.T) {
	slow := DefaultRetryPolicy()
	slow.InitialBackoff, slow.MaxBackoff = 4*time.Second, time.Minute
	lost := failed(pb.ErrorCode_UNAVAILABLE, outcomeUnknown, "the connection broke")
	lost.sent = true
	refused := failed(pb.ErrorCode_UNAVAILABLE, outcomeNotProposed, "connection refused")
	for _, waits := range []bool{true, false} {
		s, x := &course{policy: &slow, attempt: 1}, &exchange{wait: waits, took: settled / 2}
		s.note(x, &endpoint{}, refused)
		if d := s.pause(x); d <= claimWithin {
			t.Errorf("waits %v: %v after an attempt that was not proposed", waits, d)
		}
		s.note(x, &endpoint{}, lost)
		s.note(x, &endpoint{}, refused)
		if d := s.pause(x); d <= claimWithin != waits {
			t.Errorf("waits %v: %v after one that was lost and one that was refused", waits, d)
		}
		if d := s.bounded(x, time.Minute); d <= claimWithin != waits {
			t.Errorf("waits %v: a redirect pauses for %v", waits, d)
		}
	}
}

// The cluster's own default is asked for first, and then what is left of it.
func TestAWaitOfTheDefaultTakenUpAgain(t *testing.T) {
	c := &remote{}
	x, s := &exchange{wait: true}, &course{}
	if got := c.left(x, s); got != 0 {
		t.Errorf("the first attempt asks for %v", got)
	}
	for waited, want := range map[time.Duration]time.Duration{20 * time.Second: 40 * time.Second, 2 * time.Minute: 0} {
		synctest.Test(t, func(t *testing.T) {
			s.begun = time.Now()
			time.Sleep(waited)
			if got := c.left(x, s); got != want {
				t.Errorf("after %v it asks for %v", waited, got)
			}
		})
	}
}

// The end of a wait is the cluster's to say. Then it is a refusal.
func TestAWaitThatTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		m := f.member(n1, func(context.Context, string, proto.Message) (proto.Message, error) {
			time.Sleep(time.Minute)
			return &pb.AcquireResponse{Error: detailOf(pb.ErrorCode_TIMEOUT, "outcome", "not_acquired")}, nil
		})
		_, err := f.client(nil, n1).Acquire(t.Context(), waitReq(time.Minute))
		if !is(err, ErrTimeout) || is(err, ErrOutcomeUnknown) || outcome(t, err) != "not_acquired" || len(m.calls) != 1 {
			t.Errorf("%v after %d calls", err, len(m.calls))
		}
	})
}

// A wait ends some time even if nobody ever answers.
func TestAWaitIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.member(n1, silent)
		begun := time.Now()
		_, err := f.client(nil, n1).Acquire(t.Context(), waitReq(time.Minute))
		if !is(err, ErrTimeout, ErrOutcomeUnknown) || time.Since(begun) != 90*time.Second {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
	})
}

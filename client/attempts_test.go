package client

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/raftlock/raftlock/pb"
)

// What becomes of attempts that fail, and of calls that end without an answer.

// dropping is a script that loses the first answers it gives: the member has
// done what was asked, and its connection breaks.
func dropping(m **fakeMember, first int, then script) script {
	var seen atomic.Int64
	return func(ctx context.Context, method string, req proto.Message) (proto.Message, error) {
		if seen.Add(1) <= int64(first) {
			(*m).cut()
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return then(ctx, method, req)
	}
}

// refusing answers with a detail in the answer itself.
func refusing(detail *pb.ErrorDetail) script {
	return func(_ context.Context, _ string, req proto.Message) (proto.Message, error) {
		switch req.(type) {
		case *pb.AcquireRequest:
			return &pb.AcquireResponse{Error: detail, BackoffAdvice: &pb.BackoffAdvice{InitialBackoff: askDuration(time.Second), Multiplier: 2}}, nil
		case *pb.ReleaseRequest:
			return &pb.ReleaseResponse{Error: detail}, nil
		case *pb.RenewRequest:
			return &pb.RenewResponse{Error: detail}, nil
		case *pb.EnqueueWaiterRequest:
			return &pb.EnqueueWaiterResponse{Error: detail}, nil
		case *pb.CancelWaitRequest:
			return &pb.CancelWaitResponse{Error: detail}, nil
		case *pb.GetLockInfoRequest:
			return &pb.GetLockInfoResponse{Error: detail}, nil
		}
		return nil, errors.New("no such answer")
	}
}

func detailOf(code pb.ErrorCode, pairs ...string) *pb.ErrorDetail {
	d := &pb.ErrorDetail{Code: code, Message: "words of the member", Details: map[string]string{}}
	for i := 0; i < len(pairs); i += 2 {
		d.Details[pairs[i]] = pairs[i+1]
	}
	return d
}

func TestAttemptsShareOneIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		var m *fakeMember
		m = f.member(n1, dropping(&m, 2, yes))
		c := f.client(nil, n1)
		res, err := c.Acquire(t.Context(), acquireReq())
		if err != nil || !res.Acquired || res.Lock.Version != 7 {
			t.Fatalf("%+v, %v", res, err)
		}
		got := m.acquires()
		if len(got) != 3 {
			t.Fatalf("%d attempts", len(got))
		}
		for i, req := range got {
			if req.Attempt != int32(i+1) || req.RequestId != "r1" || req.ClientId != "me" {
				t.Errorf("attempt %d is %v", i+1, req)
			}
		}
		if c.GetMetrics().GetRetryCount("Acquire") != 2 {
			t.Errorf("counted %d repeats", c.GetMetrics().GetRetryCount("Acquire"))
		}
		if len(m.heardOf("CancelWait")) != 0 {
			t.Error("a call that was answered was withdrawn")
		}
	})
}

// One retry is one pass over all endpoints.
func TestARetryIsAPassOverAllEndpoints(t *testing.T) {
	for _, c := range []struct {
		name    string
		edit    func(*Config)
		answer  error
		want    int
		outcome string
		pauses  time.Duration // at least
	}{
		{"three retries", nil, noLeader(), 8, outcomeNotProposed, 600 * time.Millisecond},
		{"one retry", fewRetries(1), noLeader(), 4, outcomeNotProposed, 80 * time.Millisecond},
		{"no retry", fewRetries(0), noLeader(), 2, outcomeNotProposed, 0},
		{"no retry, maybe applied", fewRetries(0), status.Error(codes.Unavailable, "x"), 1, outcomeUnknown, 0},
		{"a retry, maybe applied", fewRetries(1), status.Error(codes.Unavailable, "x"), 4, outcomeUnknown, 0},
		{"no code repeats", func(cfg *Config) { cfg.RetryPolicy.RetryableErrors = []pb.ErrorCode{} }, noLeader(), 1, outcomeNotProposed, 0},
		{"another code repeats", nil, status.Error(codes.Internal, "x"), 1, outcomeUnknown, 0},
		{"overload", nil, refusal(codes.ResourceExhausted, detailOf(pb.ErrorCode_RATE_LIMITED)), 1, outcomeNotProposed, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t)
				fails := func(context.Context, string, proto.Message) (proto.Message, error) { return nil, c.answer }
				a, b := f.member(n1, fails), f.member(n2, fails)
				begun := time.Now()
				_, err := f.client(c.edit, n1, n2).Acquire(t.Context(), acquireReq())
				if n := len(a.acquires()) + len(b.acquires()); n != c.want {
					t.Errorf("%d attempts, want %d", n, c.want)
				}
				if got := outcome(t, err); got != c.outcome || is(err, ErrOutcomeUnknown) != (c.outcome == outcomeUnknown) {
					t.Errorf("outcome %q: %v", got, err)
				}
				if time.Since(begun) < c.pauses {
					t.Errorf("it took %v only", time.Since(begun))
				}
			})
		})
	}
}

// An attempt that lost its answer may have been applied, whatever the attempts
// after it are told.
func TestARefusalAfterALostAnswerLeavesItUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		var m *fakeMember
		m = f.member(n1, dropping(&m, 1, func(context.Context, string, proto.Message) (proto.Message, error) {
			return nil, noLeader()
		}))
		_, err := f.client(nil, n1).Acquire(t.Context(), acquireReq())
		if !is(err, ErrUnavailable, ErrOutcomeUnknown) || outcome(t, err) != outcomeUnknown {
			t.Errorf("outcome %q: %v", outcome(t, err), err)
		}
		if n := len(m.acquires()); n < 2 {
			t.Errorf("%d attempts: none was refused", n)
		}
	})
}

func TestReleaseConverges(t *testing.T) {
	for _, c := range []struct {
		name    string
		dropped int
		refusal *pb.ErrorDetail
		want    error
	}{
		{"free since", 1, detailOf(pb.ErrorCode_LOCK_NOT_HELD, "last_version", "5"), nil},
		{"granted to another since", 1, detailOf(pb.ErrorCode_NOT_LOCK_OWNER, "version", "6"), nil},
		{"granted to us since", 1, detailOf(pb.ErrorCode_VERSION_MISMATCH, "version", "6"), nil},
		{"forgotten since", 1, detailOf(pb.ErrorCode_LOCK_NOT_FOUND), nil},
		{"never ours", 1, detailOf(pb.ErrorCode_NOT_LOCK_OWNER, "version", "4"), ErrNotLockOwner},
		{"no version told", 1, detailOf(pb.ErrorCode_VERSION_MISMATCH), ErrVersionMismatch},
		{"nonsense told", 1, detailOf(pb.ErrorCode_VERSION_MISMATCH, "version", "x"), ErrVersionMismatch},
		{"refused at once", 0, detailOf(pb.ErrorCode_LOCK_NOT_HELD, "last_version", "5"), ErrNotLockOwner},
		{"not found at once", 0, detailOf(pb.ErrorCode_LOCK_NOT_FOUND), ErrLockNotFound},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t)
				var m *fakeMember
				m = f.member(n1, dropping(&m, c.dropped, refusing(c.refusal)))
				res, err := f.client(nil, n1).Release(t.Context(), &ReleaseRequest{LockID: "l", ClientID: "me", Version: 5})
				if !errors.Is(err, c.want) || res.Released != (c.want == nil) || (res.Error == nil) != (c.want == nil) {
					t.Errorf("%+v, %v", res, err)
				}
			})
		})
	}
}

func TestEnqueueAndCancelConverge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		var m, other *fakeMember
		m = f.member(n1, dropping(&m, 1, refusing(detailOf(pb.ErrorCode_LOCK_HELD, "owner_id", "me"))))
		c := f.client(nil, n1)
		enqueued, err := c.EnqueueWaiter(t.Context(), &EnqueueWaiterRequest{LockID: "l", ClientID: "me"})
		if err != nil || !enqueued.Enqueued {
			t.Errorf("%+v, %v", enqueued, err)
		}
		if _, err := c.EnqueueWaiter(t.Context(), &EnqueueWaiterRequest{LockID: "l", ClientID: "me"}); !is(err, ErrLockHeld) {
			t.Errorf("held before: %v", err)
		}
		other = f.member(n2, dropping(&other, 1, refusing(detailOf(pb.ErrorCode_NOT_WAITING))))
		c = f.client(nil, n2)
		cancelled, err := c.CancelWait(t.Context(), &CancelWaitRequest{LockID: "l", ClientID: "me"})
		if err != nil || !cancelled.Cancelled {
			t.Errorf("%+v, %v", cancelled, err)
		}
		if _, err := c.CancelWait(t.Context(), &CancelWaitRequest{LockID: "l", ClientID: "me"}); !is(err, ErrNotWaiting) {
			t.Errorf("never waited: %v", err)
		}
	})
}

// A refusal comes with its result, is never repeated, and means the same as in
// process.
func TestRefusals(t *testing.T) {
	all := func(cfg *Config) {
		for code := range pb.ErrorCode_name {
			cfg.RetryPolicy.RetryableErrors = append(cfg.RetryPolicy.RetryableErrors, pb.ErrorCode(code))
		}
	}
	for code, want := range map[pb.ErrorCode]error{
		pb.ErrorCode_LOCK_HELD:       ErrLockHeld,
		pb.ErrorCode_WAIT_QUEUE_FULL: ErrWaitQueueFull,
		pb.ErrorCode_NOT_WAITING:     ErrNotWaiting,
		pb.ErrorCode_INVALID_TTL:     ErrInvalidTTL,
		pb.ErrorCode_TIMEOUT:         ErrTimeout,
	} {
		t.Run(code.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t)
				m := f.member(n1, refusing(detailOf(code, "owner_id", "other", "field", "ttl")))
				res, err := f.client(all, n1).Acquire(t.Context(), acquireReq())
				ce, ok := errors.AsType[*ClientError](err)
				if !ok || !is(err, want) || is(err, ErrOutcomeUnknown) || ce.Code != code || ce.Op != "Acquire" || ce.Details["owner_id"] != "other" {
					t.Errorf("%v", err)
				}
				if res.Acquired || res.Error.Code != code || res.Error.Message != "words of the member" || res.BackoffAdvice.InitialBackoff != time.Second {
					t.Errorf("%+v %+v", res, res.Error)
				}
				if v, ok := errors.AsType[*ValidationError](err); !ok || v.Field != "ttl" {
					t.Errorf("%v names no field", err)
				}
				if n := len(m.acquires()); n != 1 {
					t.Errorf("%d attempts", n)
				}
			})
		})
	}
}

func TestStatusCodes(t *testing.T) {
	for _, c := range []struct {
		name    string
		answer  error
		want    []error
		code    pb.ErrorCode
		outcome string
	}{
		{"no detail, unavailable", status.Error(codes.Unavailable, "x"), []error{ErrUnavailable, ErrOutcomeUnknown}, pb.ErrorCode_UNAVAILABLE, outcomeUnknown},
		{"no detail, late", status.Error(codes.DeadlineExceeded, "x"), []error{ErrTimeout, ErrOutcomeUnknown}, pb.ErrorCode_TIMEOUT, outcomeUnknown},
		{"no detail, cancelled", status.Error(codes.Canceled, "x"), []error{ErrUnavailable, ErrOutcomeUnknown}, pb.ErrorCode_UNAVAILABLE, outcomeUnknown},
		{"no detail, unknown", status.Error(codes.Unknown, "x"), []error{ErrUnavailable, ErrOutcomeUnknown}, pb.ErrorCode_INTERNAL_ERROR, outcomeUnknown},
		{"no detail, exhausted", status.Error(codes.ResourceExhausted, "x"), []error{ErrRateLimit, ErrOutcomeUnknown}, pb.ErrorCode_RATE_LIMITED, outcomeUnknown},
		{"no detail, denied", status.Error(codes.PermissionDenied, "x"), nil, pb.ErrorCode_PERMISSION_DENIED, outcomeNotProposed},
		{"no detail, nobody", status.Error(codes.Unauthenticated, "x"), nil, pb.ErrorCode_PERMISSION_DENIED, outcomeNotProposed},
		{"unavailable", refusal(codes.Unavailable, detailOf(pb.ErrorCode_UNAVAILABLE)), []error{ErrUnavailable, ErrOutcomeUnknown}, pb.ErrorCode_UNAVAILABLE, outcomeUnknown},
		{"unavailable before", refusal(codes.Unavailable, detailOf(pb.ErrorCode_UNAVAILABLE, "outcome", "not_proposed")), []error{ErrUnavailable}, pb.ErrorCode_UNAVAILABLE, outcomeNotProposed},
		{"late", refusal(codes.DeadlineExceeded, detailOf(pb.ErrorCode_TIMEOUT, "outcome", "unknown")), []error{ErrTimeout, ErrOutcomeUnknown}, pb.ErrorCode_TIMEOUT, outcomeUnknown},
		{"no leader", noLeader(), []error{ErrLeaderUnavailable}, pb.ErrorCode_NO_LEADER, outcomeNotProposed},
		{"full", refusal(codes.ResourceExhausted, detailOf(pb.ErrorCode_RATE_LIMITED, "outcome", "not_acquired")), []error{ErrRateLimit}, pb.ErrorCode_RATE_LIMITED, "not_acquired"},
		{"bad field", refusal(codes.InvalidArgument, detailOf(pb.ErrorCode_INVALID_ARGUMENT, "field", "priority", "outcome", "not_proposed")), []error{ErrInvalidArgument}, pb.ErrorCode_INVALID_ARGUMENT, outcomeNotProposed},
		{"a code of a newer member", refusal(codes.Internal, detailOf(999)), []error{ErrUnavailable, ErrOutcomeUnknown}, 999, outcomeUnknown},
		{"OK as an error", refusal(codes.Internal, detailOf(pb.ErrorCode_OK)), []error{ErrUnavailable, ErrOutcomeUnknown}, pb.ErrorCode_INTERNAL_ERROR, outcomeUnknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t)
				f.member(n1, func(context.Context, string, proto.Message) (proto.Message, error) { return nil, c.answer })
				client := f.client(fewRetries(0), n1)
				_, err := client.Acquire(t.Context(), acquireReq())
				ce, ok := errors.AsType[*ClientError](err)
				if !ok || ce.Code != c.code || ce.Details["outcome"] != c.outcome || !is(err, c.want...) {
					t.Errorf("%v", err)
				}
				if is(err, ErrOutcomeUnknown) != (c.outcome == outcomeUnknown) {
					t.Errorf("%v", err)
				}
				if _, err := client.GetLockInfo(t.Context(), &GetLockInfoRequest{LockID: "l"}); err == nil || is(err, ErrOutcomeUnknown) {
					t.Errorf("a read ended with %v", err)
				}
			})
		})
	}
}

// A server that is no member is named as such, and does not keep the client from
// one.
func TestAForeignServer(t *testing.T) {
	for name, serve := range map[string]func(*fleet){
		"gRPC without our service": func(f *fleet) { f.serve(n2, grpc.NewServer()) },
		"no gRPC":                  func(f *fleet) { f.talk(n2, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t)
				serve(f)
				_, err := f.client(nil, n2).Acquire(t.Context(), acquireReq())
				if !is(err, ErrUnavailable) || outcome(t, err) != outcomeNotProposed || !strings.Contains(err.Error(), n2) {
					t.Errorf("%v", err)
				}
				if name != "no gRPC" && !strings.Contains(err.Error(), "member of a raftlock cluster") {
					t.Errorf("the error does not say what is wrong: %v", err)
				}
				f.member(n3, nil)
				if _, err := f.client(nil, n2, n3).Acquire(t.Context(), acquireReq()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// The time of a call may end between two passes: then it ends as the last of them
// did, and says that its context has ended if it has.
func TestTimeEndsBetweenPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.member(n1, func(context.Context, string, proto.Message) (proto.Message, error) { return nil, noLeader() })
		c := f.client(func(cfg *Config) {
			cfg.RetryPolicy.InitialBackoff, cfg.RetryPolicy.MaxBackoff = time.Minute, time.Minute
		}, n1)
		begun := time.Now()
		_, err := c.Acquire(t.Context(), acquireReq())
		if !is(err, ErrLeaderUnavailable) || is(err, ErrTimeout) || outcome(t, err) != outcomeNotProposed || time.Since(begun) != 30*time.Second {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = c.Acquire(ctx, acquireReq())
		if !is(err, ErrLeaderUnavailable, context.DeadlineExceeded) || outcome(t, err) != outcomeNotProposed {
			t.Errorf("%v", err)
		}
	})
}

// A member that is cut off from the others keeps each call for a while, and then
// says that it knows no leader: the next calls go elsewhere first.
func TestAMemberThatCannotServeComesLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		cut := f.member(n1, func(context.Context, string, proto.Message) (proto.Message, error) {
			time.Sleep(5 * time.Second)
			return nil, noLeader()
		})
		c := f.client(nil, n1, n2)
		c.endpoints.choose(t.Context(), laneCalls, false, false)
		good := f.member(n2, nil)
		time.Sleep(maxReconnect)
		begun := time.Now()
		for range 5 {
			if _, err := c.Acquire(t.Context(), acquireReq()); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(begun); took != 5*time.Second || len(cut.acquires()) != 1 || len(good.acquires()) != 5 {
			t.Errorf("took %v, and %d calls went to the member that is cut off", took, len(cut.acquires()))
		}
		cut.script = yes // it is back, and was elected
		good.leader, cut.leader = n1, n1
		for range 3 {
			if _, err := c.Acquire(t.Context(), acquireReq()); err != nil {
				t.Fatal(err)
			}
		}
		if len(cut.acquires()) != 3 {
			t.Errorf("%d calls went to the new leader", len(cut.acquires())-1)
		}
	})
}

// Errors are for people, too: each endpoint with its reason, nothing twice.
func TestFailureTexts(t *testing.T) {
	unknown := detailOf(pb.ErrorCode_UNAVAILABLE, "outcome", "unknown")
	unknown.Message = "service unavailable: the leader was lost: " + ErrOutcomeUnknown.Error()
	for _, c := range []struct {
		answer error
		want   string
	}{
		{noLeader(), "client Acquire failed: no leader available: " + n1 + ": NO_LEADER (code: NO_LEADER, details: map[outcome:not_proposed])"},
		{refusal(codes.Unavailable, unknown), "client Acquire failed: service unavailable: " + n1 + ": the leader was lost: outcome unknown: the command may have been applied (code: UNAVAILABLE, details: map[outcome:unknown])"},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet(t)
			f.member(n1, func(context.Context, string, proto.Message) (proto.Message, error) { return nil, c.answer })
			if _, err := f.client(nil, n1).Acquire(t.Context(), acquireReq()); err.Error() != c.want {
				t.Errorf("\n got %s\nwant %s", err, c.want)
			}
		})
	}
}

// silent never answers.
func silent(ctx context.Context, method string, req proto.Message) (proto.Message, error) {
	if method == "CancelWait" {
		return yes(ctx, method, req)
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

// A member that has stopped, but whose connection stands, does not cost the
// whole call, and the next call begins with another.
func TestAStoppedMemberIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		stopped, good := f.member(n1, silent), f.member(n2, nil)
		stopped.leader, good.leader = n1, n1
		c := f.client(nil, n1, n2)
		c.endpoints.at(n1) // as if an answer had named it
		for _, e := range c.endpoints.snapshot() {
			e.connect()
		}
		synctest.Wait()
		begun := time.Now()
		if _, err := c.Acquire(t.Context(), acquireReq()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took != 15*time.Second {
			t.Errorf("it took %v, not half of the request time-out", took)
		}
		begun = time.Now()
		if _, err := c.Acquire(t.Context(), acquireReq()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took != 0 || len(stopped.acquires()) != 1 {
			t.Errorf("the next call took %v and came to the stopped member", took)
		}
	})
}

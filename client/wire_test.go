package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/raftlock/raftlock/pb"
)

// What goes over the wire, and what comes from it.

func TestRequestsAreSentWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		m := f.member(n1, yes)
		m.script = func(ctx context.Context, method string, req proto.Message) (proto.Message, error) {
			if method == "GetLocks" {
				return &pb.GetLocksResponse{}, nil
			}
			return yes(ctx, method, req)
		}
		c := f.client(nil, n1)
		ctx, at := t.Context(), time.Unix(5, 0)
		calls := []func() error{
			func() error {
				_, err := c.Acquire(ctx, &AcquireRequest{LockID: "l", ClientID: "c", TTL: 1, Wait: true, WaitTimeout: 2, Priority: 3, Metadata: map[string]string{"k": "v"}, RequestID: "r", Attempt: 9})
				return err
			},
			func() error { _, err := c.Acquire(ctx, &AcquireRequest{LockID: "l", ClientID: "c"}); return err },
			func() error {
				_, err := c.Release(ctx, &ReleaseRequest{LockID: "l", ClientID: "c", Version: 4})
				return err
			},
			func() error {
				_, err := c.Renew(ctx, &RenewRequest{LockID: "l", ClientID: "c", Version: 4, NewTTL: 5})
				return err
			},
			func() error {
				_, err := c.EnqueueWaiter(ctx, &EnqueueWaiterRequest{LockID: "l", ClientID: "c", Timeout: 6, Priority: 7, Version: 8})
				return err
			},
			func() error {
				_, err := c.CancelWait(ctx, &CancelWaitRequest{LockID: "l", ClientID: "c", Version: 8, RequestID: "r"})
				return err
			},
			func() error {
				_, err := c.GetLockInfo(ctx, &GetLockInfoRequest{LockID: "l", IncludeWaiters: true})
				return err
			},
			func() error {
				_, err := c.GetLocks(ctx, &GetLocksRequest{
					Filter: &LockFilter{LockIDPattern: "a", OwnerIDPattern: "b", OnlyHeld: true, OnlyContested: true, ExpiresBefore: &at, ExpiresAfter: &at, MetadataFilter: map[string]string{"k": "v"}},
					Limit:  1, Offset: 2, IncludeWaiters: true, StartAfter: "s",
				})
				return err
			},
			func() error { _, err := c.Health(ctx, &HealthRequest{ServiceName: "s"}); return err },
		}
		want := []proto.Message{
			&pb.AcquireRequest{LockId: "l", ClientId: "c", Ttl: durationpb.New(1), Wait: true, WaitTimeout: durationpb.New(2), Priority: 3, Metadata: map[string]string{"k": "v"}, RequestId: "r", Attempt: 9},
			&pb.AcquireRequest{LockId: "l", ClientId: "c", Ttl: durationpb.New(0), WaitTimeout: durationpb.New(0), Attempt: 1},
			&pb.ReleaseRequest{LockId: "l", ClientId: "c", Version: 4},
			&pb.RenewRequest{LockId: "l", ClientId: "c", Version: 4, NewTtl: durationpb.New(5)},
			&pb.EnqueueWaiterRequest{LockId: "l", ClientId: "c", Timeout: durationpb.New(6), Priority: 7, Version: 8},
			&pb.CancelWaitRequest{LockId: "l", ClientId: "c", Version: 8, RequestId: "r"},
			&pb.GetLockInfoRequest{LockId: "l", IncludeWaiters: true},
			&pb.GetLocksRequest{Limit: 1, Offset: 2, IncludeWaiters: true, StartAfter: "s", Filter: &pb.LockFilter{
				LockIdPattern: "a", OwnerIdPattern: "b", OnlyHeld: true, OnlyContested: true,
				ExpiresBefore: timestamppb.New(at), ExpiresAfter: timestamppb.New(at), MetadataFilter: map[string]string{"k": "v"},
			}},
			&pb.HealthRequest{ServiceName: "s"},
		}
		for i, call := range calls {
			if err := call(); err != nil {
				t.Fatal(err)
			}
			if got := m.calls[i].req; !proto.Equal(got, want[i]) {
				t.Errorf("sent %v, want %v", got, want[i])
			}
		}
	})
}

// What cannot be sent is refused, with the field's name, and nobody is asked.
func TestWhatCannotBeSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		m := f.member(n1, nil)
		c := f.client(func(cfg *Config) { cfg.MaxMessageSize = 1000 }, n1)
		ctx, bad := t.Context(), "\xff"
		acquire := func(edit func(*AcquireRequest)) error {
			req := acquireReq()
			edit(req)
			_, err := c.Acquire(ctx, req)
			return err
		}
		list := func(req *GetLocksRequest) error { _, err := c.GetLocks(ctx, req); return err }
		_, release := c.Release(ctx, &ReleaseRequest{LockID: bad})
		_, renew := c.Renew(ctx, &RenewRequest{LockID: "l", ClientID: bad})
		_, enqueue := c.EnqueueWaiter(ctx, &EnqueueWaiterRequest{LockID: "l", ClientID: bad})
		_, cancel := c.CancelWait(ctx, &CancelWaitRequest{LockID: "l", ClientID: "me", RequestID: bad})
		_, info := c.GetLockInfo(ctx, &GetLockInfoRequest{LockID: bad})
		_, health := c.Health(ctx, &HealthRequest{ServiceName: bad})
		_, advice := c.GetBackoffAdvice(ctx, &BackoffAdviceRequest{LockID: bad})
		for _, x := range []struct {
			field string
			err   error
		}{
			{"lock_id", acquire(func(r *AcquireRequest) { r.LockID = bad })},
			{"client_id", acquire(func(r *AcquireRequest) { r.ClientID = bad })},
			{"request_id", acquire(func(r *AcquireRequest) { r.RequestID = bad })},
			{"metadata", acquire(func(r *AcquireRequest) { r.Metadata = map[string]string{"k": bad} })},
			{"metadata", acquire(func(r *AcquireRequest) { r.Metadata = map[string]string{bad: "v"} })},
			{"lock_id", acquire(func(r *AcquireRequest) { r.LockID = "" })},
			{"lock_id", acquire(func(r *AcquireRequest) { r.LockID = "a\n" })},
			{"client_id", acquire(func(r *AcquireRequest) { r.ClientID = strings.Repeat("x", 257) })},
			{"request_id", acquire(func(r *AcquireRequest) { r.RequestID = strings.Repeat("x", 129) })},
			{"priority", acquire(func(r *AcquireRequest) { r.Priority = 1001 })},
			{"metadata", acquire(func(r *AcquireRequest) { r.Metadata = map[string]string{"": ""} })},
			{"request", acquire(func(r *AcquireRequest) {
				r.Metadata = map[string]string{}
				for i := range 5 {
					r.Metadata[fmt.Sprint(i)] = strings.Repeat("v", 250)
				}
			})},
			{"limit", list(&GetLocksRequest{Limit: -1})}, {"offset", list(&GetLocksRequest{Offset: -1})},
			{"lock_id", release}, {"client_id", renew}, {"client_id", enqueue}, {"request_id", cancel},
			{"lock_id", info}, {"service_name", health}, {"lock_id", advice},
			{"start_after", list(&GetLocksRequest{StartAfter: bad})},
			{"lock_id_pattern", list(&GetLocksRequest{Filter: &LockFilter{LockIDPattern: bad}})},
			{"owner_id_pattern", list(&GetLocksRequest{Filter: &LockFilter{OwnerIDPattern: bad}})},
			{"metadata_filter", list(&GetLocksRequest{Filter: &LockFilter{MetadataFilter: map[string]string{bad: ""}}})},
		} {
			v, ok := errors.AsType[*ValidationError](x.err)
			if !ok || v.Field != x.field || !is(x.err, ErrInvalidArgument) || outcome(t, x.err) != outcomeNotProposed {
				t.Errorf("%s: %v", x.field, x.err)
			}
		}
		if len(m.calls) != 0 {
			t.Errorf("the member heard %v", m.calls)
		}
	})
}

func TestNilRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFleet(t).client(nil, n1)
		ctx := t.Context()
		acquired, err1 := c.Acquire(ctx, nil)
		released, err2 := c.Release(ctx, nil)
		renewed, err3 := c.Renew(ctx, nil)
		enqueued, err4 := c.EnqueueWaiter(ctx, nil)
		cancelled, err5 := c.CancelWait(ctx, nil)
		listed, err6 := c.GetLocks(ctx, nil)
		_, err7 := c.GetLockInfo(ctx, nil)
		_, err8 := c.GetStatus(ctx, nil)
		_, err9 := c.Health(ctx, nil)
		_, err10 := c.GetBackoffAdvice(ctx, nil)
		for i, err := range []error{err1, err2, err3, err4, err5, err6, err7, err8, err9, err10} {
			if !is(err, ErrInvalidArgument) {
				t.Errorf("call %d: %v", i+1, err)
			}
		}
		if acquired.Error == nil || released.Error == nil || renewed.Error == nil || enqueued.Error == nil || cancelled.Error == nil || listed == nil {
			t.Error("a refusal came without its result")
		}
	})
}

// An answer that does not fit is not taken for a refusal.
func TestAnAnswerThatIsTooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.member(n1, func(_ context.Context, _ string, req proto.Message) (proto.Message, error) {
			answer := granted(req.(*pb.AcquireRequest), 7)
			answer.Lock.Metadata = map[string]string{"k": strings.Repeat("v", 2000)}
			return answer, nil
		})
		_, err := f.client(func(cfg *Config) { cfg.MaxMessageSize = 1000 }, n1).Acquire(t.Context(), acquireReq())
		if !is(err, ErrOutcomeUnknown, ErrUnavailable) {
			t.Errorf("%v", err)
		}
	})
}

// Answers that make no sense are errors, never panics and never grants.
func TestMalformedAnswers(t *testing.T) {
	empty := func(_ context.Context, method string, _ proto.Message) (proto.Message, error) {
		return map[string]proto.Message{
			"Acquire": &pb.AcquireResponse{}, "Release": &pb.ReleaseResponse{}, "Renew": &pb.RenewResponse{},
			"EnqueueWaiter": &pb.EnqueueWaiterResponse{}, "CancelWait": &pb.CancelWaitResponse{}, "GetLockInfo": &pb.GetLockInfoResponse{},
			"GetStatus": &pb.GetStatusResponse{}, "Health": &pb.HealthResponse{}, "GetBackoffAdvice": &pb.BackoffAdviceResponse{},
			"GetLocks": &pb.GetLocksResponse{HasMore: true},
		}[method], nil
	}
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		m := f.member(n1, empty)
		c := f.client(nil, n1)
		changes := []string{"Acquire", "Release", "Renew", "EnqueueWaiter", "CancelWait"}
		for name, call := range everyCall(c) {
			err := call(t.Context())
			if name == "GetLocks" {
				if err != nil {
					t.Errorf("an empty page: %v", err)
				}
				continue
			}
			unknown := false
			for _, change := range changes {
				unknown = unknown || change == name
			}
			if err == nil || is(err, ErrOutcomeUnknown) != unknown {
				t.Errorf("%s: %v", name, err)
			}
		}
		m.script = func(context.Context, string, proto.Message) (proto.Message, error) {
			return &pb.AcquireResponse{Acquired: true}, nil
		}
		if res, err := c.Acquire(t.Context(), acquireReq()); err == nil || res.Acquired {
			t.Errorf("granted nothing: %+v, %v", res, err)
		}
		m.script = func(context.Context, string, proto.Message) (proto.Message, error) {
			return &pb.AcquireResponse{Acquired: true, Lock: &pb.Lock{
				Remaining: &durationpb.Duration{Seconds: -5, Nanos: 5}, AcquiredAt: &timestamppb.Timestamp{Seconds: math.MinInt64},
			}, EstimatedWaitDuration: &durationpb.Duration{Seconds: math.MaxInt64}}, nil
		}
		res, err := c.Acquire(t.Context(), acquireReq())
		if err != nil || res.Lock.ExpiresAt.After(time.Now()) || !res.Lock.AcquiredAt.IsZero() || res.EstimatedWaitDuration != longest {
			t.Errorf("%+v %+v, %v", res, res.Lock, err)
		}
	})
}

// FuzzAnswers reads answers of any bytes that are messages at all.
func FuzzAnswers(f *testing.F) {
	answers := []proto.Message{
		&pb.AcquireResponse{Lock: &pb.Lock{Remaining: durationpb.New(-1)}}, &pb.GetLockInfoResponse{LockInfo: &pb.LockInfo{OwnerId: "o", WaitersInfo: []*pb.WaiterInfo{{}}}},
		&pb.GetStatusResponse{RaftStatus: &pb.RaftStatus{Replication: map[string]*pb.PeerState{"": nil}}}, &pb.HealthResponse{}, &pb.ErrorDetail{Code: -1},
	}
	for i, m := range answers {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(i), b)
	}
	f.Fuzz(func(t *testing.T, kind byte, b []byte) {
		m := proto.Clone(answers[int(kind)%len(answers)])
		proto.Reset(m)
		if proto.Unmarshal(b, m) != nil {
			return
		}
		now := time.Now()
		switch m := m.(type) {
		case *pb.AcquireResponse:
			l := lockOf(m.GetLock(), now)
			if l.ExpiresAt.Before(now) {
				t.Errorf("a grant has %v", l.ExpiresAt.Sub(now))
			}
			adviceOf(m.GetBackoffAdvice())
		case *pb.GetLockInfoResponse:
			for _, w := range infoOf(m.GetLockInfo(), now).WaitersInfo {
				_ = w.TimeoutAt.String()
			}
		case *pb.GetStatusResponse:
			statusOf(m)
		case *pb.HealthResponse:
			healthOf(m.GetHealthInfo())
		case *pb.ErrorDetail:
			f := failureOf(m, true)
			detail, err := f.refuse("Acquire")
			if err == nil || detail.Code != m.GetCode() || bytes.ContainsRune([]byte(f.message), 0) {
				t.Errorf("%v %v", detail, err)
			}
			isOver(f, 1)
		}
	})
}

// frozen is a connection that can stop to carry anything, without an end.
type frozen struct {
	net.Conn
	stop chan struct{} // closed to freeze
	end  chan struct{} // closed by Close
	once sync.Once
}

func (c *frozen) held() bool {
	select {
	case <-c.stop:
		return true
	default:
		return false
	}
}

func (c *frozen) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.held() {
		<-c.end
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *frozen) Write(b []byte) (int, error) {
	if c.held() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c *frozen) Close() error {
	c.once.Do(func() { close(c.end) })
	return c.Conn.Close()
}

// A connection that is dead without an end is found out by pings, with and
// without a call.
func TestKeepAlive(t *testing.T) {
	for _, permit := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet(t)
			f.member(n1, nil)
			stop := make(chan struct{})
			c := f.client(func(cfg *Config) {
				cfg.KeepAlive = KeepAliveConfig{Time: 20 * time.Second, Timeout: 3 * time.Second, PermitWithoutStream: permit}
				cfg.DialOptions = []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
					select {
					case <-stop:
						return nil, errRefused
					default:
					}
					conn, err := f.dial(ctx, address)
					return &frozen{Conn: conn, stop: stop, end: make(chan struct{})}, err
				})}
			}, n1)
			if _, err := c.Acquire(t.Context(), acquireReq()); err != nil {
				t.Fatal(err)
			}
			close(stop)
			time.Sleep(24 * time.Second)
			if c.IsConnected() == permit {
				t.Errorf("permit %v: after 24 s it is connected: %v", permit, !permit)
			}
			begun := time.Now()
			_, err := c.Acquire(t.Context(), waitReq(time.Hour))
			if !is(err, ErrUnavailable) || is(err, ErrOutcomeUnknown) == permit {
				t.Errorf("permit %v: %v", permit, err)
			}
			if took := time.Since(begun); took > 60*time.Second {
				t.Errorf("permit %v: it took %v", permit, took)
			}
		})
	}
}

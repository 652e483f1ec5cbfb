package client

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/raftlock/raftlock/pb"
)

// Where calls go.

const (
	n1 = "10.0.0.1:7001"
	n2 = "10.0.0.2:7001"
	n3 = "10.0.0.3:7001"
)

func TestARedirectIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		first := f.member(n1, func(context.Context, string, proto.Message) (proto.Message, error) { return nil, notLeader(n2) })
		second := f.member(n2, nil)
		second.leader = n2
		c := f.client(nil, n1)
		begun := time.Now()
		for range 3 {
			if _, err := c.Acquire(t.Context(), acquireReq()); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(begun); took > 0 {
			t.Errorf("it took %v, though nothing had to be waited for", took)
		}
		if a, b := len(first.acquires()), len(second.acquires()); a != 1 || b != 3 {
			t.Errorf("%d calls went to the follower and %d to the leader", a, b)
		}
		m := c.GetMetrics()
		if m.GetLeaderRedirectCount() != 1 || m.GetRetryCount("Acquire") != 0 || m.GetSuccessCount("Acquire") != 3 {
			t.Errorf("counted %+v", m.Snapshot())
		}
		if c.GetLeaderAddress() != n2 || !c.IsConnected() {
			t.Errorf("the leader is %q, connected %v", c.GetLeaderAddress(), c.IsConnected())
		}
	})
}

func TestRedirectsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		to := func(address string) script {
			return func(context.Context, string, proto.Message) (proto.Message, error) { return nil, notLeader(address) }
		}
		a, b := f.member(n1, to(n2)), f.member(n2, to(n1))
		c := f.client(fewRetries(1), n1, n2)
		begun := time.Now()
		_, err := c.Acquire(t.Context(), acquireReq())
		if !is(err, ErrLeaderUnavailable) || outcome(t, err) != outcomeNotProposed {
			t.Errorf("ended with %v", err)
		}
		if n := len(a.acquires()) + len(b.acquires()); n > maxRedirects+4 {
			t.Errorf("%d attempts", n)
		}
		if c.GetMetrics().GetLeaderRedirectCount() != maxRedirects {
			t.Errorf("%d redirects were followed", c.GetMetrics().GetLeaderRedirectCount())
		}
		if time.Since(begun) < 100*time.Millisecond {
			t.Error("there was no pause between redirects")
		}
	})
}

// A member that does not lead and was told of no leader is asked, passes the
// call on, and names the leader; it is gone to next time, configured or not.
func TestTheLeaderOfTheHeadersIsGoneTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		follower, leader := f.member(n1, nil), f.member(n3, nil)
		follower.leader, leader.leader = n3, n3
		c := f.client(nil, n1)
		for range 4 {
			if _, err := c.Acquire(t.Context(), acquireReq()); err != nil {
				t.Fatal(err)
			}
			synctest.Wait() // connections are made beside calls
		}
		if a, b := len(follower.acquires()), len(leader.acquires()); a != 1 || b != 3 {
			t.Errorf("%d calls went to the follower and %d to the leader", a, b)
		}

		leader.stop() // and the next one is found over the one that was configured
		next := f.member(n2, nil)
		follower.leader, next.leader = n2, n2
		for range 3 {
			if _, err := c.Acquire(t.Context(), acquireReq()); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if len(next.acquires()) != 2 {
			t.Errorf("the next leader was sent %d calls", len(next.acquires()))
		}
		if n := len(c.endpoints.snapshot()); n != 2 {
			t.Errorf("the client keeps %d endpoints, of which one leader is gone", n)
		}
	})
}

// What never left this process goes elsewhere, whatever the policy.
func TestALeaderThatCannotBeReached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.member(n1, func(context.Context, string, proto.Message) (proto.Message, error) { return nil, notLeader(n3) })
		c := f.client(func(cfg *Config) { cfg.RetryPolicy = RetryPolicy{RetryableErrors: []pb.ErrorCode{}} }, n1, n2)
		c.endpoints.choose(t.Context(), laneCalls, false, false)
		f.member(n2, nil) // it comes up after the client has tried to reach it
		time.Sleep(maxReconnect)
		c.endpoints.suspect(c.endpoints.at(n2)[0])
		c.endpoints.at(n1)
		if _, err := c.Acquire(t.Context(), acquireReq()); err != nil {
			t.Error(err)
		}
	})
}

// Who asks a member about itself does not hear of the leader.
func TestAMemberIsAskedAboutItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		asked, leader := f.member(n1, nil), f.member(n2, nil)
		asked.leader, leader.leader = n2, n2
		c := f.client(fewRetries(0), n1)
		for range 3 {
			if _, err := c.Health(t.Context(), &HealthRequest{}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait() // it has heard of the leader, and connects
			if _, err := c.Acquire(t.Context(), acquireReq()); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if len(asked.heardOf("Health")) != 3 || len(leader.acquires()) != 3 {
			t.Errorf("%d answers of the member asked, %d calls to the leader", len(asked.heardOf("Health")), len(leader.acquires()))
		}
		asked.stop()
		synctest.Wait()
		if _, err := c.Health(t.Context(), &HealthRequest{}); !is(err, ErrUnavailable) {
			t.Errorf("another one answered: %v", err)
		}
	})
}

func TestAnotherClusterIsNotBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		ours := f.member(n1, nil)
		c := f.client(fewRetries(1), n1, n2)
		if _, err := c.Acquire(t.Context(), acquireReq()); err != nil {
			t.Fatal(err)
		}
		f.member(n2, nil).cluster = "c2"
		ours.stop()
		_, err := c.Acquire(t.Context(), acquireReq())
		if !is(err, ErrUnavailable) || is(err, ErrOutcomeUnknown) {
			t.Errorf("ended with %v", err)
		}
		for _, want := range []string{`"c1"`, `"c2"`, n1, n2} {
			if !strings.Contains(fmt.Sprint(err), want) {
				t.Errorf("the error does not name %s: %v", want, err)
			}
		}
		back := f.member(n1, nil)
		if _, err := c.Acquire(t.Context(), acquireReq()); err != nil {
			t.Fatal(err)
		}
		if len(back.acquires()) != 1 {
			t.Error("the client did not return to its cluster")
		}
	})
}

func TestDeadEndpointsCostNothing(t *testing.T) {
	for name, dead := range map[string]string{"refused": n1, "silent": blackhole} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t)
				good := f.member(n2, nil)
				c := f.client(nil, dead, n2)
				begun := time.Now()
				for range 5 {
					if _, err := c.Acquire(t.Context(), acquireReq()); err != nil {
						t.Fatal(err)
					}
				}
				if took := time.Since(begun); took > 0 {
					t.Errorf("it took %v", took)
				}
				for i, req := range good.acquires() {
					if req.Attempt != 1 {
						t.Errorf("call %d came as attempt %d, though nothing was sent before", i, req.Attempt)
					}
				}
			})
		})
	}
}

func TestNobodyThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		c := f.client(nil, n1, n2)
		res, err := c.Acquire(t.Context(), acquireReq())
		if !is(err, ErrUnavailable) || is(err, ErrOutcomeUnknown) || outcome(t, err) != outcomeNotProposed {
			t.Errorf("ended with %v", err)
		}
		if res == nil || res.Error == nil || res.Error.Code != pb.ErrorCode_UNAVAILABLE {
			t.Errorf("the result is %+v", res)
		}
		for _, want := range []string{n1, n2, errRefused.Error()} {
			if !strings.Contains(fmt.Sprint(err), want) {
				t.Errorf("the error does not say %q: %v", want, err)
			}
		}
		if got := c.GetMetrics().GetFailureCount("Acquire"); got != 1 {
			t.Errorf("counted %d failures", got)
		}
		f.member(n2, nil) // it comes up, and the same client finds it
		if _, err := c.Acquire(t.Context(), acquireReq()); err != nil {
			t.Error(err)
		}
	})
}

func TestANewMemberIsMetWhileACallRepeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		c := f.client(nil, n1)
		_, _ = c.Health(t.Context(), &HealthRequest{}) // the connection has learnt to wait
		go func() {
			time.Sleep(300 * time.Millisecond)
			f.member(n1, nil)
		}()
		if _, err := c.Acquire(t.Context(), acquireReq()); err != nil {
			t.Error(err)
		}
	})
}

// A name with several addresses is several endpoints, which are looked up again
// when calls fail. The member hears the name.
func TestANameWithSeveralAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.member(n2, nil)
		addresses := []string{"10.0.0.1", "10.0.0.2"}
		cfg := DefaultClientConfig()
		cfg.Endpoints = []string{"locks.example:7001"}
		cfg.DialOptions = []grpc.DialOption{grpc.WithContextDialer(f.dial)}
		c, err := newRemote(cfg, func(_ context.Context, host string) ([]string, error) {
			if host != "locks.example" {
				t.Errorf("looked up %q", host)
			}
			return addresses, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Acquire(t.Context(), acquireReq()); err != nil {
			t.Fatal(err)
		}
		if n := len(c.endpoints.snapshot()); n != 2 {
			t.Errorf("%d endpoints", n)
		}
		f.at[n2].stop()
		third := f.member(n3, nil)
		addresses = []string{"10.0.0.1", "10.0.0.3"}
		time.Sleep(lookupInterval)
		if _, err := c.Acquire(t.Context(), acquireReq()); err != nil {
			t.Fatal(err)
		}
		if len(third.acquires()) != 1 || len(c.endpoints.snapshot()) != 2 {
			t.Error("the new address was not gone to")
		}
	})
}

// A caller that goes away during the first look-up does not spoil it for others.
func TestALookUpThatIsBrokenOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.member(n2, nil)
		cfg := DefaultClientConfig()
		cfg.Endpoints = []string{"locks.example:7001"}
		cfg.DialOptions = []grpc.DialOption{grpc.WithContextDialer(f.dial)}
		c, err := newRemote(cfg, func(ctx context.Context, _ string) ([]string, error) {
			select {
			case <-time.After(time.Second):
				return []string{"10.0.0.1", "10.0.0.2"}, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		short, stop := context.WithTimeout(t.Context(), time.Millisecond)
		defer stop()
		for _, ctx := range []context.Context{ended, short} {
			if _, err := c.Acquire(ctx, acquireReq()); !is(err, ctx.Err()) || outcome(t, err) != outcomeNotProposed {
				t.Errorf("%v", err)
			}
		}
		var calls sync.WaitGroup
		for range 10 {
			calls.Go(func() {
				if _, err := c.Acquire(t.Context(), acquireReq()); err != nil {
					t.Error(err)
				}
			})
		}
		calls.Wait()
		if n := len(c.endpoints.snapshot()); n != 2 {
			t.Errorf("%d endpoints", n)
		}
	})
}

// One address or none: the name stays a name, for the dialler to look up.
func TestANameWithOneAddressStaysOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.member("one.example:7001", nil)
		cfg := DefaultClientConfig()
		cfg.Endpoints = []string{"one.example:7001", "none.example:7001"}
		cfg.DialOptions = []grpc.DialOption{grpc.WithContextDialer(f.dial)}
		c, err := newRemote(cfg, func(_ context.Context, host string) ([]string, error) {
			if host == "one.example" {
				return []string{"10.0.0.1"}, nil
			}
			return nil, fmt.Errorf("no such host: %s", host)
		})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Acquire(t.Context(), acquireReq()); err != nil {
			t.Fatal(err)
		}
	})
}

// Renewals and releases do not share a connection with calls that may wait.
func TestUrgentCallsHaveTheirOwnConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		m := f.member(n1, nil)
		c := f.client(nil, n1)
		ctx := t.Context()
		_, err1 := c.Acquire(ctx, acquireReq())
		_, err2 := c.GetLockInfo(ctx, &GetLockInfoRequest{LockID: "l"})
		_, err3 := c.EnqueueWaiter(ctx, &EnqueueWaiterRequest{LockID: "l", ClientID: "me"})
		_, err4 := c.Renew(ctx, &RenewRequest{LockID: "l", ClientID: "me", Version: 7, NewTTL: time.Second})
		_, err5 := c.Release(ctx, &ReleaseRequest{LockID: "l", ClientID: "me", Version: 7})
		_, err6 := c.CancelWait(ctx, &CancelWaitRequest{LockID: "l", ClientID: "me"})
		for _, err := range []error{err1, err2, err3, err4, err5, err6} {
			if err != nil {
				t.Fatal(err)
			}
		}
		conns := map[string]int{}
		for _, call := range m.calls {
			conns[call.method] = call.conn
		}
		calls, urgent := conns["Acquire"], conns["Renew"]
		if calls == urgent || conns["GetLockInfo"] != calls || conns["EnqueueWaiter"] != calls ||
			conns["Release"] != urgent || conns["CancelWait"] != urgent {
			t.Errorf("calls came over the connections %v", conns)
		}
		if n := c.GetMetrics().GetConnectionCount(); n != 2 {
			t.Errorf("%d connections are counted", n)
		}
		m.stop()
		synctest.Wait()
		if n := c.GetMetrics().GetConnectionCount(); n != 0 || c.IsConnected() {
			t.Errorf("%d connections are counted after the member's end, connected %v", n, c.IsConnected())
		}
	})
}

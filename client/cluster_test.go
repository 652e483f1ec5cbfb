package client_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/internal/lockservice"
	"github.com/raftlock/raftlock/testcluster"
)

// The client over the network, and a real cluster behind it, in virtual time.

// served is a cluster whose members serve on a network in memory.
type served struct {
	*testcluster.Cluster
	t  *testing.T
	mu sync.Mutex
	at map[string]*door
}

// door is where one member serves.
type door struct {
	listener *bufconn.Listener
	server   *grpc.Server
	conns    []net.Conn
}

func addressOf(i int) string { return fmt.Sprintf("10.0.0.%d:7001", i+1) }

// serve runs a test with a cluster of three.
func serve(t *testing.T, test func(t *testing.T, s *served)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &served{Cluster: testcluster.New(t, 3), t: t, at: map[string]*door{}}
		for i := range 3 {
			<-s.Node(i).Ready()
			s.open(i)
		}
		test(t, s)
	})
}

// open has member i serve.
func (s *served) open(i int) {
	node := s.Node(i)
	service := lockservice.New(lockservice.Config{
		Client: node.Client(), Cluster: node.ClusterID,
		Leader: func() (string, string) {
			name, _ := node.Leader()
			for i := range 3 {
				if name == fmt.Sprintf("n%d", i+1) {
					return name, addressOf(i)
				}
			}
			return name, ""
		},
	})
	d := &door{listener: bufconn.Listen(1 << 16), server: lockservice.NewServer(service, nil)}
	go func() { _ = d.server.Serve(d.listener) }()
	s.t.Cleanup(d.shut)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at[addressOf(i)] = d
}

func (d *door) shut() {
	d.server.Stop()
	_ = d.listener.Close()
	d.cut()
}

// cut breaks the connections that come in by the door.
func (d *door) cut() {
	for _, c := range d.conns {
		_ = c.Close()
	}
	d.conns = nil
}

// crash takes a member down, and its connections with it.
func (s *served) crash(i int) {
	s.mu.Lock()
	d := s.at[addressOf(i)]
	delete(s.at, addressOf(i))
	s.mu.Unlock()
	d.shut()
	s.Crash(i)
}

func (s *served) dialler(ctx context.Context, address string) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.at[address]
	if d == nil {
		return nil, fmt.Errorf("dial %s: connection refused", address)
	}
	conn, err := d.listener.DialContext(ctx)
	if err == nil {
		d.conns = append(d.conns, conn)
	}
	return conn, err
}

// dial makes a client that was told of some members.
func (s *served) dial(members ...int) client.Client {
	s.t.Helper()
	cfg := client.DefaultClientConfig()
	for _, i := range members {
		cfg.Endpoints = append(cfg.Endpoints, addressOf(i))
	}
	cfg.DialOptions = []grpc.DialOption{grpc.WithContextDialer(s.dialler)}
	c, err := client.Dial(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}

func must[T any](t *testing.T) func(result T, err error) T {
	return func(result T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return result
	}
}

// A refusal is the same whether the client is in process or not.
func TestAnswersAreAlike(t *testing.T) {
	serve(t, func(t *testing.T, s *served) {
		local, ctx := s.Client(), t.Context()
		held := must[*client.AcquireResult](t)(local.Acquire(ctx, &client.AcquireRequest{LockID: "held", ClientID: "one", TTL: time.Hour})).Lock
		freed := must[*client.AcquireResult](t)(local.Acquire(ctx, &client.AcquireRequest{LockID: "freed", ClientID: "one"})).Lock
		must[*client.ReleaseResult](t)(local.Release(ctx, &client.ReleaseRequest{LockID: "freed", ClientID: "one", Version: freed.Version}))
		calls := map[string]func(client.Client) (*client.ErrorDetail, error){
			"held":      acquires(client.AcquireRequest{LockID: "held", ClientID: "two"}),
			"timed out": acquires(client.AcquireRequest{LockID: "held", ClientID: "two", Wait: true, WaitTimeout: time.Second}),
			"no id":     acquires(client.AcquireRequest{ClientID: "two"}),
			"long id":   acquires(client.AcquireRequest{LockID: strings.Repeat("x", 300), ClientID: "two"}),
			"bad id":    acquires(client.AcquireRequest{LockID: "a\xff", ClientID: "two"}),
			"bad long":  acquires(client.AcquireRequest{LockID: strings.Repeat("\xff", 100), ClientID: "two"}),
			"bad key":   acquires(client.AcquireRequest{LockID: "a", ClientID: "two", Metadata: map[string]string{"\xff": ""}}),
			"control":   acquires(client.AcquireRequest{LockID: "a\n", ClientID: "two"}),
			"ttl":       acquires(client.AcquireRequest{LockID: "a", ClientID: "two", TTL: 1}),
			"priority":  acquires(client.AcquireRequest{LockID: "a", ClientID: "two", Priority: 5000}),
			"owner":     releases(client.ReleaseRequest{LockID: "held", ClientID: "two", Version: 1}),
			"version":   releases(client.ReleaseRequest{LockID: "held", ClientID: "one", Version: held.Version + 1}),
			"free":      releases(client.ReleaseRequest{LockID: "freed", ClientID: "one", Version: freed.Version}),
			"unknown":   releases(client.ReleaseRequest{LockID: "never", ClientID: "one", Version: 1}),
			"renewal": func(c client.Client) (*client.ErrorDetail, error) {
				res, err := c.Renew(t.Context(), &client.RenewRequest{LockID: "held", ClientID: "one", Version: held.Version})
				return res.Error, err
			},
			"not waiting": func(c client.Client) (*client.ErrorDetail, error) {
				res, err := c.CancelWait(t.Context(), &client.CancelWaitRequest{LockID: "held", ClientID: "two"})
				return res.Error, err
			},
			"holder enqueues": func(c client.Client) (*client.ErrorDetail, error) {
				res, err := c.EnqueueWaiter(t.Context(), &client.EnqueueWaiterRequest{LockID: "held", ClientID: "one"})
				return res.Error, err
			},
			"no lock": func(c client.Client) (*client.ErrorDetail, error) {
				_, err := c.GetLockInfo(t.Context(), &client.GetLockInfoRequest{LockID: "never"})
				return nil, err
			},
			"limit": func(c client.Client) (*client.ErrorDetail, error) {
				_, err := c.GetLocks(t.Context(), &client.GetLocksRequest{Limit: -1})
				return nil, err
			},
			"no request": func(c client.Client) (*client.ErrorDetail, error) {
				res, err := c.Acquire(t.Context(), nil)
				return res.Error, err
			},
		}
		for place, members := range map[string][]int{"leader": {s.Leader()}, "follower": {(s.Leader() + 1) % 3}, "all": {0, 1, 2}} {
			remote := s.dial(members...)
			for name, call := range calls {
				there, err1 := call(local)
				here, err2 := call(remote)
				compareErrors(t, place+"/"+name, err1, err2)
				if (there == nil) != (here == nil) || there != nil && (there.Code != here.Code || there.Message != here.Message) {
					t.Errorf("%s/%s: the detail in process is %+v, over the network %+v", place, name, there, here)
				}
			}
		}
	})
}

func acquires(req client.AcquireRequest) func(client.Client) (*client.ErrorDetail, error) {
	return func(c client.Client) (*client.ErrorDetail, error) {
		res, err := c.Acquire(context.Background(), &req)
		if err != nil && errors.Is(err, client.ErrLockHeld) && res.BackoffAdvice == nil {
			return nil, errors.New("no advice")
		}
		return res.Error, err
	}
}

func releases(req client.ReleaseRequest) func(client.Client) (*client.ErrorDetail, error) {
	return func(c client.Client) (*client.ErrorDetail, error) {
		res, err := c.Release(context.Background(), &req)
		return res.Error, err
	}
}

// compareErrors holds that two errors say the same.
func compareErrors(t *testing.T, name string, local, remote error) {
	t.Helper()
	a, ok1 := errors.AsType[*client.ClientError](local)
	b, ok2 := errors.AsType[*client.ClientError](remote)
	if !ok1 || !ok2 {
		t.Errorf("%s: in process %v, over the network %v", name, local, remote)
		return
	}
	delete(a.Details, "retry_after_ms") // it depends on the moment
	delete(b.Details, "retry_after_ms")
	if a.Op != b.Op || a.Code != b.Code || !maps.Equal(a.Details, b.Details) {
		t.Errorf("%s\n  in process       %v\n  over the network %v", name, a, b)
	}
	va, _ := errors.AsType[*client.ValidationError](local)
	vb, _ := errors.AsType[*client.ValidationError](remote)
	if (va == nil) != (vb == nil) || va != nil && *va != *vb {
		t.Errorf("%s: in process %+v, over the network %+v", name, va, vb)
	}
	for _, known := range []error{
		client.ErrLockHeld, client.ErrNotLockOwner, client.ErrVersionMismatch, client.ErrLockNotFound, client.ErrInvalidTTL,
		client.ErrNotWaiting, client.ErrTimeout, client.ErrInvalidArgument, client.ErrUnavailable, client.ErrOutcomeUnknown,
	} {
		if errors.Is(local, known) != errors.Is(remote, known) {
			t.Errorf("%s: only one is %v: %v, %v", name, known, local, remote)
		}
	}
}

// A holder and a waiter over the network come through the loss of the leader;
// the hand-over is a hand-over, and the leader is found again.
func TestAFailoverOverTheNetwork(t *testing.T) {
	serve(t, func(t *testing.T, s *served) {
		c, ctx := s.dial(0, 1, 2), t.Context()
		held := must[*client.AcquireResult](t)(c.Acquire(ctx, &client.AcquireRequest{LockID: "l", ClientID: "one", TTL: time.Minute})).Lock
		waiting := make(chan *client.AcquireResult, 1)
		go func() {
			res, err := c.Acquire(ctx, &client.AcquireRequest{LockID: "l", ClientID: "two", RequestID: "r", Wait: true, WaitTimeout: 10 * time.Minute, TTL: time.Minute})
			if err != nil {
				t.Errorf("the waiter: %v", err)
			}
			waiting <- res
		}()
		time.Sleep(5 * time.Second)
		s.crash(s.Leader())
		res, err := c.Renew(ctx, &client.RenewRequest{LockID: "l", ClientID: "one", Version: held.Version, NewTTL: time.Minute})
		if err != nil || res.Lock.Version != held.Version {
			t.Fatalf("the holder: %+v, %v", res, err)
		}
		time.Sleep(20 * time.Second) // an unclaimed wait would be gone
		released := must[*client.ReleaseResult](t)(c.Release(ctx, &client.ReleaseRequest{LockID: "l", ClientID: "one", Version: held.Version}))
		if !released.WaiterPromoted {
			t.Error("nobody waited any more")
		}
		got := <-waiting
		if got == nil || !got.Acquired || got.Lock.Version <= held.Version {
			t.Fatalf("the waiter has %+v", got)
		}
		if left := time.Until(got.Lock.ExpiresAt); left < 59*time.Second || left > time.Minute {
			t.Errorf("the waiter's grant has %v left", left)
		}
		if c.GetLeaderAddress() != addressOf(s.Leader()) {
			t.Errorf("the leader is at %s, the client thinks %s", addressOf(s.Leader()), c.GetLeaderAddress())
		}
	})
}

// A cancelled call leaves neither its wait nor its grant behind.
func TestACancelledCallLeavesNothingOverTheNetwork(t *testing.T) {
	serve(t, func(t *testing.T, s *served) {
		c, ctx := s.dial(0, 1, 2), t.Context()
		held := must[*client.AcquireResult](t)(c.Acquire(ctx, &client.AcquireRequest{LockID: "l", ClientID: "one"})).Lock
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := c.Acquire(short, &client.AcquireRequest{LockID: "l", ClientID: "two", RequestID: "r", Wait: true})
		if !errors.Is(err, client.ErrOutcomeUnknown) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("it ended with %v", err)
		}
		time.Sleep(100 * time.Millisecond)
		info := must[*client.LockInfo](t)(c.GetLockInfo(ctx, &client.GetLockInfoRequest{LockID: "l"}))
		if info.WaiterCount != 0 {
			t.Error("the wait stands")
		}
		_, err = c.Acquire(ctx, &client.AcquireRequest{LockID: "l", ClientID: "two", RequestID: "r", Wait: true, Attempt: 2})
		if !errors.Is(err, client.ErrNotWaiting) {
			t.Errorf("a late attempt ended with %v", err)
		}
		released := must[*client.ReleaseResult](t)(c.Release(ctx, &client.ReleaseRequest{LockID: "l", ClientID: "one", Version: held.Version}))
		if released.WaiterPromoted {
			t.Error("somebody was promoted")
		}
	})
}

// Connections break at random moments: no call's outcome is told wrong.
func TestCallsConvergeWhileConnectionsBreak(t *testing.T) {
	serve(t, func(t *testing.T, s *served) {
		c, ctx := s.dial(0, 1, 2), t.Context()
		stop := make(chan struct{})
		var breaking sync.WaitGroup
		breaking.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(time.Duration(i%7+1) * time.Millisecond):
				}
				s.mu.Lock()
				s.at[addressOf(i%3)].cut()
				s.mu.Unlock()
			}
		})
		policy := client.DefaultRetryPolicy()
		policy.MaxRetries = 1000
		c.SetRetryPolicy(policy)
		last := int64(0)
		for i := range 50 {
			req := &client.AcquireRequest{LockID: "l", ClientID: "me", RequestID: fmt.Sprint(i), TTL: time.Hour, Wait: i%2 == 0}
			res, err := c.Acquire(ctx, req)
			if err != nil {
				t.Fatalf("acquire %d: %v", i, err)
			}
			if res.Lock.Version <= last {
				t.Fatalf("token %d after %d", res.Lock.Version, last)
			}
			last = res.Lock.Version
			if _, err := c.Renew(ctx, &client.RenewRequest{LockID: "l", ClientID: "me", Version: last, NewTTL: time.Hour}); err != nil {
				t.Fatalf("renew %d: %v", i, err)
			}
			if _, err := c.Release(ctx, &client.ReleaseRequest{LockID: "l", ClientID: "me", Version: last}); err != nil {
				t.Fatalf("release %d: %v", i, err)
			}
		}
		close(stop)
		breaking.Wait()
	})
}

// Any member answers what a tool asks; the list is whole.
func TestLookingOverTheNetwork(t *testing.T) {
	serve(t, func(t *testing.T, s *served) {
		ctx := t.Context()
		for i := range 3 {
			c := s.dial(i)
			name := fmt.Sprintf("lock-%d", i)
			must[*client.AcquireResult](t)(c.Acquire(ctx, &client.AcquireRequest{LockID: name, ClientID: "one", TTL: time.Hour, Metadata: map[string]string{"k": "v"}}))
			must[*client.EnqueueResult](t)(c.EnqueueWaiter(ctx, &client.EnqueueWaiterRequest{LockID: name, ClientID: "two", Timeout: time.Minute}))
			asked := time.Now()
			info := must[*client.LockInfo](t)(c.GetLockInfo(ctx, &client.GetLockInfoRequest{LockID: name, IncludeWaiters: true}))
			if left := info.ExpiresAt.Sub(asked); left > time.Hour || left < time.Hour-time.Minute || len(info.WaitersInfo) != 1 || info.Metadata["k"] != "v" {
				t.Errorf("member %d: %+v", i, info)
			}
			if left := info.WaitersInfo[0].TimeoutAt.Sub(asked); left > time.Minute || left < 59*time.Second {
				t.Errorf("member %d: the wait has %v left", i, left)
			}
			health := must[*client.HealthStatus](t)(c.Health(ctx, &client.HealthRequest{}))
			if health.Status != client.HealthStatusServing || health.IsRaftLeader != (i == s.Leader()) {
				t.Errorf("member %d: %+v", i, health)
			}
			status := must[*client.ClusterStatus](t)(c.GetStatus(ctx, &client.GetStatusRequest{}))
			if status.RaftStatus.NodeID != fmt.Sprintf("n%d", i+1) {
				t.Errorf("member %d calls itself %s", i, status.RaftStatus.NodeID)
			}
			must[*client.BackoffAdvice](t)(c.GetBackoffAdvice(ctx, &client.BackoffAdviceRequest{LockID: name}))
		}
		listed := must[*client.GetLocksResult](t)(s.dial(0, 1, 2).GetLocks(ctx, &client.GetLocksRequest{}))
		if len(listed.Locks) != 3 || listed.TotalMatching != 3 || listed.HasMore {
			t.Errorf("listed %+v", listed)
		}
		n := 0
		for lock, err := range client.Locks(ctx, s.dial(1), &client.LockFilter{LockIDPattern: "lock-?", OnlyContested: true}) {
			if n++; err != nil || lock.OwnerID != "one" {
				t.Errorf("%+v, %v", lock, err)
			}
		}
		if n != 3 {
			t.Errorf("ranged over %d locks", n)
		}
	})
}

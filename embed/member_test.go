package embed_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/embed"
	"github.com/raftlock/raftlock/pb"
)

// Members that are started at the same time, as a fleet is, find each other, and
// every one of them serves.
func TestStartClusters(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 3, 5} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			if testing.Short() && size == 5 {
				t.Skip("short")
			}
			t.Parallel()
			s := newSite(t, names(size)...)
			members := startTogether(t, s)
			last := int64(0)
			for _, name := range names(size) {
				token := acquire(t, members[name], "lock-of-"+name, name)
				if token <= last {
					t.Errorf("token %d after %d", token, last)
				}
				last = token
			}
			for _, name := range names(size) { // each sees what the others did
				for _, other := range names(size) {
					if info := lockInfo(t, members[name], "lock-of-"+other); info.OwnerID != other {
						t.Errorf("%s says that %q holds the lock of %s", name, info.OwnerID, other)
					}
				}
			}
		})
	}
}

// startTogether calls Start for every member at the same time.
func startTogether(t *testing.T, s *site) map[string]*embed.Member {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var mu sync.Mutex
	members := map[string]*embed.Member{}
	var starting sync.WaitGroup
	for name := range s.addrs {
		cfg := s.config(name)
		starting.Go(func() {
			m, err := embed.Start(ctx, cfg)
			if err != nil {
				t.Errorf("start %s: %v", cfg.Name, err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			members[cfg.Name] = m
		})
	}
	starting.Wait()
	t.Cleanup(func() {
		for _, m := range members {
			_ = m.Close()
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	return members
}

func TestClusterOfOneNeedsNoAddress(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]embed.Config{
		"no cluster": {},
		"port 0":     {InitialCluster: map[string]string{"n1": "127.0.0.1:0"}},
		"listen at 0": {
			InitialCluster: map[string]string{"n1": "127.0.0.1:7101"}, ListenPeer: "localhost:0",
		},
	} {
		cfg.Name, cfg.DataDir, cfg.TickInterval = "n1", t.TempDir(), tick
		m := openMember(t, cfg)
		awaitReady(t, "n1", m)
		acquire(t, m, "a", "c")
		host, port, err := net.SplitHostPort(m.PeerAddr())
		if err != nil || port == "0" || !net.ParseIP(host).IsLoopback() {
			t.Errorf("%s: listens at %q: %v", name, m.PeerAddr(), err)
		}
	}
}

func TestPeerListener(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := openMember(t, embed.Config{Name: "n1", DataDir: t.TempDir(), PeerListener: l})
	if m.PeerAddr() != l.Addr().String() {
		t.Errorf("listens at %s, was given %s", m.PeerAddr(), l.Addr())
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener is open after Close: %v", err)
	}
}

// ctx bounds the call: when it ends first, nothing is left behind; when it ends
// afterwards, the member does not notice.
func TestStartIsBoundedByItsContext(t *testing.T) {
	t.Parallel()
	s := newSite(t, "n1", "n2")
	for range 3 {
		ctx, cancel := context.WithCancel(context.Background())
		cfg := s.config("n1")
		failed := make(chan error, 1)
		go func() {
			_, err := embed.Start(ctx, cfg)
			failed <- err
		}()
		eventually(t, "the port is listened on", func() bool {
			conn, err := net.Dial("tcp", s.addrs["n1"])
			if err == nil {
				_ = conn.Close()
			}
			return err == nil
		})
		cancel()
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Fatalf("Start returned %v", err)
		}
		l, err := net.Listen("tcp", s.addrs["n1"])
		if err != nil {
			t.Fatalf("the port is not free after Start: %v", err)
		}
		_ = l.Close()
	}

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	m, err := embed.Start(ctx, embed.Config{Name: "n3", DataDir: t.TempDir(), TickInterval: tick})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	cancel()
	acquire(t, m, "a", "c")
	if isClosed(m.Done()) {
		t.Error("the member ended with the context of Start")
	}
}

func TestStartWithAnEndedContext(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short")
	}
	s := newSite(t, "n1", "n2")
	ctx, cancel := context.WithDeadline(context.Background(), time.Unix(0, 0))
	defer cancel()
	for range 2 {
		if _, err := embed.Start(ctx, s.config("n1")); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Start returned %v", err)
		}
	}
}

// A first start needs every member: with two of three nobody serves, whichever
// they are and in whatever order they come.
func TestFirstStartNeedsAllMembers(t *testing.T) {
	t.Parallel()
	orders := [][]string{{"n1", "n2", "n3"}, {"n3", "n2", "n1"}, {"n3", "n1", "n2"}, {"n2", "n1", "n3"}}
	if testing.Short() {
		orders = orders[:1]
	}
	for _, order := range orders {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			t.Parallel()
			s := newSite(t, order...)
			s.adjust = func(cfg *embed.Config) { cfg.RequestTimeout = 300 * time.Millisecond }
			members := map[string]*embed.Member{}
			late := order[2]
			_ = s.held[late].Close() // or its peers would wait for an answer
			delete(s.held, late)
			for _, name := range order[:2] {
				members[name] = s.open(name)
			}
			for name, m := range members {
				refusesForWantOfLeader(t, m)
				if isClosed(m.Ready()) {
					t.Errorf("%s is ready", name)
				}
			}
			s.adjust = nil
			members[late] = s.open(late)
			for name, m := range members {
				awaitReady(t, name, m)
			}
			for name, m := range members {
				acquire(t, m, "lock-of-"+name, name)
			}
		})
	}
}

// refusesForWantOfLeader makes calls that nobody can answer.
func refusesForWantOfLeader(t *testing.T, m *embed.Member) {
	t.Helper()
	c := m.Client()
	c.SetRetryPolicy(client.RetryPolicy{}) // each attempt is held on its own
	_, err := c.Acquire(context.Background(), &client.AcquireRequest{LockID: "a", ClientID: "c"})
	var ce *client.ClientError
	if !errors.As(err, &ce) || ce.Code != pb.ErrorCode_NO_LEADER || !errors.Is(err, client.ErrLeaderUnavailable) {
		t.Errorf("Acquire without a leader: %v", err)
	} else if ce.Details["outcome"] != "not_proposed" {
		t.Errorf("Acquire without a leader: details %v", ce.Details)
	}
	if h, err := c.Health(context.Background(), &client.HealthRequest{}); !errors.Is(err, client.ErrUnavailable) && !errors.Is(err, client.ErrLeaderUnavailable) {
		t.Errorf("Health without a leader: %v, %v", h, err)
	}
}

// The members' ticks are so slow that none of them would campaign by itself
// during the test: who leads next was told to.
func TestCloseHandsTheLeadershipOver(t *testing.T) {
	t.Parallel()
	s := newSite(t, names(3)...)
	s.adjust = func(cfg *embed.Config) { cfg.TickInterval, cfg.ElectionTicks = 50*time.Millisecond, 1000 }
	members := s.start(names(3)...)
	for len(members) > 1 {
		leader := leaderOf(t, members)
		closing := members[leader]
		delete(members, leader)
		var other *embed.Member
		for _, other = range members {
			break
		}
		before := acquire(t, other, "before-"+leader, "c")
		if err := closing.Close(); err != nil {
			t.Errorf("close %s: %v", leader, err)
		}
		if len(members) < 2 {
			return // no majority is left
		}
		next := leaderOf(t, members)
		if token := acquire(t, other, "after-"+leader, "c"); token <= before {
			t.Errorf("token %d after %d", token, before)
		}
		if next == leader {
			t.Errorf("%s still leads", next)
		}
	}
}

// Callers of the other members do not notice that the leader is closed.
func TestCloseUnderLoad(t *testing.T) {
	t.Parallel()
	s := newSite(t, names(3)...)
	members := s.start(names(3)...)
	leader := leaderOf(t, members)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var load sync.WaitGroup
	begun := make(chan struct{}, 64)
	closed := make(chan struct{})
	for name, m := range members {
		if name == leader {
			continue
		}
		for w := range 8 {
			load.Go(func() {
				id := fmt.Sprintf("%s-%d", name, w)
				if err := pairsUntil(ctx, m.Client(), id, begun, closed); err != nil {
					t.Errorf("%s: %v", id, err)
				}
			})
		}
	}
	for range 16 {
		<-begun
	}
	if err := members[leader].Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	close(closed)
	load.Wait()
}

// pairsUntil takes and releases a lock of its own until stop is closed, and a
// few times more.
func pairsUntil(ctx context.Context, c client.Client, id string, begun chan<- struct{}, stop <-chan struct{}) error {
	last := int64(0)
	for i, after := 0, 0; after < 5; i++ {
		token, err := pair(ctx, c, id, fmt.Sprint(i))
		if err != nil {
			return err
		}
		if token <= last {
			return fmt.Errorf("token %d after %d", token, last)
		}
		last = token
		if i == 0 {
			begun <- struct{}{}
		}
		if isClosed(stop) {
			after++
		}
	}
	return nil
}

// pair takes and releases the lock id.
func pair(ctx context.Context, c client.Client, id, request string) (token int64, err error) {
	got, err := c.Acquire(ctx, &client.AcquireRequest{LockID: id, ClientID: id, RequestID: request, TTL: longTTL})
	if err != nil {
		return 0, err
	}
	_, err = c.Release(ctx, &client.ReleaseRequest{LockID: id, ClientID: id, Version: got.Lock.Version})
	return got.Lock.Version, err
}

func TestCloseTwiceAndAtTheSameTime(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short")
	}
	s := newSite(t, names(3)...)
	members := s.start(names(3)...)
	var closing sync.WaitGroup
	for name, m := range members {
		for range 4 {
			closing.Go(func() {
				if err := m.Close(); err != nil {
					t.Errorf("close %s: %v", name, err)
				}
				if !isClosed(m.Done()) || m.Err() != nil {
					t.Errorf("%s after Close: done %t, err %v", name, isClosed(m.Done()), m.Err())
				}
			})
		}
	}
	closing.Wait()
	for name, m := range members {
		if err := m.Close(); err != nil {
			t.Errorf("close %s again: %v", name, err)
		}
	}
}

// The last one has nobody to hand anything to.
func TestCloseWhenTheOthersAreGone(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short")
	}
	s := newSite(t, names(3)...)
	members := s.start(names(3)...)
	leader := leaderOf(t, members)
	last := members[leader]
	delete(members, leader)
	closeAll(t, members)
	if err := last.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func TestCloseBeforeTheClusterIsFormed(t *testing.T) {
	t.Parallel()
	s := newSite(t, names(3)...)
	for _, name := range []string{"n1", "n2"} {
		if err := s.open(name).Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
}

// everyCall makes one call of each kind that asks the member.
func everyCall(ctx context.Context, c client.Client) map[string]error {
	errs := map[string]error{}
	_, errs["Acquire"] = c.Acquire(ctx, &client.AcquireRequest{LockID: "a", ClientID: "c", Wait: true})
	_, errs["Release"] = c.Release(ctx, &client.ReleaseRequest{LockID: "a", ClientID: "c", Version: 1})
	_, errs["Renew"] = c.Renew(ctx, &client.RenewRequest{LockID: "a", ClientID: "c", Version: 1, NewTTL: longTTL})
	_, errs["GetLockInfo"] = c.GetLockInfo(ctx, &client.GetLockInfoRequest{LockID: "a"})
	_, errs["GetLocks"] = c.GetLocks(ctx, &client.GetLocksRequest{})
	_, errs["EnqueueWaiter"] = c.EnqueueWaiter(ctx, &client.EnqueueWaiterRequest{LockID: "a", ClientID: "c"})
	_, errs["CancelWait"] = c.CancelWait(ctx, &client.CancelWaitRequest{LockID: "a", ClientID: "c"})
	_, errs["GetBackoffAdvice"] = c.GetBackoffAdvice(ctx, &client.BackoffAdviceRequest{LockID: "a"})
	_, errs["GetStatus"] = c.GetStatus(ctx, &client.GetStatusRequest{})
	_, errs["Health"] = c.Health(ctx, &client.HealthRequest{})
	return errs
}

func checkClosed(t *testing.T, call string, err error) {
	t.Helper()
	if !errors.Is(err, raftlock.ErrClosed) || !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("%s on a closed member: %v", call, err)
	}
}

func TestCallsAfterClose(t *testing.T) {
	t.Parallel()
	lone := newSite(t, "n1")
	served := lone.start("n1")["n1"]
	c := served.Client()
	waiting := newSite(t, "n1", "n2").open("n1")
	for name, m := range map[string]*embed.Member{"a member that served": served, "one that never formed": waiting} {
		t.Run(name, func(t *testing.T) {
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
			for call, err := range everyCall(context.Background(), m.Client()) {
				checkClosed(t, call, err)
			}
		})
	}
	for call, err := range everyCall(context.Background(), c) {
		checkClosed(t, call, err)
	}
}

// What is pending when a member is closed ends, and says why.
func TestCallsDuringClose(t *testing.T) {
	t.Parallel()
	lone := newSite(t, "n1").start("n1")["n1"]
	acquire(t, lone, "a", "holder")
	errs := make(chan error, 9)
	for i := range 8 {
		req := &client.AcquireRequest{LockID: "a", ClientID: fmt.Sprint(i), Wait: true, WaitTimeout: longTTL}
		if i%2 == 0 {
			req.RequestID = "r"
		}
		go func() {
			_, err := lone.Client().Acquire(context.Background(), req)
			errs <- err
		}()
	}
	eventually(t, "all wait", func() bool { return lockInfo(t, lone, "a").WaiterCount == 8 })

	unformed := newSite(t, "n1", "n2").open("n1")
	go func() {
		_, err := unformed.Client().GetLockInfo(context.Background(), &client.GetLockInfoRequest{LockID: "a"})
		errs <- err
	}()
	closeAll(t, map[string]*embed.Member{"lone": lone, "unformed": unformed})
	for range 9 {
		checkClosed(t, "a pending call", <-errs)
	}
}

// Whoever waits away from the leader goes on waiting when the leader is closed,
// in the order in which they came.
func TestWaitersOutliveTheirLeader(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short")
	}
	s := newSite(t, names(3)...)
	members := s.start(names(3)...)
	leader := leaderOf(t, members)
	rest := slices.DeleteFunc(names(3), func(name string) bool { return name == leader })
	token := acquire(t, members[rest[0]], "a", "holder")
	type grant struct {
		id      string
		version int64
		err     error
	}
	grants := make(chan grant, 6)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for i := range 6 {
		c, id := members[rest[i%2]].Client(), fmt.Sprintf("w%d", i)
		go func() {
			got, err := c.Acquire(ctx, &client.AcquireRequest{LockID: "a", ClientID: id, RequestID: "r", Wait: true, TTL: longTTL})
			if err != nil {
				grants <- grant{id: id, err: err}
				return
			}
			grants <- grant{id, got.Lock.Version, nil}
		}()
		eventually(t, id+" waits", func() bool { return int(lockInfo(t, members[rest[0]], "a").WaiterCount) == i+1 })
	}
	if err := members[leader].Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	holder := "holder"
	for i := range 6 {
		release(t, members[rest[1]], "a", holder, token)
		g := <-grants
		if want := fmt.Sprintf("w%d", i); g.err != nil || g.id != want || g.version <= token {
			t.Fatalf("grant %d is %+v after token %d, want %s", i, g, token, want)
		}
		holder, token = g.id, g.version
	}
}

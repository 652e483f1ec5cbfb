package testcluster_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/pb"
	"github.com/raftlock/raftlock/testcluster"
)

const (
	// tick is the cluster's, beat how often a leader is heard.
	tick = 10 * time.Millisecond
	beat = 2 * tick
	// late is how long after its end a grant may stand in steady state.
	late = 20 * time.Millisecond
	// longTTL outlives whatever a test does while it holds a lock.
	longTTL = time.Hour
)

// bubble runs a test on a cluster of its own in virtual time.
func bubble(t *testing.T, size int, test func(t *testing.T, c *testcluster.Cluster), opts ...testcluster.Option) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := testcluster.New(t, size, opts...)
		for i := range size {
			<-c.Node(i).Ready()
		}
		test(t, c)
	})
}

// tries is how often a test tries what depends on the moment.
func tries(short, full int) int {
	if testing.Short() || underRace {
		return short
	}
	return full
}

// raced is n, or few of it in a short run under the race detector. There
// everything takes ten times as long, and what the detector looks for, two
// goroutines at one variable, shows in the first rounds or in none: such a run
// does each thing, in fewer rounds, with less traffic, for a shorter time. How
// often a promise holds is for the runs without the detector, and for race-long.
func raced(few, n int) int {
	if testing.Short() && underRace {
		return few
	}
	return n
}

// place is where a client stands.
type place struct {
	name string
	opts []testcluster.Option
	// members is how many members the client was told of.
	members int
	// dial makes the client; leader and follower are numbers of members.
	dial func(t *testing.T, c *testcluster.Cluster, leader, follower int) client.Client
}

// places are all the places that a client can have: every behaviour is the same
// there.
func places(t *testing.T) []place {
	server, trust := mutualTLS(t)
	all := []place{
		{"leader", nil, 1, func(_ *testing.T, c *testcluster.Cluster, leader, _ int) client.Client { return c.ClientOn(leader) }},
		{"follower", nil, 1, func(_ *testing.T, c *testcluster.Cluster, _, follower int) client.Client { return c.ClientOn(follower) }},
		{"remote, all members", grpcOnly(), 3, func(t *testing.T, c *testcluster.Cluster, _, _ int) client.Client {
			return remote(t, c, nil, 0, 1, 2)
		}},
		{"remote, leader", grpcOnly(), 1, func(t *testing.T, c *testcluster.Cluster, leader, _ int) client.Client {
			return remote(t, c, nil, leader)
		}},
		{"remote, follower", grpcOnly(), 1, func(t *testing.T, c *testcluster.Cluster, _, follower int) client.Client {
			return remote(t, c, nil, follower)
		}},
		{"remote over TLS", []testcluster.Option{testcluster.WithTLS(server)}, 3, func(t *testing.T, c *testcluster.Cluster, _, _ int) client.Client {
			return remote(t, c, trust, 0, 1, 2)
		}},
	}
	if underRace { // slow, and the code is the same at the places between
		all = []place{all[0], all[1], all[len(all)-1]}
		return all[raced(1, 0):] // what the leader's client goes through, a follower's does too
	}
	return all
}

func grpcOnly() []testcluster.Option { return []testcluster.Option{testcluster.WithGRPC()} }

// remote is a client of the network that was told of some members.
func remote(t *testing.T, c *testcluster.Cluster, trust *tls.Config, members ...int) client.Client {
	t.Helper()
	cfg := c.ClientConfig()
	all := cfg.Endpoints
	cfg.Endpoints = nil
	for _, i := range members {
		cfg.Endpoints = append(cfg.Endpoints, all[i])
	}
	cfg.TLS = trust
	cl, err := client.Dial(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cl.Close() }) // always nil
	return cl
}

// eachPlace runs a test with a client at each place.
func eachPlace(t *testing.T, test func(t *testing.T, c *testcluster.Cluster, cl client.Client), opts ...testcluster.Option) {
	t.Helper()
	for _, p := range places(t) {
		runAt(t, p, test, opts...)
	}
}

// runAt runs a test with a client at a place.
func runAt(t *testing.T, p place, test func(t *testing.T, c *testcluster.Cluster, cl client.Client), opts ...testcluster.Option) {
	t.Helper()
	t.Run(p.name, func(t *testing.T) {
		bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
			leader := c.Leader()
			test(t, c, p.dial(t, c, leader, (leader+1)%3))
		}, slices.Concat(opts, p.opts)...)
	})
}

// isRemote reports whether a client goes over the network.
func isRemote(cl client.Client) bool {
	_, local := cl.(*testcluster.Client)
	return !local
}

// follower is a member that does not lead.
func follower(c *testcluster.Cluster) int { return (c.Leader() + 1) % 3 }

// noRetries is a policy under which every error comes through.
func noRetries() client.RetryPolicy {
	policy := client.DefaultRetryPolicy()
	policy.MaxRetries = 0
	return policy
}

// take acquires a lock, which must succeed.
func take(t *testing.T, cl client.RaftLockClient, req *client.AcquireRequest) *client.Lock {
	t.Helper()
	res, err := cl.Acquire(t.Context(), req)
	if err != nil {
		t.Fatalf("acquire %s for %s: %v", req.LockID, req.ClientID, err)
	}
	if !res.Acquired || res.Lock == nil || res.Error != nil {
		t.Fatalf("acquire %s for %s: no error, yet %+v", req.LockID, req.ClientID, res)
	}
	return res.Lock
}

// hold takes a lock for a long time.
func hold(t *testing.T, cl client.RaftLockClient, lock, owner string) *client.Lock {
	t.Helper()
	return take(t, cl, &client.AcquireRequest{LockID: lock, ClientID: owner, TTL: longTTL})
}

// give releases a grant, which must succeed.
func give(t *testing.T, cl client.RaftLockClient, l *client.Lock) *client.ReleaseResult {
	t.Helper()
	res, err := cl.Release(t.Context(), releaseOf(l))
	if err != nil || !res.Released || res.Error != nil {
		t.Fatalf("release %s of %s: %+v, %v", l.LockID, l.OwnerID, res, err)
	}
	return res
}

func releaseOf(l *client.Lock) *client.ReleaseRequest {
	return &client.ReleaseRequest{LockID: l.LockID, ClientID: l.OwnerID, Version: l.Version}
}

// look reads a lock with its queue, which must succeed.
func look(t *testing.T, cl client.RaftLockClient, lock string) *client.LockInfo {
	t.Helper()
	info, err := cl.GetLockInfo(t.Context(), &client.GetLockInfoRequest{LockID: lock, IncludeWaiters: true})
	if err != nil {
		t.Fatalf("look at %s: %v", lock, err)
	}
	return info
}

// queueOf is the clients in a lock's queue, in its order.
func queueOf(t *testing.T, cl client.RaftLockClient, lock string) (ids []string) {
	t.Helper()
	info := look(t, cl, lock)
	if int(info.WaiterCount) != len(info.WaitersInfo) {
		t.Errorf("%s has %d waiters, and lists %d", lock, info.WaiterCount, len(info.WaitersInfo))
	}
	for i, w := range info.WaitersInfo {
		if int(w.Position) != i {
			t.Errorf("waiter %s stands at %d and says %d", w.ClientID, i, w.Position)
		}
		ids = append(ids, w.ClientID)
	}
	return ids
}

// outcome is how a call that runs beside the test has ended.
type outcome struct {
	res *client.AcquireResult
	err error
	at  time.Time
}

// waiting starts an Acquire beside the test and returns when it stands in the
// queue, or is answered. It must be called in a bubble.
func waiting(ctx context.Context, cl client.RaftLockClient, req client.AcquireRequest) <-chan outcome {
	done := make(chan outcome, 1)
	req.Wait = true
	if req.WaitTimeout == 0 {
		req.WaitTimeout = time.Hour
	}
	go func() {
		res, err := cl.Acquire(ctx, &req)
		done <- outcome{res, err, time.Now()}
	}()
	synctest.Wait()
	return done
}

// ended waits at most limit for a call started with waiting; a limit of 0 is as
// long as a follower may take to learn what is committed.
func ended(t *testing.T, done <-chan outcome, limit time.Duration) outcome {
	t.Helper()
	synctest.Wait()
	select {
	case o := <-done:
		return o
	default:
	}
	select {
	case o := <-done:
		return o
	case <-time.After(max(limit, late)):
		t.Fatalf("the call has not ended within %v", limit)
		return outcome{}
	}
}

// granted is ended for a call that must have got the lock.
func granted(t *testing.T, done <-chan outcome, limit time.Duration) *client.Lock {
	t.Helper()
	o := ended(t, done, limit)
	if o.err != nil || !o.res.Acquired {
		t.Fatalf("the call that waited: %+v, %v, %+v", o.res, o.err, o.res.Error)
	}
	return o.res.Lock
}

// stillWaits fails the test if a call started with waiting has ended.
func stillWaits(t *testing.T, done <-chan outcome) {
	t.Helper()
	synctest.Wait()
	select {
	case o := <-done:
		t.Fatalf("the call has ended: %+v, %v", o.res, o.err)
	default:
	}
}

// serving waits until a read gets through, and returns when that was: in
// virtual time, the instant at which a new leader's first entry is applied.
func serving(t *testing.T, cl client.RaftLockClient) time.Time {
	t.Helper()
	_, err := cl.GetLockInfo(t.Context(), &client.GetLockInfoRequest{LockID: "probe"})
	if !errors.Is(err, client.ErrLockNotFound) {
		t.Fatalf("read: %v", err)
	}
	return time.Now()
}

// wantError checks a refusal: the sentinel, the code, and some of the details.
func wantError(t *testing.T, err error, is error, code pb.ErrorCode, details ...string) *client.ClientError {
	t.Helper()
	if !errors.Is(err, is) {
		t.Fatalf("the error is %v, want one around %q", err, is)
	}
	var ce *client.ClientError
	if !errors.As(err, &ce) {
		t.Fatalf("the error is a %T: %v", err, err)
	}
	if ce.Code != code {
		t.Errorf("the code is %v, want %v: %v", ce.Code, code, err)
	}
	for i := 0; i+1 < len(details); i += 2 {
		if got, ok := ce.Details[details[i]]; !ok || got != details[i+1] {
			t.Errorf("detail %s is %q, want %q: %v", details[i], got, details[i+1], err)
		}
	}
	return ce
}

// wantDetail checks that a result's ErrorDetail says what its error says.
func wantDetail(t *testing.T, detail *client.ErrorDetail, err error) {
	t.Helper()
	var ce *client.ClientError
	if !errors.As(err, &ce) {
		t.Fatalf("the error is a %T: %v", err, err)
	}
	if detail == nil {
		t.Fatalf("the result has no Error beside %v", err)
	}
	if detail.Code != ce.Code || fmt.Sprint(detail.Details) != fmt.Sprint(ce.Details) || detail.Message == "" {
		t.Errorf("the result's Error is %+v beside %v", detail, err)
	}
}

func within(t *testing.T, what string, got, low, high time.Duration) {
	t.Helper()
	if got < low || got > high {
		t.Errorf("%s is %v, want %v to %v", what, got, low, high)
	}
}

package testcluster_test

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/pb"
	"github.com/raftlock/raftlock/testcluster"
)

func text(version int64) string { return strconv.FormatInt(version, 10) }

func TestAcquireAnswers(t *testing.T) {
	eachPlace(t, func(t *testing.T, c *testcluster.Cluster, cl client.Client) {
		metadata := map[string]string{"host": "h1", "": ""}
		delete(metadata, "")
		lock := take(t, cl, &client.AcquireRequest{LockID: "a", ClientID: "me", TTL: 10 * time.Second, Metadata: metadata})
		within(t, "what the grant says is left", time.Until(lock.ExpiresAt), 10*time.Second-late, 10*time.Second)
		if lock.LockID != "a" || lock.OwnerID != "me" || lock.Version <= 0 || lock.Metadata["host"] != "h1" || !lock.AcquiredAt.Equal(time.Now()) {
			t.Errorf("the grant is %+v", lock)
		}

		res, err := cl.Acquire(t.Context(), &client.AcquireRequest{LockID: "a", ClientID: "you"})
		ce := wantError(t, err, client.ErrLockHeld, pb.ErrorCode_LOCK_HELD, "owner_id", "me", "version", text(lock.Version))
		wantDetail(t, res.Error, ce)
		advice := res.BackoffAdvice
		if advice == nil || advice.MaxBackoff > 10*time.Second || advice.InitialBackoff > advice.MaxBackoff || advice.InitialBackoff <= 0 {
			t.Fatalf("the advice is %+v", advice)
		}
		if got := ce.Details["retry_after_ms"]; got != strconv.FormatInt(advice.InitialBackoff.Milliseconds(), 10) {
			t.Errorf("retry_after_ms is %q beside %+v", got, advice)
		}
		for _, other := range []string{"r", ""} { // a contender with the same ClientID
			_, err := cl.Acquire(t.Context(), &client.AcquireRequest{LockID: "a", ClientID: map[string]string{"r": "me", "": "you"}[other], RequestID: other})
			wantError(t, err, client.ErrLockHeld, pb.ErrorCode_LOCK_HELD)
		}

		time.Sleep(5 * time.Second)
		again := take(t, cl, &client.AcquireRequest{LockID: "a", ClientID: "me", TTL: time.Second})
		within(t, "the same identity's grant after a shorter TTL", time.Until(again.ExpiresAt), 5*time.Second-late, 5*time.Second)
		longer := take(t, cl, &client.AcquireRequest{LockID: "a", ClientID: "me", TTL: time.Minute})
		within(t, "the same identity's grant after a longer TTL", time.Until(longer.ExpiresAt), time.Minute-late, time.Minute)
		if again.Version != lock.Version || longer.Version != lock.Version {
			t.Errorf("tokens %d, %d, %d of one grant", lock.Version, again.Version, longer.Version)
		}
		named := take(t, cl, &client.AcquireRequest{LockID: "b", ClientID: "me", RequestID: "r", TTL: time.Second})
		same := take(t, cl, &client.AcquireRequest{LockID: "b", ClientID: "me", RequestID: "r", TTL: time.Minute, Attempt: 2})
		if same.Version != named.Version {
			t.Errorf("a repeated call got tokens %d and %d", named.Version, same.Version)
		}
		within(t, "a repeated call's grant", time.Until(same.ExpiresAt), time.Second-late, time.Second)
	})
}

func TestReleaseAnswers(t *testing.T) {
	eachPlace(t, func(t *testing.T, c *testcluster.Cluster, cl client.Client) {
		refused := func(lock, owner string, version int64, is error, code pb.ErrorCode, details ...string) {
			t.Helper()
			res, err := cl.Release(t.Context(), &client.ReleaseRequest{LockID: lock, ClientID: owner, Version: version})
			ce := wantError(t, err, is, code, details...)
			if res == nil || res.Released || res.WaiterPromoted {
				t.Fatalf("the result is %+v", res)
			}
			wantDetail(t, res.Error, ce)
		}
		refused("a", "me", 1, client.ErrLockNotFound, pb.ErrorCode_LOCK_NOT_FOUND)
		lock := hold(t, cl, "a", "me")
		v := lock.Version
		refused("a", "you", v, client.ErrNotLockOwner, pb.ErrorCode_NOT_LOCK_OWNER, "version", text(v))
		refused("a", "me", v-1, client.ErrVersionMismatch, pb.ErrorCode_VERSION_MISMATCH, "version", text(v))
		refused("a", "me", v+1, client.ErrVersionMismatch, pb.ErrorCode_VERSION_MISMATCH, "version", text(v))
		refused("a", "me", 0, client.ErrVersionMismatch, pb.ErrorCode_VERSION_MISMATCH, "version", text(v))
		if res := give(t, cl, lock); res.WaiterPromoted {
			t.Error("a waiter is said to be promoted")
		}
		refused("a", "me", v, client.ErrNotLockOwner, pb.ErrorCode_LOCK_NOT_HELD, "last_version", text(v))
		time.Sleep(time.Minute + late) // listed for so long
		hold(t, cl, "b", "me")         // forgetting rides on another entry
		refused("a", "me", v, client.ErrLockNotFound, pb.ErrorCode_LOCK_NOT_FOUND)

		lock = hold(t, cl, "a", "me")
		next := waiting(t.Context(), cl, client.AcquireRequest{LockID: "a", ClientID: "next"})
		if res := give(t, cl, lock); !res.WaiterPromoted {
			t.Error("the waiter is not said to be promoted")
		}
		refused("a", "me", lock.Version, client.ErrNotLockOwner, pb.ErrorCode_NOT_LOCK_OWNER, "version", text(granted(t, next, 0).Version))
	})
}

func TestRenewAnswers(t *testing.T) {
	eachPlace(t, func(t *testing.T, c *testcluster.Cluster, cl client.Client) {
		renew := func(lock, owner string, version int64, ttl time.Duration) (*client.RenewResult, error) {
			t.Helper()
			return cl.Renew(t.Context(), &client.RenewRequest{LockID: lock, ClientID: owner, Version: version, NewTTL: ttl})
		}
		refused := func(lock, owner string, version int64, is error, code pb.ErrorCode, details ...string) {
			t.Helper()
			res, err := renew(lock, owner, version, time.Minute)
			ce := wantError(t, err, is, code, details...)
			if res == nil || res.Renewed || res.Lock != nil {
				t.Fatalf("the result is %+v", res)
			}
			wantDetail(t, res.Error, ce)
		}
		refused("a", "me", 1, client.ErrLockNotFound, pb.ErrorCode_LOCK_NOT_FOUND)
		lock := take(t, cl, &client.AcquireRequest{LockID: "a", ClientID: "me", TTL: 10 * time.Second})
		refused("a", "you", lock.Version, client.ErrNotLockOwner, pb.ErrorCode_NOT_LOCK_OWNER, "version", text(lock.Version))
		refused("a", "me", lock.Version+1, client.ErrVersionMismatch, pb.ErrorCode_VERSION_MISMATCH, "version", text(lock.Version))
		for _, step := range []struct{ ttl, left time.Duration }{
			{time.Second, 10 * time.Second}, {20 * time.Second, 20 * time.Second}, {100 * time.Millisecond, 20 * time.Second},
		} {
			res, err := renew("a", "me", lock.Version, step.ttl)
			if err != nil || !res.Renewed || res.Lock.Version != lock.Version {
				t.Fatalf("%+v, %v", res, err)
			}
			within(t, "what is left after a renewal", time.Until(res.Lock.ExpiresAt), step.left-late, step.left)
		}
		time.Sleep(20*time.Second + late)
		refused("a", "me", lock.Version, client.ErrNotLockOwner, pb.ErrorCode_LOCK_NOT_HELD, "last_version", text(lock.Version))
		if owner := look(t, cl, "a").OwnerID; owner != "" {
			t.Errorf("a renewal that came too late left %q with the lock", owner)
		}
	})
}

func TestEnqueueWaiterAnswers(t *testing.T) {
	eachPlace(t, func(t *testing.T, c *testcluster.Cluster, cl client.Client) {
		enqueue := func(owner string, priority int32, position int32) {
			t.Helper()
			res, err := cl.EnqueueWaiter(t.Context(), &client.EnqueueWaiterRequest{LockID: "a", ClientID: owner, Priority: priority, Timeout: 40 * time.Second})
			if err != nil || !res.Enqueued || res.Error != nil || res.Position != position {
				t.Fatalf("enqueue %s: %+v, %v, want position %d", owner, res, err, position)
			}
		}
		enqueue("holder", 0, 0) // a free lock is granted
		info := look(t, cl, "a")
		if info.OwnerID != "holder" {
			t.Fatalf("the lock is held by %q", info.OwnerID)
		}
		within(t, "the grant", time.Until(info.ExpiresAt), 30*time.Second-late, 30*time.Second)
		res, err := cl.EnqueueWaiter(t.Context(), &client.EnqueueWaiterRequest{LockID: "a", ClientID: "holder"})
		ce := wantError(t, err, client.ErrLockHeld, pb.ErrorCode_LOCK_HELD, "owner_id", "holder", "version", text(info.Version))
		wantDetail(t, res.Error, ce)
		if res.Enqueued {
			t.Errorf("the result is %+v", res)
		}
		enqueue("w1", 0, 0)
		enqueue("w2", 0, 1)
		enqueue("w3", 5, 0)
		enqueue("w4", -5, 3)
		enqueue("w2", 5, 0) // again: it moves, and by its number before w3
		enqueue("w3", 0, 2) // which moves behind w1
		if got, want := queueOf(t, cl, "a"), []string{"w2", "w1", "w3", "w4"}; !slices.Equal(got, want) {
			t.Errorf("the queue is %v, want %v", got, want)
		}
		for _, w := range look(t, cl, "a").WaitersInfo {
			within(t, "the wait of "+w.ClientID, time.Until(w.TimeoutAt), 40*time.Second-late, 40*time.Second)
			within(t, "the time since "+w.ClientID+" joined", time.Since(w.EnqueuedAt), 0, late)
		}
		time.Sleep(30*time.Second + late) // the holder's grant is over
		if owner := look(t, cl, "a").OwnerID; owner != "w2" {
			t.Fatalf("the lock is held by %q", owner)
		}
		lock := take(t, cl, &client.AcquireRequest{LockID: "a", ClientID: "w2", TTL: time.Second}) // it is picked up
		give(t, cl, lock)
		time.Sleep(15 * time.Second) // the other waits are over
		if info := look(t, cl, "a"); info.OwnerID != "w1" || info.WaiterCount != 0 {
			t.Errorf("the lock is %+v", info)
		}
	})
}

func TestCancelWaitAnswers(t *testing.T) {
	eachPlace(t, func(t *testing.T, c *testcluster.Cluster, cl client.Client) {
		cancel := func(owner string, version int64) (*client.CancelWaitResult, error) {
			t.Helper()
			return cl.CancelWait(t.Context(), &client.CancelWaitRequest{LockID: "a", ClientID: owner, Version: version})
		}
		refused := func(owner string, version int64, is error, code pb.ErrorCode) {
			t.Helper()
			res, err := cancel(owner, version)
			ce := wantError(t, err, is, code)
			if res == nil || res.Cancelled {
				t.Fatalf("the result is %+v", res)
			}
			wantDetail(t, res.Error, ce)
		}
		done := func(owner string, version int64) {
			t.Helper()
			if res, err := cancel(owner, version); err != nil || !res.Cancelled || res.Error != nil {
				t.Fatalf("cancel %s: %+v, %v", owner, res, err)
			}
		}
		refused("me", 0, client.ErrNotWaiting, pb.ErrorCode_NOT_WAITING) // an unknown lock
		first := hold(t, cl, "a", "first")
		refused("me", 0, client.ErrNotWaiting, pb.ErrorCode_NOT_WAITING)
		refused("first", 0, client.ErrNotWaiting, pb.ErrorCode_NOT_WAITING)
		for _, version := range []int64{0, 7} {
			if _, err := cl.EnqueueWaiter(t.Context(), &client.EnqueueWaiterRequest{LockID: "a", ClientID: "me", Version: 7}); err != nil {
				t.Fatal(err)
			}
			refused("me", 8, client.ErrVersionMismatch, pb.ErrorCode_VERSION_MISMATCH)
			done("me", version)
			refused("me", version, client.ErrNotWaiting, pb.ErrorCode_NOT_WAITING)
		}
		one := waiting(t.Context(), cl, client.AcquireRequest{LockID: "a", ClientID: "me"})
		two := waiting(t.Context(), c.ClientOn((c.Leader()+2)%3), client.AcquireRequest{LockID: "a", ClientID: "me"})
		named := waiting(t.Context(), cl, client.AcquireRequest{LockID: "a", ClientID: "me", RequestID: "r"})
		done("me", 0)
		for _, call := range []<-chan outcome{one, two} {
			o := ended(t, call, 0)
			ce := wantError(t, o.err, client.ErrNotWaiting, pb.ErrorCode_NOT_WAITING)
			wantDetail(t, o.res.Error, ce)
		}
		stillWaits(t, named)
		give(t, cl, first)
		granted(t, named, 0)
	})
}

func TestGetLockInfoAnswers(t *testing.T) {
	eachPlace(t, func(t *testing.T, c *testcluster.Cluster, cl client.Client) {
		info, err := cl.GetLockInfo(t.Context(), &client.GetLockInfoRequest{LockID: "a"})
		wantError(t, err, client.ErrLockNotFound, pb.ErrorCode_LOCK_NOT_FOUND)
		if info != nil {
			t.Errorf("the result is %+v", info)
		}
		begun := time.Now()
		lock := take(t, cl, &client.AcquireRequest{LockID: "a", ClientID: "me", TTL: time.Minute, Metadata: map[string]string{"k": "v"}})
		time.Sleep(10 * time.Second)
		waiting(t.Context(), cl, client.AcquireRequest{LockID: "a", ClientID: "you", WaitTimeout: 5 * time.Second})
		info, err = cl.GetLockInfo(t.Context(), &client.GetLockInfoRequest{LockID: "a"})
		if err != nil || info.OwnerID != "me" || info.Version != lock.Version || info.WaiterCount != 1 || info.WaitersInfo != nil ||
			info.Metadata["k"] != "v" || !info.AcquiredAt.Equal(begun) || !info.LastModifiedAt.Equal(begun) {
			t.Errorf("%+v, %v", info, err)
		}
		within(t, "what is left", time.Until(info.ExpiresAt), 50*time.Second-late, 50*time.Second)
		give(t, cl, lock)
		time.Sleep(6 * time.Second)
	})
}

// A release that a member passes on is made, and its answer does not come back: made
// again, it finds the grant over, and says so as a success.
func TestReleaseWhoseAnswerIsLost(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		leader := c.Leader()
		asked := (leader + 1) % 3
		local := c.Node(asked).Client()
		grant := hold(t, local, "a", "me")
		c.Cut(leader, asked)
		released := make(chan error, 1)
		go func() {
			_, err := local.Release(t.Context(), releaseOf(grant))
			released <- err
		}()
		time.Sleep(time.Second)
		if info := look(t, c.ClientOn(leader), "a"); info.OwnerID != "" || len(released) > 0 {
			t.Fatalf("behind the cut it is not made: %+v", info)
		}
		c.Heal()
		if err := <-released; err != nil {
			t.Error("the release ended with ", err)
		}
	})
}

// A command whose outcome is unknown converges when it is repeated: the client
// does so by itself, with a leader that crashes between request and answer.
func TestRepeatedCommandsConverge(t *testing.T) {
	for name, where := range map[string]int{"at the leader": 0, "at a follower": 1} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
				for i := range 32 {
					leader := c.Leader()
					cl := c.ClientOn((leader + where) % 3)
					lock := fmt.Sprint("lock", i)
					crashed := make(chan struct{})
					crash := func(n int) {
						go func() { yield(n); c.Crash(leader); close(crashed) }()
						yield(i % 3)
					}
					switch i % 4 {
					case 0:
						crash(i / 2)
						grant := take(t, cl, &client.AcquireRequest{LockID: lock, ClientID: "me", RequestID: "r", TTL: longTTL})
						<-crashed
						if info := look(t, cl, lock); info.Version != grant.Version || info.OwnerID != "me" {
							t.Fatalf("after an acquire: %+v, want token %d", info, grant.Version)
						}
						give(t, cl, grant)
					case 1:
						grant := hold(t, cl, lock, "me")
						next := waiting(t.Context(), cl, client.AcquireRequest{LockID: lock, ClientID: "next"})
						crash(i / 2)
						give(t, cl, grant)
						if got := granted(t, next, time.Minute); got.Version <= grant.Version {
							t.Fatalf("token %d after %d", got.Version, grant.Version)
						}
					case 2:
						grant := take(t, cl, &client.AcquireRequest{LockID: lock, ClientID: "me", TTL: 10 * time.Second})
						crash(i / 2)
						res, err := cl.Renew(t.Context(), &client.RenewRequest{LockID: lock, ClientID: "me", Version: grant.Version, NewTTL: time.Hour})
						if err != nil || !res.Renewed {
							t.Fatalf("renew: %+v, %v", res, err)
						}
						within(t, "what is left after a renewal", time.Until(look(t, cl, lock).ExpiresAt), time.Hour-time.Second, time.Hour+time.Second)
					case 3:
						hold(t, cl, lock, "first")
						crash(i / 2)
						if res, err := cl.EnqueueWaiter(t.Context(), &client.EnqueueWaiterRequest{LockID: lock, ClientID: "me"}); err != nil || !res.Enqueued || res.Position != 0 {
							t.Fatalf("enqueue: %+v, %v", res, err)
						}
						free, err := cl.EnqueueWaiter(t.Context(), &client.EnqueueWaiterRequest{LockID: lock + "free", ClientID: "me"})
						if err != nil || !free.Enqueued {
							t.Fatalf("enqueue at a free lock: %+v, %v", free, err)
						}
						if res, err := cl.CancelWait(t.Context(), &client.CancelWaitRequest{LockID: lock, ClientID: "me"}); err != nil || !res.Cancelled {
							t.Fatalf("cancel: %+v, %v", res, err)
						}
						if got := queueOf(t, cl, lock); len(got) > 0 {
							t.Fatalf("the queue is %v", got)
						}
					}
					<-crashed
					c.Restart(leader)
					<-c.Node(leader).Ready()
				}
			})
		})
	}
}

// Without repeats the caller is told that the outcome is unknown, and its own
// repeat with the same identity tells.
func TestUnknownOutcomeIsSaid(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		leader := c.Leader()
		there := follower(c)
		cl := c.ClientOn(there)
		cl.SetRetryPolicy(noRetries())
		c.Isolate(leader) // what it is asked now is lost on the way
		type answer struct {
			res *client.AcquireResult
			err error
		}
		answers := make(chan answer, 1)
		go func() {
			res, err := cl.Acquire(t.Context(), &client.AcquireRequest{LockID: "a", ClientID: "me", TTL: longTTL})
			answers <- answer{res, err}
		}()
		synctest.Wait()
		a := <-answers
		ce := wantError(t, a.err, client.ErrOutcomeUnknown, pb.ErrorCode_UNAVAILABLE, "outcome", "unknown")
		if !errors.Is(a.err, client.ErrUnavailable) || a.res == nil || a.res.Acquired {
			t.Errorf("%+v, %v", a.res, a.err)
		}
		wantDetail(t, a.res.Error, ce)
		lock := hold(t, cl, "a", "me")
		c.Heal()
		time.Sleep(5 * time.Second)
		if again := hold(t, cl, "a", "me"); again.Version != lock.Version {
			t.Errorf("tokens %d and %d", lock.Version, again.Version)
		}
	})
}

// A closed client refuses every call, and takes no other with it.
func TestCloseOfAClient(t *testing.T) {
	eachPlace(t, func(t *testing.T, c *testcluster.Cluster, cl client.Client) {
		local, sister := c.Node(c.Leader()).Client(), c.Node(c.Leader()).Client()
		for _, cl := range []client.Client{cl, local} {
			if err := errors.Join(cl.Close(), cl.Close()); err != nil {
				t.Errorf("close: %v", err)
			}
			if cl.IsConnected() {
				t.Error("a closed client says that it is connected")
			}
			ctx := t.Context()
			_, acquire := cl.Acquire(ctx, &client.AcquireRequest{LockID: "a", ClientID: "me"})
			_, release := cl.Release(ctx, &client.ReleaseRequest{LockID: "a", ClientID: "me"})
			_, renew := cl.Renew(ctx, &client.RenewRequest{LockID: "a", ClientID: "me", NewTTL: time.Second})
			_, info := cl.GetLockInfo(ctx, &client.GetLockInfoRequest{LockID: "a"})
			_, locks := cl.GetLocks(ctx, &client.GetLocksRequest{})
			_, enqueue := cl.EnqueueWaiter(ctx, &client.EnqueueWaiterRequest{LockID: "a", ClientID: "me"})
			_, cancel := cl.CancelWait(ctx, &client.CancelWaitRequest{LockID: "a", ClientID: "me"})
			_, advice := cl.GetBackoffAdvice(ctx, &client.BackoffAdviceRequest{LockID: "a"})
			_, status := cl.GetStatus(ctx, &client.GetStatusRequest{})
			_, health := cl.Health(ctx, &client.HealthRequest{})
			for i, err := range []error{acquire, release, renew, info, locks, enqueue, cancel, advice, status, health} {
				if !errors.Is(err, client.ErrClientClosed) {
					t.Errorf("call %d: %v", i, err)
				}
			}
		}
		hold(t, sister, "a", "me")
		hold(t, c.Client(), "a", "me")
	})
}

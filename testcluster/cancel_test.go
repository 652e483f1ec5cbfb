package testcluster_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/pb"
	"github.com/raftlock/raftlock/testcluster"
)

// yield lets other goroutines run for a while, so that what the caller does
// next falls at another instant of what they do.
func yield(n int) {
	for range n {
		runtime.Gosched()
	}
}

// abandoned fails the test if a lock is held by a call that was given up, or if
// that still waits.
func abandoned(t *testing.T, cl client.RaftLockClient, lock, owner string) {
	t.Helper()
	info, err := cl.GetLockInfo(t.Context(), &client.GetLockInfoRequest{LockID: lock, IncludeWaiters: true})
	if errors.Is(err, client.ErrLockNotFound) {
		return
	}
	if err != nil {
		t.Errorf("look at %s: %v", lock, err)
		return
	}
	if info.OwnerID == owner {
		t.Errorf("lock %s is held by a call that was given up", lock)
	}
	for _, w := range info.WaitersInfo {
		if w.ClientID == owner {
			t.Errorf("a call that was given up waits for %s", lock)
		}
	}
}

// A call with a RequestID that is cancelled leaves neither a wait nor a grant
// behind, at whatever moment of the hand-over the cancel comes.
func TestCancelledCallLeavesNothingBehind(t *testing.T) {
	kinds := []struct {
		name string
		// race prepares what the cancel races with, and returns what begins it;
		// nil: the call itself.
		race func(t *testing.T, cl client.Client, lock string) (begin func())
	}{
		{"release", func(t *testing.T, cl client.Client, lock string) func() {
			first := hold(t, cl, lock, "first")
			return func() {
				if _, err := cl.Release(t.Context(), releaseOf(first)); err != nil {
					t.Error(err)
				}
			}
		}},
		{"nothing", func(t *testing.T, cl client.Client, lock string) func() {
			hold(t, cl, lock, "first")
			return func() {}
		}},
		{"joining the queue", func(t *testing.T, cl client.Client, lock string) func() {
			hold(t, cl, lock, "first")
			return nil
		}},
		{"a free lock", func(*testing.T, client.Client, string) func() { return nil }},
	}
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			for place, name := range []string{"leader", "follower"} {
				t.Run(name, func(t *testing.T) {
					bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
						cl := c.Node((c.Leader() + place) % 3).Client()
						won := 0
						for i := range tries(60, 120) {
							if cancelOnce(t, cl, i, fmt.Sprint("lock", i), kind.race) {
								won++
							}
						}
						t.Logf("%d calls won against their cancel", won)
					})
				})
			}
		})
	}
}

// cancelOnce cancels a call in a race, at an instant that depends on i, and
// reports whether the call won.
func cancelOnce(t *testing.T, cl client.Client, i int, lock string, race func(*testing.T, client.Client, string) func()) bool {
	t.Helper()
	begin := race(t, cl, lock)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan outcome, 1)
	started := make(chan struct{})
	go func() {
		close(started)
		res, err := cl.Acquire(ctx, &client.AcquireRequest{LockID: lock, ClientID: "me", RequestID: "r", TTL: longTTL, Wait: true})
		done <- outcome{res, err, time.Now()}
	}()
	<-started
	if begin != nil { // the race begins when the call stands in the queue
		synctest.Wait()
		go begin()
	}
	yield(i / 2)
	cancel()
	o := ended(t, done, 10*time.Second)
	synctest.Wait()
	if o.err == nil {
		give(t, cl, o.res.Lock)
		return true
	}
	if !errors.Is(o.err, context.Canceled) || o.res == nil || o.res.Acquired {
		t.Fatalf("the call's answer is %+v, %v", o.res, o.err)
	}
	abandoned(t, cl, lock, "me")
	return false
}

// The same when the leader, or the member that was asked, crashes at that moment.
func TestCancelledCallLeavesNothingBehindOverACrash(t *testing.T) {
	for name, where := range map[string]func(c *testcluster.Cluster) (caller, crash int){
		"at the leader, which crashes":     func(c *testcluster.Cluster) (int, int) { return c.Leader(), c.Leader() },
		"at a follower, the leader does":   func(c *testcluster.Cluster) (int, int) { return follower(c), c.Leader() },
		"at a follower, which does":        func(c *testcluster.Cluster) (int, int) { return follower(c), follower(c) },
		"at a follower, the third crashes": func(c *testcluster.Cluster) (int, int) { return follower(c), (c.Leader() + 2) % 3 },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
				for i := range tries(5, 24) {
					lock := fmt.Sprint("lock", i)
					caller, crash := where(c)
					var cl client.Client = c.ClientOn(caller)
					if caller != crash {
						cl = c.Node(caller).Client() // the member itself sees to it
					}
					other := c.ClientOn((crash + 1) % 3)
					first := hold(t, other, lock, "first")
					ctx, cancel := context.WithCancel(t.Context())
					done := waiting(ctx, cl, client.AcquireRequest{LockID: lock, ClientID: "me", RequestID: "r", TTL: longTTL})
					var work sync.WaitGroup
					work.Go(func() {
						if _, err := other.Release(t.Context(), releaseOf(first)); err != nil {
							t.Error(err)
						}
					})
					work.Go(func() { yield(3 * (i % 4)); c.Crash(crash) })
					yield(i)
					cancel()
					o := ended(t, done, time.Minute)
					work.Wait()
					time.Sleep(11 * time.Second) // the longest window
					if o.err == nil {
						give(t, other, o.res.Lock)
					} else {
						abandoned(t, other, lock, "me")
					}
					c.Restart(crash)
					c.Leader()
					<-c.Node(crash).Ready()
				}
			})
		})
	}
}

// In real time, where the cancel can fall between any two steps.
func TestCancelledCallLeavesNothingBehindInRealTime(t *testing.T) {
	c := testcluster.New(t, 3)
	for _, member := range []int{0, 1, 2} {
		cl := c.ClientOn(member)
		for i := range 60 {
			lock := fmt.Sprint("lock", member, i)
			first := hold(t, cl, lock, "first")
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*10*time.Microsecond)
			var work sync.WaitGroup
			work.Go(func() { give(t, cl, first) })
			res, err := cl.Acquire(ctx, &client.AcquireRequest{LockID: lock, ClientID: "me", RequestID: "r", TTL: longTTL, Wait: true})
			cancel()
			work.Wait()
			if err == nil {
				give(t, cl, res.Lock)
				continue
			}
			// The withdrawal runs behind the caller's back, and is over when the
			// same withdrawal, made again, is.
			if _, err := cl.CancelWait(t.Context(), &client.CancelWaitRequest{LockID: lock, ClientID: "me", RequestID: "r"}); err != nil {
				t.Fatal(err)
			}
			abandoned(t, cl, lock, "me")
		}
	}
}

// Ten thousand cancels at once leave an empty queue and no grant.
func TestTenThousandCancels(t *testing.T) {
	waiters := tries(1_000, 10_000)
	bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		first := hold(t, c.Client(), "a", "first")
		ctx, cancel := context.WithCancel(t.Context())
		var clients []client.Client
		for i := range 3 {
			clients = append(clients, c.Node(i).Client())
		}
		var calls sync.WaitGroup
		for i := range waiters {
			calls.Go(func() {
				_, err := clients[i%3].Acquire(ctx, &client.AcquireRequest{
					LockID: "a", ClientID: fmt.Sprint("client", i%100), RequestID: fmt.Sprint("call", i), Wait: true,
				})
				if !errors.Is(err, context.Canceled) {
					t.Errorf("call %d: %v", i, err)
				}
			})
		}
		synctest.Wait()
		if n := look(t, clients[0], "a").WaiterCount; int(n) != waiters {
			t.Fatalf("%d waiters, want %d", n, waiters)
		}
		cancelled := time.Now()
		cancel()
		calls.Wait()
		synctest.Wait()
		within(t, "the time that all the cancels took", time.Since(cancelled), 0, 0)
		if n := look(t, clients[0], "a").WaiterCount; n != 0 {
			t.Errorf("%d waiters are left", n)
		}
		if res := give(t, clients[1], first); res.WaiterPromoted {
			t.Error("the release found a waiter")
		}
		if owner := look(t, clients[2], "a").OwnerID; owner != "" {
			t.Errorf("the lock is held by %q", owner)
		}
	})
}

// A RequestID that was withdrawn does not come back for a minute: a late attempt
// is refused instead of taking the lock for nobody.
func TestLateAttemptOfACancelledCallIsRefused(t *testing.T) {
	eachPlace(t, func(t *testing.T, c *testcluster.Cluster, cl client.Client) {
		first := hold(t, cl, "a", "first")
		ctx, cancel := context.WithCancel(t.Context())
		done := waiting(ctx, cl, client.AcquireRequest{LockID: "a", ClientID: "me", RequestID: "r"})
		cancel()
		ended(t, done, 0)
		synctest.Wait()
		give(t, cl, first)
		late := func(attempt int32) (*client.AcquireResult, error) {
			return c.ClientOn((c.Leader()+2)%3).Acquire(t.Context(), &client.AcquireRequest{LockID: "a", ClientID: "me", RequestID: "r", Attempt: attempt, Wait: true})
		}
		for attempt := range int32(4) {
			res, err := late(attempt)
			ce := wantError(t, err, client.ErrNotWaiting, pb.ErrorCode_NOT_WAITING)
			wantDetail(t, res.Error, ce)
		}
		_, mend := leaderless(t, c, downfalls[0])
		time.Sleep(50 * time.Second)
		_, err := late(2)
		wantError(t, err, client.ErrNotWaiting, pb.ErrorCode_NOT_WAITING)
		mend()
		time.Sleep(15 * time.Second)
		hold(t, cl, "b", "other") // forgetting rides on an entry
		if res, err := late(1); err != nil {
			t.Errorf("after a minute: %+v, %v", res, err)
		}
	})
}

// CancelWait with a RequestID withdraws whatever it finds: nothing, a wait, or a
// grant.
func TestWithdrawal(t *testing.T) {
	eachPlace(t, func(t *testing.T, c *testcluster.Cluster, cl client.Client) {
		withdraw := func(lock string) {
			t.Helper()
			res, err := cl.CancelWait(t.Context(), &client.CancelWaitRequest{LockID: lock, ClientID: "me", RequestID: "r"})
			if err != nil || !res.Cancelled || res.Error != nil {
				t.Fatalf("withdraw: %+v, %v", res, err)
			}
		}
		refused := func(lock string) {
			t.Helper()
			_, err := cl.Acquire(t.Context(), &client.AcquireRequest{LockID: lock, ClientID: "me", RequestID: "r"})
			wantError(t, err, client.ErrNotWaiting, pb.ErrorCode_NOT_WAITING)
		}
		withdraw("unknown")
		refused("unknown")

		take(t, cl, &client.AcquireRequest{LockID: "held", ClientID: "me", RequestID: "r"})
		next := waiting(t.Context(), cl, client.AcquireRequest{LockID: "held", ClientID: "next"})
		withdraw("held")
		granted(t, next, 0)
		refused("held")

		hold(t, cl, "waited", "first")
		call := waiting(t.Context(), c.Client(), client.AcquireRequest{LockID: "waited", ClientID: "me", RequestID: "r"})
		other := waiting(t.Context(), c.Client(), client.AcquireRequest{LockID: "waited", ClientID: "me", RequestID: "other"})
		plain := waiting(t.Context(), c.Client(), client.AcquireRequest{LockID: "waited", ClientID: "me"})
		withdraw("waited")
		o := ended(t, call, 0)
		wantError(t, o.err, client.ErrNotWaiting, pb.ErrorCode_NOT_WAITING)
		stillWaits(t, other)
		stillWaits(t, plain)
		refused("waited")
	})
}

// The end of a plain call's context ends its wait when no other call of its
// identity is attached, and never a grant.
func TestEndOfAPlainCall(t *testing.T) {
	eachPlace(t, func(t *testing.T, c *testcluster.Cluster, cl client.Client) {
		first := hold(t, cl, "a", "first")
		begin := func(cl client.RaftLockClient) (<-chan outcome, context.CancelFunc) {
			ctx, cancel := context.WithCancel(t.Context())
			return waiting(ctx, cl, client.AcquireRequest{LockID: "a", ClientID: "me"}), cancel
		}
		one, cancelOne := begin(cl)
		two, cancelTwo := begin(c.ClientOn((c.Leader() + 2) % 3))
		three, cancelThree := begin(c.Client())
		cancelOne()
		ended(t, one, 0)
		cancelThree()
		ended(t, three, 0)
		stillWaits(t, two)
		if got := queueOf(t, cl, "a"); !slices.Equal(got, []string{"me"}) {
			t.Fatalf("the queue is %v", got)
		}
		cancelTwo()
		o := ended(t, two, 0)
		if !errors.Is(o.err, context.Canceled) || !errors.Is(o.err, client.ErrOutcomeUnknown) {
			t.Errorf("the last call's error is %v", o.err)
		}
		synctest.Wait()
		if got := queueOf(t, cl, "a"); len(got) > 0 {
			t.Fatalf("the queue is %v", got)
		}

		four, cancelFour := begin(cl)
		five, cancelFive := begin(cl)
		defer cancelFive()
		give(t, cl, first)
		lock := granted(t, four, 0)
		cancelFour()
		if other := granted(t, five, 0); other.Version != lock.Version {
			t.Errorf("calls of one identity got tokens %d and %d", lock.Version, other.Version)
		}
		time.Sleep(20 * time.Second)
		if owner := look(t, cl, "a").OwnerID; owner != "me" {
			t.Errorf("the lock is held by %q", owner)
		}
	})
}

// A call whose context is over before it begins does nothing.
func TestCallWithAContextThatHasEnded(t *testing.T) {
	eachPlace(t, func(t *testing.T, c *testcluster.Cluster, cl client.Client) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, before, _ := c.Node(0).StateHash(t.Context())
		res, err := cl.Acquire(ctx, &client.AcquireRequest{LockID: "a", ClientID: "me"})
		ce := wantError(t, err, context.Canceled, pb.ErrorCode_UNAVAILABLE, "outcome", "not_proposed")
		wantDetail(t, res.Error, ce)
		if errors.Is(err, client.ErrOutcomeUnknown) {
			t.Errorf("the error is %v", err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), 0)
		defer cancel()
		_, err = cl.Renew(ctx, &client.RenewRequest{LockID: "a", ClientID: "me", NewTTL: time.Second})
		wantError(t, err, context.DeadlineExceeded, pb.ErrorCode_TIMEOUT, "outcome", "not_proposed")
		if !errors.Is(err, client.ErrTimeout) {
			t.Errorf("the error is %v", err)
		}
		if _, err := cl.GetLockInfo(ctx, &client.GetLockInfoRequest{LockID: "a"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the error is %v", err)
		}
		if _, after, _ := c.Node(0).StateHash(t.Context()); after != before {
			t.Error("the table has changed")
		}
	})
}

// A process that cancels a call and dies before its member has sent the
// withdrawal leaves a wait that ends like that of any lost connection.
func TestCancelOfAProcessThatDies(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		for i := range tries(30, 60) {
			lock := fmt.Sprint("lock", i)
			there := follower(c)
			cl := c.Client()
			hold(t, cl, lock, "first")
			ctx, cancel := context.WithCancel(t.Context())
			done := waiting(ctx, c.Node(there).Client(), client.AcquireRequest{LockID: lock, ClientID: "me", RequestID: "r", TTL: longTTL})
			cancel()
			yield(i / 2)
			c.Crash(there)
			ended(t, done, time.Second)
			time.Sleep(2*time.Second + late)
			if got := queueOf(t, cl, lock); len(got) > 0 {
				t.Errorf("try %d: after its window the queue is %v", i, got)
			}
			c.Restart(there)
			<-c.Node(there).Ready()
		}
	})
}

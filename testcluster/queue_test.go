package testcluster_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/internal/callctx"
	"github.com/raftlock/raftlock/pb"
	"github.com/raftlock/raftlock/testcluster"
)

// A long queue is served in its exact order while the leader crashes, is cut
// off, and is restarted gracefully.
func TestThousandWaitersAreServedInOrder(t *testing.T) {
	for name, priority := range map[string]func(i int) int32{
		"in order of arrival": func(int) int32 { return 0 },
		"by priority":         func(i int) int32 { return int32(i*7%5 - 2) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) { serveThousand(t, c, priority) })
		})
	}
}

func serveThousand(t *testing.T, c *testcluster.Cluster, priority func(i int) int32) {
	waiters := tries(400, 1000)
	first := hold(t, c.ClientOn(0), "a", "first")
	served := make(chan int, waiters)
	var want []int
	for i := range waiters {
		want = append(want, i)
		go func() {
			cl := c.ClientOn(i % 3)
			res, err := cl.Acquire(t.Context(), &client.AcquireRequest{
				LockID: "a", ClientID: fmt.Sprint("client", i%10), RequestID: fmt.Sprint("call", i),
				TTL: time.Minute, Wait: true, WaitTimeout: time.Hour, Priority: priority(i),
			})
			if err != nil {
				t.Errorf("waiter %d: %v", i, err)
				return
			}
			served <- i
			time.Sleep(2 * time.Millisecond)
			if _, err := cl.Release(t.Context(), releaseOf(res.Lock)); err != nil {
				t.Errorf("waiter %d: %v", i, err)
			}
		}()
		synctest.Wait() // it stands in the queue
	}
	slices.SortStableFunc(want, func(a, b int) int { return cmp.Compare(priority(b), priority(a)) })
	give(t, c.ClientOn(1), first)

	var got []int
	gather := func(n int) {
		t.Helper()
		for len(got) < n {
			select {
			case i := <-served:
				got = append(got, i)
			case <-time.After(30 * time.Second):
				t.Fatalf("%d are served, then nobody for half a minute", len(got))
			}
		}
	}
	for k, d := range downfalls {
		gather(waiters * (k + 1) / 4)
		mend := d.fell(c)
		time.Sleep(2 * time.Second) // within which nobody loses a place
		mend()
	}
	gather(waiters)
	if !slices.Equal(got, want) {
		for i := range got {
			if got[i] != want[i] {
				t.Log("position", slices.Index(got, want[i]))
				t.Fatalf("at %d the order is %v, want %v", i, got[i:min(i+10, waiters)], want[i:min(i+10, waiters)])
			}
		}
	}
}

// What a caller who has vanished may hold up, and how long.
func TestVanishedCallersHoldUpNobody(t *testing.T) {
	const (
		silence = 200*time.Millisecond + 2*tick // until a cut member's calls are let go
		lostFor = 2 * time.Second
		termFor = 10 * time.Second
	)
	tests := []struct {
		name   string
		leader bool // where the caller is
		vanish func(c *testcluster.Cluster, i int)
		// when its window ends, after vanish or after a new leader serves
		low, high time.Duration
	}{
		{"crash of the leader", true, (*testcluster.Cluster).Crash, termFor, termFor + late},
		{"isolation of the leader", true, (*testcluster.Cluster).Isolate, termFor, termFor + late},
		{"crash of a follower", false, (*testcluster.Cluster).Crash, lostFor, lostFor + 2*late},
		{"isolation of a follower", false, (*testcluster.Cluster).Isolate, lostFor, lostFor + silence + late},
	}
	for _, test := range tests {
		for _, request := range []string{"", "r"} {
			t.Run(test.name+" request "+request, func(t *testing.T) {
				bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
					there := c.Leader()
					if !test.leader {
						there = follower(c)
					}
					other := c.ClientOn((there + 1) % 3)
					if !test.leader { // the leader may not be cut off from its followers by this
						other = c.Client()
					}
					first := hold(t, other, "a", "first")
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					gone := waiting(ctx, c.Node(there).Client(), client.AcquireRequest{LockID: "a", ClientID: "gone", RequestID: request})
					next := waiting(t.Context(), other, client.AcquireRequest{LockID: "a", ClientID: "next"})
					at := time.Now()
					test.vanish(c, there)
					if test.leader {
						at = serving(t, other)
					}
					time.Sleep(silence) // until then a cut member's wait is as good as any
					give(t, other, first)
					info := look(t, other, "a")
					if info.OwnerID != "gone" {
						t.Fatalf("the lock went to %q", info.OwnerID)
					}
					granted(t, next, time.Minute)
					within(t, "the vanished caller's window", time.Since(at), test.low, test.high)
					cancel()
					c.Heal()
					ended(t, gone, time.Minute)
				})
			})
		}
	}
}

// A lost connection ends a wait after two seconds, unless the call comes back,
// anywhere, and finds its place as it was.
func TestLostConnectionKeepsThePlaceForAWhile(t *testing.T) {
	eachPlace(t, func(t *testing.T, c *testcluster.Cluster, cl client.Client) {
		first := hold(t, c.Client(), "a", "first")
		lose := func(request string) {
			t.Helper()
			ctx, cancel := context.WithCancelCause(t.Context())
			call := waiting(ctx, cl, client.AcquireRequest{LockID: "a", ClientID: "lost", RequestID: request})
			cancel(callctx.ErrConnectionLost)
			o := ended(t, call, 0)
			if !errors.Is(o.err, client.ErrOutcomeUnknown) || !errors.Is(o.err, context.Canceled) {
				t.Errorf("the lost call's error is %v", o.err)
			}
		}
		lose("r")
		second := waiting(t.Context(), c.Client(), client.AcquireRequest{LockID: "a", ClientID: "second"})
		want := []string{"lost", "second"}
		time.Sleep(1900 * time.Millisecond)
		if got := queueOf(t, c.Client(), "a"); !slices.Equal(got, want) {
			t.Fatalf("the queue is %v, want %v", got, want)
		}
		back := waiting(t.Context(), c.ClientOn((c.Leader()+2)%3), client.AcquireRequest{LockID: "a", ClientID: "lost", RequestID: "r", Attempt: 2})
		time.Sleep(10 * time.Second)
		if got := queueOf(t, c.Client(), "a"); !slices.Equal(got, want) {
			t.Fatalf("after the claim the queue is %v, want %v", got, want)
		}

		lose("") // not claimed: it lapses
		if got := queueOf(t, c.Client(), "a"); len(got) != 3 {
			t.Errorf("the queue is %v", got)
		}
		time.Sleep(2*time.Second + late)
		if got := queueOf(t, c.Client(), "a"); !slices.Equal(got, want) {
			t.Errorf("after the window the queue is %v, want %v", got, want)
		}
		give(t, cl, first)
		give(t, cl, granted(t, back, 0))
		granted(t, second, 0)
	})
}

// A plain call and its wait do not go together when another call of the same
// identity waits as well.
func TestLostConnectionOfOneCallOfTwo(t *testing.T) {
	eachPlace(t, func(t *testing.T, c *testcluster.Cluster, cl client.Client) {
		first := hold(t, c.Client(), "a", "first")
		ctx, cancel := context.WithCancelCause(t.Context())
		one := waiting(ctx, cl, client.AcquireRequest{LockID: "a", ClientID: "me"})
		two := waiting(t.Context(), c.ClientOn((c.Leader()+2)%3), client.AcquireRequest{LockID: "a", ClientID: "me"})
		cancel(callctx.ErrConnectionLost)
		ended(t, one, 0)
		time.Sleep(10 * time.Second)
		give(t, cl, first)
		granted(t, two, 0)
	})
}

// A grant whose turn came while nobody was attached has the end of the window;
// whoever claims it gets its full length from then.
func TestGrantWithinTheWindowIsRestoredByAClaim(t *testing.T) {
	eachPlace(t, func(t *testing.T, c *testcluster.Cluster, cl client.Client) {
		for _, request := range []string{"", "r"} {
			first := hold(t, cl, "a", "first")
			ctx, cancel := context.WithCancelCause(t.Context())
			call := waiting(ctx, cl, client.AcquireRequest{LockID: "a", ClientID: "lost", RequestID: request, TTL: 30 * time.Second})
			cancel(callctx.ErrConnectionLost)
			lost := time.Now()
			ended(t, call, 0)
			time.Sleep(time.Second)
			give(t, cl, first)
			info := look(t, cl, "a")
			if info.OwnerID != "lost" {
				t.Fatalf("the lock went to %q", info.OwnerID)
			}
			within(t, "the unclaimed grant's end", info.ExpiresAt.Sub(lost), 2*time.Second, 2*time.Second+late)
			time.Sleep(500 * time.Millisecond)
			lock := take(t, c.ClientOn((c.Leader()+2)%3), &client.AcquireRequest{
				LockID: "a", ClientID: "lost", RequestID: request, Attempt: 2, TTL: 30 * time.Second, Wait: true,
			})
			if lock.Version != info.Version {
				t.Errorf("the claim gave token %d, the grant had %d", lock.Version, info.Version)
			}
			within(t, "the claimed grant's rest", time.Until(lock.ExpiresAt), 30*time.Second-late, 30*time.Second)
			time.Sleep(20 * time.Second)
			if owner := look(t, cl, "a").OwnerID; owner != "lost" {
				t.Errorf("after the window the lock is held by %q", owner)
			}
			give(t, cl, lock)
		}
	})
}

// A wait that EnqueueWaiter made has no call that could be lost.
func TestEnqueuedWaitsAreNotDetached(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		first := hold(t, c.Client(), "a", "first")
		_, err := c.ClientOn(follower(c)).EnqueueWaiter(t.Context(), &client.EnqueueWaiterRequest{LockID: "a", ClientID: "me", Timeout: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range downfalls {
			_, mend := leaderless(t, c, d)
			time.Sleep(15 * time.Second)
			mend()
		}
		cl := c.Client()
		if got := queueOf(t, cl, "a"); !slices.Equal(got, []string{"me"}) {
			t.Fatalf("the queue is %v", got)
		}
		give(t, cl, first)
		lock := take(t, cl, &client.AcquireRequest{LockID: "a", ClientID: "me"})
		within(t, "the grant's rest", time.Until(lock.ExpiresAt), 30*time.Second-late, 30*time.Second)
	})
}

// WaitTimeout ends a wait on time, with TIMEOUT and nothing acquired, and takes
// it out of the queue.
func TestWaitTimeout(t *testing.T) {
	eachPlace(t, func(t *testing.T, c *testcluster.Cluster, cl client.Client) {
		first := hold(t, cl, "a", "first")
		for _, limit := range []time.Duration{time.Millisecond, 5 * time.Second, 0} {
			begun := time.Now()
			res, err := cl.Acquire(t.Context(), &client.AcquireRequest{LockID: "a", ClientID: "me", RequestID: fmt.Sprint(limit), Wait: true, WaitTimeout: limit})
			ce := wantError(t, err, client.ErrTimeout, pb.ErrorCode_TIMEOUT, "outcome", "not_acquired")
			if res == nil || res.Acquired || res.Lock != nil {
				t.Errorf("the result is %+v", res)
			}
			wantDetail(t, res.Error, ce)
			if errors.Is(err, client.ErrOutcomeUnknown) {
				t.Errorf("a wait that is over has no unknown outcome: %v", err)
			}
			if limit == 0 {
				limit = time.Minute // the default
			}
			within(t, "the wait", time.Since(begun), limit, limit+late)
			if got := queueOf(t, cl, "a"); len(got) > 0 {
				t.Errorf("the queue is %v", got)
			}
		}
		give(t, cl, first)
	})
}

// The lock's queue outlives every leader with its order, seen from every member.
func TestQueueIsTheSameEverywhere(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		hold(t, c.Client(), "a", "first")
		var want []string
		for i := range 9 {
			id := fmt.Sprint("w", i)
			_, err := c.ClientOn(i%3).EnqueueWaiter(t.Context(), &client.EnqueueWaiterRequest{LockID: "a", ClientID: id, Timeout: time.Hour, Priority: int32(i % 3)})
			if err != nil {
				t.Fatal(err)
			}
		}
		for p := 2; p >= 0; p-- {
			for i := p; i < 9; i += 3 {
				want = append(want, fmt.Sprint("w", i))
			}
		}
		for _, d := range downfalls {
			for i := range 3 {
				if got := queueOf(t, c.ClientOn(i), "a"); !slices.Equal(got, want) {
					t.Errorf("at member %d the queue is %v, want %v", i, got, want)
				}
			}
			_, mend := leaderless(t, c, d)
			mend()
		}
	})
}

// A grant that had to wait ends, for who got it, no later than in the table.
func TestEndOfAGrantThatWaited(t *testing.T) {
	for _, fall := range []bool{false, true} {
		eachPlace(t, func(t *testing.T, c *testcluster.Cluster, cl client.Client) {
			first := hold(t, cl, "a", "first")
			call := waiting(t.Context(), cl, client.AcquireRequest{LockID: "a", ClientID: "me", TTL: 30 * time.Second})
			time.Sleep(10 * time.Second)
			if fall {
				_, mend := leaderless(t, c, downfalls[0])
				mend()
				time.Sleep(time.Second) // the call has claimed its place
			}
			give(t, c.Client(), first)
			at := time.Now()
			lock := granted(t, call, 0)
			within(t, "the end of the grant", lock.ExpiresAt.Sub(at), 30*time.Second-late, 30*time.Second)
			next := waiting(t.Context(), c.Client(), client.AcquireRequest{LockID: "a", ClientID: "next"})
			o := ended(t, next, time.Minute)
			within(t, "the next grant after that end", o.at.Sub(lock.ExpiresAt), 0, 2*late)
		})
	}
}

// A call whose member was cut off for longer than its window joins the queue
// anew, at its end.
func TestWaitOutlivesItsPlace(t *testing.T) {
	for _, request := range []string{"", "r"} {
		bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
			there := follower(c)
			first := hold(t, c.Client(), "a", "first")
			lost := waiting(t.Context(), c.ClientOn(there), client.AcquireRequest{LockID: "a", ClientID: "lost", RequestID: request})
			second := waiting(t.Context(), c.Client(), client.AcquireRequest{LockID: "a", ClientID: "second"})
			c.Isolate(there)
			time.Sleep(15 * time.Second)
			if got := queueOf(t, c.Client(), "a"); !slices.Equal(got, []string{"second"}) {
				t.Errorf("the queue is %v", got)
			}
			c.Heal()
			time.Sleep(2 * time.Second)
			if got := queueOf(t, c.Client(), "a"); !slices.Equal(got, []string{"second", "lost"}) {
				t.Errorf("the queue is %v", got)
			}
			give(t, c.Client(), first)
			give(t, c.Client(), granted(t, second, 0))
			granted(t, lost, 0)
		})
	}
}

// The time that a call was held without a leader does not shorten its grant.
func TestGrantOfACallThatWasHeld(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		there := follower(c)
		c.Isolate(there)
		time.Sleep(time.Second)
		call := waiting(t.Context(), c.ClientOn(there), client.AcquireRequest{LockID: "a", ClientID: "me", TTL: 3 * time.Second})
		time.Sleep(2 * time.Second)
		c.Heal()
		lock := granted(t, call, 4*time.Second)
		within(t, "what the grant has left", time.Until(lock.ExpiresAt), 3*time.Second-late, 3*time.Second)
	})
}

// A call that was queued, and whose member was not told so before it lost the
// leader, comes back to its place while that is kept, whatever its policy says of
// pauses.
func TestSlowPolicyKeepsThePlace(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		leader, deaf := c.Leader(), follower(c)
		slow := client.DefaultRetryPolicy()
		slow.InitialBackoff, slow.MaxBackoff = 5*time.Second, 5*time.Second
		cl, other := c.ClientOn(deaf), c.ClientOn(leader)
		cl.SetRetryPolicy(slow)
		holder := hold(t, other, "a", "holder")
		c.Cut(leader, deaf)
		first := waiting(t.Context(), cl, client.AcquireRequest{LockID: "a", ClientID: "first", RequestID: "r", WaitTimeout: time.Minute})
		synctest.Wait()
		second := waiting(t.Context(), other, client.AcquireRequest{LockID: "a", ClientID: "second", WaitTimeout: time.Minute})
		synctest.Wait()
		for range 10_000 {
			if name, _ := c.Node(deaf).Leader(); name == "" {
				break
			}
			time.Sleep(time.Millisecond)
		}
		c.Mend(leader, deaf)
		time.Sleep(4 * time.Second)
		if got := queueOf(t, other, "a"); !slices.Equal(got, []string{"first", "second"}) {
			t.Fatalf("the queue is %q", got)
		}
		give(t, other, holder)
		give(t, cl, granted(t, first, 10*time.Second))
		give(t, other, granted(t, second, time.Second))
	})
}

package testcluster_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/testcluster"
)

// A paused leader does nothing: another one is elected, calls at it wait, and when
// it goes on it knows that time has passed.
func TestPausedLeader(t *testing.T) {
	for _, size := range []int{3, 5}[:raced(1, 2)] {
		bubble(t, size, testPausedLeader)
	}
}

func testPausedLeader(t *testing.T, c *testcluster.Cluster) {
	const ttl = 10 * time.Second
	paused := c.Leader()
	there := c.ClientOn((paused + 1) % 3)
	old := take(t, there, &client.AcquireRequest{LockID: "a", ClientID: "me", TTL: ttl})
	c.Pause(paused)
	begun := time.Now()
	next := take(t, there, &client.AcquireRequest{LockID: "a", ClientID: "you", Wait: true, TTL: longTTL})
	within(t, "the time until the lock is free", time.Since(begun), ttl, ttl+3*2*election)
	if now := c.Leader(); now == paused {
		t.Error("the paused member leads on")
	}
	if next.Version <= old.Version {
		t.Errorf("token %d after %d", next.Version, old.Version)
	}
	here := c.ClientOn(paused)
	call := waiting(t.Context(), here, client.AcquireRequest{LockID: "b", ClientID: "me", TTL: ttl})
	_, err := here.GetLockInfo(limit(t, time.Second), &client.GetLockInfoRequest{LockID: "a"})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a read at the paused member: %v", err)
	}
	time.Sleep(time.Minute)
	stillWaits(t, call)

	c.Resume(paused)
	lock := granted(t, call, time.Second)
	within(t, "what is left of the grant that was asked for in the pause", time.Until(lock.ExpiresAt), ttl-time.Second, ttl)
	if info := look(t, here, "a"); info.OwnerID != "you" || info.Version != next.Version {
		t.Errorf("the member that was paused says %+v", info)
	}
	time.Sleep(time.Second)
	if now := c.Leader(); now == paused {
		t.Error("the member leads again")
	}
}

// Whoever calls a paused member waits as long as the pause, from a program that
// does not embed too; no time passes for the member, and its timers are due then.
func TestPauseHoldsUpEverybody(t *testing.T) {
	const pause = 2 * time.Second
	bubble(t, 1, func(t *testing.T, c *testcluster.Cluster) {
		for i, cl := range []client.Client{c.Client(), remote(t, c, nil, 0)} {
			give(t, cl, hold(t, cl, "a", "me")) // it is connected
			begun := time.Now()
			c.Pause(0)
			c.Pause(0)
			time.AfterFunc(pause, func() { c.Resume(0) })
			give(t, cl, hold(t, cl, "a", "me"))
			if took := time.Since(begun); took != pause {
				t.Errorf("client %d waits for %v", i, took)
			}
			c.Resume(0)
			begun = time.Now()
			give(t, cl, hold(t, cl, "a", "me"))
			if took := time.Since(begun); took != 0 {
				t.Errorf("client %d waits for %v after the pause", i, took)
			}
		}
	}, testcluster.WithGRPC())
}

// A pause ends with the member.
func TestCrashWhilePaused(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		for i := range 3 {
			c.Pause(i)
		}
		cl := c.ClientOn(0)
		call := waiting(t.Context(), cl, client.AcquireRequest{LockID: "a", ClientID: "me", RequestID: "r"})
		for i := range 3 {
			c.Crash(i)
			c.Restart(i)
		}
		granted(t, call, time.Second)
	})
}

// applied is how far a member has applied the log.
func applied(t *testing.T, c *testcluster.Cluster, i int) uint64 {
	t.Helper()
	index, _, err := c.Node(i).StateHash(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return index
}

// What a link loses in one direction the other one still carries.
func TestCutOneWay(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		leader := c.Leader()
		deaf, cl := (leader+1)%3, c.ClientOn(leader)
		before := applied(t, c, deaf)
		c.Cut(leader, deaf)
		hold(t, cl, "a", "me")
		time.Sleep(time.Second)
		if got := applied(t, c, deaf); got != before {
			t.Errorf("cut off from the leader it applies %d after %d", got, before)
		}
		c.Mend(leader, deaf)
		time.Sleep(2 * time.Second)
		if got, want := applied(t, c, deaf), applied(t, c, leader); got != want || got == before {
			t.Errorf("mended it stands at %d, and the leader at %d", got, want)
		}

		leader = c.Leader()
		dumb, cl := (leader+1)%3, c.ClientOn(leader)
		before = applied(t, c, dumb)
		c.Cut(dumb, leader)
		hold(t, cl, "b", "me")
		time.Sleep(time.Second)
		if got := applied(t, c, dumb); got == before {
			t.Error("what the leader sends does not arrive")
		}
		c.Mend(dumb, leader)
	})
}

// Both directions of a leader are needed, each for another reason.
func TestCutOfTheLeader(t *testing.T) {
	for _, into := range []bool{true, false} {
		bubble(t, 5, func(t *testing.T, c *testcluster.Cluster) {
			leader := c.Leader()
			if into {
				c.Cut(testcluster.Everyone, leader)
			} else {
				c.Cut(leader, testcluster.Everyone)
			}
			begun := time.Now()
			cl := c.ClientOn((leader + 1) % 5)
			give(t, cl, hold(t, cl, "a", "me"))
			if c.Leader() == leader {
				t.Errorf("it still leads, cut off (what it hears: %v)", into)
			}
			within(t, "the time without service", time.Since(begun), election, 4*2*election)
			c.Heal()
		})
	}
}

// A commit takes a way there and one back, a call at a follower another one each.
func TestDelayedLinks(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		const delay, jitter = 10 * time.Millisecond, 5 * time.Millisecond
		leader := c.Leader()
		follower := (leader + 1) % 3
		acquire := func(i int) time.Duration {
			cl := c.ClientOn(i)
			begun := time.Now()
			lock := hold(t, cl, "a", "me")
			took := time.Since(begun)
			give(t, cl, lock)
			return took
		}
		c.Delay(testcluster.Everyone, testcluster.Everyone, delay, 0)
		time.Sleep(time.Second)
		within(t, "an acquire at the leader", acquire(leader), 2*delay, 2*delay)
		within(t, "an acquire at a follower", acquire(follower), 4*delay, 4*delay)
		c.Delay(testcluster.Everyone, testcluster.Everyone, delay, jitter)
		different := map[time.Duration]bool{}
		for range 20 {
			took := acquire(leader)
			within(t, "an acquire under jitter", took, 2*delay, 2*(delay+jitter))
			different[took] = true
		}
		if len(different) < 10 {
			t.Errorf("only %d different times", len(different))
		}
		c.Delay(leader, (leader+2)%3, time.Second, 0)
		within(t, "an acquire with one link slower", acquire(leader), 2*delay, 2*(delay+jitter))
		c.Heal()
		time.Sleep(2 * time.Second)
		within(t, "an acquire after Heal", acquire(c.Leader()), 0, 0)
	})
}

// stubborn is a client that repeats what fails until it does not, soon enough to
// keep its place in a queue.
func stubborn(c *testcluster.Cluster, i int) client.Client {
	cl := c.ClientOn(i)
	policy := client.DefaultRetryPolicy()
	policy.MaxRetries, policy.MaxBackoff = 1000, 100*time.Millisecond
	cl.SetRetryPolicy(policy)
	return cl
}

// A leader whose frames all get lost is deposed; with some lost all goes on.
func TestDroppedFrames(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		leader := c.Leader()
		c.Drop(leader, testcluster.Everyone, 1)
		cl := c.ClientOn((leader + 1) % 3)
		give(t, cl, hold(t, cl, "a", "me"))
		if c.Leader() == leader {
			t.Error("it still leads")
		}
		c.Drop(leader, testcluster.Everyone, 0)
		c.Drop(testcluster.Everyone, testcluster.Everyone, 0.02)
		load := startLoad(t.Context(), stubborn(c, 0), stubborn(c, 1), stubborn(c, 2))
		time.Sleep(time.Duration(raced(20, 60)) * time.Second)
		c.Mend(testcluster.Everyone, testcluster.Everyone)
		load.stop(t)
	})
}

// What a member is told got lost, and has arrived, comes twice.
func TestDuplicatedFrames(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		leader := c.Leader()
		follower := (leader + 1) % 3
		renews := func() uint64 {
			cl := stubborn(c, follower)
			lock := hold(t, cl, "a", "me")
			before := applied(t, c, leader)
			if _, err := cl.Renew(t.Context(), &client.RenewRequest{LockID: "a", ClientID: "me", Version: lock.Version, NewTTL: longTTL}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
			return applied(t, c, leader) - before
		}
		if n := renews(); n != 1 {
			t.Fatalf("a renewal is %d entries", n)
		}
		c.Duplicate(follower, leader, 0.1)
		most := uint64(0)
		for range 50 {
			most = max(most, renews())
		}
		if most < 2 {
			t.Error("no renewal has come twice")
		}
		c.Mend(follower, leader)
		time.Sleep(2 * time.Second)
		if n := renews(); n != 1 {
			t.Errorf("mended, a renewal is %d entries", n)
		}
	})
}

// What is held up on a link comes behind what was sent later.
func TestReorderedFrames(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		for range 100 { // the first frame on the link may be another one
			if comesBehind(t, c) {
				return
			}
		}
		t.Error("nothing comes behind")
	})
}

// comesBehind reports whether a renewal comes again, late.
func comesBehind(t *testing.T, c *testcluster.Cluster) bool {
	t.Helper()
	leader := c.Leader()
	follower := (leader + 1) % 3
	cl := stubborn(c, follower)
	lock := hold(t, cl, "a", "me")
	before := applied(t, c, leader)
	c.Reorder(follower, leader, 1, time.Minute)
	renewed := make(chan error, 1)
	go func() {
		_, err := cl.Renew(t.Context(), &client.RenewRequest{LockID: "a", ClientID: "me", Version: lock.Version, NewTTL: longTTL})
		renewed <- err
	}()
	synctest.Wait()
	c.Mend(follower, leader)
	if err := <-renewed; err != nil {
		t.Fatal(err)
	}
	give(t, cl, lock)
	after := applied(t, c, leader)
	if after-before != 2 {
		t.Errorf("a renewal and a release are %d entries", after-before)
	}
	time.Sleep(time.Minute)
	if info, err := cl.GetLockInfo(t.Context(), &client.GetLockInfoRequest{LockID: "a"}); err == nil && info.OwnerID != "" {
		t.Errorf("the renewal that came late: %+v", info)
	}
	return applied(t, c, leader) > after
}

// A lock lasts by its leader's clock.
func TestSkewedMembers(t *testing.T) {
	const ttl = 100 * time.Second
	for _, ppm := range []float64{-500, 100_000} {
		bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
			for range raced(1, 2) {
				leader := c.Leader()
				c.SkewRate(leader, ppm)
				time.Sleep(time.Minute) // by now its clock is off
				for _, at := range []int{leader, (leader + 1) % 3} {
					cl := c.ClientOn(at)
					begun := time.Now()
					lock := take(t, cl, &client.AcquireRequest{LockID: "a", ClientID: "me", TTL: ttl})
					within(t, "what its client is told", time.Until(lock.ExpiresAt), ttl-time.Millisecond, ttl)
					take(t, cl, &client.AcquireRequest{LockID: "a", ClientID: "you", Wait: true, WaitTimeout: time.Hour, TTL: time.Second})
					want := time.Duration(float64(ttl) / (1 + ppm/1e6))
					within(t, fmt.Sprintf("the grant of a leader with %v ppm", ppm), time.Since(begun), want, want+2*late)
					time.Sleep(2 * time.Second)
				}
				c.Crash(leader)
				c.Restart(leader)
				c.TransferLeadership(leader) // as skewed as before
			}
		})
	}
}

func TestDelayedDisk(t *testing.T) {
	bubble(t, 1, func(t *testing.T, c *testcluster.Cluster) {
		cl := c.Client()
		const delay, jitter = 10 * time.Millisecond, 10 * time.Millisecond
		c.DelayDisk(0, delay, jitter)
		different := map[time.Duration]bool{}
		for range 20 {
			begun := time.Now()
			lock := hold(t, cl, "a", "me")
			took := time.Since(begun)
			within(t, "a write", took, delay, 2*(delay+jitter))
			different[took] = true
			give(t, cl, lock)
			time.Sleep(100 * time.Millisecond)
		}
		if len(different) < 10 {
			t.Errorf("only %d different times", len(different))
		}
		c.MendDisk(0)
		begun := time.Now()
		give(t, cl, hold(t, cl, "a", "me"))
		within(t, "a write to the mended disk", time.Since(begun), 0, 0)
	})
}

// A power cut leaves part of what was being written, chosen by the seed, and
// everything that was acknowledged.
func TestLoseUnsynced(t *testing.T) {
	found := map[string][]uint64{}
	for seed := range uint64(12) {
		left := afterPowerCut(t, seed)
		if again := afterPowerCut(t, seed); again != left {
			t.Errorf("seed %d leaves %s, and then %s", seed, left, again)
		}
		found[left] = append(found[left], seed)
	}
	if len(found) < 5 {
		t.Errorf("twelve seeds leave nothing but %v", found)
	}
}

// afterPowerCut is how much a follower keeps of ten entries that it was writing.
func afterPowerCut(t *testing.T, seed uint64) (left string) {
	t.Helper()
	bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		leader := c.Leader()
		follower, cl := (leader+1)%3, c.ClientOn(leader)
		kept := hold(t, cl, "kept", "me")
		time.Sleep(time.Second)
		c.LoseUnsynced(follower)
		before, _ := c.Logged(follower) // in the midst of nothing
		c.Restart(follower)
		<-c.Node(follower).Ready()
		time.Sleep(time.Second)
		c.DelayDisk(follower, 100*time.Millisecond, 0)
		for i := range 10 {
			hold(t, cl, fmt.Sprint(i), "me")
			synctest.Wait()
		}
		time.Sleep(150 * time.Millisecond) // within the write of what came during the first
		c.LoseUnsynced(follower)
		entries, _ := c.Logged(follower)
		left = fmt.Sprint(entries - before)
		if entries <= before {
			t.Errorf("there are %d entries after %d were acknowledged", entries, before)
		}
		c.MendDisk(follower)
		c.Restart(follower)
		<-c.Node(follower).Ready()
		c.TransferLeadership(follower)
		if info := look(t, c.ClientOn(follower), "kept"); info.Version != kept.Version {
			t.Errorf("what was acknowledged: %+v", info)
		}
	}, testcluster.WithSeed(seed))
	return left
}

// A member of a cluster of one that is cut off from power within a write may have
// written it or not; who asked for it does not know.
func TestLoseUnsyncedOfOne(t *testing.T) {
	found := map[int]int{}
	for seed := range uint64(12) {
		bubble(t, 1, func(t *testing.T, c *testcluster.Cluster) {
			kept := hold(t, c.Client(), "kept", "me")
			c.HangDisk(0)
			call := waiting(t.Context(), c.Node(0).Client(), client.AcquireRequest{LockID: "a", ClientID: "me", TTL: longTTL})
			c.LoseUnsynced(0)
			if o := ended(t, call, time.Second); !errors.Is(o.err, client.ErrOutcomeUnknown) {
				t.Errorf("who asked for it is told %v", o.err)
			}
			c.MendDisk(0)
			c.Restart(0)
			cl := c.Client()
			if info := look(t, cl, "kept"); info.Version != kept.Version {
				t.Errorf("what was acknowledged: %+v", info)
			}
			list, err := cl.GetLocks(t.Context(), &client.GetLocksRequest{})
			if err != nil {
				t.Fatal(err)
			}
			found[len(list.Locks)]++
		}, testcluster.WithSeed(seed))
	}
	if found[1] == 0 || found[2] == 0 || len(found) != 2 {
		t.Errorf("so many locks, so many times: %v", found)
	}
}

func TestTransferLeadershipTo(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		for i := range 6 {
			c.TransferLeadership(i % 3)
			if leader := c.Leader(); leader != i%3 {
				t.Errorf("member %d leads, not %d", leader, i%3)
			}
			c.TransferLeadership(i % 3) // again is nothing
		}
	})
}

// failing is a test that has failed, and what it was told.
type failing struct {
	*testing.T
	told strings.Builder
}

func (f *failing) Failed() bool { return true }
func (f *failing) Logf(format string, args ...any) {
	fmt.Fprintf(&f.told, format+"\n", args...)
}

// A test that fails is told the seed.
func TestFailureTellsTheSeed(t *testing.T) {
	f := &failing{}
	t.Run("failing", func(t *testing.T) {
		f.T = t
		testcluster.New(f, 1, testcluster.WithSeed(4711))
	})
	if !strings.Contains(f.told.String(), "testcluster.New(t, 1, testcluster.WithSeed(4711))") {
		t.Errorf("it was told: %s", &f.told)
	}
}

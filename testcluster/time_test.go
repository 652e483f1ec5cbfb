package testcluster_test

import (
	"testing"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/testcluster"
)

// downfall takes the leader's office away and returns what undoes it.
type downfall struct {
	name string
	fell func(c *testcluster.Cluster) (mend func())
}

var downfalls = []downfall{
	{"crash", func(c *testcluster.Cluster) func() {
		i := c.CrashLeader()
		return func() { c.Restart(i) }
	}},
	{"isolate", func(c *testcluster.Cluster) func() {
		c.Isolate(c.Leader())
		return c.Heal
	}},
	{"close", func(c *testcluster.Cluster) func() {
		i := c.Leader()
		_ = c.Node(i).Close() // it ends gracefully; the crash only takes the wreck away
		c.Crash(i)
		return func() { c.Restart(i) }
	}},
}

// leaderless lets a leader fall and returns the longest span without a leader
// that this may have caused: it begins at the last message that the next leader
// has received, at most a beat before the fall.
func leaderless(t *testing.T, c *testcluster.Cluster, d downfall) (span time.Duration, mend func()) {
	t.Helper()
	watch := c.ClientOn((c.Leader() + 1) % 3)
	fell := time.Now()
	mend = d.fell(c)
	return serving(t, watch).Sub(fell) + beat, mend
}

// A grant ends neither early nor later than its TTL and the spans without a
// leader allow, whatever happens to the leaders.
func TestTTLOverTwoFailovers(t *testing.T) {
	const ttl = 30 * time.Second
	for i, first := range downfalls {
		for j, second := range downfalls {
			if j != (i+1)%3 && tries(0, 1) == 0 {
				continue
			}
			t.Run(first.name+" and "+second.name, func(t *testing.T) {
				bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
					take(t, c.Client(), &client.AcquireRequest{LockID: "a", ClientID: "holder", TTL: ttl})
					begun := time.Now()
					next := waiting(t.Context(), c.ClientOn(follower(c)), client.AcquireRequest{LockID: "a", ClientID: "next"})

					time.Sleep(7 * time.Second)
					gap1, mend := leaderless(t, c, first)
					time.Sleep(3 * time.Second)
					mend()
					time.Sleep(7 * time.Second)
					gap2, mend := leaderless(t, c, second)
					time.Sleep(3 * time.Second)
					mend()
					granted(t, next, time.Minute)
					within(t, "the grant's life", time.Since(begun), ttl, ttl+gap1+gap2+late)
				})
			})
		}
	}
}

// Quiet time before a failover counts: nobody lives longer because nothing was
// written.
func TestQuietTimeCountsOverAFailover(t *testing.T) {
	const ttl = 30 * time.Second
	for _, d := range downfalls {
		t.Run(d.name, func(t *testing.T) {
			bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
				take(t, c.Client(), &client.AcquireRequest{LockID: "a", ClientID: "holder", TTL: ttl})
				begun := time.Now()
				time.Sleep(20 * time.Second)
				gap, mend := leaderless(t, c, d)
				if gap > time.Second {
					t.Errorf("%v without a leader", gap)
				}
				next := waiting(t.Context(), c.Client(), client.AcquireRequest{LockID: "a", ClientID: "next"})
				granted(t, next, time.Minute)
				within(t, "the grant's life", time.Since(begun), ttl, ttl+gap+late)
				mend()
			})
		})
	}
}

// A grant ends on time in steady state, seen from everywhere.
func TestGrantEndsOnTime(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		for _, ttl := range []time.Duration{100 * time.Millisecond, 30 * time.Second} {
			take(t, c.Client(), &client.AcquireRequest{LockID: "a", ClientID: "holder", TTL: ttl})
			begun := time.Now()
			time.Sleep(ttl - time.Millisecond)
			for i := range 3 {
				if owner := look(t, c.ClientOn(i), "a").OwnerID; owner != "holder" {
					t.Errorf("TTL %v, member %d: held by %q a millisecond before the end", ttl, i, owner)
				}
			}
			time.Sleep(late + time.Millisecond)
			for i := range 3 {
				if info := look(t, c.ClientOn(i), "a"); info.OwnerID != "" || !info.ExpiresAt.IsZero() {
					t.Errorf("TTL %v, member %d: held by %q, %v after its beginning", ttl, i, info.OwnerID, time.Since(begun))
				}
			}
		}
	})
}

// A holder that renews keeps its lock over every change of the leader.
func TestRenewalsKeepALockOverFailovers(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		const ttl = 3 * time.Second
		cl := c.ClientOn(0)
		lock := take(t, cl, &client.AcquireRequest{LockID: "a", ClientID: "holder", TTL: ttl})
		next := waiting(t.Context(), c.ClientOn(1), client.AcquireRequest{LockID: "a", ClientID: "next"})
		for round := range 12 {
			mend := func() {}
			cl = c.ClientOn(follower(c)) // which is not cut off
			if round%2 == 0 {
				mend = downfalls[round/2%len(downfalls)].fell(c)
			}
			for range 3 {
				time.Sleep(ttl / 3)
				res, err := cl.Renew(t.Context(), &client.RenewRequest{LockID: "a", ClientID: "holder", Version: lock.Version, NewTTL: ttl})
				if err != nil || !res.Renewed || res.Lock.Version != lock.Version {
					t.Fatalf("round %d: %+v, %v", round, res, err)
				}
				within(t, "what the renewal says is left", time.Until(res.Lock.ExpiresAt), ttl-time.Second, ttl)
			}
			mend()
			time.Sleep(ttl / 3)
		}
		stillWaits(t, next)
		give(t, cl, lock)
		if got := granted(t, next, time.Second); got.Version <= lock.Version {
			t.Errorf("token %d after %d", got.Version, lock.Version)
		}
	})
}

// While the whole cluster is down no holder loses time.
func TestDowntimeOfTheWholeClusterDoesNotCount(t *testing.T) {
	const (
		ttl   = 30 * time.Second
		spent = 10 * time.Second
	)
	for _, quiet := range []bool{false, true} {
		name := map[bool]string{false: "after a write", true: "after quiet time"}[quiet]
		t.Run(name, func(t *testing.T) {
			bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
				lock := take(t, c.Client(), &client.AcquireRequest{LockID: "a", ClientID: "holder", TTL: ttl})
				time.Sleep(spent)
				uncounted := spent
				if !quiet {
					hold(t, c.Client(), "b", "other")
					uncounted = 0
				}
				for i := range 3 {
					c.Crash(i)
				}
				time.Sleep(time.Hour)
				up := time.Now()
				for i := range 3 {
					c.Restart(i)
				}
				gap := serving(t, c.Client()).Sub(up)
				if info := look(t, c.Client(), "a"); info.OwnerID != "holder" || info.Version != lock.Version {
					t.Fatalf("after the restart the lock is %+v", info)
				}
				next := waiting(t.Context(), c.Client(), client.AcquireRequest{LockID: "a", ClientID: "next"})
				granted(t, next, time.Minute)
				within(t, "what was left of the grant", time.Since(up), ttl-spent, ttl-spent+uncounted+gap+beat+late)
			})
		})
	}
}

// Tokens grow over all locks, whatever happens to the leaders or to all members.
func TestTokensGrow(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		var last int64
		takeSome := func(when string) {
			t.Helper()
			for i := range 6 {
				lock := take(t, c.ClientOn(i%3), &client.AcquireRequest{LockID: string(rune('a' + i)), ClientID: "me"})
				if lock.Version <= last {
					t.Errorf("%s: token %d after %d", when, lock.Version, last)
				}
				last = lock.Version
				if i%2 == 0 {
					give(t, c.ClientOn(i%3), lock)
				}
			}
			time.Sleep(31 * time.Second) // the others expire
		}
		takeSome("at first")
		for _, d := range downfalls {
			_, mend := leaderless(t, c, d)
			mend()
			takeSome("after " + d.name)
		}
		for i := range 3 {
			c.Crash(i)
		}
		for i := range 3 {
			c.Restart(i)
		}
		takeSome("after a restart of all")
	})
}

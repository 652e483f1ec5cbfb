package stranger

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/testcluster"
)

// What can happen between the members, and to their machines.

// median is how long a post usually takes.
func median(post func() time.Duration) time.Duration {
	var shorter, longer time.Duration
	for range 5 {
		took := post()
		shorter, longer = min(shorter, took), max(longer, took)
	}
	return (shorter + longer) / 2
}

func TestCutOneWay(t *testing.T) {
	inCluster(t, func(t *testing.T, c *testcluster.Cluster, post func() time.Duration) {
		mute := c.Leader()
		c.Cut(mute, testcluster.Everyone)
		wantLate(t, post())
		if c.Leader() == mute {
			t.Error("a leader that nobody hears still leads")
		}
		c.Mend(mute, testcluster.Everyone)
		time.Sleep(time.Second)
		c.TransferLeadership(mute) // it is heard again
		post()
	})
}

func TestDelay(t *testing.T) {
	inCluster(t, func(t *testing.T, c *testcluster.Cluster, post func() time.Duration) {
		c.Delay(testcluster.Everyone, testcluster.Everyone, 10*time.Millisecond, 0)
		time.Sleep(time.Second)
		if took := median(post); took < 20*time.Millisecond { // to the leader and back, at least
			t.Errorf("over a network with 10ms each way a post takes %v", took)
		}
		c.Heal()
	})
}

// weathers are faults of the network that members have to bear: they cost time at
// most.
func TestWeather(t *testing.T) {
	all := testcluster.Everyone
	for name, weather := range map[string]func(c *testcluster.Cluster){
		"Drop":      func(c *testcluster.Cluster) { c.Drop(all, all, 0.02) },
		"Duplicate": func(c *testcluster.Cluster) { c.Duplicate(all, all, 0.02) },
		"Reorder":   func(c *testcluster.Cluster) { c.Reorder(all, all, 0.02, 50*time.Millisecond) },
	} {
		t.Run(name, func(t *testing.T) {
			inCluster(t, func(t *testing.T, c *testcluster.Cluster, post func() time.Duration) {
				weather(c)
				var all time.Duration
				for range 200 {
					all += post()
				}
				wantLate(t, all)
				c.Heal()
				post()
			}, testcluster.WithSeed(7))
		})
	}
}

func TestPausedMember(t *testing.T) {
	inCluster(t, func(t *testing.T, c *testcluster.Cluster, post func() time.Duration) {
		stopped := c.Leader()
		c.Pause(stopped)
		wantLate(t, post())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.ClientOn(stopped).Acquire(ctx, &client.AcquireRequest{LockID: "a", ClientID: "me"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a member that is stopped answers: %v", err)
		}
		c.Resume(stopped)
		post()
	})
}

func TestSkewedMember(t *testing.T) {
	inCluster(t, func(t *testing.T, c *testcluster.Cluster, _ func() time.Duration) {
		c.SkewRate(c.Leader(), 250_000) // a quarter faster
		begun := time.Now()
		for _, owner := range []string{"one", "two"} {
			req := &client.AcquireRequest{LockID: "a", ClientID: owner, TTL: 100 * time.Second, Wait: true, WaitTimeout: time.Hour}
			if _, err := c.ClientOn(0).Acquire(t.Context(), req); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(begun); took < 79*time.Second || took > 81*time.Second {
			t.Errorf("100s by a leader's clock that is a quarter faster took %v", took)
		}
	})
}

func TestDelayDisk(t *testing.T) {
	inCluster(t, func(t *testing.T, c *testcluster.Cluster, post func() time.Duration) {
		for i := range 3 {
			c.DelayDisk(i, 20*time.Millisecond, 0)
		}
		if took := median(post); took < 20*time.Millisecond {
			t.Errorf("on disks that take 20ms a post takes %v", took)
		}
		for i := range 3 {
			c.MendDisk(i)
		}
	})
}

// A power cut everywhere in the middle of writes loses nothing that was answered.
func TestLoseUnsynced(t *testing.T) {
	inCluster(t, func(t *testing.T, c *testcluster.Cluster, post func() time.Duration) {
		for range 5 {
			post()
			l, err := c.ClientOn(c.Leader()).Acquire(t.Context(), &client.AcquireRequest{LockID: "kept", ClientID: "me", TTL: time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			for i := range 3 {
				c.HangDisk(i)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			_, err = c.ClientOn(0).Acquire(ctx, &client.AcquireRequest{LockID: "lost", ClientID: "me"})
			cancel()
			if !errors.Is(err, client.ErrOutcomeUnknown) {
				t.Errorf("a call over disks that hang ended with %v", err)
			}
			for i := range 3 {
				c.LoseUnsynced(i)
				c.MendDisk(i)
			}
			for i := range 3 {
				c.Restart(i)
			}
			info, err := c.ClientOn(0).GetLockInfo(t.Context(), &client.GetLockInfoRequest{LockID: "kept"})
			if err != nil || info.Version != l.Lock.Version {
				t.Errorf("after the power cut the lock is %+v, %v", info, err)
			}
		}
	})
}

func TestTransferLeadership(t *testing.T) {
	inCluster(t, func(t *testing.T, c *testcluster.Cluster, post func() time.Duration) {
		next := (c.Leader() + 1) % 3
		c.TransferLeadership(next)
		if leader := c.Leader(); leader != next {
			t.Errorf("member %d leads, not %d", leader, next)
		}
		post()
	})
}

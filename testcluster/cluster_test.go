package testcluster_test

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/testcluster"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAcquireRelease(t *testing.T) {
	for _, size := range []int{1, 3, 5} {
		c := testcluster.New(t, size)
		for i := range size {
			cl := c.ClientOn(i)
			res, err := cl.Acquire(t.Context(), &client.AcquireRequest{LockID: "a", ClientID: "me"})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := cl.Acquire(t.Context(), &client.AcquireRequest{LockID: "a", ClientID: "you"}); !errors.Is(err, client.ErrLockHeld) {
				t.Fatal(err)
			}
			info, err := cl.GetLockInfo(t.Context(), &client.GetLockInfoRequest{LockID: "a"})
			if err != nil || info.Version != res.Lock.Version {
				t.Fatal(info, err)
			}
			if _, err := cl.Release(t.Context(), &client.ReleaseRequest{LockID: "a", ClientID: "me", Version: res.Lock.Version}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testcluster.New(t, 3)
		cl := c.Client()
		begun := time.Now()
		_, err := cl.Acquire(t.Context(), &client.AcquireRequest{LockID: "a", ClientID: "me", TTL: 30 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		crashed := c.CrashLeader()
		res, err := cl.Acquire(t.Context(), &client.AcquireRequest{LockID: "a", ClientID: "you", Wait: true})
		if err != nil {
			t.Fatal(err)
		}
		took := time.Since(begun)
		t.Log("granted after", took, res.Lock)
		if took < 30*time.Second || took > 32*time.Second {
			t.Error("wrong time", took)
		}
		c.Restart(crashed)
	})
}

// Who is in no group of a partition is alone.
func TestPartition(t *testing.T) {
	bubble(t, 5, func(t *testing.T, c *testcluster.Cluster) {
		for _, groups := range [][][]int{{{0, 1, 2}}, {{2, 3, 4}, {0}}, {{0, 2}, {0, 4}}, {{1, 3}, {4, 2, 0}}} {
			c.Partition(groups...)
			time.Sleep(2 * time.Second)
			leader := c.Leader()
			for i := range 5 {
				reached := i == leader
				for _, group := range groups {
					reached = reached || slices.Contains(group, leader) && slices.Contains(group, i)
				}
				if _, err := c.ClientOn(i).Health(t.Context(), &client.HealthRequest{}); (err == nil) != reached {
					t.Errorf("partition %v, leader %d: the health of member %d is %v", groups, leader, i, err)
				}
			}
			c.Heal()
			time.Sleep(2 * time.Second)
		}
	})
}

// New waits for no election time-out.
func TestNewHasALeaderAtOnce(t *testing.T) {
	for _, size := range []int{1, 2, 3, 5, 9} {
		synctest.Test(t, func(t *testing.T) {
			begun := time.Now()
			testcluster.New(t, size)
			within(t, "the time until there is a leader", time.Since(begun), 0, 2*beat)
		})
	}
}

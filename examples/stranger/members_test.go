package stranger

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/testcluster"
)

// What can happen to the members, as one sees it who posts.

// inCluster runs a test in virtual time on three members, with a poster whose
// client begins at a member that follows.
func inCluster(t *testing.T, test func(t *testing.T, c *testcluster.Cluster, post func() time.Duration), opts ...testcluster.Option) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := testcluster.New(t, 3, opts...)
		for i := range 3 {
			<-c.Node(i).Ready()
		}
		p := &Poster{Locks: c.ClientOn((c.Leader() + 1) % 3), Ledger: &Ledger{}}
		posts := 0
		test(t, c, func() time.Duration {
			t.Helper()
			begun := time.Now()
			if err := p.Post(t.Context(), 1, nil); err != nil {
				t.Error(err)
			}
			if posts++; p.Ledger.Sum() != posts {
				t.Errorf("after %d posts the sum is %d", posts, p.Ledger.Sum())
			}
			return time.Since(begun)
		})
	})
}

// election is how long it takes at least until there is another leader.
const election = 80 * time.Millisecond

func wantLate(t *testing.T, took time.Duration) {
	t.Helper()
	if took < election {
		t.Errorf("it took %v: nothing was in the way", took)
	}
}

// wantEnd waits for the end of a member, which must say why.
func wantEnd(t *testing.T, c *testcluster.Cluster, i int) {
	t.Helper()
	select {
	case <-c.Node(i).Done():
		if c.Node(i).Err() == nil {
			t.Errorf("member %d does not say why it has ended", i)
		}
	case <-time.After(time.Minute):
		t.Fatalf("member %d runs on", i)
	}
}

func TestCrash(t *testing.T) {
	inCluster(t, func(t *testing.T, c *testcluster.Cluster, post func() time.Duration) {
		for range 3 {
			post()
			crashed := c.CrashLeader()
			wantLate(t, post())
			c.Restart(crashed)
			<-c.Node(crashed).Ready()
		}
	})
}

func TestIsolate(t *testing.T) {
	inCluster(t, func(t *testing.T, c *testcluster.Cluster, post func() time.Duration) {
		alone := c.Leader()
		c.Isolate(alone)
		wantLate(t, post())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.ClientOn(alone).Acquire(ctx, &client.AcquireRequest{LockID: "a", ClientID: "me"}); err == nil {
			t.Error("a member that is alone grants locks")
		}
		c.Heal()
		post()
	})
}

func TestPartition(t *testing.T) {
	inCluster(t, func(t *testing.T, c *testcluster.Cluster, post func() time.Duration) {
		c.Partition([]int{c.Leader()}, []int{(c.Leader() + 1) % 3, (c.Leader() + 2) % 3})
		wantLate(t, post())
		c.Heal()
		post()
	})
}

func TestHangDisk(t *testing.T) {
	inCluster(t, func(t *testing.T, c *testcluster.Cluster, post func() time.Duration) {
		slow := c.Leader()
		c.HangDisk(slow)
		wantLate(t, post())
		if c.Leader() == slow {
			t.Error("a member whose disk hangs still leads")
		}
		c.MendDisk(slow)
		post()
	})
}

func TestFailDisk(t *testing.T) {
	inCluster(t, func(t *testing.T, c *testcluster.Cluster, post func() time.Duration) {
		broken := c.Leader()
		c.FailDisk(broken)
		wantLate(t, post())
		wantEnd(t, c, broken)
		c.MendDisk(broken)
		c.Restart(broken)
		<-c.Node(broken).Ready()
		post()
	})
}

func TestLoseDisk(t *testing.T) {
	inCluster(t, func(t *testing.T, c *testcluster.Cluster, post func() time.Duration) {
		post()
		gone := (c.Leader() + 2) % 3
		c.LoseDisk(gone)
		post()
		c.Restart(gone)
		wantEnd(t, c, gone)
		post()
	})
}

func TestAdd(t *testing.T) {
	inCluster(t, func(t *testing.T, c *testcluster.Cluster, post func() time.Duration) {
		post()
		added := c.Add()
		<-c.Node(added).Ready()
		res, err := c.ClientOn(added).Acquire(t.Context(), &client.AcquireRequest{LockID: "a", ClientID: "me"})
		if err != nil || !res.Acquired {
			t.Errorf("the member that was added: %+v, %v", res, err)
		}
		post()
	})
}

package testcluster_test

import (
	"errors"
	"testing"
	"time"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/testcluster"
)

// votes waits until a cluster has so many members, all of which vote.
func votes(t *testing.T, c *testcluster.Cluster, want int) {
	t.Helper()
	until(t, "all members vote", func() bool {
		names, voters := memberList(t, c.Node(c.Leader()))
		return len(names) == want && voters == want
	})
}

// over waits for the end of a member and returns its error.
func over(t *testing.T, n *raftlock.Node) error {
	t.Helper()
	select {
	case <-n.Done():
	case <-time.After(time.Minute):
		t.Fatal("the member goes on")
	}
	return n.Err()
}

// A member that is added is ready, votes, and serves, over the network too.
func TestAdd(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		held := hold(t, c.Client(), "lock", "owner")
		added := c.Add()
		if added != 3 {
			t.Fatalf("the fourth member has the number %d", added)
		}
		<-c.Node(added).Ready()
		votes(t, c, 4)
		for _, cl := range []client.Client{c.ClientOn(added), remote(t, c, nil, added)} {
			if info := look(t, cl, "lock"); info.Version != held.Version {
				t.Errorf("the new member shows %+v", info)
			}
			give(t, cl, hold(t, cl, "another", "owner"))
		}
		c.Crash(added)
		c.Restart(added)
		<-c.Node(added).Ready()
	}, grpcOnly()...)
}

// A member without its disk is refused; once it is replaced it comes back, and
// what was on its old disk does not.
func TestLoseDisk(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		lost := follower(c)
		held := hold(t, c.Client(), "lock", "owner")
		c.LoseDisk(lost)
		c.Restart(lost)
		if err := over(t, c.Node(lost)); !errors.Is(err, raftlock.ErrDiskLost) {
			t.Fatalf("a member without its disk has ended with %v", err)
		}
		c.LoseDisk(lost)
		if err := c.Node(c.Leader()).ReplaceMember(limit(t, time.Minute), name(lost)); err != nil {
			t.Fatal(err)
		}
		c.Restart(lost)
		<-c.Node(lost).Ready()
		votes(t, c, 3)
		if info := look(t, c.ClientOn(lost), "lock"); info.Version != held.Version {
			t.Errorf("the new member shows %+v", info)
		}
	})
}

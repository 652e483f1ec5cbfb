package testcluster_test

import (
	"context"
	"testing"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/testcluster"
)

// caughtUp waits until a member has applied what the leader has.
func caughtUp(t *testing.T, c *testcluster.Cluster, i int) {
	t.Helper()
	until(t, "that the member catches up", func() bool {
		applied := raftStatus(t, c, c.Leader()).LastApplied
		return raftStatus(t, c, i).LastApplied >= applied
	})
}

// A member that was down while another came takes the log from that one, when it
// leads, though its own members do not name it.
func TestAwayWhileTheLeaderCame(t *testing.T) {
	snapshotSizes(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		away := follower(c)
		c.Crash(away)
		added := c.Add()
		votes(t, c, 4)
		c.TransferLeadership(added)
		held := hold(t, c.Client(), "held", "owner")
		churn(t, c.Client(), 50)
		c.Restart(away)
		caughtUp(t, c, away)
		if c.Leader() != added {
			t.Error("the leader has changed")
		}
		if info := look(t, c.ClientOn(away), "held"); info.Version != held.Version {
			t.Errorf("it knows %+v", info)
		}
		give(t, c.ClientOn(away), held)
	})
}

// The same for one that was replaced meanwhile: its name is known, and not who
// has it now.
func TestAwayWhileTheLeaderWasReplaced(t *testing.T) {
	snapshotSizes(t, 5, func(t *testing.T, c *testcluster.Cluster) {
		lead := c.Leader()
		away, lost := (lead+1)%5, (lead+2)%5
		c.Crash(away)
		c.LoseDisk(lost)
		if err := c.Node(lead).ReplaceMember(limit(t, time.Minute), name(lost)); err != nil {
			t.Fatal(err)
		}
		c.Restart(lost)
		votes(t, c, 5)
		c.TransferLeadership(lost)
		churn(t, c.Client(), 50)
		c.Restart(away)
		caughtUp(t, c, away)
		waits := waiting(t.Context(), c.ClientOn(away), client.AcquireRequest{LockID: "churn1", ClientID: "guest", TTL: longTTL})
		give(t, c.ClientOn(away), granted(t, waits, 0))
		time.Sleep(time.Minute)
		if c.Leader() != lost {
			t.Error("the leader has changed")
		}
	})
}

// Three of four are a majority, also when one of them was away while another
// came, whose vote or whose log is needed.
func TestMajorityWithOneThatWasAway(t *testing.T) {
	snapshotSizes(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		lead := c.Leader()
		away, third := (lead+1)%3, (lead+2)%3
		c.Crash(away)
		added := c.Add()
		votes(t, c, 4)
		c.TransferLeadership(added)
		churn(t, c.Client(), 50)
		c.Isolate(third) // what comes now is on the disks of two
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		_, err := c.ClientOn(added).Acquire(ctx, &client.AcquireRequest{LockID: "x", ClientID: "me", TTL: longTTL})
		cancel()
		if err == nil {
			t.Error("two of four have granted a lock")
		}
		c.Crash(lead)
		c.Crash(added)
		c.Heal()
		c.Restart(added)
		c.Restart(away)
		c.Leader()
		churn(t, c.Client(), 10)
	})
}

// Of those that the log of a member names which was away, one was removed and the
// other is down: the newcomer is the only one to meet, and the two are a majority.
func TestOnlyTheNewcomerIsUp(t *testing.T) {
	snapshotSizes(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		first := c.Leader()
		away, gone := (first+1)%3, (first+2)%3
		c.Crash(away)
		added := c.Add()
		votes(t, c, 4)
		c.TransferLeadership(added)
		if err := c.Node(added).RemoveMember(limit(t, time.Minute), name(gone)); err != nil {
			t.Fatal(err)
		}
		churn(t, c.ClientOn(added), 50)
		c.Crash(first)
		c.Restart(away)
		until(t, "that it leads", c.Node(added).IsLeader)
		give(t, c.ClientOn(added), hold(t, c.ClientOn(added), "proof", "owner"))

		// What it was told by then is in its own log when it comes back again.
		caughtUp(t, c, away)
		c.Crash(away)
		c.Restart(away)
		<-c.Node(away).Ready()
		c.Restart(first)
		votes(t, c, 3)
	})
}

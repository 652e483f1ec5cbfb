package testcluster_test

import (
	"math"
	"testing"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/testcluster"
)

// Every number of the statistics is true on every member, for the minute that
// it speaks of, and after a restart too.
func TestLockStats(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		cl := c.Client()
		time.Sleep(time.Minute)
		begun := time.Now()
		for range 20 { // held for 1 s each, given back
			lock := hold(t, cl, "a", "me")
			time.Sleep(time.Second)
			give(t, cl, lock)
		}
		for _, id := range []string{"x", "y", "z"} { // run out after 3 s
			take(t, cl, &client.AcquireRequest{LockID: id, ClientID: "me", TTL: 3 * time.Second})
		}
		hold(t, cl, "kept", "me")
		waiting(t.Context(), cl, client.AcquireRequest{LockID: "kept", ClientID: "you"})
		time.Sleep(35*time.Second - time.Since(begun))
		checkStats(t, c, 24.0/60, 20.0/60, 3, (20*time.Second+9*time.Second)/23)

		restarted := follower(c)
		c.Crash(restarted)
		c.Restart(restarted)
		<-c.Node(restarted).Ready()
		checkStats(t, c, 24.0/60, 20.0/60, 3, (20*time.Second+9*time.Second)/23)

		time.Sleep(61 * time.Second)
		checkStats(t, c, 0, 0, 0, 0)
	})
}

// checkStats compares what every member says with what is so.
func checkStats(t *testing.T, c *testcluster.Cluster, acquired, released float64, expired int32, held time.Duration) {
	t.Helper()
	for i := range 3 {
		status, err := c.ClientOn(i).GetStatus(t.Context(), &client.GetStatusRequest{})
		if err != nil {
			t.Fatal(err)
		}
		got := status.LockStats
		near := func(got, want float64) bool { return math.Abs(got-want) <= want/30 }
		if !near(got.AcquisitionRatePerSecond, acquired) || !near(got.ReleaseRatePerSecond, released) ||
			got.ExpiredLocksLastPeriod != expired || !near(got.AverageHoldDuration.Seconds(), held.Seconds()) ||
			got.ActiveLocksCount != 1 || got.TotalWaitersCount != 1 || got.ContestedLocksCount != 1 {
			t.Errorf("member %d says %+v, want %v acquired, %v released a second, %d expired, held %v", i, got, acquired, released, expired, held)
		}
	}
}

// The leader, and only it, and only when asked, tells how far its peers are.
func TestReplicationStatus(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		leader := c.Leader()
		lagging := (leader + 1) % 3
		cl := c.Client()
		status := func(i int, details bool) *client.RaftStatus {
			t.Helper()
			got, err := c.ClientOn(i).GetStatus(t.Context(), &client.GetStatusRequest{IncludeReplicationDetails: details})
			if err != nil {
				t.Fatal(err)
			}
			return got.RaftStatus
		}
		if status(leader, false).Replication != nil || status(lagging, true).Replication != nil {
			t.Error("details that nobody asked for, or from a member that does not lead")
		}
		time.Sleep(time.Second)
		peers := status(leader, true).Replication
		if len(peers) != 2 {
			t.Fatalf("%d peers", len(peers))
		}
		last := status(leader, false).LastLogIndex
		for name, p := range peers {
			if p.MatchIndex != last || p.NextIndex != last+1 || p.ReplicationLag != 0 || !p.IsActive || p.SnapshotInProgress ||
				time.Since(p.LastActiveAt) > 2*beat {
				t.Errorf("peer %s: %+v, the log ends at %d", name, p, last)
			}
		}
		c.Isolate(lagging)
		cut := time.Now()
		for range 10 {
			give(t, cl, hold(t, cl, "a", "me"))
		}
		time.Sleep(time.Second)
		now := status(leader, true)
		name, others := status(lagging, false).NodeID, 0
		for peer, p := range now.Replication {
			if peer != name {
				if others++; p.ReplicationLag != 0 || !p.IsActive {
					t.Errorf("the other peer: %+v", p)
				}
				continue
			}
			if p.IsActive || p.MatchIndex != last || p.ReplicationLag != now.LastLogIndex-last || p.ReplicationLag < 20 ||
				cut.Sub(p.LastActiveAt).Abs() > 2*beat {
				t.Errorf("the lagging peer: %+v, cut at %v, at index %d of %d", p, cut, last, now.LastLogIndex)
			}
		}
		if others != 1 {
			t.Errorf("%d other peers", others)
		}
		c.Heal()
		time.Sleep(2 * time.Second)
		for name, p := range status(c.Leader(), true).Replication {
			if !p.IsActive || p.ReplicationLag != 0 {
				t.Errorf("peer %s after the mending: %+v", name, p)
			}
		}
	})
}

package testcluster_test

import (
	"errors"
	"testing"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/pb"
	"github.com/raftlock/raftlock/testcluster"
)

// Every member says of itself and its cluster what is so.
func TestStatusAndHealth(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		begun := time.Now()
		leader := c.Leader()
		hold(t, c.Client(), "a", "me")
		hold(t, c.Client(), "b", "me")
		give(t, c.Client(), hold(t, c.Client(), "c", "me"))
		for _, id := range []string{"w1", "w2"} {
			waiting(t.Context(), c.Client(), client.AcquireRequest{LockID: "a", ClientID: id})
		}
		time.Sleep(10 * time.Second)
		var terms []uint64
		for i := range 3 {
			cl := c.ClientOn(i)
			health, err := cl.Health(t.Context(), &client.HealthRequest{})
			if err != nil || health.Status != client.HealthStatusServing || health.Message == "" || health.IsRaftLeader != (i == leader) ||
				health.CurrentActiveLocks != 2 || health.CurrentTotalWaiters != 2 || !health.LastHealthCheckAt.Equal(time.Now()) {
				t.Errorf("member %d: %+v, %v", i, health, err)
			}
			within(t, "the uptime", health.Uptime, time.Since(begun), time.Since(begun)+time.Second)
			status, err := cl.GetStatus(t.Context(), &client.GetStatusRequest{IncludeReplicationDetails: true})
			if err != nil {
				t.Fatal(err)
			}
			raft, stats := status.RaftStatus, status.LockStats
			name, _ := c.Node(i).Leader()
			role := map[bool]string{true: "Leader", false: "Follower"}[i == leader]
			if raft.Role != role || raft.LeaderID != name || name == "" || (raft.NodeID == name) != (i == leader) ||
				raft.Term != health.RaftTerm || raft.CommitIndex != raft.LastApplied || raft.LastLogIndex < raft.CommitIndex ||
				raft.LastLogTerm != raft.Term || raft.LastApplied != health.RaftLastApplied || raft.LastApplied == 0 {
				t.Errorf("member %d: %+v", i, raft)
			}
			if stats.ActiveLocksCount != 2 || stats.TotalWaitersCount != 2 || stats.ContestedLocksCount != 1 {
				t.Errorf("member %d: %+v", i, stats)
			}
			if status.Health == nil || status.Health.Status != client.HealthStatusServing {
				t.Errorf("member %d: %+v", i, status.Health)
			}
			if !cl.IsConnected() {
				t.Errorf("the client at member %d says that it is not connected", i)
			}
			terms = append(terms, raft.Term)
		}
		if terms[0] != terms[1] || terms[0] != terms[2] {
			t.Errorf("the terms are %v", terms)
		}
	})
}

// A member that cannot serve says so.
func TestHealthWithoutALeader(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		leaderlessFor(c, time.Second)
		for i := range 3 {
			cl := c.ClientOn(i)
			health, err := cl.Health(t.Context(), &client.HealthRequest{})
			wantError(t, err, client.ErrUnavailable, pb.ErrorCode_UNAVAILABLE)
			if health == nil || health.Status != client.HealthStatusNotServing || health.Message == "" || health.IsRaftLeader {
				t.Errorf("member %d: %+v", i, health)
			}
			status, err := cl.GetStatus(t.Context(), &client.GetStatusRequest{})
			if err != nil || status.RaftStatus.LeaderID != "" || status.RaftStatus.Role == "Leader" ||
				status.Health == nil || status.Health.Status != client.HealthStatusNotServing {
				t.Errorf("member %d: %+v, %v", i, status.RaftStatus, err)
			}
			if cl.IsConnected() {
				t.Errorf("the client at member %d says that it is connected", i)
			}
		}
		c.Heal()
		serving(t, c.ClientOn(0))
		time.Sleep(time.Second)
		for i := range 3 {
			if health, err := c.ClientOn(i).Health(t.Context(), &client.HealthRequest{}); err != nil {
				t.Errorf("after the mending, member %d: %+v, %v", i, health, err)
			}
		}
	})
}

// A crashed cluster is told from one that is slow.
func TestAllMembersDown(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		cl := c.Client()
		for i := range 3 {
			c.Crash(i)
		}
		for name, err := range everyCall(t.Context(), cl) {
			if !errors.Is(err, client.ErrUnavailable) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := cl.Health(t.Context(), &client.HealthRequest{}); !errors.Is(err, client.ErrUnavailable) {
			t.Error(err)
		}
		for i := range 3 {
			c.Restart(i)
		}
		hold(t, cl, "a", "me")
	})
}

// Advice: 50 ms to 1 s for a lock that nobody holds; more for one that will be
// held for long and that many want, and never more than the grant has left.
func TestBackoffAdvice(t *testing.T) {
	eachPlace(t, func(t *testing.T, _ *testcluster.Cluster, cl client.Client) {
		advice := func(lock string) *client.BackoffAdvice {
			t.Helper()
			time.Sleep(2 * tick) // a member advises by its own table
			a, err := cl.GetBackoffAdvice(t.Context(), &client.BackoffAdviceRequest{LockID: lock})
			if err != nil || a.InitialBackoff <= 0 || a.InitialBackoff > a.MaxBackoff || a.Multiplier != 1.5 || a.JitterFactor != 0.2 {
				t.Fatalf("%+v, %v", a, err)
			}
			return a
		}
		free := client.BackoffAdvice{InitialBackoff: 50 * time.Millisecond, MaxBackoff: time.Second, Multiplier: 1.5, JitterFactor: 0.2}
		if got := advice("unknown"); *got != free {
			t.Errorf("an unknown lock: %+v", got)
		}
		give(t, cl, hold(t, cl, "a", "me"))
		if got := advice("a"); *got != free {
			t.Errorf("a free lock: %+v", got)
		}
		hold(t, cl, "long", "me")
		alone := advice("long")
		for _, id := range []string{"w1", "w2", "w3"} {
			waiting(t.Context(), cl, client.AcquireRequest{LockID: "long", ClientID: id})
		}
		if queue := advice("long"); queue.InitialBackoff < alone.InitialBackoff || alone.InitialBackoff <= free.InitialBackoff {
			t.Errorf("%v with a queue, %v without, %v free", queue.InitialBackoff, alone.InitialBackoff, free.InitialBackoff)
		}
		take(t, cl, &client.AcquireRequest{LockID: "short", ClientID: "me", TTL: 300 * time.Millisecond})
		for range 3 {
			if got, left := advice("short"), time.Until(look(t, cl, "short").ExpiresAt); got.MaxBackoff > left+tick {
				t.Errorf("%+v with %v left", got, left)
			}
			time.Sleep(80 * time.Millisecond)
		}
	})
}

// A cluster that nobody uses writes nothing.
func TestIdleClusterWritesNothing(t *testing.T) {
	t.Parallel() // with the other long ones
	idle := time.Duration(tries(1, 60)) * time.Minute
	begun := time.Now()
	bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		lock := take(t, c.Client(), &client.AcquireRequest{LockID: "a", ClientID: "me", TTL: 24 * time.Hour})
		waiting(t.Context(), c.Client(), client.AcquireRequest{LockID: "a", ClientID: "w", WaitTimeout: 24 * time.Hour})
		time.Sleep(time.Second)
		indices := func() (indices [3]uint64) {
			for i := range indices {
				status, err := c.ClientOn(i).GetStatus(t.Context(), &client.GetStatusRequest{})
				if err != nil {
					t.Fatal(err)
				}
				indices[i] = max(status.RaftStatus.LastLogIndex, status.RaftStatus.CommitIndex)
			}
			return indices
		}
		before := indices()
		time.Sleep(idle)
		if after := indices(); after != before {
			t.Errorf("the logs have grown from %v to %v", before, after)
		}
		if info := look(t, c.Client(), "a"); info.Version != lock.Version {
			t.Errorf("the lock is %+v", info)
		}
	})
	t.Logf("%v without work took %v", idle, time.Since(begun))
}

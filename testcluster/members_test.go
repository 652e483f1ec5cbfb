package testcluster_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/testcluster"
)

// names lists the members that a node knows.
func memberList(t *testing.T, n *raftlock.Node) (names []string, voters int) {
	t.Helper()
	members, err := n.Members(t.Context())
	if err != nil {
		t.Fatalf("members: %v", err)
	}
	for _, m := range members {
		names = append(names, m.Name)
		if m.Voter {
			voters++
		}
	}
	return names, voters
}

// limit bounds a call in the time of the test.
func limit(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func name(i int) string { return "n" + string(rune('1'+i)) }

func TestTransferLeadership(t *testing.T) {
	for _, asked := range []string{"leader", "the one that is to lead", "another"} {
		t.Run("asked at "+asked, func(t *testing.T) {
			bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
				from := c.Leader()
				to := (from + 1) % 3
				at := map[string]int{"leader": from, "the one that is to lead": to, "another": (from + 2) % 3}[asked]
				held := hold(t, c.Client(), "lock", "owner")
				begun := time.Now()
				if err := c.Node(at).TransferLeadership(limit(t, time.Minute), name(to)); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(begun); took > 10*tick {
					t.Errorf("it took %v", took)
				}
				if got := c.Leader(); got != to {
					t.Errorf("member %d leads, want %d", got, to)
				}
				give(t, c.Client(), held)
				if err := c.Node(at).TransferLeadership(limit(t, time.Minute), name(to)); err != nil {
					t.Errorf("once more: %v", err)
				}
			})
		})
	}
}

func TestTransferRefused(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		from := c.Leader()
		n := c.Node(from)
		if err := n.TransferLeadership(limit(t, time.Minute), "nobody"); !errors.Is(err, raftlock.ErrNoSuchMember) || !errors.Is(err, client.ErrInvalidArgument) {
			t.Errorf("to nobody: %v", err)
		}
		down := (from + 1) % 3
		c.Crash(down)
		time.Sleep(time.Second) // until that is noticed
		if err := n.TransferLeadership(limit(t, time.Minute), name(down)); !errors.Is(err, raftlock.ErrChangeRefused) || !errors.Is(err, client.ErrUnavailable) {
			t.Errorf("to one that is down: %v", err)
		}
		if c.Leader() != from {
			t.Error("a refused transfer has moved the leadership")
		}
	})
}

func TestRemoveMember(t *testing.T) {
	for _, which := range []string{"follower", "leader"} {
		for _, asked := range []string{"leader", "follower"} {
			t.Run(which+" by "+asked, func(t *testing.T) {
				bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
					lead := c.Leader()
					gone := map[string]int{"follower": (lead + 1) % 3, "leader": lead}[which]
					at := map[string]int{"leader": lead, "follower": (lead + 2) % 3}[asked]
					held := hold(t, c.Client(), "lock", "owner")
					if err := c.Node(at).RemoveMember(limit(t, time.Minute), name(gone)); err != nil {
						t.Fatal(err)
					}
					n := c.Node(gone)
					select {
					case <-n.Done():
					case <-time.After(5 * time.Second):
						t.Fatal("the removed member goes on")
					}
					if !errors.Is(n.Err(), raftlock.ErrRemoved) {
						t.Errorf("it has ended with %v", n.Err())
					}
					stays := c.Leader()
					if names, voters := memberList(t, c.Node(stays)); len(names) != 2 || voters != 2 {
						t.Errorf("left are %v, %d voters", names, voters)
					}
					give(t, c.ClientOn(stays), held)
					if err := c.Node(stays).RemoveMember(limit(t, time.Minute), name(gone)); !errors.Is(err, raftlock.ErrNoSuchMember) {
						t.Errorf("once more: %v", err)
					}
				})
			})
		}
	}
}

// A member that was away when it was removed is told by the others, and its own
// log does not let it start after that either.
func TestRemovedWhileAway(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		lead := c.Leader()
		gone := (lead + 1) % 3
		c.Crash(gone)
		if err := c.Node(lead).RemoveMember(limit(t, time.Minute), name(gone)); err != nil {
			t.Fatal(err)
		}
		c.Restart(gone)
		n := c.Node(gone)
		select {
		case <-n.Done():
		case <-time.After(10 * time.Second):
			t.Fatal("the removed member goes on")
		}
		if !errors.Is(n.Err(), raftlock.ErrRemoved) {
			t.Errorf("it has ended with %v", n.Err())
		}
	})
}

// What would leave the cluster without a majority is refused, and changes nothing.
func TestRemoveRefused(t *testing.T) {
	bubble(t, 1, func(t *testing.T, c *testcluster.Cluster) {
		if err := c.Node(0).RemoveMember(limit(t, time.Minute), "n1"); !errors.Is(err, raftlock.ErrChangeRefused) {
			t.Errorf("the last one: %v", err)
		}
		if names, voters := memberList(t, c.Node(0)); len(names) != 1 || voters != 1 {
			t.Errorf("a refused change has changed %v", names)
		}
	})
	bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		lead := c.Leader()
		down, other := (lead+1)%3, (lead+2)%3
		c.Crash(down)
		time.Sleep(time.Second) // until that is noticed
		for _, err := range []error{
			c.Node(lead).RemoveMember(limit(t, time.Minute), name(other)),
			c.Node(lead).RemoveMember(limit(t, time.Minute), name(lead)),
			c.Node(lead).ReplaceMember(limit(t, time.Minute), name(other)),
			c.Node(other).ReplaceMember(limit(t, time.Minute), name(other)),
		} {
			if !errors.Is(err, raftlock.ErrChangeRefused) || !errors.Is(err, client.ErrUnavailable) {
				t.Errorf("one of the two that are up: %v", err)
			}
		}
		if err := c.Node(lead).AddMember(limit(t, time.Minute), name(other), "mem://elsewhere"); !errors.Is(err, raftlock.ErrMemberExists) {
			t.Errorf("add one that exists: %v", err)
		}
		if names, voters := memberList(t, c.Node(lead)); len(names) != 3 || voters != 3 {
			t.Errorf("refused changes have changed %v", names)
		}
		hold(t, c.Client(), "lock", "owner")
	})
}

// An unanswered change is taken up by the next leader.
func TestRemoveWhileLeaderCrashes(t *testing.T) {
	for _, delay := range []time.Duration{0, time.Microsecond, tick / 2, tick} {
		bubble(t, 5, func(t *testing.T, c *testcluster.Cluster) {
			lead := c.Leader()
			gone, at := (lead+1)%5, (lead+2)%5
			done := make(chan error, 1)
			go func() { done <- c.Node(at).RemoveMember(limit(t, time.Minute), name(gone)) }()
			if delay > 0 {
				time.Sleep(delay)
			} else {
				synctest.Wait()
			}
			c.Crash(lead)
			if err := <-done; err != nil {
				t.Errorf("after %v: %v", delay, err)
			}
			if names, voters := memberList(t, c.Node(at)); len(names) != 4 || voters != 4 {
				t.Errorf("left are %v", names)
			}
			c.Restart(lead)
		})
	}
}

// The leadership can be handed over at any moment, also at the one at which raft
// counts anew who is there.
func TestTransferAtAnyMoment(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		for i := 0; i < 400; i += raced(4, 1) {
			time.Sleep(election + time.Duration(i)*beat/4)
			to := (c.Leader() + 1) % 3
			if err := c.Node(to).TransferLeadership(limit(t, time.Minute), name(to)); err != nil {
				t.Fatalf("transfer %d: %v", i, err)
			}
		}
	})
}

package testcluster_test

import (
	"errors"
	"slices"
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
	// So says the leader. A voter counts with those who have applied that: were the
	// leader's disk lost before they heard, the ones from before would be needed.
	time.Sleep(2 * beat)
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

// grow makes a cluster of one a cluster of three.
func grow(t *testing.T, c *testcluster.Cluster) {
	t.Helper()
	for range 2 {
		<-c.Node(c.Add()).Ready()
	}
	votes(t, c, 3)
}

// A cluster that began with one member, and has grown, knows its founder after that has
// lost its disk and has founded again, alone, as its configuration still says. The
// founder ends, and a supervisor that starts it again has it serve nobody.
func TestWipedFounderOfAGrownCluster(t *testing.T) {
	bubble(t, 1, func(t *testing.T, c *testcluster.Cluster) {
		grow(t, c)
		held := hold(t, c.ClientOn(1), "lock", "owner")
		c.LoseDisk(0)
		c.RestartAlone(0)
		if err := over(t, c.Node(0)); !errors.Is(err, raftlock.ErrDiskLost) {
			t.Fatalf("the founder has ended with %v", err)
		}
		c.Restart(0)
		if err := over(t, c.Node(0)); !errors.Is(err, raftlock.ErrDiskLost) {
			t.Errorf("started again, the founder has ended with %v", err)
		}
		select {
		case <-c.Node(0).Ready():
			t.Error("started again, the founder has served")
		default:
		}

		c.LoseDisk(0)
		if err := c.Node(c.Leader()).ReplaceMember(limit(t, time.Minute), name(0)); err != nil {
			t.Fatal(err)
		}
		c.Restart(0)
		<-c.Node(0).Ready()
		votes(t, c, 3)
		if info := look(t, c.ClientOn(0), "lock"); info.Version != held.Version {
			t.Errorf("the founder, replaced, shows %+v", info)
		}
	})
}

// The same when its place was emptied for it before it is started: then the others have
// nobody to dial, and it asks nobody.
func TestWipedFounderWhoseReplacementWasFirst(t *testing.T) {
	bubble(t, 1, func(t *testing.T, c *testcluster.Cluster) {
		grow(t, c)
		held := hold(t, c.ClientOn(1), "lock", "owner")
		c.LoseDisk(0)
		if err := c.Node(c.Leader()).ReplaceMember(limit(t, time.Minute), name(0)); err != nil {
			t.Fatal(err)
		}
		c.RestartAlone(0)
		if err := over(t, c.Node(0)); !errors.Is(err, raftlock.ErrDiskLost) {
			t.Fatalf("the founder has ended with %v", err)
		}
		c.LoseDisk(0)
		c.Restart(0)
		<-c.Node(0).Ready()
		votes(t, c, 3)
		if info := look(t, c.ClientOn(0), "lock"); info.Version != held.Version {
			t.Errorf("the founder, replaced, shows %+v", info)
		}
	})
}

// A founder that is started again, alone, and that nobody says any more to be a second
// one, serves after a while: so it was a mistake of another cluster.
func TestFounderThatIsNotDoubtedAnyMore(t *testing.T) {
	bubble(t, 1, func(t *testing.T, c *testcluster.Cluster) {
		grow(t, c)
		c.LoseDisk(0)
		c.RestartAlone(0)
		if err := over(t, c.Node(0)); !errors.Is(err, raftlock.ErrDiskLost) {
			t.Fatalf("the founder has ended with %v", err)
		}
		c.Crash(1)
		c.Crash(2)
		c.Restart(0)
		<-c.Node(0).Ready()
		give(t, c.ClientOn(0), hold(t, c.ClientOn(0), "lock", "owner"))
	})
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

// snapshotSizes runs a test with the snapshots that members take by default,
// which are none within a test, and with many.
func snapshotSizes(t *testing.T, size int, test func(t *testing.T, c *testcluster.Cluster)) {
	t.Helper()
	t.Run("no snapshots", func(t *testing.T) { bubble(t, size, test, grpcOnly()...) })
	t.Run("many snapshots", func(t *testing.T) { bubble(t, size, test, append(grpcOnly(), smallSnapshots())...) })
}

// One dead disk of three is repaired under load: no call fails.
func TestReplaceUnderLoad(t *testing.T) {
	for _, which := range []string{"follower", "leader"} {
		t.Run(which, func(t *testing.T) {
			snapshotSizes(t, 3, func(t *testing.T, c *testcluster.Cluster) {
				held := hold(t, c.Client(), "held", "owner")
				tr := startTraffic(t, everywhere(t, c, 3)...)
				tr.flows(t, 200)
				dead := c.Leader()
				if which == "follower" {
					dead = (dead + 1) % 3
				}
				old := c.KeepDisk(dead)
				c.LoseDisk(dead)
				tr.flows(t, 100)
				if err := c.Node(c.Leader()).ReplaceMember(limit(t, time.Minute), name(dead)); err != nil {
					t.Fatal(err)
				}
				tr.flows(t, 100)
				c.Restart(dead)
				<-c.Node(dead).Ready()
				votes(t, c, 3)
				tr.flows(t, 100)

				// It counts: without one of the others the cluster goes on.
				other := (dead + 1) % 3
				c.Crash(other)
				tr.flows(t, 100)
				c.Restart(other)
				<-c.Node(other).Ready()
				tr.stop(t)
				if info := look(t, c.ClientOn(dead), "held"); info.Version != held.Version {
					t.Errorf("the lock from before: %+v", info)
				}

				old()
				c.Restart(dead)
				if err := over(t, c.Node(dead)); !errors.Is(err, raftlock.ErrRemoved) {
					t.Errorf("the old disk has ended with %v", err)
				}
			})
		})
	}
}

// The old disk comes back after the member was replaced, before anybody has come
// to its place: it is refused, and the place stays free.
func TestOldDiskBeforeTheNewOne(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		dead := follower(c)
		c.Crash(dead)
		if err := c.Node(c.Leader()).ReplaceMember(limit(t, time.Minute), name(dead)); err != nil {
			t.Fatal(err)
		}
		c.Restart(dead)
		if err := over(t, c.Node(dead)); !errors.Is(err, raftlock.ErrRemoved) {
			t.Fatalf("the old disk has ended with %v", err)
		}
		c.LoseDisk(dead)
		c.Restart(dead)
		<-c.Node(dead).Ready()
		votes(t, c, 3)
	})
}

// Two members come, and the two that were there first go, the leader among them
// each time: no call fails.
func TestGrowAndShrinkUnderLoad(t *testing.T) {
	snapshotSizes(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		held := hold(t, c.Client(), "held", "owner")
		tr := startTraffic(t, everywhere(t, c, 3)...)
		tr.flows(t, 200)
		for size := 4; size <= 5; size++ {
			c.Add()
			votes(t, c, size)
			tr.flows(t, 100)
		}
		for range 2 {
			lead := c.Leader()
			if err := c.Node(lead).RemoveMember(limit(t, time.Minute), name(lead)); err != nil {
				t.Fatal(err)
			}
			tr.flows(t, 100)
			if err := over(t, c.Node(lead)); !errors.Is(err, raftlock.ErrRemoved) {
				t.Errorf("the removed leader has ended with %v", err)
			}
		}
		votes(t, c, 3)
		// One of three is lost; but the remote client knows the first three members
		// only, and two of these may be gone.
		if m := slices.IndexFunc([]int{3, 4}, func(i int) bool { return memberOf(t, c, i).Voter }); m >= 0 {
			if err := c.Node(c.Leader()).TransferLeadership(limit(t, time.Minute), name(3+m)); err != nil {
				t.Fatal(err)
			}
		}
		c.CrashLeader()
		tr.flows(t, 100)
		tr.stop(t)
		if info := look(t, c.Client(), "held"); info.Version != held.Version {
			t.Errorf("the lock from before: %+v", info)
		}
	})
}

// replaceHung replaces a follower whose new disk takes no snapshot and no log: it
// is admitted, and cannot catch up.
func replaceHung(t *testing.T, c *testcluster.Cluster, dead int) {
	t.Helper()
	c.LoseDisk(dead)
	c.HangDisk(dead)
	if err := c.Node(c.Leader()).ReplaceMember(limit(t, time.Minute), name(dead)); err != nil {
		t.Fatal(err)
	}
	c.Restart(dead)
	until(t, "that it is admitted", func() bool { return memberOf(t, c, dead).NodeID != 0 })
}

func memberOf(t *testing.T, c *testcluster.Cluster, i int) raftlock.Member {
	t.Helper()
	members, err := c.Node(c.Leader()).Members(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range members {
		if m.Name == name(i) {
			return m
		}
	}
	return raftlock.Member{}
}

// A learner does not vote before it has caught up, and counts for nothing.
func TestLearnerBehind(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		dead := (c.Leader() + 1) % 3
		tr := startTraffic(t, everywhere(t, c, 3, dead)...)
		tr.flows(t, 200)
		replaceHung(t, c, dead)
		for range raced(1, 3) {
			tr.flows(t, 100)
			time.Sleep(10 * time.Second)
			if m := memberOf(t, c, dead); m.Voter || m.NodeID == 0 {
				t.Fatalf("what has no log yet is %+v", m)
			}
		}
		// Nothing can be removed: of the two that vote both are needed.
		for i := range 3 {
			if i == dead {
				continue
			}
			if err := c.Node(c.Leader()).RemoveMember(limit(t, 2*time.Minute), name(i)); err != nil && !errors.Is(err, raftlock.ErrChangeRefused) {
				t.Errorf("remove member %d: %v", i, err)
			} else if err == nil {
				break // the one that stays is a majority of one
			}
		}
		c.MendDisk(dead)
		until(t, "that it votes", func() bool { return memberOf(t, c, dead).Voter })
		tr.flows(t, 100)
		tr.stop(t)
	}, append(grpcOnly(), smallSnapshots())...)
}

// The leader crashes while its snapshot is on the way to a newcomer: the next
// leader sends its own.
func TestLeaderCrashesDuringTransfer(t *testing.T) {
	bubble(t, 5, func(t *testing.T, c *testcluster.Cluster) {
		dead := (c.Leader() + 4) % 5 // not where clients of the leader go
		tr := startTraffic(t, everywhere(t, c, 5, dead)...)
		tr.flows(t, 200)
		replaceHung(t, c, dead)
		tr.flows(t, 100)
		crashed := c.CrashLeader()
		tr.flows(t, 100)
		c.MendDisk(dead)
		<-c.Node(dead).Ready()
		c.Restart(crashed)
		votes(t, c, 5)
		tr.flows(t, 100)
		tr.stop(t)
	}, append(grpcOnly(), smallSnapshots())...)
}

// A newcomer crashes before its first snapshot, and after it.
func TestNewcomerCrashes(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		dead := (c.Leader() + 1) % 3
		tr := startTraffic(t, everywhere(t, c, 3, dead)...)
		tr.flows(t, 200)
		replaceHung(t, c, dead)
		for range 2 { // before
			time.Sleep(time.Second)
			c.Crash(dead)
			tr.flows(t, 100)
			c.Restart(dead)
		}
		c.MendDisk(dead)
		votes(t, c, 3)
		<-c.Node(dead).Ready()
		for range 2 { // after
			c.Crash(dead)
			tr.flows(t, 100)
			c.Restart(dead)
			<-c.Node(dead).Ready()
			tr.flows(t, 100)
		}
		tr.stop(t)
	}, append(grpcOnly(), smallSnapshots())...)
}

// Newcomers that crash at any moment of their way in get in.
func TestNewcomerCrashesAnyTime(t *testing.T) {
	for crash := range tries(12, 60) {
		bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
			churn(t, c.Client(), 60)
			added := c.Add()
			for range 3 {
				time.Sleep(time.Duration(crash) * beat / 4)
				c.Crash(added)
				c.Restart(added)
			}
			<-c.Node(added).Ready()
			votes(t, c, 4)
			give(t, c.ClientOn(added), hold(t, c.ClientOn(added), "lock", "owner"))
		}, smallSnapshots())
	}
}

// Changes that are asked for together, everywhere, come about one after the other.
func TestChangesTogether(t *testing.T) {
	bubble(t, 5, func(t *testing.T, c *testcluster.Cluster) {
		tr := startTraffic(t, everywhere(t, c, 5)...)
		tr.flows(t, 50)
		leaver := follower(c)
		errs := make(chan error, 10)
		for i := range 5 {
			if i != leaver {
				go func() { errs <- c.Node(i).AddMember(limit(t, time.Minute), "added", "mem://added") }()
				go func() { errs <- c.Node(i).AddMember(limit(t, time.Minute), name(5+i), "mem://"+name(5+i)) }()
			}
		}
		go func() { errs <- c.Node(c.Leader()).RemoveMember(limit(t, time.Minute), name(leaver)) }()
		for range 9 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		if names, voters := memberList(t, c.Node(c.Leader())); len(names) != 4+1+4 || voters != 4 {
			t.Errorf("the members are %v, of which %d vote", names, voters)
		}
		tr.flows(t, 50)
		tr.stop(t)
	}, grpcOnly()...)
}

// All members stop and start again after changes, on the lists that they were
// first started with.
func TestRestartAfterChanges(t *testing.T) {
	snapshotSizes(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		held := hold(t, c.Client(), "held", "owner")
		churn(t, c.Client(), 50)
		c.Add()
		votes(t, c, 4)
		c.Add()
		votes(t, c, 5)
		gone := []int{0, 1}
		for _, i := range gone {
			if err := c.Node(c.Leader()).RemoveMember(limit(t, time.Minute), name(i)); err != nil {
				t.Fatal(err)
			}
			c.Leader()
		}
		for round := range 3 {
			for i := range 5 {
				if round == 0 || !slices.Contains(gone, i) {
					c.Crash(i)
				}
			}
			time.Sleep(time.Hour)
			for i := 2; i < 5; i++ {
				c.Restart(i)
			}
			votes(t, c, 3)
			if info := look(t, c.Client(), "held"); info.Version != held.Version {
				t.Errorf("round %d: the lock from before: %+v", round, info)
			}
			churn(t, c.Client(), 50)
		}
		for _, i := range gone {
			c.Restart(i)
			if err := over(t, c.Node(i)); !errors.Is(err, raftlock.ErrRemoved) {
				t.Errorf("member %d has ended with %v", i, err)
			}
		}
	})
}

// A member that was down during changes hears of them when it is back: all that
// were there when it left may be gone by then but one.
func TestAwayDuringChanges(t *testing.T) {
	snapshotSizes(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		away := follower(c)
		c.Crash(away)
		churn(t, c.Client(), 50)
		for size := 4; size <= 5; size++ {
			added := c.Add()
			<-c.Node(added).Ready()
			until(t, "that it votes", func() bool { return memberOf(t, c, added).Voter })
		}
		first := (away + 1) % 3
		if err := c.Node(c.Leader()).RemoveMember(limit(t, time.Minute), name(first)); err != nil {
			t.Fatal(err)
		}
		churn(t, c.Client(), 50)
		c.Restart(away)
		<-c.Node(away).Ready()
		votes(t, c, 4)
		if err := c.Node(away).TransferLeadership(limit(t, time.Minute), name(away)); err != nil {
			t.Fatal(err)
		}
		churn(t, c.ClientOn(away), 10)
	})
}

// A name that was removed may be added again, and is another member then.
func TestNameComesBack(t *testing.T) {
	snapshotSizes(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		tr := startTraffic(t, everywhere(t, c, 3)...)
		for round := range 3 {
			tr.flows(t, 50)
			gone := (c.Leader() + 1) % 3
			before := memberOf(t, c, gone)
			old := c.KeepDisk(gone)
			if err := c.Node(c.Leader()).RemoveMember(limit(t, time.Minute), name(gone)); err != nil {
				t.Fatal(err)
			}
			if err := over(t, c.Node(gone)); !errors.Is(err, raftlock.ErrRemoved) {
				t.Fatalf("it has ended with %v", err)
			}
			tr.flows(t, 50)
			if err := c.Node(c.Leader()).AddMember(limit(t, time.Minute), name(gone), "mem://"+name(gone)); err != nil {
				t.Fatal(err)
			}
			if round == 1 { // the place is not for the one who had it
				old()
				c.Restart(gone)
				if err := over(t, c.Node(gone)); !errors.Is(err, raftlock.ErrRemoved) {
					t.Fatalf("the old one has ended with %v", err)
				}
			}
			c.LoseDisk(gone)
			c.Restart(gone)
			<-c.Node(gone).Ready()
			votes(t, c, 3)
			if after := memberOf(t, c, gone); after.NodeID == before.NodeID {
				t.Errorf("%+v has come back as %+v", before, after)
			}
		}
		tr.stop(t)
	})
}

// A removed member that comes back late hears of it from members that it does not
// know: all those that it knew have been replaced.
func TestRemovedAndOthersReplaced(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		gone := follower(c)
		c.Crash(gone)
		if err := c.Node(c.Leader()).RemoveMember(limit(t, time.Minute), name(gone)); err != nil {
			t.Fatal(err)
		}
		c.Add()
		votes(t, c, 3)
		for i := range 3 {
			if i == gone {
				continue
			}
			c.LoseDisk(i)
			if err := c.Node(c.Leader()).ReplaceMember(limit(t, time.Minute), name(i)); err != nil {
				t.Fatal(err)
			}
			c.Restart(i)
			votes(t, c, 3)
		}
		c.Restart(gone)
		if err := over(t, c.Node(gone)); !errors.Is(err, raftlock.ErrRemoved) {
			t.Errorf("it has ended with %v", err)
		}
	})
}

// A member that was away comes back to a leader that its log does not know: from
// that one it learns who all of them are, also when none is left that it knows.
func TestStrangersLead(t *testing.T) {
	for _, left := range []int{2, 0} {
		snapshotSizes(t, 3, func(t *testing.T, c *testcluster.Cluster) {
			away := follower(c)
			c.Crash(away)
			for range 2 {
				added := c.Add()
				until(t, "that it votes", func() bool { return memberOf(t, c, added).Voter })
			}
			if err := c.Node(c.Leader()).TransferLeadership(limit(t, time.Minute), name(3)); err != nil {
				t.Fatal(err)
			}
			for i := range 3 {
				if i == away || left > 0 {
					continue
				}
				if err := c.Node(3).RemoveMember(limit(t, time.Minute), name(i)); err != nil {
					t.Fatal(err)
				}
			}
			churn(t, c.ClientOn(3), 50)
			c.Restart(away)
			until(t, "that it is ready", func() bool {
				return raftStatus(t, c, away).LastApplied+10 > raftStatus(t, c, 3).LastApplied
			})
			votes(t, c, 3+left)
			if got := c.Leader(); got != 3 {
				t.Errorf("member %d leads", got)
			}
			give(t, c.ClientOn(away), hold(t, c.ClientOn(away), "lock", "owner"))
		})
	}
}

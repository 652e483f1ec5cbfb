package testcluster_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/testcluster"
)

// Members come, go, crash, lose their disks and their leader in any order, as
// long as a majority is left, with clients at work all the while. New's cleanup
// compares the tables and the members at the end.
func TestChangesAtRandom(t *testing.T) {
	t.Parallel() // with the other long ones
	for range tries(raced(2, 4), 15) {
		seed := rand.Uint64()
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) { newGardener(t, c, seed).work(tries(raced(25, 40), 120)) }, smallSnapshots())
		})
	}
}

// gardener changes a cluster as an operator would, in bad times.
type gardener struct {
	t       *testing.T
	c       *testcluster.Cluster
	dice    *rand.Rand
	traffic *traffic
	members []int // those that belong to the cluster
	down    int   // one of them, or −1
	empty   bool  // that one has lost its disk, and nobody can tell it when it is removed
	removed []int
	added   int
}

func newGardener(t *testing.T, c *testcluster.Cluster, seed uint64) *gardener {
	return &gardener{
		t: t, c: c, dice: rand.New(rand.NewPCG(seed, 0)), traffic: startTraffic(t, c.ClientOn(0), c.ClientOn(1), c.ClientOn(2)),
		members: []int{0, 1, 2}, down: -1,
	}
}

func (g *gardener) work(steps int) {
	for range steps {
		time.Sleep(time.Duration(g.dice.Int64N(int64(300 * time.Millisecond))))
		g.step()
		g.traffic.flows(g.t, 5)
	}
	g.mend()
	g.traffic.flows(g.t, 50)
	g.traffic.stop(g.t)
	for _, i := range g.removed {
		g.c.Restart(i)
		if err := over(g.t, g.c.Node(i)); !errors.Is(err, raftlock.ErrRemoved) {
			g.t.Errorf("removed member %d has ended with %v", i, err)
		}
	}
}

func (g *gardener) step() {
	which := g.members[g.dice.IntN(len(g.members))]
	switch g.dice.IntN(8) {
	case 0:
		if len(g.members) < 6 && g.added < 6 {
			g.added++
			g.members = append(g.members, g.c.Add())
		}
	case 1:
		if len(g.members) > 3 && which != 0 { // one must be left whom those that were removed know
			g.remove(which)
		}
	case 2, 3:
		if g.down < 0 {
			g.c.Crash(which)
			g.down = which
		}
	case 4:
		if g.down < 0 {
			g.c.LoseDisk(which)
			g.down, g.empty = which, true
			g.replace(which)
		}
	case 5, 6:
		g.up()
	case 7:
		g.change(fmt.Sprint("let ", name(which), " lead"), func(n *raftlock.Node) error {
			return n.TransferLeadership(limit(g.t, time.Minute), name(which))
		})
	}
}

// change makes a change at any member; one that is refused for want of others is
// none.
func (g *gardener) change(what string, do func(n *raftlock.Node) error) bool {
	g.t.Helper()
	at := g.members[g.dice.IntN(len(g.members))]
	if at == g.down {
		at = g.c.Leader()
	}
	err := do(g.c.Node(at))
	if err != nil && !errors.Is(err, raftlock.ErrChangeRefused) {
		g.t.Fatalf("%s, asked at %s: %v", what, name(at), err)
	}
	g.t.Logf("%s: %v", what, err)
	return err == nil
}

func (g *gardener) remove(which int) {
	if !g.change("remove "+name(which), func(n *raftlock.Node) error { return n.RemoveMember(limit(g.t, time.Minute), name(which)) }) {
		return
	}
	g.members = slices.DeleteFunc(g.members, func(i int) bool { return i == which })
	away := which == g.down
	if away {
		g.down = -1
	} else if err := over(g.t, g.c.Node(which)); !errors.Is(err, raftlock.ErrRemoved) {
		g.t.Fatalf("removed member %d has ended with %v", which, err)
	}
	if away && !g.empty { // it was never told
		g.removed = append(g.removed, which)
	}
	g.empty = g.empty && !away
}

// replace makes a member's place free; until that can be done it is refused.
func (g *gardener) replace(which int) {
	until(g.t, "that it is replaced", func() bool {
		return g.change("replace "+name(which), func(n *raftlock.Node) error { return n.ReplaceMember(limit(g.t, time.Minute), name(which)) })
	})
}

// up brings the one that is down back; others may go down when it votes.
func (g *gardener) up() {
	if g.down < 0 {
		return
	}
	g.c.Restart(g.down)
	g.mendAll()
}

func (g *gardener) mend() {
	g.up()
	g.mendAll()
}

// mendAll waits until all members are ready and vote.
func (g *gardener) mendAll() {
	g.t.Helper()
	for _, i := range g.members {
		until(g.t, name(i)+" is ready", func() bool {
			select {
			case <-g.c.Node(i).Ready():
				return true
			default:
				return false
			}
		})
	}
	g.down, g.empty = -1, false
	votes(g.t, g.c, len(g.members))
}

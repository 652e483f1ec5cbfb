package testcluster_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/testcluster"
)

// Whatever befalls members, network, disks, clocks and clients at the same time,
// no promise is broken: the cleanup of the cluster judges by what its clients have
// seen, and compares the tables. RAFTLOCK_SEEDS has it try so many seeds.
func TestEveryFaultAtOnce(t *testing.T) {
	seeds := tries(2, 12)
	if n, err := strconv.Atoi(os.Getenv("RAFTLOCK_SEEDS")); err == nil {
		seeds = n
	}
	for range seeds {
		seed := rand.Uint64()
		t.Run(fmt.Sprint(seed), func(t *testing.T) { underFaults(t, seed) })
	}
}

func underFaults(t *testing.T, seed uint64) {
	synctest.Test(t, func(t *testing.T) {
		dice := rand.New(rand.NewPCG(seed, 0))
		size := 3 + 2*dice.IntN(2)
		n := &nemesis{
			c: testcluster.New(t, size, smallSnapshots(), testcluster.WithSeed(seed)), size: size, dice: dice,
			down: map[int]bool{}, paused: map[int]bool{},
		}
		ctx, cancel := context.WithCancel(t.Context())
		var work sync.WaitGroup
		for i := range 6 {
			cl := n.c.ClientOn(i % size)
			n.clients = append(n.clients, cl)
			own := rand.New(rand.NewPCG(seed, uint64(i+1)))
			work.Go(func() { n.worker(ctx, cl, fmt.Sprint("client", i), own) })
		}
		for step := range 120 {
			time.Sleep(time.Duration(dice.Int64N(int64(400 * time.Millisecond))))
			n.strike()
			if step%12 == 11 { // or nothing would be granted that could be broken
				n.relent()
			}
		}
		n.relent()
		n.c.Leader()
		served := n.grants.Load()
		until(t, "that the cluster serves again", func() bool { return n.grants.Load() > served+20 })
		cancel()
		work.Wait()
		t.Logf("%d grants", n.grants.Load())
	})
}

// nemesis is what befalls a cluster.
type nemesis struct {
	c            *testcluster.Cluster
	size         int
	dice         *rand.Rand
	clients      []*testcluster.Client
	down, paused map[int]bool
	grants       atomic.Int64
}

// worker takes, renews, looks at and gives back locks, and takes errors as they come.
func (n *nemesis) worker(ctx context.Context, cl client.Client, name string, dice *rand.Rand) {
	for call := 0; ctx.Err() == nil; call++ {
		lock := fmt.Sprint("lock", dice.IntN(3))
		limit, done := context.WithTimeout(ctx, time.Duration(1+dice.IntN(5))*time.Second)
		res, err := cl.Acquire(limit, &client.AcquireRequest{
			LockID: lock, ClientID: name, RequestID: fmt.Sprint(call), TTL: time.Duration(1+dice.IntN(3)) * time.Second,
			Wait: dice.IntN(3) > 0, WaitTimeout: 4 * time.Second, Priority: int32(dice.IntN(3)),
		})
		if err == nil && res.Acquired {
			n.grants.Add(1)
			n.hold(limit, cl, res.Lock, dice)
		}
		if dice.IntN(3) == 0 {
			_, _ = cl.GetLockInfo(limit, &client.GetLockInfoRequest{LockID: lock, IncludeWaiters: true})
		}
		time.Sleep(time.Duration(dice.Int64N(int64(20 * time.Millisecond))))
		done()
	}
}

func (n *nemesis) hold(ctx context.Context, cl client.Client, lock *client.Lock, dice *rand.Rand) {
	for dice.IntN(2) == 0 {
		time.Sleep(time.Duration(dice.Int64N(int64(100 * time.Millisecond))))
		_, _ = cl.Renew(ctx, &client.RenewRequest{LockID: lock.LockID, ClientID: lock.OwnerID, Version: lock.Version, NewTTL: 2 * time.Second})
	}
	if dice.IntN(8) > 0 { // else it is forgotten, and ends by itself
		_, _ = cl.Release(ctx, releaseOf(lock))
	}
}

// strike does one thing to somebody.
func (n *nemesis) strike() {
	d, c := n.dice, n.c
	i, j := d.IntN(n.size), d.IntN(n.size)
	short := time.Duration(d.Int64N(int64(30 * time.Millisecond)))
	switch d.IntN(18) {
	case 0, 1:
		n.stop(i, c.Crash)
	case 2:
		n.stop(i, c.LoseUnsynced)
	case 3, 4, 5:
		n.restart()
	case 6:
		if !n.down[i] {
			c.Pause(i)
			n.paused[i] = true
		}
	case 7:
		c.Resume(i)
		delete(n.paused, i)
	case 8:
		c.Isolate(i)
	case 9:
		c.Cut(i, j)
	case 10:
		c.Delay(testcluster.Everyone, i, short, short)
	case 11:
		c.Drop(i, j, 0.02)
		c.Duplicate(j, i, 0.02)
		c.Reorder(i, testcluster.Everyone, 0.01, short)
	case 12, 13:
		c.Heal()
	case 14:
		c.DelayDisk(i, short, short)
	case 15:
		c.HangDisk(i)
	case 16:
		c.SkewRate(i, d.Float64()*1000-500)
		c.MendDisk(j)
	case 17:
		cl := n.clients[d.IntN(len(n.clients))]
		[]func(){cl.Cut, cl.DropAnswers, cl.Mend, cl.Mend}[d.IntN(4)]()
	}
}

// stop takes a member down that runs.
func (n *nemesis) stop(i int, how func(int)) {
	if n.down[i] {
		return
	}
	how(i)
	n.down[i] = true
	delete(n.paused, i)
}

func (n *nemesis) restart() {
	for i := range n.size {
		if n.down[i] {
			n.c.MendDisk(i)
			n.c.Restart(i)
			delete(n.down, i)
			return
		}
	}
}

// relent ends all of it.
func (n *nemesis) relent() {
	n.c.Heal()
	for i := range n.size {
		n.c.MendDisk(i)
		n.c.Resume(i)
		n.c.SkewRate(i, 0)
		n.restart()
	}
	for _, cl := range n.clients {
		cl.Mend()
	}
}

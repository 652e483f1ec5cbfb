package testcluster_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/fence"
	"github.com/raftlock/raftlock/history"
	"github.com/raftlock/raftlock/testcluster"
)

// TestSimulation is the whole stack in virtual time: real members, forwarding,
// clients in process and over gRPC, and leases, while everything befalls them that
// package testcluster can do, and their members come and go. What the clients have
// seen is held against all rules of package history, what leases believe against
// who was granted the lock next, and the tables of the members against each other.
// When the faults end, everything must serve again within simRecovers.
//
// RAFTLOCK_SIM_SEEDS is how many seeds it tries, RAFTLOCK_SIM_FOR for how long it
// goes on with new ones, and RAFTLOCK_SIM_SEED the one that it repeats.
//
// A seed fixes what is done to the cluster and asked of it, raft's election time-outs
// and the identities that clients draw, not the ids of its members. It does not fix the order
// in which goroutines run that could run at the same instant, nor the jitter of
// repeats: with one processor, as here, both are nearly the same each time, and a
// failure that does not come back at once does so within a few runs.
func TestSimulation(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	plan, total := simPlan(t), newTally()
	begun, told := time.Now(), time.Now()
	for plan.goesOn(total.seeds, time.Since(begun)) {
		seed := rand.Uint64()
		if plan.seed != nil {
			seed = *plan.seed
		}
		if !t.Run(fmt.Sprint(seed), func(t *testing.T) { simulate(t, seed, total) }) {
			break
		}
		if time.Since(told) > time.Minute {
			told = time.Now()
			t.Logf("after %v: %s", time.Since(begun).Round(time.Second), total.summary())
		}
	}
	t.Log(total)
	if !t.Failed() && plan.seed == nil {
		total.check(t, plan.seeds)
	}
}

// simulation is how much of it is wanted.
type simulation struct {
	seeds int
	seed  *uint64 // the only one
	time  time.Duration
}

func simPlan(t *testing.T) simulation {
	plan := simulation{seeds: tries(2, 6)}
	if text := os.Getenv("RAFTLOCK_SIM_SEEDS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			t.Fatalf("RAFTLOCK_SIM_SEEDS is %q, must be a number of seeds", text)
		}
		plan.seeds = n
	}
	if text := os.Getenv("RAFTLOCK_SIM_FOR"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatalf("RAFTLOCK_SIM_FOR: %v", err)
		}
		plan.time = d
	}
	if text := os.Getenv("RAFTLOCK_SIM_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("RAFTLOCK_SIM_SEED: %v", err)
		}
		plan.seed = &seed
	}
	return plan
}

func (s simulation) goesOn(done int, after time.Duration) bool {
	if s.seed != nil {
		return done < 1
	}
	return done < s.seeds || after < s.time
}

// simRecovers is how long after the last fault every member must serve reads and its
// own process, and every client be granted a lock, in virtual time: an election, a
// snapshot's way, and what a client waits for a line that is cut (5 s) before it makes
// another.
const simRecovers = 10 * time.Second

func simulate(t *testing.T, seed uint64, total *tally) {
	panics := true // a test that does has not failed yet when it cleans up
	t.Cleanup(func() {
		if panics || t.Failed() {
			t.Logf("to repeat it: RAFTLOCK_SIM_SEED=%d go test ./testcluster -run '^TestSimulation$' -count=1 -v", seed)
		}
	})
	cryptotest.SetGlobalRandom(t, seed)
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, seed)
		l.run()
		total.add(l)
	})
	panics = false
}

// lab is one cluster, those who work with it, and what befalls them.
type lab struct {
	t       *testing.T
	c       *testcluster.Cluster
	dice    *rand.Rand
	seed    uint64
	begun   time.Time
	record  *history.Recorder
	guard   fence.Guard // of what the locks protect
	holders *holders
	desks   []*desk
	nemesis *nemesis
	report  *history.Report // in the end
	works   counts
	ended   time.Duration // how long it took
	ops     []history.Op

	ctx    context.Context // ends with the work
	cancel context.CancelFunc
	work   sync.WaitGroup
}

func newLab(t *testing.T, seed uint64) *lab {
	l := &lab{t: t, dice: rand.New(rand.NewPCG(seed, 0)), seed: seed, begun: time.Now()}
	size := 3 + 2*l.dice.IntN(2)
	limits := raftlock.Limits{MinTTL: shortestTTL}
	if l.dice.IntN(2) == 0 { // overload is then easily had
		limits.Pending, limits.LockWaiters = 16, 6
	}
	l.record = history.New()
	t.Cleanup(l.keep) // after that of the cluster, which judges as well
	l.c = testcluster.New(t, size, smallSnapshots(), testcluster.WithSeed(seed), testcluster.WithLimits(limits), testcluster.WithGRPC())
	l.holders = newHolders(l)
	for i := range 6 {
		l.desks = append(l.desks, l.newDesk(fmt.Sprint("desk ", i), i%size, l.dice.IntN(3) == 0))
	}
	l.nemesis = newNemesis(l, size)
	l.ctx, l.cancel = context.WithCancel(t.Context())
	return l
}

func (l *lab) run() {
	for i := range 2 * len(l.desks) {
		w := &worker{lab: l, name: fmt.Sprint("w", i), desk: l.desks[i%len(l.desks)], dice: rand.New(rand.NewPCG(l.seed, uint64(i+1)))}
		l.work.Go(w.run)
	}
	l.work.Go(l.observe)
	l.nemesis.rage()
	l.recover(l.nemesis.relent())
	l.cancel()
	l.nemesis.release()
	l.work.Wait()
	l.judge()
	l.ended = time.Since(l.begun)
}

// observe looks at the locks all the time: what is late, and what stands in a
// queue, is seen in no other way.
func (l *lab) observe() {
	dice := rand.New(rand.NewPCG(l.seed, 100))
	for i := 0; l.ctx.Err() == nil; i++ {
		limit, done := context.WithTimeout(l.ctx, 500*time.Millisecond)
		_, _ = l.desks[dice.IntN(len(l.desks))].GetLockInfo(limit, &client.GetLockInfoRequest{LockID: l.lock(i % labLocks), IncludeWaiters: true})
		done()
		pause(l.ctx, 15*time.Millisecond)
	}
}

// labLocks is how many locks there are at a time. Others take their place every few
// seconds: one call of unknown outcome lets the rules be silent about its lock.
const labLocks = 3

func (l *lab) lock(i int) string {
	return fmt.Sprintf("lock%d-%d", i, time.Since(l.begun)/(4*time.Second))
}

// recover fails the test unless everything works again by then.
func (l *lab) recover(limit time.Time) {
	ctx, cancel := context.WithDeadline(l.ctx, limit)
	defer cancel()
	var work sync.WaitGroup
	for _, i := range l.nemesis.members {
		work.Go(func() {
			if err := l.serves(ctx, i); err != nil {
				l.t.Errorf("member n%d does not serve within %v of the last fault: %v", i+1, simRecovers, err)
			}
		})
	}
	for i, d := range l.desks {
		work.Go(func() {
			if err := l.grants(ctx, d, fmt.Sprint("recovered", i)); err != nil {
				l.t.Errorf("the client of %s is granted nothing within %v of the last fault: %v", d.name, simRecovers, err)
			}
		})
	}
	for _, i := range l.nemesis.gone {
		if l.c.Running(i) == nil {
			l.nemesis.restart(i) // it was down when it was removed, and has not heard of it
		}
		work.Go(func() {
			if err := l.ends(ctx, i); !errors.Is(err, raftlock.ErrRemoved) && !errors.Is(err, testcluster.ErrDiskFails) {
				l.t.Errorf("member n%d was removed, and says within %v of the last fault: %v", i+1, simRecovers, err)
			}
		})
	}
	work.Wait()
}

// ends waits for the end of a member and returns its error.
func (l *lab) ends(ctx context.Context, i int) error {
	r := l.c.Running(i)
	select {
	case <-r.Done():
		return r.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// serves tries until a member serves a read, and grants its own process a lock that it
// takes back.
func (l *lab) serves(ctx context.Context, i int) error {
	err := fmt.Errorf("it is down")
	for try := 0; ctx.Err() == nil; try++ {
		if n := l.c.Running(i); n != nil {
			fault := l.usesOnce(ctx, n.Client(), fmt.Sprint("served by ", memberName(i)), try)
			if fault == nil {
				return nil
			}
			if ctx.Err() == nil || try == 0 { // the end of the time says less
				err = fault
			}
		}
		pause(ctx, 10*time.Millisecond)
	}
	return err
}

func (l *lab) usesOnce(ctx context.Context, local client.Client, lock string, try int) error {
	if _, err := local.GetLocks(ctx, &client.GetLocksRequest{}); err != nil {
		return fmt.Errorf("list: %w", err)
	}
	own := l.record.Client(local, lock)
	res, err := own.Acquire(ctx, &client.AcquireRequest{LockID: lock, ClientID: lock, RequestID: fmt.Sprint(try), TTL: time.Second, Wait: true})
	if err != nil {
		return fmt.Errorf("acquire: %w", err)
	}
	if _, err = own.Release(ctx, releaseOf(res.Lock)); err != nil {
		return fmt.Errorf("release: %w", err)
	}
	return nil
}

// grants tries until a client is granted a lock.
func (l *lab) grants(ctx context.Context, d *desk, lock string) error {
	var err error
	for try := 0; ctx.Err() == nil; try++ {
		req := &client.AcquireRequest{LockID: lock, ClientID: lock, RequestID: fmt.Sprint(try), TTL: time.Second, Wait: true, WaitTimeout: simRecovers}
		var res *client.AcquireResult
		if res, err = d.Acquire(ctx, req); err == nil && res.Acquired {
			return nil
		}
		pause(ctx, 10*time.Millisecond)
	}
	return err
}

// judge holds what was seen against the rules. Time is virtual: what is late is
// late whatever machine this is.
func (l *lab) judge() {
	h := l.record.History()
	l.ops = h.Ops
	l.report = h.Check(history.Bounds{Late: simLate})
	for _, v := range l.report.Violations {
		l.t.Errorf("%v: %s", v.Rule, v.Text)
	}
}

// simLate is how much later than promised something may be while the cluster is
// seen to serve: slow disks and networks add to the 20 ms.
const simLate = 500 * time.Millisecond

// keep writes the history where a test that failed is told, at whatever it failed.
func (l *lab) keep() {
	if !l.t.Failed() {
		return
	}
	path := l.t.ArtifactDir() + "/history.jsonl"
	f, err := os.Create(path)
	if err == nil {
		_, err = l.record.WriteTo(f)
	}
	if err == nil {
		err = f.Close()
	}
	l.t.Logf("its history: %s (%v)", path, err)
}

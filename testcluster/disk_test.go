package testcluster_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/testcluster"
)

const (
	// election is the election time-out of the cluster, ten ticks.
	election = 10 * tick
	// hang is how long a disk hangs.
	hang = 60 * time.Second
)

// Sixty seconds without the leader's disk: others serve after three elections,
// nothing that was acknowledged is lost, no token is given twice, callers at the
// member itself get through, and when its disk answers it goes on as if it had
// been slow. New's cleanup compares the tables.
func TestHangingDiskOfTheLeader(t *testing.T) {
	for _, size := range []int{3, 5}[:raced(1, 2)] {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			bubble(t, size, testHangingDiskOfTheLeader)
		})
	}
}

func testHangingDiskOfTheLeader(t *testing.T, c *testcluster.Cluster) {
	hung := c.Leader()
	here, there := c.ClientOn(hung), c.ClientOn((hung+1)%3)
	kept := hold(t, here, "kept", "me")
	load := startLoad(t.Context(), here, there)
	time.Sleep(time.Second)

	c.HangDisk(hung)
	begun := time.Now()
	first := take(t, there, &client.AcquireRequest{LockID: "first", ClientID: "me", RequestID: "r", TTL: longTTL})
	within(t, "the time without service", time.Since(begun), 0, 3*2*election)
	if now := c.Leader(); now == hung {
		t.Error("the member with the hanging disk leads on")
	}
	if first.Version <= kept.Version {
		t.Errorf("token %d after %d", first.Version, kept.Version)
	}
	begun = time.Now()
	give(t, here, hold(t, here, "here", "me"))
	within(t, "an acquire and release at the member itself", time.Since(begun), 0, time.Second)
	health, err := here.Health(t.Context(), &client.HealthRequest{})
	if !errors.Is(err, client.ErrUnavailable) || health.Status != client.HealthStatusNotServing {
		t.Errorf("the health of the member without a disk: %+v, %v", health, err)
	}
	if _, err := here.GetLockInfo(t.Context(), &client.GetLockInfoRequest{LockID: "kept"}); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("a read at the member without a disk: %v", err)
	}
	leader := c.Leader()
	time.Sleep(hang / time.Duration(raced(3, 1)))
	if c.Leader() != leader {
		t.Error("the leadership has moved again")
	}
	load.stop(t)

	c.MendDisk(hung)
	time.Sleep(time.Second)
	if info := look(t, here, "kept"); info.Version != kept.Version || info.OwnerID != "me" {
		t.Errorf("the lock from before: %+v", info)
	}
	if health, err := here.Health(t.Context(), &client.HealthRequest{}); err != nil {
		t.Errorf("the health afterwards: %+v, %v", health, err)
	}
	if c.Leader() != leader {
		t.Error("the mending has moved the leadership")
	}
}

// load is callers that take and give locks, and what tokens they got.
type load struct {
	cancel context.CancelFunc
	work   sync.WaitGroup
	mu     struct {
		sync.Mutex
		tokens map[int64]int
		errs   []error
	}
}

func startLoad(ctx context.Context, clients ...client.Client) *load {
	l := &load{}
	l.mu.tokens = map[int64]int{}
	ctx, l.cancel = context.WithCancel(ctx)
	for i, cl := range clients {
		for j := range 4 {
			l.work.Go(func() { l.run(ctx, cl, fmt.Sprint("lock", j), fmt.Sprint("client", i)) })
		}
	}
	return l
}

// run takes one lock again and again; what others hold it waits for.
func (l *load) run(ctx context.Context, cl client.Client, lock, id string) {
	for n := 0; ctx.Err() == nil; n++ {
		res, err := cl.Acquire(ctx, &client.AcquireRequest{
			LockID: lock, ClientID: id, RequestID: fmt.Sprint(n), Wait: true, WaitTimeout: time.Hour, TTL: time.Minute,
		})
		if err == nil && time.Until(res.Lock.ExpiresAt) < 50*time.Second {
			err = fmt.Errorf("a minute's grant has %v left", time.Until(res.Lock.ExpiresAt))
		}
		if err == nil {
			l.note(res.Lock.Version, nil)
			_, err = cl.Release(ctx, releaseOf(res.Lock))
		}
		if ctx.Err() == nil && err != nil {
			l.note(0, fmt.Errorf("%s of %s: %w", id, lock, err))
		}
		pause(ctx, 500*time.Millisecond)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (l *load) note(token int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.mu.errs = append(l.mu.errs, err)
		return
	}
	l.mu.tokens[token]++
}

// stop ends the load, and fails the test for what it saw.
func (l *load) stop(t *testing.T) {
	t.Helper()
	l.cancel()
	l.work.Wait()
	for token, n := range l.mu.tokens {
		if n > 1 {
			t.Errorf("token %d was given %d times", token, n)
		}
	}
	for _, err := range l.mu.errs {
		t.Error(err)
	}
	if len(l.mu.tokens) == 0 {
		t.Error("the load has got nothing")
	}
	t.Logf("%d grants", len(l.mu.tokens))
}

// With one of three down, the hanging disk is needed: nothing goes on before it
// answers, and everything does then.
func TestHangingDiskThatIsNeeded(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		hung := c.Leader()
		down, up := (hung+1)%3, (hung+2)%3
		kept := hold(t, c.Client(), "kept", "me")
		c.Crash(down)
		c.HangDisk(hung)
		cl := c.ClientOn(up)
		cl.SetRetryPolicy(noRetries())
		if _, err := cl.Acquire(t.Context(), &client.AcquireRequest{LockID: "a", ClientID: "me", TTL: longTTL}); !errors.Is(err, client.ErrUnavailable) {
			t.Errorf("without a majority: %v", err)
		}
		time.Sleep(hang)
		c.MendDisk(hung)
		begun := time.Now()
		serving(t, cl)
		within(t, "the time until service", time.Since(begun), 0, 3*2*election)
		if info := look(t, cl, "kept"); info.Version != kept.Version {
			t.Errorf("the lock from before: %+v", info)
		}
		c.Restart(down)
		time.Sleep(time.Second)
	})
}

// A follower whose disk hangs harms nobody: no call takes longer.
func TestHangingDiskOfAFollower(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		leader := c.Leader()
		cl := c.Client()
		c.HangDisk((leader + 1) % 3)
		for range 1000 {
			begun := time.Now()
			give(t, cl, hold(t, cl, "a", "me"))
			look(t, cl, "a")
			within(t, "three calls", time.Since(begun), 0, 2*tick)
			time.Sleep(hang / 1000)
		}
		if c.Leader() != leader {
			t.Error("the leadership has moved")
		}
		c.MendDisk((leader + 1) % 3)
		time.Sleep(time.Second)
	})
}

// A disk that fails ends its member, which says why; the cluster goes on, and
// the member comes back on a disk that works.
func TestFailingDisk(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		failing := c.Leader()
		kept := hold(t, c.Client(), "kept", "me")
		c.FailDisk(failing)
		node := c.Node(failing)
		give(t, c.ClientOn((failing+1)%3), hold(t, c.ClientOn((failing+1)%3), "a", "me"))
		<-node.Done()
		if err := node.Err(); err == nil {
			t.Error("the member has ended without an error")
		}
		give(t, c.Client(), hold(t, c.Client(), "a", "me"))
		c.MendDisk(failing)
		c.Restart(failing)
		<-c.Node(failing).Ready()
		if info := look(t, c.ClientOn(failing), "kept"); info.Version != kept.Version {
			t.Errorf("the lock from before: %+v", info)
		}
	})
}

// A client whose member has ended, and cannot let go of its disk because that hangs,
// goes on at another one.
func TestCallAtAMemberThatCannotEnd(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		stuck := follower(c)
		cl := c.ClientOn(stuck)
		c.HangDisk(stuck)
		held := hold(t, c.Client(), "a", "holder") // so that the disk hangs over something
		if err := c.Node(c.Leader()).RemoveMember(limit(t, time.Minute), name(stuck)); err != nil {
			t.Fatal(err)
		}
		until(t, "the member ends", func() bool { return c.Node(stuck).Err() != nil })
		if info := look(t, cl, "a"); info.Version != held.Version {
			t.Errorf("the other member shows %+v", info)
		}
		select {
		case <-c.Node(stuck).Done():
			t.Error("the member has let go of its disk")
		default:
		}
	})
}

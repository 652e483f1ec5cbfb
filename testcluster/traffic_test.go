package testcluster_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/testcluster"
)

// traffic is clients that take, renew, look at and release locks that they
// contend for, and what is seen of them: whatever happens to the cluster, no call
// fails, nobody is where another one is, and tokens grow.
type traffic struct {
	cancel context.CancelFunc
	work   sync.WaitGroup
	mu     struct {
		sync.Mutex
		inside map[string]string // who holds a lock, by the lock
		tokens map[string]int64  // the last one, by the lock
		grants int
		faults []error
	}
}

const trafficLocks = 3

// startTraffic starts two callers with each of the clients.
func startTraffic(t *testing.T, clients ...client.Client) *traffic {
	tr := &traffic{}
	tr.mu.inside, tr.mu.tokens = map[string]string{}, map[string]int64{}
	var ctx context.Context
	ctx, tr.cancel = context.WithCancel(t.Context())
	for i, cl := range clients {
		for j := range 2 {
			tr.work.Go(func() { tr.call(ctx, cl, fmt.Sprintf("client%d-%d", i, j), i+j) })
		}
	}
	return tr
}

// everywhere are clients on every member but some, and one of the network, which
// knows them all.
func everywhere(t *testing.T, c *testcluster.Cluster, size int, but ...int) []client.Client {
	t.Helper()
	all := []client.Client{}
	endpoints := []int{}
	for i := range size {
		endpoints = append(endpoints, i)
		if !slices.Contains(but, i) {
			all = append(all, c.ClientOn(i))
		}
	}
	return append(all, remote(t, c, nil, endpoints...))
}

func (tr *traffic) call(ctx context.Context, cl client.Client, id string, n int) {
	for ; ctx.Err() == nil; n++ {
		lock := fmt.Sprint("lock", n%trafficLocks)
		if err := tr.use(ctx, cl, lock, id, n); err != nil && ctx.Err() == nil {
			tr.fault("%s with %s: %w", id, lock, err)
		}
		pause(ctx, 20*time.Millisecond)
	}
}

// use takes a lock, is in it for a while, and gives it back.
func (tr *traffic) use(ctx context.Context, cl client.Client, lock, id string, n int) error {
	res, err := cl.Acquire(ctx, &client.AcquireRequest{
		LockID: lock, ClientID: id, RequestID: fmt.Sprint(n), TTL: time.Minute, Wait: true, WaitTimeout: time.Hour,
	})
	if err != nil {
		return fmt.Errorf("acquire: %w", err)
	}
	l := res.Lock
	tr.enter(lock, id, l.Version)
	pause(ctx, 10*time.Millisecond)
	renewed, err := cl.Renew(ctx, &client.RenewRequest{LockID: lock, ClientID: id, Version: l.Version, NewTTL: 2 * time.Minute})
	if err == nil && renewed.Lock.Version != l.Version {
		err = fmt.Errorf("token %d is %d afterwards", l.Version, renewed.Lock.Version)
	}
	if err != nil {
		return fmt.Errorf("renew: %w", err)
	}
	info, err := cl.GetLockInfo(ctx, &client.GetLockInfoRequest{LockID: lock})
	if err == nil && (info.OwnerID != id || info.Version != l.Version) {
		err = fmt.Errorf("%s with token %d holds it instead", info.OwnerID, info.Version)
	}
	if err != nil {
		return fmt.Errorf("look: %w", err)
	}
	tr.leave(lock)
	if _, err := cl.Release(ctx, releaseOf(l)); err != nil {
		return fmt.Errorf("release: %w", err)
	}
	return nil
}

func (tr *traffic) enter(lock, id string, token int64) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if other := tr.mu.inside[lock]; other != "" {
		tr.mu.faults = append(tr.mu.faults, fmt.Errorf("%s is in %s together with %s", id, lock, other))
	}
	if last := tr.mu.tokens[lock]; token <= last {
		tr.mu.faults = append(tr.mu.faults, fmt.Errorf("token %d after %d", token, last))
	}
	tr.mu.inside[lock], tr.mu.tokens[lock] = id, token
	tr.mu.grants++
}

func (tr *traffic) leave(lock string) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	delete(tr.mu.inside, lock)
}

func (tr *traffic) fault(format string, args ...any) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.mu.faults = append(tr.mu.faults, fmt.Errorf(format, args...))
}

func (tr *traffic) granted() int {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.mu.grants
}

func (tr *traffic) failed() bool {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return len(tr.mu.faults) > 0
}

// flows waits until so many more grants have been made.
func (tr *traffic) flows(t *testing.T, more int) {
	t.Helper()
	want := tr.granted() + raced((more+3)/4, more)
	until(t, "that the traffic goes on", func() bool {
		if tr.failed() {
			tr.stop(t)
			t.FailNow()
		}
		return tr.granted() >= want
	})
}

// stop ends the traffic, and fails the test for what was seen.
func (tr *traffic) stop(t *testing.T) {
	t.Helper()
	tr.cancel()
	tr.work.Wait()
	for _, err := range tr.mu.faults[:min(len(tr.mu.faults), 10)] {
		t.Error(err)
	}
	t.Logf("%d grants, %d faults", tr.mu.grants, len(tr.mu.faults))
}

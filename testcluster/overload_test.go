package testcluster_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/testcluster"
)

// stormLimits are the limits of a cluster, scaled down so that a test can reach
// all of them.
func stormLimits() raftlock.Limits {
	return raftlock.Limits{Pending: 256, LockWaiters: 100, Waiters: 1000, Locks: 500}
}

// A storm of acquires, waits and listings beyond every limit is refused with the
// errors that say so, at the leader and at followers. Meanwhile those who hold
// locks renew them in time and give them back; memory stays bounded; and when it
// is over the cluster is at once as before.
func TestStorm(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		var clients []client.Client
		for i := range 3 {
			cl := c.ClientOn(i)
			cl.SetRetryPolicy(noRetries())
			clients = append(clients, cl)
		}
		before := settled()
		ctx, stop := context.WithCancel(t.Context())
		var holders, callers sync.WaitGroup
		var renewals atomic.Int64
		for i := range 30 {
			holders.Go(func() { renewUntil(ctx, t, clients[i%3], fmt.Sprint("kept", i), &renewals) })
		}
		time.Sleep(100 * time.Millisecond) // they hold their locks
		s := &storm{refused: map[string]int{}}
		for i := range tries(raced(1200, 2000), 5000) {
			callers.Go(func() { s.call(ctx, t, clients[i%3], i) })
		}
		peak := uint64(0)
		for range 30 {
			time.Sleep(100 * time.Millisecond)
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapInuse+m.StackInuse)
		}
		stop()
		holders.Wait()
		callers.Wait()
		t.Logf("%d renewals; refused: %v; %d MiB at the peak, %d before", renewals.Load(), s.refused, peak>>20, before.memory>>20)
		for _, want := range []string{"rate limit", "queue is full"} {
			if s.refused[want] == 0 {
				t.Errorf("nothing was refused for %q", want)
			}
		}
		if renewals.Load() < 30*5 {
			t.Errorf("only %d renewals", renewals.Load())
		}
		if peak > before.memory+250<<20 { // with what the cleanup wants to know of the calls
			t.Errorf("memory grew from %d to %d MiB", before.memory>>20, peak>>20)
		}
		begun := time.Now()
		for i, cl := range clients {
			give(t, cl, hold(t, cl, fmt.Sprint("kept", i), "other"))
		}
		within(t, "three pairs after the storm", time.Since(begun), 0, 5*tick)
		time.Sleep(3 * time.Minute) // the waits that were left, the freed locks, the remembered requests
		after := settled()
		if after.goroutines > before.goroutines+10 { // those of other tests may come and go
			t.Errorf("%d goroutines, %d before the storm", after.goroutines, before.goroutines)
		}
		if after.memory > before.memory+100<<20 { // most of it is the log
			t.Errorf("memory is %d MiB after the storm, %d before", after.memory>>20, before.memory>>20)
		}
	}, testcluster.WithLimits(stormLimits()))
}

type usage struct {
	goroutines int
	memory     uint64
}

// settled is what is in use when nothing is going on.
func settled() usage {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return usage{runtime.NumGoroutine(), m.HeapInuse + m.StackInuse}
}

// renewUntil holds a lock by renewing it, which must succeed every time.
func renewUntil(ctx context.Context, t *testing.T, cl client.Client, lock string, renewals *atomic.Int64) {
	ttl := time.Second
	grant, err := cl.Acquire(t.Context(), &client.AcquireRequest{LockID: lock, ClientID: "holder", TTL: ttl})
	if err != nil {
		t.Errorf("acquire %s: %v", lock, err)
		return
	}
	for ctx.Err() == nil {
		pause(ctx, ttl/3)
		_, err := cl.Renew(t.Context(), &client.RenewRequest{LockID: lock, ClientID: "holder", Version: grant.Lock.Version, NewTTL: ttl})
		if err != nil {
			t.Errorf("renew %s: %v", lock, err)
			return
		}
		renewals.Add(1)
	}
	if _, err := cl.Release(t.Context(), releaseOf(grant.Lock)); err != nil {
		t.Errorf("release %s: %v", lock, err)
	}
}

// storm is what its callers saw.
type storm struct {
	mu      sync.Mutex
	refused map[string]int
}

// call makes calls of all kinds until ctx ends.
func (s *storm) call(ctx context.Context, t *testing.T, cl client.Client, i int) {
	heavy := map[string]string{"k": strings.Repeat("v", 256)}
	id := fmt.Sprint("caller", i)
	for n := 0; ctx.Err() == nil && n < raced(5, 20); n++ {
		call, cancel := context.WithTimeout(ctx, time.Duration(50+rand.IntN(500))*time.Millisecond)
		req := &client.AcquireRequest{
			LockID: fmt.Sprint("storm", rand.IntN(20)), ClientID: id, RequestID: fmt.Sprint(n), Wait: i%2 == 0, Metadata: heavy, TTL: time.Minute,
		}
		var err error
		switch {
		case i%100 == 1:
			_, err = cl.GetLocks(call, &client.GetLocksRequest{Filter: &client.LockFilter{OwnerIDPattern: "c*"}})
		case i%10 == 3:
			_, err = cl.EnqueueWaiter(call, &client.EnqueueWaiterRequest{LockID: "storm1", ClientID: id, Timeout: time.Minute})
		default:
			var res *client.AcquireResult
			if res, err = cl.Acquire(call, req); err == nil {
				_, err = cl.Release(ctx, releaseOf(res.Lock))
			}
		}
		s.note(t, err)
		<-call.Done()
		cancel()
	}
}

// note counts how a call ended, which must be in one of the ways that overload,
// contention and a caller's own end have.
func (s *storm) note(t *testing.T, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
	case errors.Is(err, client.ErrRateLimit):
		s.refused["rate limit"]++
	case errors.Is(err, client.ErrWaitQueueFull):
		s.refused["queue is full"]++
	case errors.Is(err, client.ErrLockHeld):
		s.refused["held"]++
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		s.refused["gave up"]++
	default:
		t.Errorf("a call ended with %v", err)
	}
}

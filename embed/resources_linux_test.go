package embed_test

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/embed"
)

// use is what a process has in use.
type use struct {
	goroutines, files int
	heap              uint64
}

func inUse(tb testing.TB) use {
	tb.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		tb.Fatal(err)
	}
	runtime.GC()
	runtime.GC() // what a finalizer or a pool kept goes with the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return use{runtime.NumGoroutine(), len(entries), m.HeapAlloc}
}

// What a cluster uses under load, of goroutines, descriptors and memory, it gives
// back: a second load leaves no more than the first did, but for its log.
func TestResourcesComeBack(t *testing.T) { // not parallel: it counts what the process has
	s := newSite(t, "n1", "n2", "n3")
	members := s.start("n1", "n2", "n3")
	burden(t, members, "first")
	var first use
	eventually(t, "the first load is over", func() bool { // until nothing changes any more
		last := first
		first = inUse(t)
		return last.goroutines == first.goroutines && last.files == first.files
	})
	for _, round := range []string{"second", "third"} {
		burden(t, members, round)
	}
	var now use
	eventually(t, fmt.Sprintf("as much in use as before: %+v", first), func() bool {
		now = inUse(t)
		return now.goroutines <= first.goroutines && now.files <= first.files
	})
	// Three members keep the log in memory until it is compacted.
	if limit := first.heap + 24<<20; now.heap > limit {
		t.Errorf("the heap is %d KiB, %d after the first load", now.heap>>10, first.heap>>10)
	}
	t.Logf("after one load %+v, after three %+v", first, now)
}

// burden makes calls of all kinds at all members: pairs, waits, and waits that
// are given up.
func burden(t *testing.T, members map[string]*embed.Member, round string) {
	t.Helper()
	var callers sync.WaitGroup
	for name, m := range members {
		for i := range 50 {
			callers.Go(func() {
				c := m.Client()
				id := fmt.Sprint(name, "-", i)
				for n := range 5 {
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+i%7*10)*time.Millisecond)
					if i%2 == 0 {
						cancel()
						ctx, cancel = context.WithTimeout(t.Context(), patience)
					}
					req := &client.AcquireRequest{LockID: fmt.Sprint("lock", i%10), ClientID: id, RequestID: fmt.Sprint(round, n), Wait: true, TTL: 5 * time.Second}
					got, err := c.Acquire(ctx, req)
					if err == nil {
						_, err = c.Release(t.Context(), &client.ReleaseRequest{LockID: req.LockID, ClientID: id, Version: got.Lock.Version})
					}
					if err != nil && ctx.Err() == nil {
						t.Errorf("%s: %v", id, err)
					}
					cancel()
				}
			})
		}
	}
	callers.Wait()
}

package embed_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/embed"
	"github.com/raftlock/raftlock/internal/walstore"
)

// use is what a process has in use, and its members on their disks.
type use struct {
	goroutines, files int // files but for the log's segments, which count as disk
	heap              uint64
	disk              int64 // bytes that are allocated, whatever the files' lengths say
}

func inUse(tb testing.TB, dir string) use {
	tb.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		tb.Fatal(err)
	}
	files := 0
	for _, entry := range entries {
		if path, _ := os.Readlink("/proc/self/fd/" + entry.Name()); filepath.Base(filepath.Dir(path)) != "wal" {
			files++
		}
	}
	runtime.GC()
	runtime.GC() // what a finalizer or a pool kept goes with the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return use{runtime.NumGoroutine(), files, m.HeapAlloc, onDisk(tb, dir, "")}
}

// onDisk is how much the files whose names end so take.
func onDisk(tb testing.TB, dir, suffix string) (bytes int64) {
	tb.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed since it was listed
		}
		if err != nil || !strings.HasSuffix(path, suffix) {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			bytes += info.Sys().(*syscall.Stat_t).Blocks * 512
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return bytes
}

// What a cluster uses under load, of goroutines, descriptors, memory and disk, it
// gives back: after more of the load it has no more in use than after the first.
func TestResourcesComeBack(t *testing.T) { // not parallel: it counts what the process has
	const segment, logged = 64 << 10, 16 << 10
	walstore.UseSegmentSize(segment)
	t.Cleanup(func() { walstore.UseSegmentSize(16 << 20) })
	s := newSite(t, "n1", "n2", "n3")
	s.adjust = func(cfg *embed.Config) {
		cfg.Snapshots = raftlock.Snapshots{MinLogBytes: logged, KeepLogBytes: logged}
	}
	members := s.start("n1", "n2", "n3")
	burden(t, members, "first")
	var first use
	eventually(t, "the first load is over", func() bool { // until nothing changes any more
		last := first
		first = inUse(t, s.dir)
		return last.goroutines == first.goroutines && last.files == first.files && last.disk == first.disk
	})
	rounds := 12
	if testing.Short() {
		rounds = 4
	}
	for round := range rounds {
		burden(t, members, fmt.Sprint("more", round))
	}
	var now use
	eventually(t, fmt.Sprintf("as much in use as before: %+v", first), func() bool {
		now = inUse(t, s.dir)
		return now.goroutines <= first.goroutines && now.files <= first.files
	})
	// A member keeps two snapshots, and what was logged since the older: four
	// times a snapshot and as much again, in segments of which one is not full and
	// one in reserve. Its snapshot remembers the calls that were given up.
	snapshots := onDisk(t, s.dir, ".snap")
	if limit := 5*snapshots + 3*(2*logged+4*segment); now.disk > limit {
		t.Errorf("%d KiB on the disks, snapshots of %d KiB among them; at most %d KiB are needed", now.disk>>10, snapshots>>10, limit>>10)
	}
	if limit := first.heap + 3<<20; now.heap > limit {
		t.Errorf("the heap is %d KiB, %d after the first load", now.heap>>10, first.heap>>10)
	}
	t.Logf("after one load %+v, after %d more %+v", first, rounds, now)
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
					req := &client.AcquireRequest{LockID: fmt.Sprint("lock", i%10), ClientID: id, Wait: true, TTL: 5 * time.Second}
					if i%2 == 0 || i%10 == 1 { // not too many of those given up, which are remembered
						req.RequestID = fmt.Sprint(round, "-", n)
					}
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

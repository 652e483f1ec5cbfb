package embed_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/embed"
)

// million is how many locks are held while a snapshot is taken.
const million = 1_000_000

// BenchmarkSnapshotMillion holds a million locks on one durable member and prints
// what a snapshot of them costs: the bytes in memory per lock, how long it takes,
// the longest call of eight other callers meanwhile, beside the longest without
// a snapshot, and how long the member takes to be ready again from it. It runs
// once, whatever b.N.
func BenchmarkSnapshotMillion(b *testing.B) {
	dir := b.TempDir()
	before := heapInUse()
	m := openMillion(b, dir, 1<<40, nil)
	begun := time.Now()
	holdMillion(b, m.Client())
	b.Logf("%d locks taken in %v", million, time.Since(begun))
	begun = time.Now()
	if err := m.Close(); err != nil {
		b.Fatal(err)
	}
	m = openMillion(b, dir, 1<<40, nil)
	b.Logf("restart from the log alone: %v", time.Since(begun))
	quiet := longestCall(b, m, func() bool { return time.Since(begun) > 8*time.Second })
	if err := m.Close(); err != nil {
		b.Fatal(err)
	}

	var log lockedBuffer
	m = openMillion(b, dir, 64<<10, &log)
	busy := longestCall(b, m, func() bool { return bytes.Contains(log.bytes(), []byte("snapshot taken")) })
	took := regexp.MustCompile(`snapshot taken.* took=(\S+)`).FindSubmatch(log.bytes())
	b.Logf("snapshot taken in %s", took[1])
	if err := m.Close(); err != nil {
		b.Fatal(err)
	}
	begun = time.Now()
	m = openMillion(b, dir, 1<<40, nil)
	restart := time.Since(begun)
	if held := heldCount(b, m); held < million {
		b.Fatalf("%d locks are held after the restart", held)
	}
	b.ReportMetric(float64(heapInUse()-before)/million, "B/lock")
	if err := m.Close(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(quiet.Seconds()*1000, "quiet-longest-ms")
	b.ReportMetric(busy.Seconds()*1000, "snapshot-longest-ms")
	b.ReportMetric(restart.Seconds(), "restart-s")
	b.ReportMetric(0, "ns/op")
	b.Logf("files: %s", sizes(b, dir))
}

func openMillion(b *testing.B, dir string, log int, to *lockedBuffer) *embed.Member {
	b.Helper()
	cfg := embed.Config{
		Name: "n1", DataDir: dir,
		Snapshots: raftlock.Snapshots{MinLogBytes: log, KeepLogBytes: 64 << 20},
	}
	if to != nil {
		cfg.Logger = slog.New(slog.NewTextHandler(to, nil))
	}
	m, err := embed.Start(context.Background(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	return m
}

func holdMillion(b *testing.B, cl client.Client) {
	b.Helper()
	var next atomic.Int64
	var done sync.WaitGroup
	for w := range 1024 {
		done.Go(func() {
			for i := next.Add(1); i <= million; i = next.Add(1) {
				res, err := cl.Acquire(context.Background(), &client.AcquireRequest{
					LockID: fmt.Sprintf("million/lock-%012d", i), ClientID: fmt.Sprintf("client-%09d", w), TTL: 24 * time.Hour,
				})
				if err != nil || !res.Acquired {
					b.Errorf("lock %d: %+v, %v", i, res, err)
					return
				}
			}
		})
	}
	done.Wait()
	if b.Failed() {
		b.FailNow()
	}
}

// longestCall runs eight callers until over, and for at least a second.
func longestCall(b *testing.B, m *embed.Member, over func() bool) time.Duration {
	b.Helper()
	var stop atomic.Bool
	var done sync.WaitGroup
	longest := make([]time.Duration, 8)
	for w := range longest {
		done.Go(func() {
			cl, name := m.Client(), fmt.Sprintf("caller-%09d", w)
			for !stop.Load() {
				begun := time.Now()
				res, err := cl.Acquire(context.Background(), &client.AcquireRequest{LockID: name, ClientID: name, TTL: time.Minute})
				longest[w] = max(longest[w], time.Since(begun))
				if err != nil {
					b.Error(err)
					return
				}
				begun = time.Now()
				_, err = cl.Release(context.Background(), &client.ReleaseRequest{LockID: name, ClientID: name, Version: res.Lock.Version})
				longest[w] = max(longest[w], time.Since(begun))
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	for begun := time.Now(); !over() && time.Since(begun) < time.Minute || time.Since(begun) < time.Second; {
		<-time.After(10 * time.Millisecond)
	}
	stop.Store(true)
	done.Wait()
	return slices.Max(longest)
}

func heldCount(b *testing.B, m *embed.Member) int32 {
	b.Helper()
	status, err := m.Client().GetStatus(context.Background(), &client.GetStatusRequest{})
	if err != nil {
		b.Fatal(err)
	}
	return status.LockStats.ActiveLocksCount
}

func heapInUse() uint64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

func sizes(b *testing.B, dir string) string {
	b.Helper()
	var text string
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			text += fmt.Sprintf("%s %d KiB; ", filepath.Base(path), info.Size()>>10)
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return text
}

// lockedBuffer is where a logger writes while others read.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lockedBuffer) bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.buf.Bytes())
}

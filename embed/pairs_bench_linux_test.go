package embed_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/embed"
)

// benchNames is how many locks the workers share, benchSample how many of a
// worker's pairs are timed one by one.
const benchNames = 1024

// BenchmarkPairs measures acquire and release on three durable members in one
// process, at the leader. Beside pairs per second it prints what that is in
// fsyncs of the same disk, measured right before with three writers at once: a
// figure that a noisy machine and another disk change less.
func BenchmarkPairs(b *testing.B) {
	for _, workers := range []int{1, 64, 256, 1024} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			fsyncs := fsyncRate(b, 3)
			leader := startBenchCluster(b)
			first, cpu := applied(b, leader), cpuTime(b)
			runPairs(b, leader.Client(), workers, fsyncs)
			b.ReportMetric(2*float64(b.N)/float64(applied(b, leader)-first), "commands/entry")
			b.ReportMetric(float64((cpuTime(b)-cpu).Microseconds())/float64(b.N), "cpu-µs/pair")
		})
	}
}

// cpuTime is what the process, the three members and the load, has used so far.
func cpuTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func applied(b *testing.B, m *embed.Member) uint64 {
	index, _, err := m.Node().StateHash(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	return index
}

func runPairs(b *testing.B, c client.Client, workers int, fsyncs float64) {
	names := make([]string, benchNames)
	for i := range names {
		names[i] = fmt.Sprintf("lock-%011d", i)
	}
	var left atomic.Int64
	left.Store(int64(b.N))
	took := make([][]time.Duration, workers)
	var done sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for w := range workers {
		done.Go(func() {
			took[w] = worker(b, c, fmt.Sprintf("worker-%09d", w), names, w, &left)
		})
	}
	done.Wait()
	b.StopTimer()
	all := slices.Concat(took...)
	slices.Sort(all)
	pairs := float64(b.N) / b.Elapsed().Seconds()
	b.ReportMetric(pairs, "pairs/s")
	b.ReportMetric(pairs/fsyncs, "pairs/fsync")
	b.ReportMetric(fsyncs, "fsyncs/s")
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
	b.ReportMetric(0, "ns/op") // it says nothing that pairs/s does not
}

// worker makes pairs on locks of its own until none are left to make, and
// returns how long each took.
func worker(b *testing.B, c client.Client, id string, names []string, w int, left *atomic.Int64) (took []time.Duration) {
	ctx := context.Background()
	for i := w; left.Add(-1) >= 0; i++ {
		begun := time.Now()
		name := names[i%len(names)]
		got, err := c.Acquire(ctx, &client.AcquireRequest{LockID: name, ClientID: id, Wait: true})
		if err != nil {
			b.Error(err)
			return took
		}
		if _, err := c.Release(ctx, &client.ReleaseRequest{LockID: name, ClientID: id, Version: got.Lock.Version}); err != nil {
			b.Error(err)
			return took
		}
		took = append(took, time.Since(begun))
	}
	return took
}

// startBenchCluster starts three members and returns the leader.
func startBenchCluster(b *testing.B) *embed.Member {
	cluster, listeners := map[string]string{}, map[string]net.Listener{}
	for i := range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		name := fmt.Sprintf("n%d", i+1)
		cluster[name], listeners[name] = l.Addr().String(), l
	}
	var members []*embed.Member
	for name, l := range listeners {
		m, err := embed.Open(embed.Config{Name: name, DataDir: filepath.Join(b.TempDir(), name), InitialCluster: cluster, PeerListener: l})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = m.Close() })
		members = append(members, m)
	}
	for _, m := range members {
		<-m.Ready()
	}
	for {
		for _, m := range members {
			if m.Node().IsLeader() {
				return m
			}
		}
	}
}

// fsyncRate measures how many appends of 200 bytes with an fdatasync each of
// several writers makes in a second, while all of them do.
func fsyncRate(b *testing.B, writers int) float64 {
	const length = 400 * time.Millisecond
	dir := b.TempDir()
	var total atomic.Int64
	var done sync.WaitGroup
	begun := time.Now()
	for w := range writers {
		done.Go(func() {
			f, err := os.Create(filepath.Join(dir, fmt.Sprint(w)))
			if err != nil {
				b.Error(err)
				return
			}
			defer f.Close()
			// As the log does it: the file has its size already.
			if err := f.Truncate(16 << 20); err != nil {
				b.Error(err)
				return
			}
			for buf := make([]byte, 200); time.Since(begun) < length; total.Add(1) {
				if _, err := f.Write(buf); err != nil {
					b.Error(err)
					return
				}
				if err := syscall.Fdatasync(int(f.Fd())); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	done.Wait()
	return float64(total.Load()) / time.Since(begun).Seconds() / float64(writers)
}

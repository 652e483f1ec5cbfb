package embed_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/raftlock/raftlock/client"
)

// BenchmarkRefused measures Acquire of locks that another holds, on three
// durable members in one process, at the leader, by 64 callers.
func BenchmarkRefused(b *testing.B) {
	leader := startBenchCluster(b)
	c := leader.Client()
	const names = 16
	for i := range names {
		acquire(b, leader, fmt.Sprint("lock-", i), "holder")
	}
	var caller atomic.Int64
	b.SetParallelism(32)
	first := applied(b, leader)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		id := fmt.Sprint("caller-", caller.Add(1))
		for i := 0; pb.Next(); i++ {
			_, err := c.Acquire(context.Background(), &client.AcquireRequest{LockID: fmt.Sprint("lock-", i%names), ClientID: id})
			if !errors.Is(err, client.ErrLockHeld) {
				b.Error(err)
				return
			}
		}
	})
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "refusals/s")
	b.ReportMetric(float64(applied(b, leader)-first), "entries")
}

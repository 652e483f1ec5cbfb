package testcluster_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/testcluster"
)

// BenchmarkNew is a cluster's start until it has a leader, in real time, and its end.
func BenchmarkNew(b *testing.B) {
	for _, size := range []int{1, 3, 5} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				r := &recorder{TB: b}
				b.StartTimer()
				testcluster.New(r, size)
				b.StopTimer()
				r.end()
				b.StartTimer()
			}
		})
	}
}

// inBubbles runs a test on clusters of three in bubbles, one for each round.
// synctest knows tests only, so that each round is one.
func inBubbles(b *testing.B, round func(t *testing.T, c *testcluster.Cluster)) {
	b.Helper()
	b.ReportAllocs()
	for b.Loop() {
		ok := testing.RunTests(func(string, string) (bool, error) { return true, nil }, []testing.InternalTest{{
			Name: "round", F: func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { round(t, testcluster.New(t, 3)) })
			},
		}})
		if !ok {
			b.Fatal("the round has failed")
		}
	}
}

// BenchmarkTenMinuteTTL is a cluster of three in a bubble, from New to its end, in
// which a caller waits until a lock of ten minutes has run out.
func BenchmarkTenMinuteTTL(b *testing.B) {
	inBubbles(b, func(t *testing.T, c *testcluster.Cluster) {
		cl := c.Client()
		for _, owner := range []string{"one", "two"} {
			req := &client.AcquireRequest{LockID: "a", ClientID: owner, TTL: 10 * time.Minute, Wait: true, WaitTimeout: time.Hour}
			if _, err := cl.Acquire(t.Context(), req); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// BenchmarkIdleHour is a cluster of three in a bubble that nobody uses for an hour.
func BenchmarkIdleHour(b *testing.B) {
	inBubbles(b, func(*testing.T, *testcluster.Cluster) { time.Sleep(time.Hour) })
}

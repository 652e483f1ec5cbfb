package client

import (
	"sync"
	"testing"
	"time"
)

func TestMetrics(t *testing.T) {
	var m Metrics = newCounters()
	if m.GetSuccessRate("Acquire") != 0 || m.GetAverageLatency("Acquire") != 0 || len(m.Snapshot().Operations) != 0 {
		t.Error("something is counted before anything happened")
	}
	m.IncrSuccess("Acquire")
	m.IncrSuccess("Acquire")
	m.IncrSuccess("Acquire")
	m.IncrFailure("Acquire")
	m.IncrRetry("Acquire")
	m.IncrLeaderRedirect()
	m.ObserveLatency("Acquire", time.Second)
	m.ObserveLatency("Acquire", 3*time.Second)
	m.SetConnectionCount(4)
	if m.GetRequestCount("Acquire") != 4 || m.GetSuccessCount("Acquire") != 3 || m.GetFailureCount("Acquire") != 1 ||
		m.GetRetryCount("Acquire") != 1 || m.GetSuccessRate("Acquire") != 0.75 || m.GetLeaderRedirectCount() != 1 || m.GetConnectionCount() != 4 {
		t.Errorf("counted %+v", m.Snapshot())
	}
	if m.GetAverageLatency("Acquire") != 2*time.Second || m.GetMaxLatency("Acquire") != 3*time.Second {
		t.Errorf("latencies %v, %v", m.GetAverageLatency("Acquire"), m.GetMaxLatency("Acquire"))
	}
	s := m.Snapshot()
	want := OperationMetrics{Requests: 4, Successes: 3, Failures: 1, Retries: 1, Latency: 4 * time.Second, MaxLatency: 3 * time.Second}
	if s.Operations["Acquire"] != want || s.LeaderRedirects != 1 || s.Connections != 4 {
		t.Errorf("snapshot %+v", s)
	}
	m.Reset()
	if m.GetRequestCount("Acquire") != 0 || m.GetLeaderRedirectCount() != 0 || m.GetConnectionCount() != 0 || s.Operations["Acquire"] != want {
		t.Errorf("after Reset %+v", m.Snapshot())
	}
}

func TestMetricsTakeManyCallers(t *testing.T) {
	m := newCounters()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 1000 {
				m.ended("Renew", true, time.Millisecond)
				_ = m.Snapshot()
			}
		})
	}
	all.Wait()
	if m.GetSuccessCount("Renew") != 8000 || m.GetAverageLatency("Renew") != time.Millisecond {
		t.Errorf("%+v", m.Snapshot())
	}
}

package embed_test

import (
	"testing"
	"time"
)

// BenchmarkIdleCluster measures what three durable members in one process cost
// while nobody uses them, in percent of one core. An operation is a second.
func BenchmarkIdleCluster(b *testing.B) {
	startBenchCluster(b)
	<-time.After(time.Second) // the start's
	begun, used := time.Now(), cpuTime(b)
	<-time.After(time.Duration(b.N) * time.Second)
	b.ReportMetric(100*(cpuTime(b)-used).Seconds()/time.Since(begun).Seconds(), "%core")
	b.ReportMetric(0, "ns/op")
}

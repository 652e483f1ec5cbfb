package prommetrics

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/raftlock/raftlock/client"
)

// Collector is a prometheus.Collector over the counts of one client. It may be
// used from any number of goroutines, also after the client's Close: the counts
// then stand still.
type Collector struct {
	metrics client.Metrics

	calls, retries, latency, slowest, redirects, connections *prometheus.Desc
}

var _ prometheus.Collector = (*Collector)(nil)

// New returns a collector over the counts of a client. Nil, which a client
// without metrics returns, is a collector that has nothing to show.
func New(metrics client.Metrics) *Collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName("raftlock", "client", name), help, labels, nil)
	}
	return &Collector{
		metrics:     metrics,
		calls:       desc("calls_total", "Calls that ended, by result.", "operation", "result"),
		retries:     desc("retries_total", "Attempts that were repeats.", "operation"),
		latency:     desc("call_seconds", "How long calls took, over all their attempts and waits.", "operation"),
		slowest:     desc("call_seconds_max", "How long the slowest call took.", "operation"),
		redirects:   desc("leader_redirects_total", "Calls that a member sent on to the leader."),
		connections: desc("connections", "Connections that stand."),
	}
}

// Describe tells what Collect may send.
func (c *Collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.calls, c.retries, c.latency, c.slowest, c.redirects, c.connections} {
		out <- d
	}
}

// Collect sends the counts of this moment.
func (c *Collector) Collect(out chan<- prometheus.Metric) {
	if c.metrics == nil {
		return
	}
	s := c.metrics.Snapshot()
	counter := func(d *prometheus.Desc, n uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for name, o := range s.Operations {
		name = strings.ToValidUTF8(name, "\uFFFD") // a label must be
		counter(c.calls, o.Successes, name, "success")
		counter(c.calls, o.Failures, name, "failure")
		counter(c.retries, o.Retries, name)
		out <- prometheus.MustNewConstSummary(c.latency, o.Requests, o.Latency.Seconds(), nil, name)
		gauge(c.slowest, o.MaxLatency.Seconds(), name)
	}
	counter(c.redirects, s.LeaderRedirects)
	gauge(c.connections, float64(s.Connections))
}

package client

import (
	"sync"
	"time"
)

// counters is the Metrics of one client.
type counters struct {
	mu struct {
		sync.Mutex
		operations  map[string]*operation
		redirects   uint64
		connections int
	}
}

var _ Metrics = (*counters)(nil)

// operation is what is counted of one operation. Latencies are observed apart
// from the calls' ends, so that they have a count of their own.
type operation struct {
	OperationMetrics
	observed uint64
}

func newCounters() *counters {
	c := new(counters)
	c.mu.operations = map[string]*operation{}
	return c
}

// ended counts a call that took d.
func (c *counters) ended(name string, ok bool, d time.Duration) {
	c.count(name, func(o *operation) {
		o.end(ok)
		o.observe(d)
	})
}

func (c *counters) count(name string, add func(*operation)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.mu.operations[name]
	if o == nil {
		o = new(operation)
		c.mu.operations[name] = o
	}
	add(o)
}

func (o *operation) end(ok bool) {
	o.Requests++
	if ok {
		o.Successes++
	} else {
		o.Failures++
	}
}

func (o *operation) observe(d time.Duration) {
	o.observed++
	o.Latency += d
	o.MaxLatency = max(o.MaxLatency, d)
}

// get returns the counts of an operation, zero if it was never counted.
func (c *counters) get(name string) operation {
	c.mu.Lock()
	defer c.mu.Unlock()
	if o := c.mu.operations[name]; o != nil {
		return *o
	}
	return operation{}
}

func (c *counters) IncrSuccess(name string) { c.count(name, func(o *operation) { o.end(true) }) }
func (c *counters) IncrFailure(name string) { c.count(name, func(o *operation) { o.end(false) }) }
func (c *counters) IncrRetry(name string)   { c.count(name, func(o *operation) { o.Retries++ }) }

func (c *counters) ObserveLatency(name string, d time.Duration) {
	c.count(name, func(o *operation) { o.observe(d) })
}

func (c *counters) IncrLeaderRedirect() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.redirects++
}

func (c *counters) SetConnectionCount(count int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.connections = count
}

func (c *counters) GetRequestCount(name string) uint64 { return c.get(name).Requests }
func (c *counters) GetSuccessCount(name string) uint64 { return c.get(name).Successes }
func (c *counters) GetFailureCount(name string) uint64 { return c.get(name).Failures }
func (c *counters) GetRetryCount(name string) uint64   { return c.get(name).Retries }

func (c *counters) GetSuccessRate(name string) float64 {
	o := c.get(name)
	if o.Requests == 0 {
		return 0
	}
	return float64(o.Successes) / float64(o.Requests)
}

func (c *counters) GetAverageLatency(name string) time.Duration {
	o := c.get(name)
	if o.observed == 0 {
		return 0
	}
	return o.Latency / time.Duration(o.observed)
}

func (c *counters) GetMaxLatency(name string) time.Duration { return c.get(name).MaxLatency }

func (c *counters) GetLeaderRedirectCount() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.redirects
}

func (c *counters) GetConnectionCount() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.connections
}

func (c *counters) Reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.mu.operations)
	c.mu.redirects, c.mu.connections = 0, 0
}

func (c *counters) Snapshot() MetricsSnapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := MetricsSnapshot{
		Operations:      make(map[string]OperationMetrics, len(c.mu.operations)),
		LeaderRedirects: c.mu.redirects,
		Connections:     c.mu.connections,
	}
	for name, o := range c.mu.operations {
		s.Operations[name] = o.OperationMetrics
	}
	return s
}

package client

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/raftlock/raftlock/internal/clock"
)

// remote is the Client that Dial returns: it talks to a cluster over the
// network. It has no goroutine of its own but gRPC's, and one for each
// withdrawal that is under way.
type remote struct {
	cfg       Config
	clock     clock.Clock
	policy    atomic.Pointer[RetryPolicy]
	metrics   *counters // nil when off
	endpoints *endpoints

	// life ends with the client, and with it every call; afterlife, a bounded
	// time later, ends the withdrawals of those calls.
	life, afterlife       context.Context
	endLife, endAfterlife context.CancelFunc

	mu struct {
		sync.Mutex
		closed  bool
		running int           // calls and withdrawals
		idle    chan struct{} // closed by the last of them once closed is set
	}
	closing sync.Once
}

var _ Client = (*remote)(nil)

const (
	// closeGrace is how long Close waits for withdrawals; closeForce how long
	// for the connections to be closed and for what ends with them.
	closeGrace = 2 * time.Second
	closeForce = time.Second
)

func newRemote(cfg Config, lookup lookupFunc) (*remote, error) {
	c := &remote{cfg: cfg}
	c.life, c.endLife = context.WithCancel(context.Background())
	c.afterlife, c.endAfterlife = context.WithCancel(context.Background())
	c.mu.idle = make(chan struct{})
	tap := &wiretap{changed: func(int) {}}
	if cfg.EnableMetrics {
		c.metrics = newCounters()
		tap.changed = c.metrics.SetConnectionCount
	}
	c.SetRetryPolicy(cfg.RetryPolicy)
	var err error
	c.endpoints, err = newEndpoints(&c.cfg, tap, lookup)
	if err != nil {
		c.endLife()
		c.endAfterlife()
		return nil, err
	}
	return c, nil
}

// Clock is the time that this client lives by.
func (c *remote) Clock() clock.Clock { return c.clock }

// begin counts a call in, unless the client is closed; end counts it out.
func (c *remote) begin() *failure {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.closed {
		return closedBefore()
	}
	c.mu.running++
	return nil
}

func (c *remote) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.running--
	if c.mu.closed && c.mu.running == 0 {
		close(c.mu.idle)
	}
}

// Close ends the calls that are under way, gives the withdrawals of those that
// may have been applied a moment, and closes the connections.
func (c *remote) Close() error {
	c.closing.Do(func() {
		c.mu.Lock()
		c.mu.closed = true
		if c.mu.running == 0 {
			close(c.mu.idle)
		}
		c.mu.Unlock()
		c.endLife()
		c.await(c.mu.idle, closeGrace)
		c.endAfterlife()
		over := make(chan struct{})
		go func() { // gRPC may take seconds for a connection whose other side reads nothing
			c.endpoints.close()
			<-c.mu.idle
			close(over)
		}()
		c.await(over, closeForce)
	})
	return nil
}

// await waits until over is closed, at most for d.
func (c *remote) await(over <-chan struct{}, d time.Duration) {
	timer := c.clock.NewTimer(d)
	defer timer.Stop()
	select {
	case <-over:
	case <-timer.C:
	}
}

// SetRetryPolicy governs the repeats of calls that begin after it.
func (c *remote) SetRetryPolicy(policy RetryPolicy) {
	policy.RetryableErrors = slices.Clone(policy.RetryableErrors)
	c.policy.Store(&policy)
}

// GetMetrics returns the counters of this client, nil when they are off.
func (c *remote) GetMetrics() Metrics {
	if c.metrics == nil {
		return nil // not a Metrics around a nil pointer
	}
	return c.metrics
}

// GetLeaderAddress returns the leader that the last answer named.
func (c *remote) GetLeaderAddress() string { return c.endpoints.leader() }

// IsConnected reports whether a connection stands. Before the first call none
// does.
func (c *remote) IsConnected() bool { return c.life.Err() == nil && c.endpoints.connected() }

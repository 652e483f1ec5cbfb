package testcluster

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/internal/callctx"
	"github.com/raftlock/raftlock/internal/clock"
)

// Client is a client of the cluster: a client.Client that goes to another
// member when the one that it uses is crashed. A call that a crash interrupts is
// made again at another member with the same identity. Its machine has a clock of
// its own.
type Client struct {
	cluster *Cluster
	warp    *clock.Warp

	mu struct {
		sync.Mutex
		member int
		local  client.Client
		node   *raftlock.Node // the one that local is of
		closed bool
		policy *client.RetryPolicy
	}
}

var _ client.Client = (*Client)(nil)

// Client returns a client that begins at the leader.
func (c *Cluster) Client() *Client {
	c.tb.Helper()
	return c.ClientOn(c.Leader())
}

// ClientOn returns a client that begins at member i, and stays there as long as
// that runs.
func (c *Cluster) ClientOn(i int) *Client {
	cl := &Client{cluster: c, warp: clock.NewWarp()}
	cl.mu.member = i
	return cl
}

// SkewRate lets the client's clock gain ppm microseconds in each second from now
// on, or lose them if it is negative. What is held through the client counts by
// that clock; real machines keep within 500.
func (c *Client) SkewRate(ppm float64) { c.warp.SkewRate(ppm) }

// Clock is the client's, for the holders of package client.
func (c *Client) Clock() clock.Clock { return c.warp.Clock() }

// here lets a grant end by the client's clock.
func (c *Client) here(lock *client.Lock) {
	if lock != nil {
		lock.ExpiresAt = c.warp.Here(lock.ExpiresAt)
	}
}

// hereInfo is here for a lock that was looked at.
func (c *Client) hereInfo(info *client.LockInfo) {
	if !info.ExpiresAt.IsZero() {
		info.ExpiresAt = c.warp.Here(info.ExpiresAt)
	}
	for _, w := range info.WaitersInfo {
		w.TimeoutAt = c.warp.Here(w.TimeoutAt)
	}
}

// at returns a client in process of a member that runs, the present one if it
// does; false when none does.
func (c *Client) at() (client.Client, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	members := len(c.cluster.roll.list())
	for tried := range members {
		i := (c.mu.member + tried) % members
		node := c.cluster.running(i)
		if node == nil || hasEnded(node) {
			continue
		}
		if node != c.mu.node {
			c.mu.member, c.mu.node, c.mu.local = i, node, node.Client()
			if c.mu.policy != nil {
				c.mu.local.SetRetryPolicy(*c.mu.policy)
			}
			if c.mu.closed {
				_ = c.mu.local.Close() // always nil
			}
		}
		return c.mu.local, true
	}
	return nil, false
}

func hasEnded(n *raftlock.Node) bool {
	select {
	case <-n.Done():
		return true
	default:
		return false
	}
}

// errAllDown is what calls return when every member is crashed.
var errAllDown = errors.New("testcluster: all members are down, or have failed")

// do makes a call at the present member, and again at another one as often as
// the member is crashed meanwhile, until ctx ends. again says that an earlier
// attempt may have been applied.
func do[T any](ctx context.Context, c *Client, call func(cl client.Client, again bool) (T, error)) (T, error) {
	for again := false; ; {
		local, ok := c.at()
		if !ok {
			var none T
			return none, client.NewClientError("call", errors.Join(client.ErrUnavailable, errAllDown), 0, nil)
		}
		result, err := call(local, again)
		if !errors.Is(err, raftlock.ErrClosed) {
			return result, err
		}
		if ce := (*client.ClientError)(nil); ctx.Err() != nil && errors.As(err, &ce) {
			return result, client.NewClientError(ce.Op, fmt.Errorf("%w: %w", ce.Err, ctx.Err()), ce.Code, ce.Details)
		}
		again = again || errors.Is(err, client.ErrOutcomeUnknown)
	}
}

// Acquire sends a withdrawal when ctx ends first, as a client on a machine of its
// own does: its member's withdrawal dies with that member.
func (c *Client) Acquire(ctx context.Context, req *client.AcquireRequest) (*client.AcquireResult, error) {
	result, err := do(ctx, c, func(cl client.Client, again bool) (*client.AcquireResult, error) {
		if again && req != nil {
			repeat := *req
			repeat.Attempt = max(req.Attempt, 1) + 1
			req = &repeat
		}
		return cl.Acquire(ctx, req)
	})
	if err != nil && ctx.Err() != nil && req != nil && req.RequestID != "" && !errors.Is(context.Cause(ctx), callctx.ErrConnectionLost) {
		withdrawal := &client.CancelWaitRequest{LockID: req.LockID, ClientID: req.ClientID, RequestID: req.RequestID}
		c.cluster.behind(func() { _, _ = c.CancelWait(context.Background(), withdrawal) })
	}
	if result != nil {
		c.here(result.Lock)
	}
	return result, err
}

// Release counts as done, when it is repeated, if the grant is over by then.
func (c *Client) Release(ctx context.Context, req *client.ReleaseRequest) (*client.ReleaseResult, error) {
	return do(ctx, c, func(cl client.Client, again bool) (*client.ReleaseResult, error) {
		result, err := cl.Release(ctx, req)
		over := errors.Is(err, client.ErrLockNotFound) || errors.Is(err, client.ErrNotLockOwner) || errors.Is(err, client.ErrVersionMismatch)
		if again && over {
			return &client.ReleaseResult{Released: true}, nil
		}
		return result, err
	})
}

func (c *Client) Renew(ctx context.Context, req *client.RenewRequest) (*client.RenewResult, error) {
	result, err := do(ctx, c, func(cl client.Client, _ bool) (*client.RenewResult, error) { return cl.Renew(ctx, req) })
	if result != nil {
		c.here(result.Lock)
	}
	return result, err
}

func (c *Client) GetLockInfo(ctx context.Context, req *client.GetLockInfoRequest) (*client.LockInfo, error) {
	info, err := do(ctx, c, func(cl client.Client, _ bool) (*client.LockInfo, error) { return cl.GetLockInfo(ctx, req) })
	if info != nil {
		c.hereInfo(info)
	}
	return info, err
}

func (c *Client) GetLocks(ctx context.Context, req *client.GetLocksRequest) (*client.GetLocksResult, error) {
	result, err := do(ctx, c, func(cl client.Client, _ bool) (*client.GetLocksResult, error) { return cl.GetLocks(ctx, req) })
	if result != nil {
		for _, info := range result.Locks {
			c.hereInfo(info)
		}
	}
	return result, err
}

// EnqueueWaiter counts as done, when it is repeated, if the client has the lock
// by then.
func (c *Client) EnqueueWaiter(ctx context.Context, req *client.EnqueueWaiterRequest) (*client.EnqueueResult, error) {
	return do(ctx, c, func(cl client.Client, again bool) (*client.EnqueueResult, error) {
		result, err := cl.EnqueueWaiter(ctx, req)
		if again && errors.Is(err, client.ErrLockHeld) && result.Error.Details["owner_id"] == req.ClientID {
			return &client.EnqueueResult{Enqueued: true}, nil
		}
		return result, err
	})
}

// CancelWait counts as done, when it is repeated, if nobody waits by then.
func (c *Client) CancelWait(ctx context.Context, req *client.CancelWaitRequest) (*client.CancelWaitResult, error) {
	return do(ctx, c, func(cl client.Client, again bool) (*client.CancelWaitResult, error) {
		result, err := cl.CancelWait(ctx, req)
		if again && errors.Is(err, client.ErrNotWaiting) {
			return &client.CancelWaitResult{Cancelled: true}, nil
		}
		return result, err
	})
}

func (c *Client) GetBackoffAdvice(ctx context.Context, req *client.BackoffAdviceRequest) (*client.BackoffAdvice, error) {
	return do(ctx, c, func(cl client.Client, _ bool) (*client.BackoffAdvice, error) { return cl.GetBackoffAdvice(ctx, req) })
}

func (c *Client) GetStatus(ctx context.Context, req *client.GetStatusRequest) (*client.ClusterStatus, error) {
	return do(ctx, c, func(cl client.Client, _ bool) (*client.ClusterStatus, error) { return cl.GetStatus(ctx, req) })
}

func (c *Client) Health(ctx context.Context, req *client.HealthRequest) (*client.HealthStatus, error) {
	return do(ctx, c, func(cl client.Client, _ bool) (*client.HealthStatus, error) { return cl.Health(ctx, req) })
}

// GetLeaderAddress returns what the present member knows: nothing in a cluster
// that serves nobody outside.
func (c *Client) GetLeaderAddress() string {
	local, ok := c.at()
	if !ok {
		return ""
	}
	return local.GetLeaderAddress()
}

// IsConnected reports whether a member runs that knows a leader.
func (c *Client) IsConnected() bool {
	local, ok := c.at()
	return ok && local.IsConnected()
}

// GetMetrics returns nil: calls in process are not measured.
func (c *Client) GetMetrics() client.Metrics { return nil }

// SetRetryPolicy governs the repeats of calls made from now on.
func (c *Client) SetRetryPolicy(policy client.RetryPolicy) {
	if local, ok := c.at(); ok {
		local.SetRetryPolicy(policy)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.policy = &policy
}

// Close closes this client only.
func (c *Client) Close() error {
	local, ok := c.at()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.closed = true
	if !ok {
		return nil
	}
	return local.Close()
}

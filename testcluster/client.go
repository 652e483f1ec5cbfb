package testcluster

import (
	"context"
	"errors"
	"sync"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/internal/callctx"
	"github.com/raftlock/raftlock/internal/clock"
)

// Client is a client on a machine of its own: with a clock of its own (SkewRate),
// and a way of its own to the cluster (Cut, DropAnswers), that can be stopped
// (Pause). It is a client.Client of one member, in process, that goes to another
// one when that is crashed: a call that a crash or a fault of the machine
// interrupts is made again, with the same identity, as the retry policy says. Cluster.Dial
// makes one that goes over gRPC instead. Its methods may be called concurrently.
type Client struct {
	cluster *Cluster
	machine *machine
	remote  client.Client // nil unless it goes over gRPC
	seen    client.Client // this one, watched

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
	if !c.isAlive("Client") {
		return c.ClientOn(0)
	}
	return c.ClientOn(c.Leader())
}

// ClientOn returns a client that begins at member i, and stays there as long as
// that runs.
func (c *Cluster) ClientOn(i int) *Client {
	cl := &Client{cluster: c, machine: newMachine()}
	cl.mu.member = i
	cl.seen = c.watch.client(cl)
	c.adopt(cl)
	return cl
}

// Clock is the machine's, for the holders of package client.
func (c *Client) Clock() clock.Clock { return c.machine.warp.Clock() }

// here lets a grant end by the client's clock.
func (c *Client) here(lock *client.Lock) {
	if lock != nil {
		lock.ExpiresAt = c.machine.warp.Here(lock.ExpiresAt)
	}
}

// hereInfo is here for a lock that was looked at.
func (c *Client) hereInfo(info *client.LockInfo) {
	if !info.ExpiresAt.IsZero() {
		info.ExpiresAt = c.machine.warp.Here(info.ExpiresAt)
	}
	for _, w := range info.WaitersInfo {
		w.TimeoutAt = c.machine.warp.Here(w.TimeoutAt)
	}
}

// errAllDown is what calls return when every member is crashed.
var errAllDown = errors.New("testcluster: all members are down, or have failed")

// at returns the client over the network, or one in process of a member that
// runs: the present one if it does.
func (c *Client) at() (client.Client, error) {
	if c.remote != nil {
		return c.remote, nil
	}
	if c.cluster.isOver() {
		return nil, errOver
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	members := len(c.cluster.roll.list())
	for tried := range members {
		i := (c.mu.member + tried) % members
		node := c.cluster.running(i)
		if node == nil || hasEnded(node) || node.Err() != nil { // it may be unable to let go of its disk
			continue
		}
		if node != c.mu.node {
			c.mu.member, c.mu.node, c.mu.local = i, node, outside{node.Client(), c.cluster.roll.list()[i].warp}
			if c.mu.policy != nil {
				c.mu.local.SetRetryPolicy(*c.mu.policy)
			}
			if c.mu.closed {
				_ = c.mu.local.Close() // always nil
			}
		}
		return c.mu.local, nil
	}
	return nil, errAllDown
}

func hasEnded(n *raftlock.Node) bool { return isClosed(n.Done()) }

func (c *Client) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.closed
}

func (c *Client) retryPolicy() client.RetryPolicy {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.policy != nil {
		return *c.mu.policy
	}
	return client.DefaultRetryPolicy()
}

// detailOf is what a result says beside the error of a call without an answer.
func detailOf(err error) *client.ErrorDetail {
	e, ok := errors.AsType[*client.ClientError](err)
	if !ok {
		return nil
	}
	return &client.ErrorDetail{Code: e.Code, Message: e.Err.Error(), Details: e.Details}
}

func (c inside) Acquire(ctx context.Context, req *client.AcquireRequest) (*client.AcquireResult, error) {
	p := &passage{client: c.Client, op: "Acquire", waits: req != nil && req.Wait}
	result, err := goes(ctx, p, func(ctx context.Context, cl client.Client, repeats int) (*client.AcquireResult, error) {
		if repeats == 0 || req == nil {
			return cl.Acquire(ctx, req)
		}
		repeat := *req
		repeat.Attempt = max(req.Attempt, 1) + int32(repeats)
		return cl.Acquire(ctx, &repeat)
	})
	cancelled := err != nil && ctx.Err() != nil && !errors.Is(context.Cause(ctx), callctx.ErrConnectionLost)
	if cancelled && c.remote == nil && req != nil && req.RequestID != "" {
		withdrawal := &client.CancelWaitRequest{LockID: req.LockID, ClientID: req.ClientID, RequestID: req.RequestID}
		c.cluster.behind(func() { _, _ = c.CancelWait(context.Background(), withdrawal) })
	}
	if result == nil {
		result = &client.AcquireResult{Error: detailOf(err)}
	}
	c.here(result.Lock)
	return result, err
}

func (c inside) Release(ctx context.Context, req *client.ReleaseRequest) (*client.ReleaseResult, error) {
	p := &passage{client: c.Client, op: "Release"}
	result, err := goes(ctx, p, func(ctx context.Context, cl client.Client, repeats int) (*client.ReleaseResult, error) {
		result, err := cl.Release(ctx, req)
		over := errors.Is(err, client.ErrLockNotFound) || errors.Is(err, client.ErrNotLockOwner) || errors.Is(err, client.ErrVersionMismatch)
		if repeats > 0 && over {
			return &client.ReleaseResult{Released: true}, nil
		}
		return result, err
	})
	if result == nil {
		result = &client.ReleaseResult{Error: detailOf(err)}
	}
	return result, err
}

func (c inside) Renew(ctx context.Context, req *client.RenewRequest) (*client.RenewResult, error) {
	p := &passage{client: c.Client, op: "Renew"}
	result, err := goes(ctx, p, func(ctx context.Context, cl client.Client, _ int) (*client.RenewResult, error) {
		return cl.Renew(ctx, req)
	})
	if result == nil {
		result = &client.RenewResult{Error: detailOf(err)}
	}
	c.here(result.Lock)
	return result, err
}

func (c inside) GetLockInfo(ctx context.Context, req *client.GetLockInfoRequest) (*client.LockInfo, error) {
	p := &passage{client: c.Client, op: "GetLockInfo", reads: true}
	info, err := goes(ctx, p, func(ctx context.Context, cl client.Client, _ int) (*client.LockInfo, error) {
		return cl.GetLockInfo(ctx, req)
	})
	if info != nil {
		c.hereInfo(info)
	}
	return info, err
}

func (c inside) GetLocks(ctx context.Context, req *client.GetLocksRequest) (*client.GetLocksResult, error) {
	p := &passage{client: c.Client, op: "GetLocks", reads: true}
	result, err := goes(ctx, p, func(ctx context.Context, cl client.Client, _ int) (*client.GetLocksResult, error) {
		return cl.GetLocks(ctx, req)
	})
	if result == nil {
		result = &client.GetLocksResult{}
	}
	for _, info := range result.Locks {
		c.hereInfo(info)
	}
	return result, err
}

func (c inside) EnqueueWaiter(ctx context.Context, req *client.EnqueueWaiterRequest) (*client.EnqueueResult, error) {
	p := &passage{client: c.Client, op: "EnqueueWaiter"}
	result, err := goes(ctx, p, func(ctx context.Context, cl client.Client, repeats int) (*client.EnqueueResult, error) {
		result, err := cl.EnqueueWaiter(ctx, req)
		if repeats > 0 && errors.Is(err, client.ErrLockHeld) && result.Error.Details["owner_id"] == req.ClientID {
			return &client.EnqueueResult{Enqueued: true}, nil
		}
		return result, err
	})
	if result == nil {
		result = &client.EnqueueResult{Error: detailOf(err)}
	}
	return result, err
}

func (c inside) CancelWait(ctx context.Context, req *client.CancelWaitRequest) (*client.CancelWaitResult, error) {
	p := &passage{client: c.Client, op: "CancelWait"}
	result, err := goes(ctx, p, func(ctx context.Context, cl client.Client, repeats int) (*client.CancelWaitResult, error) {
		result, err := cl.CancelWait(ctx, req)
		if repeats > 0 && errors.Is(err, client.ErrNotWaiting) {
			return &client.CancelWaitResult{Cancelled: true}, nil
		}
		return result, err
	})
	if result == nil {
		result = &client.CancelWaitResult{Error: detailOf(err)}
	}
	return result, err
}

func (c *Client) GetBackoffAdvice(ctx context.Context, req *client.BackoffAdviceRequest) (*client.BackoffAdvice, error) {
	p := &passage{client: c, op: "GetBackoffAdvice", reads: true}
	return goes(ctx, p, func(ctx context.Context, cl client.Client, _ int) (*client.BackoffAdvice, error) {
		return cl.GetBackoffAdvice(ctx, req)
	})
}

func (c *Client) GetStatus(ctx context.Context, req *client.GetStatusRequest) (*client.ClusterStatus, error) {
	p := &passage{client: c, op: "GetStatus", reads: true}
	return goes(ctx, p, func(ctx context.Context, cl client.Client, _ int) (*client.ClusterStatus, error) {
		return cl.GetStatus(ctx, req)
	})
}

func (c *Client) Health(ctx context.Context, req *client.HealthRequest) (*client.HealthStatus, error) {
	p := &passage{client: c, op: "Health", reads: true}
	result, err := goes(ctx, p, func(ctx context.Context, cl client.Client, _ int) (*client.HealthStatus, error) {
		return cl.Health(ctx, req)
	})
	if result == nil {
		result = &client.HealthStatus{Status: client.HealthStatusNotServing, Message: err.Error()}
	}
	return result, err
}

// GetLeaderAddress returns what the present member knows: nothing in a cluster
// that serves nobody outside.
func (c *Client) GetLeaderAddress() string {
	cl, err := c.at()
	if err != nil {
		return ""
	}
	return cl.GetLeaderAddress()
}

// IsConnected reports whether the machine's line stands, to a member that knows a
// leader.
func (c *Client) IsConnected() bool {
	cl, err := c.at()
	l, _ := c.machine.way()
	return err == nil && !l.isBroken() && cl.IsConnected()
}

// GetMetrics returns nil for calls in process, which are not measured.
func (c *Client) GetMetrics() client.Metrics {
	if c.remote == nil {
		return nil
	}
	return c.remote.GetMetrics()
}

// SetRetryPolicy governs the repeats of calls made from now on.
func (c *Client) SetRetryPolicy(policy client.RetryPolicy) {
	if cl, err := c.at(); err == nil {
		cl.SetRetryPolicy(policy)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.policy = &policy
}

// Close closes this client only.
func (c *Client) Close() error {
	cl, err := c.at()
	c.mu.Lock()
	c.mu.closed = true
	c.mu.Unlock()
	if err != nil {
		return nil
	}
	return cl.Close()
}

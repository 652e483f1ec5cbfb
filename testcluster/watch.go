package testcluster

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/history"
)

// watch records what the cluster's clients see, and holds it against the rules of
// package history when the test ends.
//
// It takes everything that ends holds to judge by all rules. A test that may have
// released locks by other ways (a member's own client, a client that was dialled
// with ClientConfig), or has let clocks go as no clock does, is judged by those
// about tokens only.
type watch struct {
	recorder *history.Recorder
	clients  atomic.Int32
	calls    atomic.Int64
	partial  atomic.Bool
}

// maxWatched is how many calls are recorded, 300 bytes each; a test that makes
// more is not judged.
const maxWatched = 50_000

// tokenRules need not know of everybody.
var tokenRules = []history.Rule{history.UniqueTokens, history.GrowingTokens, history.OneToken}

// client lets a client be watched.
func (w *watch) client(c *Client) client.Client {
	return w.recorder.Client(inside{c}, fmt.Sprint("client ", w.clients.Add(1)))
}

// judge fails the test if its clients saw what they must not see.
func (c *Cluster) judge() {
	c.tb.Helper()
	if c.watch.calls.Load() > maxWatched {
		return
	}
	// How late something is, is for the test to say: its machine may be busy.
	report := c.watch.recorder.History().Check(history.Bounds{Late: time.Hour})
	for _, v := range report.Violations {
		if !c.watch.partial.Load() || slices.Contains(tokenRules, v.Rule) {
			c.tb.Errorf("testcluster: the cluster has broken a promise to its clients: %v", v)
		}
	}
}

// skewed notes that a clock gains or loses what a cluster does not count with.
func (w *watch) skewed(ppm float64) {
	if ppm > 500 || ppm < -500 {
		w.partial.Store(true)
	}
}

// watched is the client as the cleanup watches it.
func (c *Client) watched() client.Client {
	if c.cluster.watch.calls.Add(1) > maxWatched || c.seen == nil {
		return inside{c}
	}
	return c.seen
}

// inside is a client behind its watch.
type inside struct{ *Client }

// Acquire sends a withdrawal when ctx ends first, as a client on a machine of its
// own does: its member's withdrawal dies with that member.
func (c *Client) Acquire(ctx context.Context, req *client.AcquireRequest) (*client.AcquireResult, error) {
	return c.watched().Acquire(ctx, req)
}

// Release counts as done, when it is repeated, if the grant is over by then.
func (c *Client) Release(ctx context.Context, req *client.ReleaseRequest) (*client.ReleaseResult, error) {
	return c.watched().Release(ctx, req)
}

func (c *Client) Renew(ctx context.Context, req *client.RenewRequest) (*client.RenewResult, error) {
	return c.watched().Renew(ctx, req)
}

func (c *Client) GetLockInfo(ctx context.Context, req *client.GetLockInfoRequest) (*client.LockInfo, error) {
	return c.watched().GetLockInfo(ctx, req)
}

// GetLocks is not recorded: what listings show takes more than all else together.
func (c *Client) GetLocks(ctx context.Context, req *client.GetLocksRequest) (*client.GetLocksResult, error) {
	return inside{c}.GetLocks(ctx, req)
}

// EnqueueWaiter counts as done, when it is repeated, if the client has the lock
// by then.
func (c *Client) EnqueueWaiter(ctx context.Context, req *client.EnqueueWaiterRequest) (*client.EnqueueResult, error) {
	return c.watched().EnqueueWaiter(ctx, req)
}

// CancelWait counts as done, when it is repeated, if nobody waits by then.
func (c *Client) CancelWait(ctx context.Context, req *client.CancelWaitRequest) (*client.CancelWaitResult, error) {
	return c.watched().CancelWait(ctx, req)
}

package raftlock

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/internal/callctx"
	"github.com/raftlock/raftlock/pb"
)

// localClient is a client.Client that calls a member of this process: a
// function call on the leader, one hop elsewhere. What a member answers only
// for itself (a leader was lost, an outcome is unknown) it repeats, with the
// same identity, as the retry policy says.
type localClient struct {
	node   *Node
	closed atomic.Bool
	policy atomic.Pointer[client.RetryPolicy]
}

var _ client.Client = (*localClient)(nil)

// minWait is what a wait that is taken up again asks for at least.
const minWait = span(time.Millisecond)

// withdrawLimit is how long the withdrawal of a call is repeated; afterwards
// the new term, or the TTL, has seen to it.
const withdrawLimit = 30 * time.Second

func newLocalClient(n *Node) *localClient {
	c := &localClient{node: n}
	c.SetRetryPolicy(client.DefaultRetryPolicy())
	return c
}

// Close closes this client only.
func (c *localClient) Close() error {
	c.closed.Store(true)
	return nil
}

// SetRetryPolicy governs the repeats of calls made from now on.
func (c *localClient) SetRetryPolicy(policy client.RetryPolicy) {
	policy.RetryableErrors = slices.Clone(policy.RetryableErrors)
	c.policy.Store(&policy)
}

// GetMetrics returns nil: calls in process are not measured.
func (c *localClient) GetMetrics() client.Metrics { return nil }

// IsConnected reports whether this member runs and knows a leader.
func (c *localClient) IsConnected() bool {
	return !c.closed.Load() && c.node.view.Load().lead != 0
}

// GetLeaderAddress returns the client address of the leader, "" if unknown.
func (c *localClient) GetLeaderAddress() string {
	_, address := c.node.Leader()
	return address
}

func (c *localClient) Acquire(ctx context.Context, req *client.AcquireRequest) (*client.AcquireResult, error) {
	const op = "Acquire"
	if req == nil {
		detail, err := c.refuse(op, nilRequest)
		return &client.AcquireResult{Error: detail}, err
	}
	cmd := command{
		kind: cmdAcquire, lock: req.LockID, client: req.ClientID, request: req.RequestID,
		wait: req.Wait, attempt: max(req.Attempt, 1), priority: req.Priority,
		ttl: span(req.TTL), timeout: span(req.WaitTimeout), metadata: metadataOf(req.Metadata),
	}
	rep, err := c.run(ctx, op, &cmd)
	if err != nil {
		if cmd.request != "" && rep.failure.outcome() == outcomeUnknown && !lostConnection(ctx) {
			c.node.withdraw(&cmd)
		}
		return &client.AcquireResult{Error: detailOf(err)}, err
	}
	if rep.result.code != pb.ErrorCode_OK {
		return refusedAcquire(op, &rep)
	}
	c.confirm(ctx, &rep)
	return &client.AcquireResult{Acquired: true, Lock: lockOf(&rep)}, nil
}

func (c *localClient) Release(ctx context.Context, req *client.ReleaseRequest) (*client.ReleaseResult, error) {
	const op = "Release"
	if req == nil {
		detail, err := c.refuse(op, nilRequest)
		return &client.ReleaseResult{Error: detail}, err
	}
	cmd := command{kind: cmdRelease, lock: req.LockID, client: req.ClientID, version: req.Version}
	rep, err := c.run(ctx, op, &cmd)
	if err != nil {
		return &client.ReleaseResult{Error: detailOf(err)}, err
	}
	if rep.result.code == pb.ErrorCode_OK || rep.unsure && isOver(&rep.result, req.Version) {
		return &client.ReleaseResult{Released: true, WaiterPromoted: rep.result.promoted}, nil
	}
	detail, err := refusalOf(op, &rep)
	return &client.ReleaseResult{Error: detail}, err
}

// isOver reports whether a refused release says that the grant it named has
// ended, as it has when an earlier attempt of the same release was applied.
func isOver(res *result, version int64) bool {
	switch res.code {
	case pb.ErrorCode_LOCK_NOT_FOUND:
		return true
	case pb.ErrorCode_LOCK_NOT_HELD, pb.ErrorCode_NOT_LOCK_OWNER, pb.ErrorCode_VERSION_MISMATCH:
		return res.lock.version >= version
	}
	return false
}

func (c *localClient) Renew(ctx context.Context, req *client.RenewRequest) (*client.RenewResult, error) {
	const op = "Renew"
	if req == nil {
		detail, err := c.refuse(op, nilRequest)
		return &client.RenewResult{Error: detail}, err
	}
	cmd := command{kind: cmdRenew, lock: req.LockID, client: req.ClientID, version: req.Version, ttl: span(req.NewTTL)}
	rep, err := c.run(ctx, op, &cmd)
	if err != nil {
		return &client.RenewResult{Error: detailOf(err)}, err
	}
	if rep.result.code != pb.ErrorCode_OK {
		detail, err := refusalOf(op, &rep)
		return &client.RenewResult{Error: detail}, err
	}
	c.confirm(ctx, &rep)
	return &client.RenewResult{Renewed: true, Lock: lockOf(&rep)}, nil
}

func (c *localClient) EnqueueWaiter(ctx context.Context, req *client.EnqueueWaiterRequest) (*client.EnqueueResult, error) {
	const op = "EnqueueWaiter"
	if req == nil {
		detail, err := c.refuse(op, nilRequest)
		return &client.EnqueueResult{Error: detail}, err
	}
	cmd := command{
		kind: cmdEnqueue, lock: req.LockID, client: req.ClientID, version: req.Version,
		priority: req.Priority, timeout: span(req.Timeout),
	}
	rep, err := c.run(ctx, op, &cmd)
	if err != nil {
		return &client.EnqueueResult{Error: detailOf(err)}, err
	}
	if rep.result.code != pb.ErrorCode_OK && !(rep.unsure && grantedBefore(&cmd, &rep.result)) {
		detail, err := refusalOf(op, &rep)
		return &client.EnqueueResult{Error: detail}, err
	}
	result := &client.EnqueueResult{Enqueued: true}
	if rep.result.queued {
		result.Position = rep.result.position
		result.EstimatedWaitDuration = estimatedWait(&rep)
	}
	return result, nil
}

// grantedBefore reports whether a repeated EnqueueWaiter was refused because an
// earlier attempt of it had got the lock.
func grantedBefore(cmd *command, res *result) bool {
	return res.code == pb.ErrorCode_LOCK_HELD && res.lock.owner == cmd.client && res.lock.request == ""
}

func (c *localClient) CancelWait(ctx context.Context, req *client.CancelWaitRequest) (*client.CancelWaitResult, error) {
	const op = "CancelWait"
	if req == nil {
		detail, err := c.refuse(op, nilRequest)
		return &client.CancelWaitResult{Error: detail}, err
	}
	cmd := command{kind: cmdCancel, lock: req.LockID, client: req.ClientID, version: req.Version}
	if req.RequestID != "" {
		cmd.kind, cmd.request, cmd.version = cmdWithdraw, req.RequestID, 0
	}
	rep, err := c.run(ctx, op, &cmd)
	if err != nil {
		return &client.CancelWaitResult{Error: detailOf(err)}, err
	}
	if rep.result.code != pb.ErrorCode_OK && !(rep.unsure && rep.result.code == pb.ErrorCode_NOT_WAITING) {
		detail, err := refusalOf(op, &rep)
		return &client.CancelWaitResult{Error: detail}, err
	}
	return &client.CancelWaitResult{Cancelled: true}, nil
}

func (c *localClient) GetLockInfo(ctx context.Context, req *client.GetLockInfoRequest) (*client.LockInfo, error) {
	const op = "GetLockInfo"
	if req == nil {
		_, err := c.refuse(op, nilRequest)
		return nil, err
	}
	if f := checkID("lock_id", req.LockID); f != nil {
		_, err := c.refuse(op, f)
		return nil, err
	}
	rep, err := c.read(ctx, op, readLock, req.LockID, req.IncludeWaiters)
	if err != nil {
		return nil, err
	}
	if !rep.found {
		_, err := c.refuse(op, &failure{code: pb.ErrorCode_LOCK_NOT_FOUND, message: "lock is not known"})
		return nil, err
	}
	return infoOf(&rep.result.lock, rep.waiters, &rep), nil
}

func (c *localClient) GetLocks(ctx context.Context, req *client.GetLocksRequest) (*client.GetLocksResult, error) {
	const op = "GetLocks"
	if req == nil {
		_, err := c.refuse(op, nilRequest)
		return &client.GetLocksResult{}, err
	}
	if f := checkListing(req); f != nil {
		_, err := c.refuse(op, f)
		return &client.GetLocksResult{}, err
	}
	rep, err := c.read(ctx, op, readTable, "", false)
	if err != nil {
		return &client.GetLocksResult{}, err
	}
	return listingOf(ctx, op, req, &rep)
}

// run proposes a command and repeats it as far as the policy allows. The reply
// is a result of the table, or, with the error, the failure.
func (c *localClient) run(ctx context.Context, op string, cmd *command) (reply, error) {
	if c.closed.Load() {
		rep := reply{failure: clientClosed}
		return rep, errorOf(op, rep.failure, nil)
	}
	n, policy := c.node, c.policy.Load()
	begun, timeout := n.clock.Now(), cmd.timeout
	if timeout == 0 {
		timeout = span(n.cfg.Limits.DefaultWait)
	}
	patience, unsure := holdLimit, false
	for tries := 0; ; {
		rep, ctxErr := n.do(ctx, cmd, patience)
		f := rep.failure
		if f == nil {
			rep.unsure = unsure
			return rep, nil
		}
		if f.outcome() == outcomeUnknown {
			// Only now may another attempt find the traces of an earlier one.
			unsure = true
			cmd.attempt++
		} else if unsure && f.outcome() == outcomeNotProposed {
			f = stillUnknown(f)
			rep.failure = f
		}
		if ctxErr != nil {
			return rep, errorOf(op, f, ctxErr)
		}
		waited := span(n.clock.Now().Sub(begun))
		if f.interrupted {
			cmd.timeout = max(timeout-waited, minWait)
			patience = time.Duration(cmd.timeout) + n.cfg.RequestTimeout
			continue
		}
		if n.ctx.Err() != nil {
			f = f.atClosing()
			rep.failure = f
		}
		if f.closed || tries >= policy.MaxRetries || !slices.Contains(policy.RetryableErrors, f.code) ||
			!cmd.wait && time.Duration(waited) >= n.cfg.RequestTimeout {
			return rep, errorOf(op, f, nil)
		}
		if err := n.pause(ctx, backoff(policy, tries)); err != nil {
			return rep, errorOf(op, f, err)
		}
		tries++
	}
}

// read makes a linearizable read; a read may always be repeated.
func (c *localClient) read(ctx context.Context, op string, kind readKind, lock string, waiters bool) (reply, error) {
	if c.closed.Load() {
		return reply{}, errorOf(op, clientClosed, nil)
	}
	n, policy := c.node, c.policy.Load()
	for tries := 0; ; tries++ {
		call := n.newCall(holdLimit)
		call.cmd.lock, call.read, call.withWaiters = lock, kind, waiters
		sent := n.clock.Now()
		rep, ctxErr := n.await(ctx, call)
		rep.at = sent
		if rep.failure == nil {
			return rep, nil
		}
		if n.ctx.Err() != nil {
			rep.failure = rep.failure.atClosing()
		}
		if ctxErr != nil || rep.failure.closed || tries >= policy.MaxRetries || !slices.Contains(policy.RetryableErrors, rep.failure.code) {
			return rep, errorOf(op, rep.failure, ctxErr)
		}
		if err := n.pause(ctx, backoff(policy, tries)); err != nil {
			return rep, errorOf(op, rep.failure, err)
		}
	}
}

// confirm asks once more how long a grant has left, when the answer could not
// say so: it had waited elsewhere, or its leader was out of office. A grant that
// cannot be confirmed counts as having nothing left.
func (c *localClient) confirm(ctx context.Context, rep *reply) {
	if rep.timed {
		return
	}
	rep.remaining = 0
	grant := &rep.result.lock
	now, err := c.read(ctx, "Acquire", readLock, grant.id, false)
	if err != nil || now.result.lock.version != grant.version || !now.result.lock.held() {
		return
	}
	rep.at, rep.remaining, rep.timed = now.at, span(max(0, now.result.lock.end-now.now)), true
}

// do makes one attempt of a command. When ctx ends first, the error is ctx's
// and the failure says whether the command may have been proposed.
func (n *Node) do(ctx context.Context, cmd *command, patience time.Duration) (reply, error) {
	c := n.newCall(patience)
	c.cmd = *cmd
	c.refusal = n.cfg.Limits.check(cmd)
	return n.await(ctx, c)
}

// await hands a call to the loop and waits for its reply.
func (n *Node) await(ctx context.Context, c *call) (reply, error) {
	c.lane = laneOf(c)
	if err := ctx.Err(); err != nil {
		return reply{failure: endedBy(err, outcomeNotProposed)}, err
	}
	if f, err := n.awaitFormed(ctx); f != nil {
		return reply{failure: f}, err
	}
	if !n.inbox.call(c) {
		return reply{failure: memberGone}, nil
	}
	select {
	case <-c.done:
		return n.replyOf(c), nil
	case <-n.done:
		return reply{failure: memberClosed}, nil
	case <-ctx.Done():
	}
	select {
	case <-c.done: // it was answered at the same time
		return c.reply, nil
	default:
	}
	err := ctx.Err()
	for {
		if c.state.CompareAndSwap(callWaits, callLeft) {
			return reply{failure: endedBy(err, outcomeNotProposed)}, err
		}
		if c.state.CompareAndSwap(callTaken, callLeft) {
			break
		}
	}
	how := gaveUp
	if lostConnection(ctx) {
		how = lostTouch
	}
	n.inbox.request(func(r *replica) { r.leave(c, how) })
	return reply{failure: endedBy(err, outcomeUnknown)}, err
}

// awaitFormed waits for the cluster to be formed, as calls wait for a leader.
func (n *Node) awaitFormed(ctx context.Context) (*failure, error) {
	if n.isFormed() {
		return nil, nil
	}
	limit := n.clock.NewTimer(min(holdLimit, n.cfg.RequestTimeout))
	defer limit.Stop()
	select {
	case <-n.formed:
		return nil, nil
	case <-n.done:
		return memberGone, nil
	case <-limit.C:
		return noLeader, nil
	case <-ctx.Done():
		return endedBy(ctx.Err(), outcomeNotProposed), ctx.Err()
	}
}

func lostConnection(ctx context.Context) bool {
	return errors.Is(context.Cause(ctx), callctx.ErrConnectionLost)
}

// withdraw takes back, behind the caller's back, a call with a RequestID that
// ended without an answer: its wait, or the grant that won the race.
func (n *Node) withdraw(acquire *command) {
	cmd := command{kind: cmdWithdraw, lock: acquire.lock, client: acquire.client, request: acquire.request}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.ended {
		return // main may already wait for work
	}
	n.work.Go(func() {
		ctx, cancel := n.clock.WithTimeout(n.ctx, withdrawLimit)
		defer cancel()
		for ctx.Err() == nil {
			if rep, _ := n.do(ctx, &cmd, holdLimit); rep.failure == nil {
				return
			}
			_ = n.pause(ctx, n.cfg.TickInterval) // its error is the loop's condition
		}
	})
}

func (n *Node) pause(ctx context.Context, d time.Duration) error {
	timer := n.clock.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-n.ctx.Done():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// backoff is the pause before the repeat after tries repeats.
func backoff(p *client.RetryPolicy, tries int) time.Duration {
	d := float64(p.InitialBackoff)
	for range tries {
		d *= p.BackoffMultiplier
	}
	d = min(d, float64(p.MaxBackoff))
	return time.Duration(d * (1 + p.JitterFactor*(2*rand.Float64()-1)))
}

func (n *Node) newCall(patience time.Duration) *call {
	c, ok := n.calls.Get().(*call)
	if !ok {
		c = &call{done: make(chan struct{}, 1)}
	}
	c.patience = patience
	return c
}

// replyOf takes the reply out of an answered call, and puts the call back for
// the next one. A call that failed may still stand in one of the loop's lists.
func (n *Node) replyOf(c *call) reply {
	rep := c.reply
	if rep.failure != nil {
		return rep
	}
	done := c.done
	*c = call{done: done}
	n.calls.Put(c)
	return rep
}

package raftlock

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/internal/clock"
	"github.com/raftlock/raftlock/internal/input"
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

// claimWithin is how long a call that may be detached pauses at most: half of
// detachWindow.
const claimWithin = time.Second

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

// Clock is the member's: what is held through this client counts by it.
func (c *localClient) Clock() clock.Clock { return c.node.clock }

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
	a, outcome, err := c.run(ctx, op, &cmd)
	if err != nil {
		if cmd.request != "" && outcome == outcomeUnknown && ctx.Err() != nil && !lostConnection(ctx) {
			c.node.withdraw(&cmd)
		}
		return &client.AcquireResult{Error: detailOf(err)}, err
	}
	defer c.node.release(a)
	rep := &a.reply
	if rep.result.code != pb.ErrorCode_OK {
		return refusedAcquire(op, rep)
	}
	if !c.confirm(ctx, rep) {
		c.confirmAgain(ctx, &cmd, rep)
	}
	return &client.AcquireResult{Acquired: true, Lock: lockOf(rep)}, nil
}

func (c *localClient) Release(ctx context.Context, req *client.ReleaseRequest) (*client.ReleaseResult, error) {
	const op = "Release"
	if req == nil {
		detail, err := c.refuse(op, nilRequest)
		return &client.ReleaseResult{Error: detail}, err
	}
	cmd := command{kind: cmdRelease, lock: req.LockID, client: req.ClientID, version: req.Version}
	a, _, err := c.run(ctx, op, &cmd)
	if err != nil {
		return &client.ReleaseResult{Error: detailOf(err)}, err
	}
	defer c.node.release(a)
	rep := &a.reply
	if rep.result.code == pb.ErrorCode_OK || rep.unsure && isOver(&rep.result, req.Version) {
		return &client.ReleaseResult{Released: true, WaiterPromoted: rep.result.promoted}, nil
	}
	detail, err := refusalOf(op, rep)
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
	a, _, err := c.run(ctx, op, &cmd)
	if err != nil {
		return &client.RenewResult{Error: detailOf(err)}, err
	}
	defer c.node.release(a)
	rep := &a.reply
	if rep.result.code != pb.ErrorCode_OK {
		detail, err := refusalOf(op, rep)
		return &client.RenewResult{Error: detail}, err
	}
	c.confirm(ctx, rep)
	return &client.RenewResult{Renewed: true, Lock: lockOf(rep)}, nil
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
	a, _, err := c.run(ctx, op, &cmd)
	if err != nil {
		return &client.EnqueueResult{Error: detailOf(err)}, err
	}
	defer c.node.release(a)
	rep := &a.reply
	if rep.result.code != pb.ErrorCode_OK && !(rep.unsure && grantedBefore(&cmd, &rep.result)) {
		detail, err := refusalOf(op, rep)
		return &client.EnqueueResult{Error: detail}, err
	}
	result := &client.EnqueueResult{Enqueued: true}
	if rep.result.queued {
		result.Position = rep.result.position
		result.EstimatedWaitDuration = estimatedWait(rep)
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
	a, _, err := c.run(ctx, op, &cmd)
	if err != nil {
		return &client.CancelWaitResult{Error: detailOf(err)}, err
	}
	defer c.node.release(a)
	rep := &a.reply
	if rep.result.code != pb.ErrorCode_OK && !(rep.unsure && rep.result.code == pb.ErrorCode_NOT_WAITING) {
		detail, err := refusalOf(op, rep)
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
	if f := faulty(pb.ErrorCode_INVALID_ARGUMENT, input.ID("lock_id", req.LockID)); f != nil {
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

// run proposes a command and repeats it as far as the policy allows. It returns
// the attempt that was answered, to be released by the caller, or the error and
// the outcome that its details tell.
func (c *localClient) run(ctx context.Context, op string, cmd *command) (a *call, outcome string, err error) {
	if c.closed.Load() {
		return nil, clientClosed.outcome(), errorOf(op, clientClosed, nil)
	}
	n := c.node
	r := repeats{node: n, policy: c.policy.Load(), timeout: cmd.timeout, patience: n.holdLimit()}
	for {
		a = n.newCall(r.patience)
		a.cmd = *cmd
		a.refusal = n.cfg.Limits.check(cmd)
		f, ctxErr := n.await(ctx, a)
		if f == nil {
			a.reply.unsure = r.unsure
			return a, "", nil
		}
		f = r.note(f, a, cmd)
		if ctxErr == nil && r.again(f, cmd) {
			if f.interrupted {
				continue
			}
			ctxErr = n.pause(ctx, r.pause(f, cmd))
			if ctxErr == nil {
				continue
			}
		}
		return nil, f.outcome(), errorOf(op, f, ctxErr)
	}
}

// repeats is what a call knows of its failed attempts.
type repeats struct {
	node     *Node
	policy   *client.RetryPolicy
	timeout  span // the wait that the caller asked for
	patience time.Duration
	begun    time.Time // of the first attempt
	tries    int
	unsure   bool // an attempt may have been applied
}

// note takes a failure in, and returns what it means after those before it.
func (r *repeats) note(f *failure, a *call, cmd *command) *failure {
	if r.begun.IsZero() {
		if r.begun = a.since; r.begun.IsZero() { // it did not get as far as the loop
			r.begun = r.node.clock.Now()
		}
	}
	switch {
	case f.outcome() == outcomeUnknown:
		// Only now may another attempt find the traces of an earlier one.
		r.unsure = true
		cmd.attempt++
	case r.unsure && f.outcome() == outcomeNotProposed:
		f = stillUnknown(f)
	}
	if r.node.ctx.Err() != nil {
		f = f.atClosing()
	}
	return f
}

// again reports whether the call may be made again. One whose wait was
// interrupted always may: it keeps its place, and what is left of its wait.
func (r *repeats) again(f *failure, cmd *command) bool {
	waited := r.node.clock.Now().Sub(r.begun)
	if cmd.wait {
		wanted := r.timeout
		if wanted == 0 {
			wanted = span(r.node.cfg.Limits.DefaultWait)
		}
		cmd.timeout = max(wanted-span(waited), minWait)
	}
	switch {
	case f.closed:
		return false
	case f.interrupted:
		r.patience = time.Duration(cmd.timeout) + r.node.cfg.RequestTimeout
		return true
	case !cmd.wait && waited >= r.node.cfg.RequestTimeout:
		return false
	}
	return r.tries < r.policy.MaxRetries && slices.Contains(r.policy.RetryableErrors, f.code)
}

// pause is how long to wait before the repeat after a failure; it counts the
// repeat. A call that may stand in a queue, unknown to its member, comes back
// while its place is kept, whatever the policy says.
func (r *repeats) pause(f *failure, cmd *command) time.Duration {
	d := backoff(r.policy, r.tries)
	r.tries++
	if cmd.wait && f.outcome() == outcomeUnknown {
		d = min(d, claimWithin)
	}
	return d
}

// read makes a linearizable read; a read may always be repeated.
func (c *localClient) read(ctx context.Context, op string, kind readKind, lock string, waiters bool) (reply, error) {
	if c.closed.Load() {
		return reply{}, errorOf(op, clientClosed, nil)
	}
	n, policy := c.node, c.policy.Load()
	for tries := 0; ; tries++ {
		a := n.newCall(n.holdLimit())
		a.cmd.lock, a.read, a.withWaiters = lock, kind, waiters
		sent := n.clock.Now()
		f, ctxErr := n.await(ctx, a)
		if f == nil {
			rep := a.reply
			rep.at = sent
			n.release(a)
			return rep, nil
		}
		if n.ctx.Err() != nil {
			f = f.atClosing()
		}
		if ctxErr != nil || f.closed || tries >= policy.MaxRetries || !slices.Contains(policy.RetryableErrors, f.code) {
			return reply{}, errorOf(op, f, ctxErr)
		}
		if err := n.pause(ctx, backoff(policy, tries)); err != nil {
			return reply{}, errorOf(op, f, err)
		}
	}
}

// confirm asks once more how long a grant has left, when the answer could not
// say so: it had waited elsewhere, or its leader was out of office. A grant that
// cannot be confirmed, or is gone, counts as having nothing left. It reports
// whether the question was answered.
func (c *localClient) confirm(ctx context.Context, rep *reply) (answered bool) {
	if rep.timed {
		return true
	}
	rep.remaining = 0
	grant := &rep.result.lock
	now, err := c.read(ctx, "Acquire", readLock, grant.id, false)
	if err != nil {
		return false
	}
	if now.result.lock.version == grant.version && now.result.lock.held() {
		rep.at, rep.remaining, rep.timed = now.at, span(max(0, now.result.lock.end-now.now)), true
	}
	return true
}

// confirmAgain is confirm where this member cannot read, as when its disk hangs:
// the same call, made once more without waiting, is answered with the grant that
// it has. It must not be made for a grant that is gone: it would take the lock anew.
func (c *localClient) confirmAgain(ctx context.Context, acquire *command, rep *reply) {
	cmd := *acquire
	cmd.wait, cmd.timeout, cmd.attempt = false, 0, max(cmd.attempt, 1)+1
	a, _, err := c.run(ctx, "Acquire", &cmd)
	if err != nil {
		return
	}
	defer c.node.release(a)
	if a.reply.timed && a.reply.result.code == pb.ErrorCode_OK {
		*rep = a.reply
	}
}

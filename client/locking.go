package client

import (
	"cmp"
	"context"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/raftlock/raftlock/internal/input"
	"github.com/raftlock/raftlock/pb"
)

// The calls of the remote client that change the table.

func (c *remote) Acquire(ctx context.Context, req *AcquireRequest) (*AcquireResult, error) {
	const op = "Acquire"
	if req == nil {
		detail, err := c.count(op, nilRequest()).refuse(op)
		return &AcquireResult{Error: detail}, err
	}
	answer := new(pb.AcquireResponse)
	x := &exchange{
		op: op, method: pb.RaftLock_Acquire_FullMethodName, lane: laneCalls, fault: faulty(checkAcquire(req)),
		wait: req.Wait, timeout: req.WaitTimeout, first: req.Attempt,
		answer: answer, accepted: func() bool { return answer.GetAcquired() && answer.GetLock() != nil },
		ask:       func(attempt int32, left time.Duration) proto.Message { return askAcquire(req, attempt, left) },
		abandoned: func(f *failure) { c.withdrawIfCancelled(ctx, req, f) },
	}
	f := c.run(ctx, x)
	result := &AcquireResult{
		Acquired:              f == nil,
		QueuePosition:         answer.GetQueuePosition(),
		EstimatedWaitDuration: durationOf(answer.GetEstimatedWaitDuration()),
	}
	if f != nil {
		result.BackoffAdvice = adviceOf(answer.GetBackoffAdvice())
		var err error
		result.Error, err = f.refuse(op)
		return result, err
	}
	result.Lock = lockOf(answer.GetLock(), x.sent)
	if req.Wait {
		c.confirm(ctx, result.Lock, x, durationOf(answer.GetLock().GetRemaining()))
	}
	return result, nil
}

func askAcquire(req *AcquireRequest, attempt int32, left time.Duration) *pb.AcquireRequest {
	return &pb.AcquireRequest{
		LockId: req.LockID, ClientId: req.ClientID, RequestId: req.RequestID, Attempt: attempt,
		Ttl: askDuration(req.TTL), Wait: req.Wait, WaitTimeout: askDuration(left),
		Priority: req.Priority, Metadata: req.Metadata,
	}
}

// waitedShare is which part of a grant may have passed, by the count from when
// the attempt was sent, before it is worth another exchange to count anew.
const waitedShare = 500

// confirm asks once more how long a grant has left when it was waited for: its
// end counts from when the attempt was sent, and most of the time since then was
// the wait. An end that cannot be confirmed stays as it is, too early.
func (c *remote) confirm(ctx context.Context, lock *Lock, x *exchange, remaining time.Duration) {
	if x.took <= remaining/waitedShare {
		return
	}
	ctx, cancel := c.clock.WithTimeout(ctx, remaining)
	defer cancel()
	answer := new(pb.GetLockInfoResponse)
	read := askLockInfo(&GetLockInfoRequest{LockID: lock.LockID}, answer)
	read.quiet = true
	f := c.run(ctx, read)
	info := answer.GetLockInfo()
	switch {
	case f == nil && info.GetVersion() == lock.Version && info.GetOwnerId() != "":
		lock.ExpiresAt = read.sent.Add(durationOf(info.GetRemaining()))
	case f == nil || f.code == pb.ErrorCode_LOCK_NOT_FOUND:
		lock.ExpiresAt = x.sent // it is over already
	}
}

func (c *remote) Release(ctx context.Context, req *ReleaseRequest) (*ReleaseResult, error) {
	const op = "Release"
	if req == nil {
		detail, err := c.count(op, nilRequest()).refuse(op)
		return &ReleaseResult{Error: detail}, err
	}
	answer := new(pb.ReleaseResponse)
	f := c.run(ctx, &exchange{
		op: op, method: pb.RaftLock_Release_FullMethodName, lane: laneUrgent,
		fault:  faulty(checkIDs(req.LockID, req.ClientID)),
		ask:    always(&pb.ReleaseRequest{LockId: req.LockID, ClientId: req.ClientID, Version: req.Version}),
		answer: answer, accepted: answer.GetReleased,
		converged: func(f *failure) bool { return isOver(f, req.Version) },
	})
	if f != nil {
		detail, err := f.refuse(op)
		return &ReleaseResult{Error: detail}, err
	}
	return &ReleaseResult{Released: true, WaiterPromoted: answer.GetWaiterPromoted()}, nil
}

// isOver reports whether a refused release says that the grant it named has
// ended, as it has when an earlier attempt of the same release was applied.
func isOver(f *failure, version int64) bool {
	key := "version"
	switch f.code {
	case pb.ErrorCode_LOCK_NOT_FOUND:
		return true
	case pb.ErrorCode_LOCK_NOT_HELD:
		key = "last_version"
	case pb.ErrorCode_NOT_LOCK_OWNER, pb.ErrorCode_VERSION_MISMATCH:
	default:
		return false
	}
	last, err := strconv.ParseInt(f.details[key], 10, 64)
	return err == nil && last >= version
}

func (c *remote) Renew(ctx context.Context, req *RenewRequest) (*RenewResult, error) {
	const op = "Renew"
	if req == nil {
		detail, err := c.count(op, nilRequest()).refuse(op)
		return &RenewResult{Error: detail}, err
	}
	answer := new(pb.RenewResponse)
	x := &exchange{
		op: op, method: pb.RaftLock_Renew_FullMethodName, lane: laneUrgent,
		fault: faulty(checkIDs(req.LockID, req.ClientID)),
		ask: always(&pb.RenewRequest{
			LockId: req.LockID, ClientId: req.ClientID, Version: req.Version, NewTtl: askDuration(req.NewTTL),
		}),
		answer: answer, accepted: func() bool { return answer.GetRenewed() && answer.GetLock() != nil },
	}
	if f := c.run(ctx, x); f != nil {
		detail, err := f.refuse(op)
		return &RenewResult{Error: detail}, err
	}
	return &RenewResult{Renewed: true, Lock: lockOf(answer.GetLock(), x.sent)}, nil
}

func (c *remote) EnqueueWaiter(ctx context.Context, req *EnqueueWaiterRequest) (*EnqueueResult, error) {
	const op = "EnqueueWaiter"
	if req == nil {
		detail, err := c.count(op, nilRequest()).refuse(op)
		return &EnqueueResult{Error: detail}, err
	}
	answer := new(pb.EnqueueWaiterResponse)
	f := c.run(ctx, &exchange{
		op: op, method: pb.RaftLock_EnqueueWaiter_FullMethodName, lane: laneCalls,
		fault: faulty(cmp.Or(checkIDs(req.LockID, req.ClientID), input.Priority(req.Priority))),
		ask: always(&pb.EnqueueWaiterRequest{
			LockId: req.LockID, ClientId: req.ClientID, Timeout: askDuration(req.Timeout),
			Priority: req.Priority, Version: req.Version,
		}),
		answer: answer, accepted: answer.GetEnqueued,
		converged: func(f *failure) bool { // an earlier attempt had got the lock
			return f.code == pb.ErrorCode_LOCK_HELD && f.details["owner_id"] == req.ClientID
		},
	})
	if f != nil {
		detail, err := f.refuse(op)
		return &EnqueueResult{Error: detail}, err
	}
	return &EnqueueResult{
		Enqueued: true, Position: answer.GetPosition(),
		EstimatedWaitDuration: durationOf(answer.GetEstimatedWaitDuration()),
	}, nil
}

func (c *remote) CancelWait(ctx context.Context, req *CancelWaitRequest) (*CancelWaitResult, error) {
	const op = "CancelWait"
	if req == nil {
		detail, err := c.count(op, nilRequest()).refuse(op)
		return &CancelWaitResult{Error: detail}, err
	}
	answer := new(pb.CancelWaitResponse)
	f := c.run(ctx, &exchange{
		op: op, method: pb.RaftLock_CancelWait_FullMethodName, lane: laneUrgent,
		fault: faulty(cmp.Or(checkIDs(req.LockID, req.ClientID), input.Request(req.RequestID))),
		ask: always(&pb.CancelWaitRequest{
			LockId: req.LockID, ClientId: req.ClientID, Version: req.Version, RequestId: req.RequestID,
		}),
		answer: answer, accepted: answer.GetCancelled,
		converged: func(f *failure) bool { return f.code == pb.ErrorCode_NOT_WAITING },
	})
	if f != nil {
		detail, err := f.refuse(op)
		return &CancelWaitResult{Error: detail}, err
	}
	return &CancelWaitResult{Cancelled: true}, nil
}

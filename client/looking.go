package client

import (
	"context"

	"github.com/raftlock/raftlock/internal/input"
	"github.com/raftlock/raftlock/pb"
)

// The calls of the remote client that change nothing. Every member answers them.

// askLockInfo is the exchange of a GetLockInfo.
func askLockInfo(req *GetLockInfoRequest, answer *pb.GetLockInfoResponse) *exchange {
	return &exchange{
		op: "GetLockInfo", method: pb.RaftLock_GetLockInfo_FullMethodName, lane: laneCalls, reads: true,
		fault:  faulty(input.ID("lock_id", req.LockID)),
		ask:    always(&pb.GetLockInfoRequest{LockId: req.LockID, IncludeWaiters: req.IncludeWaiters}),
		answer: answer, accepted: func() bool { return answer.GetLockInfo() != nil },
	}
}

func (c *remote) GetLockInfo(ctx context.Context, req *GetLockInfoRequest) (*LockInfo, error) {
	const op = "GetLockInfo"
	if req == nil {
		return nil, c.count(op, nilRequest()).err(op)
	}
	answer := new(pb.GetLockInfoResponse)
	x := askLockInfo(req, answer)
	if f := c.run(ctx, x); f != nil {
		return nil, f.err(op)
	}
	return infoOf(answer.GetLockInfo(), x.sent), nil
}

// GetLocks makes one exchange for each page. RequestTimeout bounds each of them,
// ctx the whole.
func (c *remote) GetLocks(ctx context.Context, req *GetLocksRequest) (*GetLocksResult, error) {
	const op = "GetLocks"
	if req == nil {
		return &GetLocksResult{}, c.count(op, nilRequest()).err(op)
	}
	begun := c.clock.Now()
	result, f := c.listing(ctx, req)
	if c.metrics != nil {
		c.metrics.ended(op, f == nil, c.clock.Now().Sub(begun))
	}
	if f != nil {
		return &GetLocksResult{}, f.err(op)
	}
	return result, nil
}

// listing gathers one page, or all of them if the request has no limit.
func (c *remote) listing(ctx context.Context, req *GetLocksRequest) (*GetLocksResult, *failure) {
	result := new(GetLocksResult)
	page, fault := *req, faulty(checkListing(req))
	for first := true; ; first = false {
		answer := new(pb.GetLocksResponse)
		x := &exchange{
			op: "GetLocks", method: pb.RaftLock_GetLocks_FullMethodName, lane: laneCalls, reads: true, fault: fault,
			ask: always(&pb.GetLocksRequest{
				Filter: askFilter(page.Filter), Limit: page.Limit, Offset: page.Offset,
				IncludeWaiters: page.IncludeWaiters, StartAfter: page.StartAfter,
			}),
			answer: answer, accepted: func() bool { return true },
		}
		if f := c.attend(ctx, x); f != nil {
			return nil, f
		}
		for _, l := range answer.GetLocks() {
			result.Locks = append(result.Locks, infoOf(l, x.sent))
		}
		if first {
			result.TotalMatching = answer.GetTotalMatchingFilter()
		}
		result.HasMore = answer.GetHasMore()
		if req.Limit != 0 || !answer.GetHasMore() || len(answer.GetLocks()) == 0 {
			return result, nil
		}
		last := answer.GetLocks()[len(answer.GetLocks())-1].GetLockId()
		if last <= page.StartAfter {
			return nil, pagesRepeat()
		}
		page.StartAfter, page.Offset = last, 0
	}
}

// pagesRepeat is the failure of a listing that would never end: whoever serves it
// does not know StartAfter.
func pagesRepeat() *failure {
	return failed(pb.ErrorCode_INTERNAL_ERROR, outcomeNotProposed, "the pages of the list do not follow on each other")
}

// GetStatus asks the first of the configured members that it can reach: a tool
// that was given one member hears of that one.
func (c *remote) GetStatus(ctx context.Context, req *GetStatusRequest) (*ClusterStatus, error) {
	const op = "GetStatus"
	if req == nil {
		return nil, c.count(op, nilRequest()).err(op)
	}
	answer := new(pb.GetStatusResponse)
	f := c.run(ctx, &exchange{
		op: op, method: pb.RaftLock_GetStatus_FullMethodName, lane: laneCalls, reads: true, itself: true,
		ask:    always(&pb.GetStatusRequest{IncludeReplicationDetails: req.IncludeReplicationDetails}),
		answer: answer, accepted: func() bool { return answer.GetRaftStatus() != nil },
	})
	if f != nil {
		return nil, f.err(op)
	}
	return statusOf(answer), nil
}

// Health asks the first of the configured members that it can reach. When nobody answers, the
// status says NOT_SERVING as well, and the error why.
func (c *remote) Health(ctx context.Context, req *HealthRequest) (*HealthStatus, error) {
	const op = "Health"
	if req == nil {
		return nil, c.count(op, nilRequest()).err(op)
	}
	answer := new(pb.HealthResponse)
	f := c.run(ctx, &exchange{
		op: op, method: pb.RaftLock_Health_FullMethodName, lane: laneCalls, reads: true, itself: true,
		fault:  faulty(checkText("service_name", req.ServiceName)),
		ask:    always(&pb.HealthRequest{ServiceName: req.ServiceName}),
		answer: answer, accepted: func() bool { return answer.GetHealthInfo() != nil || answer.GetStatus() != 0 },
	})
	if f != nil {
		err := f.err(op)
		return &HealthStatus{Status: HealthStatusNotServing, Message: err.Error()}, err
	}
	health := healthOf(answer.GetHealthInfo())
	if health == nil {
		health = new(HealthStatus)
	}
	if verdict := servingOf(answer.GetStatus()); verdict != HealthStatusUnknown {
		health.Status = verdict
	}
	if answer.GetMessage() != "" {
		health.Message = answer.GetMessage()
	}
	if health.Status != HealthStatusServing {
		return health, failed(pb.ErrorCode_UNAVAILABLE, outcomeNotProposed, "%s", health.Message).err(op)
	}
	return health, nil
}

func (c *remote) GetBackoffAdvice(ctx context.Context, req *BackoffAdviceRequest) (*BackoffAdvice, error) {
	const op = "GetBackoffAdvice"
	if req == nil {
		return nil, c.count(op, nilRequest()).err(op)
	}
	answer := new(pb.BackoffAdviceResponse)
	f := c.run(ctx, &exchange{
		op: op, method: pb.RaftLock_GetBackoffAdvice_FullMethodName, lane: laneCalls, reads: true,
		fault:  faulty(input.ID("lock_id", req.LockID)),
		ask:    always(&pb.BackoffAdviceRequest{LockId: req.LockID}),
		answer: answer, accepted: func() bool { return answer.GetAdvice() != nil },
	})
	if f != nil {
		return nil, f.err(op)
	}
	return adviceOf(answer.GetAdvice()), nil
}

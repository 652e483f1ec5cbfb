package lockservice

import (
	"context"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/pb"
)

// The RPCs. Each turns its message into the client's request, and the result, or
// the refusal, into the answer.

// Acquire takes a lock, or waits for it.
func (s *Service) Acquire(ctx context.Context, req *pb.AcquireRequest) (*pb.AcquireResponse, error) {
	ttl, err := spanOf("ttl", req.GetTtl())
	if err != nil {
		return nil, err
	}
	ask := &client.AcquireRequest{
		LockID: req.GetLockId(), ClientID: req.GetClientId(), TTL: ttl, Wait: req.GetWait(),
		Priority: req.GetPriority(), Metadata: req.GetMetadata(),
		RequestID: req.GetRequestId(), Attempt: req.GetAttempt(),
	}
	if ask.Wait { // otherwise it means nothing, whatever it is
		if ask.WaitTimeout, err = spanOf("wait_timeout", req.GetWaitTimeout()); err != nil {
			return nil, err
		}
	}
	answer := new(pb.AcquireResponse)
	err = s.carry(ctx, ask.Wait, func(ctx context.Context) error {
		result, err := s.locks.Acquire(ctx, ask)
		if result == nil {
			return err
		}
		answer.Acquired = result.Acquired
		answer.Lock = s.lock(result.Lock)
		answer.BackoffAdvice = advice(result.BackoffAdvice)
		answer.QueuePosition = result.QueuePosition
		answer.EstimatedWaitDuration = durationpb.New(result.EstimatedWaitDuration)
		return err
	})
	answer.Error, err = settle(err)
	return answer, err
}

// Release gives a lock back.
func (s *Service) Release(ctx context.Context, req *pb.ReleaseRequest) (*pb.ReleaseResponse, error) {
	answer := new(pb.ReleaseResponse)
	err := s.carry(ctx, false, func(ctx context.Context) error {
		result, err := s.locks.Release(ctx, &client.ReleaseRequest{
			LockID: req.GetLockId(), ClientID: req.GetClientId(), Version: req.GetVersion(),
		})
		if result != nil {
			answer.Released, answer.WaiterPromoted = result.Released, result.WaiterPromoted
		}
		return err
	})
	answer.Error, err = settle(err)
	return answer, err
}

// Renew prolongs a grant.
func (s *Service) Renew(ctx context.Context, req *pb.RenewRequest) (*pb.RenewResponse, error) {
	ttl, err := spanOf("new_ttl", req.GetNewTtl())
	if err != nil {
		return nil, err
	}
	answer := new(pb.RenewResponse)
	err = s.carry(ctx, false, func(ctx context.Context) error {
		result, err := s.locks.Renew(ctx, &client.RenewRequest{
			LockID: req.GetLockId(), ClientID: req.GetClientId(), Version: req.GetVersion(), NewTTL: ttl,
		})
		if result != nil {
			answer.Renewed, answer.Lock = result.Renewed, s.lock(result.Lock)
		}
		return err
	})
	answer.Error, err = settle(err)
	return answer, err
}

// GetLockInfo describes a lock.
func (s *Service) GetLockInfo(ctx context.Context, req *pb.GetLockInfoRequest) (*pb.GetLockInfoResponse, error) {
	answer := new(pb.GetLockInfoResponse)
	err := s.carry(ctx, false, func(ctx context.Context) error {
		info, err := s.locks.GetLockInfo(ctx, &client.GetLockInfoRequest{
			LockID: req.GetLockId(), IncludeWaiters: req.GetIncludeWaiters(),
		})
		answer.LockInfo = s.lockInfo(info)
		return err
	})
	answer.Error, err = settle(err)
	return answer, err
}

// largestPage is what a listing without a limit gets: a page, not the whole
// table, which would not fit into a message. The client makes it smaller where
// its locks are large.
const largestPage = 1000

// GetLocks lists locks, one page of them.
func (s *Service) GetLocks(ctx context.Context, req *pb.GetLocksRequest) (*pb.GetLocksResponse, error) {
	filter, err := filterOf(req.GetFilter())
	if err != nil {
		return nil, err
	}
	ask := &client.GetLocksRequest{
		Filter: filter, Limit: req.GetLimit(), Offset: req.GetOffset(),
		IncludeWaiters: req.GetIncludeWaiters(), StartAfter: req.GetStartAfter(),
	}
	if ask.Limit == 0 {
		ask.Limit = largestPage
	}
	answer := new(pb.GetLocksResponse)
	err = s.carry(ctx, false, func(ctx context.Context) error {
		result, err := s.locks.GetLocks(ctx, ask)
		if err != nil {
			return err
		}
		for _, info := range result.Locks {
			answer.Locks = append(answer.Locks, s.lockInfo(info))
		}
		answer.TotalMatchingFilter, answer.HasMore = result.TotalMatching, result.HasMore
		return nil
	})
	return answer, err
}

// EnqueueWaiter joins a queue.
func (s *Service) EnqueueWaiter(ctx context.Context, req *pb.EnqueueWaiterRequest) (*pb.EnqueueWaiterResponse, error) {
	timeout, err := spanOf("timeout", req.GetTimeout())
	if err != nil {
		return nil, err
	}
	answer := new(pb.EnqueueWaiterResponse)
	err = s.carry(ctx, false, func(ctx context.Context) error {
		result, err := s.locks.EnqueueWaiter(ctx, &client.EnqueueWaiterRequest{
			LockID: req.GetLockId(), ClientID: req.GetClientId(), Timeout: timeout,
			Priority: req.GetPriority(), Version: req.GetVersion(),
		})
		if result != nil {
			answer.Enqueued, answer.Position = result.Enqueued, result.Position
			answer.EstimatedWaitDuration = durationpb.New(result.EstimatedWaitDuration)
		}
		return err
	})
	answer.Error, err = settle(err)
	return answer, err
}

// CancelWait leaves a queue, or withdraws a call.
func (s *Service) CancelWait(ctx context.Context, req *pb.CancelWaitRequest) (*pb.CancelWaitResponse, error) {
	answer := new(pb.CancelWaitResponse)
	err := s.carry(ctx, false, func(ctx context.Context) error {
		result, err := s.locks.CancelWait(ctx, &client.CancelWaitRequest{
			LockID: req.GetLockId(), ClientID: req.GetClientId(),
			Version: req.GetVersion(), RequestID: req.GetRequestId(),
		})
		if result != nil {
			answer.Cancelled = result.Cancelled
		}
		return err
	})
	answer.Error, err = settle(err)
	return answer, err
}

// GetBackoffAdvice says how to pace attempts.
func (s *Service) GetBackoffAdvice(ctx context.Context, req *pb.BackoffAdviceRequest) (*pb.BackoffAdviceResponse, error) {
	answer := new(pb.BackoffAdviceResponse)
	err := s.carry(ctx, false, func(ctx context.Context) error {
		got, err := s.locks.GetBackoffAdvice(ctx, &client.BackoffAdviceRequest{LockID: req.GetLockId()})
		answer.Advice = advice(got)
		return err
	})
	return answer, err
}

// GetStatus describes the member.
func (s *Service) GetStatus(ctx context.Context, req *pb.GetStatusRequest) (*pb.GetStatusResponse, error) {
	answer := new(pb.GetStatusResponse)
	err := s.carry(ctx, false, func(ctx context.Context) error {
		got, err := s.locks.GetStatus(ctx, &client.GetStatusRequest{
			IncludeReplicationDetails: req.GetIncludeReplicationDetails(),
		})
		if err == nil {
			answer = clusterStatus(got)
		}
		return err
	})
	return answer, err
}

// Health says whether the member can serve. That it cannot is an answer, not an
// error.
func (s *Service) Health(ctx context.Context, _ *pb.HealthRequest) (*pb.HealthResponse, error) {
	status := health(s.look(ctx))
	return &pb.HealthResponse{Status: status.GetStatus(), Message: status.GetMessage(), HealthInfo: status}, nil
}

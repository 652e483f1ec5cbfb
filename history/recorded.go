package history

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/internal/clock"
	"github.com/raftlock/raftlock/pb"
)

// recorded is a client whose operations are recorded. What it does not override
// passes by: it neither changes a lock nor shows one.
type recorded struct {
	client.Client
	recorder *Recorder
	name     string
	clock    clock.Clock
}

// Clock is that of the client behind it.
func (c *recorded) Clock() clock.Clock { return c.clock }

func (c *recorded) Acquire(ctx context.Context, req *client.AcquireRequest) (*client.AcquireResult, error) {
	if req == nil {
		return c.Client.Acquire(ctx, req)
	}
	i := c.recorder.begin(Op{
		Call: Acquire, Client: c.name, Lock: req.LockID, ClientID: req.ClientID, RequestID: req.RequestID,
		TTL: req.TTL, Wait: req.Wait, Timeout: req.WaitTimeout, Priority: req.Priority,
	})
	res, err := c.Client.Acquire(ctx, req)
	c.end(i, err, func(op *Op) bool {
		if res == nil || !res.Acquired || res.Lock == nil {
			return false
		}
		op.Token, op.Expires = res.Lock.Version, c.at(res.Lock.ExpiresAt)
		return true
	})
	return res, err
}

func (c *recorded) Release(ctx context.Context, req *client.ReleaseRequest) (*client.ReleaseResult, error) {
	if req == nil {
		return c.Client.Release(ctx, req)
	}
	i := c.recorder.begin(Op{Call: Release, Client: c.name, Lock: req.LockID, ClientID: req.ClientID, Token: req.Version})
	res, err := c.Client.Release(ctx, req)
	c.end(i, err, func(op *Op) bool {
		if res == nil || !res.Released {
			return false
		}
		op.Promoted = res.WaiterPromoted
		return true
	})
	return res, err
}

func (c *recorded) Renew(ctx context.Context, req *client.RenewRequest) (*client.RenewResult, error) {
	if req == nil {
		return c.Client.Renew(ctx, req)
	}
	i := c.recorder.begin(Op{Call: Renew, Client: c.name, Lock: req.LockID, ClientID: req.ClientID, Token: req.Version, TTL: req.NewTTL})
	res, err := c.Client.Renew(ctx, req)
	c.end(i, err, func(op *Op) bool {
		if res == nil || !res.Renewed {
			return false
		}
		if res.Lock != nil {
			op.Expires = c.at(res.Lock.ExpiresAt)
		}
		return true
	})
	return res, err
}

func (c *recorded) GetLockInfo(ctx context.Context, req *client.GetLockInfoRequest) (*client.LockInfo, error) {
	if req == nil {
		return c.Client.GetLockInfo(ctx, req)
	}
	i := c.recorder.begin(Op{Call: Look, Client: c.name, Lock: req.LockID})
	info, err := c.Client.GetLockInfo(ctx, req)
	c.end(i, err, func(op *Op) bool {
		if info == nil {
			return false
		}
		op.Seen = []Sight{sightOf(info)}
		return true
	})
	return info, err
}

func (c *recorded) GetLocks(ctx context.Context, req *client.GetLocksRequest) (*client.GetLocksResult, error) {
	if req == nil {
		return c.Client.GetLocks(ctx, req)
	}
	i := c.recorder.begin(Op{Call: Look, Client: c.name})
	res, err := c.Client.GetLocks(ctx, req)
	c.end(i, err, func(op *Op) bool {
		if res == nil {
			return false
		}
		for _, info := range res.Locks {
			if info != nil {
				op.Seen = append(op.Seen, sightOf(info))
			}
		}
		return true
	})
	return res, err
}

func (c *recorded) EnqueueWaiter(ctx context.Context, req *client.EnqueueWaiterRequest) (*client.EnqueueResult, error) {
	if req == nil {
		return c.Client.EnqueueWaiter(ctx, req)
	}
	i := c.recorder.begin(Op{
		Call: Enqueue, Client: c.name, Lock: req.LockID, ClientID: req.ClientID,
		Wait: true, Timeout: req.Timeout, Priority: req.Priority,
	})
	res, err := c.Client.EnqueueWaiter(ctx, req)
	c.end(i, err, func(*Op) bool { return res != nil && res.Enqueued })
	return res, err
}

func (c *recorded) CancelWait(ctx context.Context, req *client.CancelWaitRequest) (*client.CancelWaitResult, error) {
	if req == nil {
		return c.Client.CancelWait(ctx, req)
	}
	i := c.recorder.begin(Op{Call: Cancel, Client: c.name, Lock: req.LockID, ClientID: req.ClientID, RequestID: req.RequestID})
	res, err := c.Client.CancelWait(ctx, req)
	c.end(i, err, func(*Op) bool { return res != nil && res.Cancelled })
	return res, err
}

// end records an answer. done fills in what a good one says, and reports whether
// it is one. An answer that is neither good nor an error breaks the contract of
// the interface; nothing is known then.
func (c *recorded) end(i int, err error, done func(op *Op) bool) {
	c.recorder.end(i, func(op *Op) {
		switch {
		case err != nil:
			op.Outcome, op.Code = outcomeOf(err)
			if op.Outcome == Refused {
				op.Seen = holderIn(err, op)
			}
		case done(op):
			op.Outcome = OK
		default:
			op.Outcome = Unknown
		}
	})
}

// at is an end by the client's clock as the recorder counts it. It is the length
// until then that is taken over: the two clocks need not agree on instants.
func (c *recorded) at(end time.Time) time.Duration {
	if end.IsZero() {
		return 0
	}
	return bounded(time.Since(c.recorder.start) + bounded(end.Sub(c.clock.Now())))
}

// byTable are the codes with which the lock table refuses.
var byTable = map[pb.ErrorCode]bool{
	pb.ErrorCode_LOCK_HELD: true, pb.ErrorCode_LOCK_NOT_HELD: true, pb.ErrorCode_NOT_LOCK_OWNER: true,
	pb.ErrorCode_VERSION_MISMATCH: true, pb.ErrorCode_LOCK_NOT_FOUND: true, pb.ErrorCode_WAIT_QUEUE_FULL: true,
	pb.ErrorCode_NOT_WAITING: true,
}

// outcomeOf is what an error says about its operation. What is not said to have
// had no effect may have had one.
func outcomeOf(err error) (Outcome, string) {
	var ce *client.ClientError
	if !errors.As(err, &ce) || errors.Is(err, client.ErrOutcomeUnknown) {
		return Unknown, ""
	}
	told := ce.Details["outcome"]
	waited := ce.Code == pb.ErrorCode_TIMEOUT && told == "not_acquired"
	switch {
	case byTable[ce.Code] || waited:
		return Refused, ce.Code.String()
	case told == "not_acquired" || told == "not_proposed", errors.Is(err, client.ErrLeaderUnavailable),
		errors.Is(err, client.ErrInvalidArgument), errors.Is(err, client.ErrInvalidTTL), errors.Is(err, client.ErrRateLimit):
		return Failed, ce.Code.String()
	}
	return Unknown, ce.Code.String()
}

// holderIn is what a refusal says about the lock.
func holderIn(err error, op *Op) []Sight {
	var ce *client.ClientError
	if !errors.As(err, &ce) || op.Call == Cancel {
		return nil
	}
	sight := Sight{Lock: op.Lock, Held: true}
	key := "version"
	switch ce.Code {
	case pb.ErrorCode_LOCK_HELD:
		sight.Owner = ce.Details["owner_id"]
	case pb.ErrorCode_VERSION_MISMATCH:
		sight.Owner = op.ClientID
	case pb.ErrorCode_NOT_LOCK_OWNER:
	case pb.ErrorCode_LOCK_NOT_HELD:
		sight.Held, key = false, "last_version"
	default:
		return nil
	}
	token, err := strconv.ParseInt(ce.Details[key], 10, 64)
	if err != nil || token <= 0 {
		return nil
	}
	sight.Token = token
	return []Sight{sight}
}

func sightOf(info *client.LockInfo) Sight {
	s := Sight{Lock: info.LockID, Owner: info.OwnerID, Held: info.OwnerID != "", Token: info.Version, Waiters: info.WaiterCount}
	for _, w := range info.WaitersInfo {
		if w != nil {
			s.Queue = append(s.Queue, Place{ClientID: w.ClientID})
		}
	}
	return s
}

package client

import (
	"context"
	"errors"
	"time"

	"github.com/raftlock/raftlock/internal/callctx"
	"github.com/raftlock/raftlock/pb"
)

// withdrawLimit bounds a withdrawal. By then the member that had the call has
// noticed that nobody is attached to it any more, and the cluster has ended its
// wait, or the grant that nobody claimed.
const withdrawLimit = 10 * time.Second

// withdrawIfCancelled withdraws a call with a RequestID that was cancelled without an answer,
// behind its caller's back: its wait, or the grant that won the race. A call
// that only ran out of attempts or time is left alone, since its caller may
// repeat it; so is one whose caller was itself a server that lost a connection.
func (c *remote) withdrawIfCancelled(ctx context.Context, req *AcquireRequest, f *failure) {
	if req.RequestID == "" || !f.unknown() {
		return
	}
	cancelled := ctx.Err() != nil && !errors.Is(context.Cause(ctx), callctx.ErrConnectionLost)
	if !cancelled && !f.closed {
		return
	}
	message := &pb.CancelWaitRequest{LockId: req.LockID, ClientId: req.ClientID, RequestId: req.RequestID}
	c.mu.Lock()
	c.mu.running++ // the call itself still counts, so that Close waits
	c.mu.Unlock()
	go c.withdraw(message)
}

// withdraw sends one CancelWait, and repeats it only if it was not answered.
func (c *remote) withdraw(message *pb.CancelWaitRequest) {
	defer c.end()
	ctx, cancel := c.clock.WithTimeout(c.afterlife, withdrawLimit)
	defer cancel()
	_ = c.conduct(ctx, c.afterlife, &exchange{ // nobody is left to be told
		op: "CancelWait", method: pb.RaftLock_CancelWait_FullMethodName, lane: laneUrgent, quiet: true,
		ask: always(message), answer: new(pb.CancelWaitResponse),
	})
}

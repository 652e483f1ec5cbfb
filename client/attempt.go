package client

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/raftlock/raftlock/pb"
)

// exchange is one call: what is asked, and what became of it.
type exchange struct {
	op, method string
	lane       lane
	reads      bool     // it changes nothing, so that its outcome does not matter
	itself     bool     // it asks a member about itself: the configured order counts, not who leads
	quiet      bool     // the client's own: not counted
	fault      *failure // what keeps it from being sent, nil if nothing does

	wait    bool          // it may wait in a queue
	timeout time.Duration // for how long; 0 is the cluster's default

	// ask makes the message of an attempt; left is what is left of the wait.
	ask func(attempt int32, left time.Duration) proto.Message
	// first is the number of the first attempt; 0 is 1.
	first int32
	// answer is filled by the attempt that is answered.
	answer proto.Message
	// accepted reports whether an answer that does not refuse makes sense.
	accepted func() bool
	// converged reports whether a refusal shows that an earlier attempt of the
	// call did what was asked; nil for never.
	converged func(*failure) bool
	// abandoned is told how a call failed while the client still waits for it;
	// nil for nobody.
	abandoned func(*failure)

	// What is known when it is answered: when the answered attempt was sent, how
	// long it took, how the cluster refused it, nil if it did not, and whether an
	// earlier attempt may have been applied.
	sent    time.Time
	took    time.Duration
	refusal *failure
	unsure  bool
}

// outcome is nil if the answer is what was asked for.
func (x *exchange) outcome() *failure {
	switch {
	case x.refusal == nil && !x.accepted():
		outcome := outcomeUnknown
		if x.reads {
			outcome = outcomeNotProposed
		}
		return failed(pb.ErrorCode_INTERNAL_ERROR, outcome, "the member's answer says neither yes nor no")
	case x.refusal != nil && x.unsure && x.converged != nil && x.converged(x.refusal):
		return nil
	}
	return x.refusal
}

// always is the message of a call whose attempts are all alike.
func always(m proto.Message) func(int32, time.Duration) proto.Message {
	return func(int32, time.Duration) proto.Message { return m }
}

// Each answer carries these, in its headers or trailers.
const (
	clusterHeader = "raftlock-cluster"
	leaderHeader  = "raftlock-leader"
)

// answerer is a message that can refuse.
type answerer interface{ GetError() *pb.ErrorDetail }

// attempt makes one attempt over one endpoint. It returns nil when the cluster
// has answered; the answer may be a refusal. limit bounds the attempt.
func (c *remote) attempt(ctx context.Context, x *exchange, e *endpoint, message proto.Message, limit time.Duration) *failure {
	if size := proto.Size(message); size > c.cfg.MaxMessageSize {
		return tooLarge(size, c.cfg.MaxMessageSize)
	}
	if !c.endpoints.use(e) {
		return failed(pb.ErrorCode_UNAVAILABLE, outcomeNotProposed, "its connection is closed")
	}
	defer c.endpoints.done(e)
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = c.clock.WithTimeout(ctx, limit)
		defer cancel()
	}
	ctx, sent := withMark(ctx)
	var header, trailer metadata.MD
	proto.Reset(x.answer)
	x.sent = c.clock.Now()
	patience := suspectAfter
	if deadline, ok := ctx.Deadline(); ok {
		patience = min(patience, deadline.Sub(x.sent)/2)
	}
	err := e.conn(x.lane).Invoke(ctx, x.method, message, x.answer, grpc.Header(&header), grpc.Trailer(&trailer))
	x.took = c.clock.Now().Sub(x.sent)

	if why := c.endpoints.heard(e, told(clusterHeader, header, trailer), told(leaderHeader, header, trailer)); why != "" {
		return failed(pb.ErrorCode_UNAVAILABLE, outcomeNotProposed, "%s", why)
	}
	if err != nil {
		f := failureOfStatus(err, sent)
		stopped := ctx.Err() != nil && f.code == pb.ErrorCode_TIMEOUT && !x.wait && x.took >= patience
		if stopped || f.unfit {
			c.endpoints.suspect(e)
		}
		return f
	}
	refused, ok := x.answer.(answerer)
	if !ok || refused.GetError() == nil || refused.GetError().GetCode() == pb.ErrorCode_OK {
		x.refusal = nil
		return nil
	}
	f := failureOf(refused.GetError(), true)
	if !f.final {
		return f
	}
	x.refusal = f
	return nil
}

// suspectAfter is how long a member may keep a call until it is suspected of
// having stopped; one that had less time than twice that is suspected after half
// of it, or the repeats of a short call would all go to a member that hangs.
const suspectAfter = time.Second

// told is the first value of a header.
func told(key string, from ...metadata.MD) string {
	for _, md := range from {
		if values := md.Get(key); len(values) > 0 {
			return values[0]
		}
	}
	return ""
}

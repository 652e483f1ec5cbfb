package client

import (
	"context"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/raftlock/raftlock/pb"
)

const (
	// maxRedirects bounds how often one call follows a member to the leader that
	// it names.
	maxRedirects = 5
	// defaultWait is how long a cluster lets a call wait that does not say for
	// how long, and maxWait the longest that it lets one wait.
	defaultWait = 60 * time.Second
	maxWait     = 24 * time.Hour
	// minWait is what a wait that is taken up again asks for at least: 0 would
	// mean the default.
	minWait = time.Millisecond
	// minShare is what an attempt gets of its call's time at least.
	minShare = time.Millisecond
	// settled is how long an attempt must have lasted to have been in a queue
	// for certain, so that its connection's end is an interrupted wait.
	settled = 100 * time.Millisecond
	// steady is how long a wait must have lasted for its interruption to be the
	// first again. Those that come sooner grow the pauses.
	steady = 10 * time.Second
	// claimWithin bounds the pause after an attempt that may stand in a queue: for
	// 2 s the cluster keeps the place of one whose connection was lost, and what is
	// granted to it meanwhile.
	claimWithin = time.Second
)

// course is what a call knows of its attempts.
type course struct {
	policy  *RetryPolicy
	attempt int32     // the number of the next one
	begun   time.Time // of the first that was sent
	started bool      // there was an attempt

	tries     int // passes that failed
	broken    int // interruptions of the wait, one soon after the other
	redirects int
	free      bool // the next pass does not count
	unsure    bool // an attempt may have been applied
	reasons   []string
}

// run carries a call out and counts it. It returns nil when the answer is what
// was asked for, and x has it.
func (c *remote) run(ctx context.Context, x *exchange) *failure {
	begun := c.clock.Now()
	f := c.attend(ctx, x)
	if c.metrics != nil && !x.quiet {
		c.metrics.ended(x.op, f == nil, c.clock.Now().Sub(begun))
	}
	return f
}

// count counts a call that failed before there was anything to carry out.
func (c *remote) count(op string, f *failure) *failure {
	if c.metrics != nil {
		c.metrics.ended(op, false, 0)
	}
	return f
}

// attend is run without the counting.
func (c *remote) attend(ctx context.Context, x *exchange) *failure {
	if f := c.begin(); f != nil {
		return f
	}
	defer c.end()
	if x.fault != nil {
		return x.fault
	}
	f := c.conduct(ctx, c.life, x)
	if f == nil {
		f = x.outcome()
	}
	if f != nil && x.abandoned != nil {
		x.abandoned(f)
	}
	return f
}

// conduct repeats a call, or a withdrawal, in passes over the endpoints, until it
// is answered, or the policy allows no more, or its life ends.
func (c *remote) conduct(ctx, life context.Context, x *exchange) *failure {
	limited, cancel := c.limit(ctx, life, x)
	defer cancel()
	s := &course{policy: c.policy.Load(), attempt: max(x.first, 1)}
	for {
		s.reasons = nil
		f := nowhere()
		if limited.Err() == nil { // one that has ended already does nothing, not even connect
			f = c.pass(limited, x, s)
		}
		if f == nil {
			x.unsure = s.unsure
			return nil
		}
		cut := limited.Err() != nil
		if !cut && s.again(f) {
			c.endpoints.hurry()
			c.pause(limited, s.pause(x))
			s.free = false
			if limited.Err() == nil {
				continue
			}
		}
		if f = c.verdict(ctx, life, s, f, cut); s.unsure && !x.reads {
			f = f.as(outcomeUnknown)
		}
		return f
	}
}

// limit bounds a call: by its request time-out, beside which a wait does not
// count, and by the client's life.
func (c *remote) limit(ctx, life context.Context, x *exchange) (context.Context, context.CancelFunc) {
	limit := c.cfg.RequestTimeout
	if x.wait {
		wait := x.timeout
		if wait <= 0 || wait > maxWait {
			wait = maxWait
		}
		limit = wait + min(limit, math.MaxInt64-wait)
	}
	ctx, cancel := c.clock.WithTimeout(ctx, limit)
	stop := context.AfterFunc(life, cancel)
	return ctx, func() {
		stop()
		cancel()
	}
}

// pass tries one endpoint after the other, and goes to the leader if one names
// it. It returns nil when one has answered.
func (c *remote) pass(ctx context.Context, x *exchange, s *course) (failed *failure) {
	targets := c.endpoints.choose(ctx, x.lane, x.itself, s.tries > 0)
	failed = nowhere()
	redirected := false
	for len(targets) > 0 && ctx.Err() == nil {
		e := targets[0]
		targets = targets[1:]
		if s.started && !redirected && c.metrics != nil && !x.quiet {
			c.metrics.IncrRetry(x.op)
		}
		s.started, redirected = true, false
		f := c.attempt(ctx, x, e, x.ask(s.attempt, c.left(x, s)), c.share(ctx, x, s, len(targets)))
		if f == nil {
			return nil
		}
		if x.reads {
			f = f.as(outcomeNotProposed)
		}
		s.note(x, e, f)
		failed = worse(failed, f)
		if ctx.Err() != nil || !s.goesOn(f) {
			return f
		}
		if to := c.redirect(ctx, x, s, e, f); to != nil {
			targets = slices.DeleteFunc(targets, func(t *endpoint) bool { return slices.Contains(to, t) })
			targets = append(to, targets...)
			redirected = true
		}
	}
	return failed
}

// nowhere is what a pass fails with that had no endpoint to try.
func nowhere() *failure {
	return failed(pb.ErrorCode_UNAVAILABLE, outcomeNotProposed, "no endpoint could be tried")
}

// worse picks the failure that tells more of two of a pass: what a member said,
// rather than that another cannot be reached; among equals the later.
func worse(a, b *failure) *failure {
	if a.sent && !b.sent {
		return a
	}
	return b
}

// redirect is where an answer sends the call: nil to go on as before.
func (c *remote) redirect(ctx context.Context, x *exchange, s *course, from *endpoint, f *failure) []*endpoint {
	if f.leader == "" || f.leader == from.name || s.redirects >= maxRedirects {
		return nil
	}
	to := c.endpoints.at(f.leader)
	if to == nil {
		return nil
	}
	if s.redirects > 0 { // two members that point at each other
		c.pause(ctx, s.bounded(x, s.policy.pause(s.redirects-1)))
	}
	s.redirects++
	if c.metrics != nil && !x.quiet {
		c.metrics.IncrLeaderRedirect()
	}
	return to
}

// left is what is left of the wait that the caller asked for.
func (c *remote) left(x *exchange, s *course) time.Duration {
	if s.begun.IsZero() || !x.wait {
		return x.timeout
	}
	waited := c.clock.Now().Sub(s.begun)
	switch {
	case x.timeout > 0:
		return max(x.timeout-waited, minWait)
	case waited < defaultWait:
		return defaultWait - waited
	}
	return x.timeout // the cluster's default is longer than the usual one
}

// share bounds one attempt, so that a member that has stopped does not cost the
// whole time of the call when others could still answer it.
func (c *remote) share(ctx context.Context, x *exchange, s *course, others int) time.Duration {
	if x.wait || others == 0 || s.policy.MaxRetries == 0 || !s.policy.repeats(pb.ErrorCode_TIMEOUT) {
		return 0
	}
	share := c.cfg.RequestTimeout / 2
	if deadline, ok := ctx.Deadline(); ok {
		share = min(share, deadline.Sub(c.clock.Now())/2)
	}
	return max(share, minShare)
}

// note takes a failed attempt in.
func (s *course) note(x *exchange, e *endpoint, f *failure) {
	s.reasons = append(s.reasons, e.label()+": "+f.reason())
	if !f.sent {
		return
	}
	if s.begun.IsZero() {
		s.begun = x.sent
	}
	if s.attempt < math.MaxInt32 {
		s.attempt++
	}
	if !f.unknown() {
		return
	}
	s.unsure = true
	if x.wait && x.took >= settled {
		s.tries, s.free = 0, true // the wait was interrupted: it has kept its place
		if x.took >= steady {
			s.broken = 0
		}
	}
}

// pause is how long to wait after a pass that failed; it counts the pass.
func (s *course) pause(x *exchange) time.Duration {
	n := &s.tries
	if s.free {
		n = &s.broken
	}
	d := s.policy.pause(*n)
	*n++
	return s.bounded(x, d)
}

// bounded cuts a pause so that a place in a queue that an attempt may have is claimed
// while it is kept, whatever became of those after it.
func (s *course) bounded(x *exchange, d time.Duration) time.Duration {
	if x.wait && s.unsure {
		return min(d, claimWithin)
	}
	return d
}

// goesOn reports whether the pass goes on to another endpoint. What never left
// this process always may. What may have been applied is repeated only where the
// policy has repeats at all.
func (s *course) goesOn(f *failure) bool {
	switch {
	case f.final:
		return false
	case !f.sent, f.code == pb.ErrorCode_NOT_LEADER, s.free:
		return true
	case f.unknown() && s.policy.MaxRetries == 0:
		return false
	}
	return s.policy.repeats(f.code)
}

// again reports whether another pass may follow on one that ended so.
func (s *course) again(f *failure) bool {
	if f.final {
		return false
	}
	return s.free || s.tries < s.policy.MaxRetries && s.policy.repeats(f.code)
}

// verdict is what the failure of the last pass means for the call; cut says that
// the pass was broken off because the time of the call was over.
func (c *remote) verdict(ctx, life context.Context, s *course, f *failure, cut bool) *failure {
	late := f.code == pb.ErrorCode_TIMEOUT && !f.final && c.passes(ctx)
	switch {
	case life.Err() != nil:
		return closedBefore()
	case ctx.Err() != nil && (cut || late):
		return endedBy(ctx.Err())
	case cut && len(s.reasons) == 0:
		return failed(pb.ErrorCode_TIMEOUT, outcomeNotProposed, "no endpoint was connected within the request time-out")
	case f.final:
		return f
	}
	told := *f
	told.message = strings.Join(s.reasons, "; ")
	told.cause = ctx.Err() // it ended between two passes
	return &told
}

// passes reports whether the deadline of ctx is about to pass, and waits for it:
// a member learns of it, and may find it passed a moment before this process
// does.
func (c *remote) passes(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	if !ok || deadline.Sub(c.clock.Now()) > deadlineSkew {
		return false
	}
	<-ctx.Done()
	return true
}

// deadlineSkew is how much sooner than here a deadline may pass at a member.
const deadlineSkew = 100 * time.Millisecond

// pause waits, at most as long as ctx.
func (c *remote) pause(ctx context.Context, d time.Duration) {
	timer := c.clock.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// reason is f in the words that stand behind an endpoint's name.
func (f *failure) reason() string {
	if err := ErrorFromCode(f.code); err != nil {
		if text := f.text(err); text != "" {
			return text
		}
	}
	return f.code.String()
}

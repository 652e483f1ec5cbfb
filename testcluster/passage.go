package testcluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/pb"
)

const (
	// dialTimeout bounds an attempt to connect, requestTimeout a call that does not
	// wait in a queue: the defaults of client.Config.
	dialTimeout    = 5 * time.Second
	requestTimeout = 30 * time.Second
	// settled is how long an attempt to wait must have lasted to have stood in a queue for
	// certain: that it is interrupted is then no failed attempt.
	settled = 100 * time.Millisecond
	// claimWithin bounds the pause after an attempt that may stand in a queue, whose
	// place is kept for 2 s.
	claimWithin = time.Second
)

// passage is one call on its way from the client's machine to a member and back,
// over as many attempts as it takes.
type passage struct {
	client *Client
	op     string
	waits  bool // in a queue
	reads  bool // it changes nothing

	begun   time.Time // by the machine's clock
	last    time.Time // when the last attempt began
	tries   int       // attempts that failed
	unsure  bool      // one of them may have been applied
	repeats int       // of one that may have been
}

// lost is how a line failed an attempt.
type lost struct {
	sent bool // the member may have received it
	why  string
}

// answer is what an attempt came back with.
type answer[T any] struct {
	result T
	err    error
	lost   *lost // nil if it came back
}

// goes makes the call until it is answered, ctx ends, or the retry policy
// allows no more attempts. It goes on at another member when one is crashed. call is
// told how many attempts there were that may have been applied or repeated one that
// may have been; it runs on a goroutine of its own, beside the next one if its answer
// is lost.
func goes[T any](ctx context.Context, p *passage, call func(ctx context.Context, cl client.Client, repeats int) (T, error)) (result T, err error) {
	m := p.client.machine
	m.stand()
	defer m.stand()
	if p.client.cluster.isOver() {
		return result, p.fail(errOver)
	}
	if p.client.remote != nil {
		return call(ctx, p.client.remote, 0)
	}
	p.begun = m.warp.Clock().Now()
	for {
		local, err := p.client.at()
		if err != nil {
			return result, p.fail(err)
		}
		if p.client.isClosed() {
			return call(ctx, local, 0)
		}
		p.last = m.warp.Clock().Now()
		if p.unsure {
			p.repeats++
		}
		repeats := p.repeats
		a := carry(ctx, p.client, func(ctx context.Context) (T, error) { return call(ctx, local, repeats) })
		switch {
		case a.lost != nil:
			if again := p.note(ctx, a.lost); again {
				continue
			}
			return result, p.lostError(ctx, a.lost)
		case !errors.Is(a.err, raftlock.ErrClosed) || p.client.cluster.isOver():
			return a.result, p.unlessUnsure(a.err)
		}
		if ce := (*client.ClientError)(nil); ctx.Err() != nil && errors.As(a.err, &ce) {
			return a.result, client.NewClientError(ce.Op, fmt.Errorf("%w: %w", ce.Err, ctx.Err()), ce.Code, ce.Details)
		}
		p.unsure = p.unsure || errors.Is(a.err, client.ErrOutcomeUnknown)
	}
}

// carry makes one attempt over the machine's line. What a member does with it goes
// on behind the caller's back when the line is cut.
func carry[T any](ctx context.Context, c *Client, call func(context.Context) (T, error)) answer[T] {
	l, failed := c.connect(ctx)
	if failed == nil && l.isDead() {
		failed = c.hears(ctx, l)
	}
	if failed != nil {
		return answer[T]{lost: failed}
	}
	t := newTether(ctx)
	if ctx.Err() != nil { // in a pause, say: it is over before the call begins
		t.end(ctx.Err(), context.Cause(ctx))
	}
	detach := l.attach(t.lose)
	answered := make(chan answer[T], 1)
	if !c.cluster.behind(func() {
		defer detach()
		result, err := call(t)
		answered <- answer[T]{result: result, err: err}
	}) {
		detach()
		return answer[T]{err: overError()}
	}
	hangUp := ctx.Done()
	for {
		select {
		case a := <-answered:
			c.machine.stand()
			if c.machine.dropsAnswers() {
				return answer[T]{lost: &lost{sent: true, why: "the connection broke before the answer"}}
			}
			return a
		case <-l.dead:
			return answer[T]{lost: c.hears(ctx, l)}
		case <-hangUp:
			c.machine.stand()
			hangUp = nil
			if !l.isDead() {
				t.end(ctx.Err(), context.Cause(ctx))
			}
		}
	}
}

// connect waits for a line that is not known to be broken.
func (c *Client) connect(ctx context.Context) (*line, *lost) {
	l, mended := c.machine.way()
	if mended == nil {
		return l, nil
	}
	limit := c.machine.warp.Clock().NewTimer(dialTimeout)
	defer limit.Stop()
	for mended != nil {
		select {
		case <-mended:
			l, mended = c.machine.way()
		case <-ctx.Done():
			return nil, &lost{why: "no member could be reached"}
		case <-limit.C:
			return nil, &lost{why: fmt.Sprintf("no member could be reached within %v", dialTimeout)}
		}
	}
	return l, nil
}

// hears waits, over a line that is cut, for an answer that does not come.
func (c *Client) hears(ctx context.Context, l *line) *lost {
	select {
	case <-l.broken:
	case <-ctx.Done():
	}
	c.machine.stand()
	return &lost{sent: true, why: "the connection broke"}
}

// note takes in a failed attempt and reports, after the pause that the policy
// wants, whether there is to be another.
func (p *passage) note(ctx context.Context, l *lost) bool {
	own := p.client.machine.warp.Clock()
	now := own.Now()
	if l.sent {
		p.unsure = p.unsure || !p.reads
		if p.waits && now.Sub(p.last) >= settled {
			p.tries = 0
		}
	}
	policy := p.client.retryPolicy()
	if ctx.Err() != nil || p.tries >= policy.MaxRetries || !slices.Contains(policy.RetryableErrors, pb.ErrorCode_UNAVAILABLE) {
		return false
	}
	if !p.waits && now.Sub(p.begun) >= requestTimeout {
		return false
	}
	timer := own.NewTimer(p.pause(&policy))
	defer timer.Stop()
	p.tries++
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
	case <-p.client.cluster.over: // and the clock of its bubble with it
	}
	return false
}

// pause is how long the policy wants to wait before the next attempt. It has no
// jitter: a test shall take the same course each time.
func (p *passage) pause(policy *client.RetryPolicy) time.Duration {
	pause := float64(policy.InitialBackoff)
	for range p.tries {
		pause *= policy.BackoffMultiplier
	}
	pause = min(pause, float64(policy.MaxBackoff))
	if p.waits && p.unsure {
		pause = min(pause, float64(claimWithin))
	}
	return time.Duration(pause)
}

// unlessUnsure is the error of the last attempt: that this one was not proposed says
// nothing of those before.
func (p *passage) unlessUnsure(err error) error {
	ce, ok := errors.AsType[*client.ClientError](err)
	if !ok || !p.unsure || ce.Details["outcome"] != "not_proposed" {
		return err
	}
	details := maps.Clone(ce.Details)
	details["outcome"] = "unknown"
	return client.NewClientError(ce.Op, fmt.Errorf("%w: %w", ce.Err, client.ErrOutcomeUnknown), ce.Code, details)
}

// lostError is what the caller is told whose last attempt was lost.
func (p *passage) lostError(ctx context.Context, l *lost) error {
	why, code := client.ErrUnavailable, pb.ErrorCode_UNAVAILABLE
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		why, code = client.ErrTimeout, pb.ErrorCode_TIMEOUT
	}
	err, outcome := fmt.Errorf("%w: %s", why, l.why), "not_proposed"
	if p.unsure {
		err, outcome = fmt.Errorf("%w: %w", err, client.ErrOutcomeUnknown), "unknown"
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", err, ctx.Err())
	}
	return client.NewClientError(p.op, err, code, map[string]string{"outcome": outcome})
}

// fail is the error of a call that found no member to go to.
func (p *passage) fail(why error) error {
	err, outcome := fmt.Errorf("%w: %w", client.ErrUnavailable, why), "not_proposed"
	if p.unsure {
		err, outcome = fmt.Errorf("%w: %w", err, client.ErrOutcomeUnknown), "unknown"
	}
	return client.NewClientError(p.op, err, pb.ErrorCode_UNAVAILABLE, map[string]string{"outcome": outcome})
}

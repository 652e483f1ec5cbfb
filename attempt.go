package raftlock

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
	"weak"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/internal/callctx"
)

// One attempt of a call in process: handing it to the loop, waiting for the
// reply, giving up.

// await hands a call to the loop and waits for its reply, which is in the call
// when there is no failure; then the caller releases the call. When ctx ends
// first, the error is ctx's, and the failure says whether the command may have
// been proposed.
func (n *Node) await(ctx context.Context, c *call) (*failure, error) {
	c.lane = laneOf(c)
	if err := ctx.Err(); err != nil {
		return endedBy(err, outcomeNotProposed), err
	}
	if f, err := n.awaitFormed(ctx); f != nil {
		return f, err
	}
	n.clock.Await(ctx.Done()) // what comes to a stopped process arrives when it goes on
	c.awaited.Store(true)
	if !n.inbox.call(c) {
		return memberGone, nil
	}
	if !answeredBefore(ctx, c) {
		return n.giveUp(ctx, c)
	}
	return c.reply.failure, nil
}

// answeredBefore waits for the reply, or for the end of ctx. The loop answers
// every call, also when it ends, so there is nothing else to wait for; a call
// without a deadline then waits on one channel, which costs half of a select.
func answeredBefore(ctx context.Context, c *call) bool {
	if ctx.Done() == nil {
		<-c.done
		return true
	}
	select {
	case <-c.done:
		return true
	case <-ctx.Done():
	}
	select {
	case <-c.done: // at the same time
		return true
	default:
		return false
	}
}

// giveUp leaves a call whose context has ended.
func (n *Node) giveUp(ctx context.Context, c *call) (*failure, error) {
	err := ctx.Err()
	for {
		if c.state.CompareAndSwap(callWaits, callLeft) {
			return endedBy(err, outcomeNotProposed), err
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
	return endedBy(err, outcomeUnknown), err
}

// awaitFormed waits for the cluster to be formed, as calls wait for a leader.
func (n *Node) awaitFormed(ctx context.Context) (*failure, error) {
	if n.isFormed() {
		return nil, nil
	}
	limit := n.clock.NewTimer(n.holdLimit())
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

// holdLimit is how long a call of this member may wait for being proposed.
func (n *Node) holdLimit() time.Duration { return min(holdLimit, n.cfg.RequestTimeout) }

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
	if n.mu.withdrawals >= n.cfg.Limits.Pending {
		return // its own end, or its TTL, sees to it
	}
	n.mu.withdrawals++
	n.work.Go(func() {
		defer func() {
			n.mu.Lock()
			n.mu.withdrawals--
			n.mu.Unlock()
		}()
		ctx, cancel := n.clock.WithTimeout(n.ctx, withdrawLimit)
		defer cancel()
		for ctx.Err() == nil {
			a := n.newCall(n.holdLimit())
			a.cmd = cmd
			if f, _ := n.await(ctx, a); f == nil {
				n.release(a)
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

// newCall takes a call from the pool.
func (n *Node) newCall(patience time.Duration) *call {
	c, ok := n.calls.pool.Get().(*call)
	if !ok {
		c = &call{done: make(chan struct{}, 1)}
		n.calls.note(c)
	}
	c.patience = patience
	return c
}

// release puts an answered call back. One that failed is left to the collector
// instead: it may still stand in one of the loop's lists.
func (n *Node) release(c *call) {
	done := c.done
	*c = call{done: done}
	n.calls.pool.Put(c)
}

// callPool keeps calls for reuse, and knows all that are in use: when the loop
// panics in the midst of moving them, no list has them all.
type callPool struct {
	pool sync.Pool
	mu   struct {
		sync.Mutex
		made  []weak.Pointer[call]
		prune int // len(made) at which those that are gone are dropped
	}
}

func (p *callPool) note(c *call) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.mu.made) >= p.mu.prune {
		p.mu.made = slices.DeleteFunc(p.mu.made, func(w weak.Pointer[call]) bool { return w.Value() == nil })
		p.mu.prune = max(1024, 2*len(p.mu.made))
	}
	p.mu.made = append(p.mu.made, weak.Make(c))
}

// abort ends every call that waits. The loop is gone.
func (p *callPool) abort() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.mu.made {
		if c := w.Value(); c != nil && c.awaited.Load() && !c.answered {
			c.finish(&reply{failure: memberClosed})
		}
	}
}

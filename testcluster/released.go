package testcluster

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/raftlock/raftlock/client"
)

// RequireReleased has the test fail, at its end, if a lock is still held then: the
// message names each lock with its owner. Call it right after New. It looks when
// the cleanups have run that were registered after New, and gives what is
// released behind its caller's back, as by the end of a context, a moment.
func (c *Cluster) RequireReleased() {
	c.tb.Helper()
	if !c.isAlive("RequireReleased") {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.released = true
}

// moment is how long a release behind its caller's back may take; in a bubble
// nothing but elections takes longer than a tick.
func moment() time.Duration {
	if inBubble() {
		return 100 * time.Millisecond
	}
	return 3 * time.Second
}

// checkReleased fails the test if it wanted every lock released and one is held.
func (c *Cluster) checkReleased() {
	c.tb.Helper()
	c.mu.Lock()
	wanted := c.mu.released
	c.mu.Unlock()
	if !wanted {
		return
	}
	if c.countRunning() <= c.belong()/2 {
		c.tb.Errorf("testcluster: RequireReleased cannot look: no majority of the members runs at the end of the test")
		return
	}
	cl := c.Client()
	end := time.Now().Add(moment())
	for {
		held, err := heldLocks(cl)
		switch {
		case err != nil:
			c.tb.Errorf("testcluster: RequireReleased cannot look: %v", err)
			return
		case len(held) == 0:
			return
		case time.Now().After(end):
			c.tb.Errorf("testcluster: at the end of the test %d of its locks are still held:%s", len(held), describe(held))
			return
		}
		timer := time.NewTimer(poll)
		<-timer.C
	}
}

func heldLocks(cl *Client) (held []*client.LockInfo, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	all, err := cl.GetLocks(ctx, &client.GetLocksRequest{})
	if err != nil {
		return nil, err
	}
	for _, l := range all.Locks {
		if l.OwnerID != "" {
			held = append(held, l)
		}
	}
	return held, nil
}

func describe(held []*client.LockInfo) string {
	var b strings.Builder
	for _, l := range held {
		fmt.Fprintf(&b, "\n\t%q by %q, token %d, for %v more if nobody renews it, %d waiting",
			l.LockID, l.OwnerID, l.Version, time.Until(l.ExpiresAt).Round(time.Millisecond), l.WaiterCount)
	}
	return b.String()
}

package raftlock

import (
	"cmp"
	"slices"
	"time"

	"github.com/raftlock/raftlock/internal/input"
	"github.com/raftlock/raftlock/pb"
)

// check says what is wrong with a command as a caller made it, or nil. What no
// configuration moves is package input'.
func (l *Limits) check(c *command) *failure {
	const code = pb.ErrorCode_INVALID_ARGUMENT
	if f := input.ID("lock_id", c.lock); f != nil {
		return faulty(code, f)
	}
	if f := input.ID("client_id", c.client); f != nil {
		return faulty(code, f)
	}
	if f := input.Request(c.request); f != nil {
		return faulty(code, f)
	}
	switch c.kind {
	case cmdAcquire:
		return l.checkAcquire(c)
	case cmdRenew:
		return l.checkTTL("new_ttl", c.ttl)
	case cmdEnqueue:
		if f := input.Priority(c.priority); f != nil {
			return faulty(code, f)
		}
		return l.checkWait("timeout", c.timeout)
	}
	return nil
}

func (l *Limits) checkAcquire(c *command) *failure {
	if c.ttl != 0 {
		if f := l.checkTTL("ttl", c.ttl); f != nil {
			return f
		}
	}
	if c.wait {
		if f := l.checkWait("wait_timeout", c.timeout); f != nil {
			return f
		}
	}
	if f := input.Priority(c.priority); f != nil {
		return faulty(pb.ErrorCode_INVALID_ARGUMENT, f)
	}
	return checkMetadata(c.metadata)
}

// resolve fills in the defaults. The leader does it before it proposes.
func (l *Limits) resolve(c *command) {
	if (c.kind == cmdAcquire || c.kind == cmdEnqueue) && c.ttl == 0 {
		c.ttl = span(l.DefaultTTL)
	}
	if (c.kind == cmdAcquire && c.wait || c.kind == cmdEnqueue) && c.timeout == 0 {
		c.timeout = span(l.DefaultWait)
	}
}

// bounds are the limits that the table enforces.
func (l *Limits) bounds() bounds {
	return bounds{lockWaiters: int64(l.LockWaiters), locks: int64(l.Locks), waiters: int64(l.Waiters)}
}

func (l *Limits) checkTTL(field string, ttl span) *failure {
	return checkSpan(pb.ErrorCode_INVALID_TTL, field, ttl, l.MinTTL, l.MaxTTL)
}

func (l *Limits) checkWait(field string, wait span) *failure {
	return checkSpan(pb.ErrorCode_INVALID_ARGUMENT, field, wait, 0, l.MaxWait)
}

func checkSpan(code pb.ErrorCode, field string, got span, low, high time.Duration) *failure {
	if d := time.Duration(got); d < low || d > high {
		return faulty(code, input.OutOfRange(field, d.String(), low.String(), high.String()))
	}
	return nil
}

func checkMetadata(m metadata) *failure {
	fault := input.Entries(len(m))
	for i := 0; i < len(m) && fault == nil; i++ {
		fault = input.Entry(m[i].key, m[i].value)
	}
	return faulty(pb.ErrorCode_INVALID_ARGUMENT, fault)
}

// metadataOf makes the table's form of a caller's map.
func metadataOf(m map[string]string) metadata {
	if len(m) == 0 {
		return nil
	}
	pairs := make(metadata, 0, len(m))
	for key, value := range m {
		pairs = append(pairs, pair{key, value})
	}
	slices.SortFunc(pairs, func(a, b pair) int { return cmp.Compare(a.key, b.key) })
	return pairs
}

// mapOf is the caller's form of a grant's metadata; nil when there is none.
func mapOf(m metadata) map[string]string {
	if len(m) == 0 {
		return nil
	}
	out := make(map[string]string, len(m))
	for _, p := range m {
		out[p.key] = p.value
	}
	return out
}

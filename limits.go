package raftlock

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/raftlock/raftlock/pb"
)

// Bounds on input that no configuration moves.
const (
	maxIDBytes       = 256 // lock_id, client_id
	maxRequestBytes  = 128
	maxPriority      = 1000
	maxMetadata      = 32
	maxMetadataKey   = 64
	maxMetadataValue = 256
	maxPatternBytes  = 1024
)

// check says what is wrong with a command as a caller made it, or nil.
func (l *Limits) check(c *command) *failure {
	if f := checkID("lock_id", c.lock); f != nil {
		return f
	}
	if f := checkID("client_id", c.client); f != nil {
		return f
	}
	if len(c.request) > maxRequestBytes {
		return outOfRange(pb.ErrorCode_INVALID_ARGUMENT, "request_id", c.request, "0", strconv.Itoa(maxRequestBytes))
	}
	if !plain(c.request) {
		return badField(pb.ErrorCode_INVALID_ARGUMENT, "request_id", c.request, "must be UTF-8 without control characters")
	}
	switch c.kind {
	case cmdAcquire:
		return l.checkAcquire(c)
	case cmdRenew:
		return l.checkTTL("new_ttl", c.ttl)
	case cmdEnqueue:
		if f := checkPriority(c.priority); f != nil {
			return f
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
	if f := checkPriority(c.priority); f != nil {
		return f
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
		return outOfRange(code, field, d.String(), low.String(), high.String())
	}
	return nil
}

func checkPriority(p int32) *failure {
	if p < -maxPriority || p > maxPriority {
		return outOfRange(pb.ErrorCode_INVALID_ARGUMENT, "priority", strconv.Itoa(int(p)),
			strconv.Itoa(-maxPriority), strconv.Itoa(maxPriority))
	}
	return nil
}

func checkID(field, id string) *failure {
	if len(id) < 1 || len(id) > maxIDBytes {
		return outOfRange(pb.ErrorCode_INVALID_ARGUMENT, field, id, "1", strconv.Itoa(maxIDBytes))
	}
	if !plain(id) {
		return badField(pb.ErrorCode_INVALID_ARGUMENT, field, id, "must be UTF-8 without control characters")
	}
	return nil
}

func checkMetadata(m metadata) *failure {
	if len(m) > maxMetadata {
		return outOfRange(pb.ErrorCode_INVALID_ARGUMENT, "metadata", strconv.Itoa(len(m)), "0", strconv.Itoa(maxMetadata))
	}
	for _, p := range m {
		if len(p.key) < 1 || len(p.key) > maxMetadataKey {
			return metadataRange("has a key whose length", p.key, 1, maxMetadataKey)
		}
		if len(p.value) > maxMetadataValue {
			return metadataRange("has a value whose length", p.value, 0, maxMetadataValue)
		}
		if !utf8.ValidString(p.key) || !utf8.ValidString(p.value) {
			return badField(pb.ErrorCode_INVALID_ARGUMENT, "metadata", p.key, "must be UTF-8")
		}
	}
	return nil
}

func metadataRange(what, value string, low, high int) *failure {
	f := outOfRange(pb.ErrorCode_INVALID_ARGUMENT, "metadata", value, strconv.Itoa(low), strconv.Itoa(high))
	f.message = "metadata " + what + " is not within " + f.details["min"] + " and " + f.details["max"]
	return f
}

func checkPattern(field, pattern string) *failure {
	if len(pattern) > maxPatternBytes {
		return outOfRange(pb.ErrorCode_INVALID_ARGUMENT, field, pattern, "0", strconv.Itoa(maxPatternBytes))
	}
	return nil
}

// plain reports whether s is UTF-8 without control characters. Nearly every id
// is printable ASCII, which the first loop settles.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
		}
	}
	return true
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

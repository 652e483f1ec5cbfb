package raftlock

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/internal/input"
	"github.com/raftlock/raftlock/pb"
)

// What the loop replies, in the types of package client. A refused call returns
// its result, with Error set, and a *client.ClientError.

// refuse makes the answer to a call that did not reach the table.
func (c *localClient) refuse(op string, f *failure) (*client.ErrorDetail, error) {
	err := errorOf(op, f, nil)
	return detailOf(err), err
}

// errorOf is the error of a failure; cause is the error of the call's context,
// if that ended it.
func errorOf(op string, f *failure, cause error) error {
	err := client.ErrorFromCode(f.code)
	switch {
	case f == clientClosed:
		err = client.ErrClientClosed
	case f.closed:
		err = fmt.Errorf("%w: %w", err, ErrClosed)
	}
	if field := f.details["field"]; field != "" {
		err = fmt.Errorf("%w: %w", err, client.NewValidationError(field, f.details["value"], f.message))
	}
	if f.outcome() == outcomeUnknown {
		err = fmt.Errorf("%w: %w", err, client.ErrOutcomeUnknown)
	}
	if cause != nil {
		err = fmt.Errorf("%w: %w", err, cause)
	}
	return client.NewClientError(op, err, f.code, f.details)
}

// detailOf is the ErrorDetail that goes with an error of errorOf.
func detailOf(err error) *client.ErrorDetail {
	var ce *client.ClientError
	if !errors.As(err, &ce) {
		return nil
	}
	return &client.ErrorDetail{Code: ce.Code, Message: ce.Err.Error(), Details: ce.Details}
}

// refusalOf is the answer to a command that the table refused.
func refusalOf(op string, rep *reply) (*client.ErrorDetail, error) {
	res := &rep.result
	f := &failure{code: res.code, details: map[string]string{}}
	version := strconv.FormatInt(res.lock.version, 10)
	switch res.code {
	case pb.ErrorCode_LOCK_HELD:
		f.details["owner_id"] = res.lock.owner
		f.details["version"] = version
		f.details["retry_after_ms"] = strconv.FormatInt(adviceFor(&res.lock, rep).InitialBackoff.Milliseconds(), 10)
	case pb.ErrorCode_NOT_LOCK_OWNER, pb.ErrorCode_VERSION_MISMATCH:
		f.details["version"] = version
	case pb.ErrorCode_LOCK_NOT_HELD:
		f.details["last_version"] = version
	case pb.ErrorCode_WAIT_QUEUE_FULL:
		f.details["depth"] = strconv.Itoa(int(res.lock.waiters))
		f.details["limit"] = strconv.FormatInt(res.limit, 10)
	case pb.ErrorCode_TIMEOUT:
		f.details[detailOutcome] = outcomeNotAcquired
	case pb.ErrorCode_RATE_LIMITED:
		f.details[detailOutcome] = outcomeNotAcquired
		f.details["limit"] = strconv.FormatInt(res.limit, 10)
	}
	err := errorOf(op, f, nil)
	return detailOf(err), err
}

func refusedAcquire(op string, rep *reply) (*client.AcquireResult, error) {
	detail, err := refusalOf(op, rep)
	result := &client.AcquireResult{Error: detail}
	if rep.result.code == pb.ErrorCode_LOCK_HELD {
		result.BackoffAdvice = adviceFor(&rep.result.lock, rep)
	}
	return result, err
}

// lockOf is the grant in a reply. Its end counts from an instant before the
// answer was given, by this process's monotonic clock.
func lockOf(rep *reply) *client.Lock {
	l := &rep.result.lock
	return &client.Lock{
		LockID:     l.id,
		OwnerID:    l.owner,
		Version:    l.version,
		AcquiredAt: wallTime(l.acquired),
		ExpiresAt:  rep.at.Add(time.Duration(rep.remaining)),
		Metadata:   mapOf(l.metadata),
	}
}

// infoOf is a lock as a read at rep.now found it.
func infoOf(l *lockView, queue []waiterView, rep *reply) *client.LockInfo {
	info := &client.LockInfo{
		LockID:         l.id,
		OwnerID:        l.owner,
		Version:        l.version,
		WaiterCount:    l.waiters,
		Metadata:       mapOf(l.metadata),
		LastModifiedAt: wallTime(l.modified),
	}
	if l.held() {
		info.AcquiredAt = wallTime(l.acquired)
		info.ExpiresAt = rep.instant(l.end)
	}
	for i := range queue {
		w := &queue[i]
		info.WaitersInfo = append(info.WaitersInfo, &client.WaiterInfo{
			ClientID:   w.client,
			EnqueuedAt: wallTime(w.joined),
			TimeoutAt:  rep.instant(w.timeout),
			Priority:   w.priority,
			Position:   w.position,
		})
	}
	return info
}

// instant is the local instant of a cluster time, as rep saw the two together.
// What has passed is now.
func (rep *reply) instant(t logTime) time.Time {
	return rep.at.Add(time.Duration(max(0, t-rep.now)))
}

func wallTime(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us)
}

// Advice on how long to stay away from a lock.
const (
	minBackoff    = 50 * time.Millisecond
	freeBackoff   = time.Second // the longest for a free lock
	heldBackoff   = 30 * time.Second
	advisedFactor = 1.5
	advisedJitter = 0.2
)

// adviceFor advises by what the grant has left, how long the lock is usually
// held, and how many wait for it: a caller behind a long queue has no reason to
// come back soon, but no grant is worth waiting for longer than it lasts. What is
// usual says more than what the holder has asked for, once it is known.
func adviceFor(l *lockView, rep *reply) *client.BackoffAdvice {
	advice := &client.BackoffAdvice{
		InitialBackoff: minBackoff, MaxBackoff: freeBackoff,
		Multiplier: advisedFactor, JitterFactor: advisedJitter,
	}
	remaining := time.Duration(rep.remaining)
	if !l.held() || remaining == 0 {
		return advice
	}
	turn := remaining / 16
	if usual := time.Duration(rep.usual); usual > 0 {
		turn = min(remaining, remaining/64+usual/2)
	}
	share := turn * time.Duration(min(int(l.waiters)+1, 16))
	advice.InitialBackoff = min(max(minBackoff, share), heldBackoff, remaining)
	advice.MaxBackoff = min(max(freeBackoff, 4*advice.InitialBackoff), heldBackoff, remaining)
	return advice
}

// estimatedWait guesses how long a waiter will wait: each grant before it for
// as long as the present one still lasts.
func estimatedWait(rep *reply) time.Duration {
	remaining := time.Duration(rep.remaining)
	turns := time.Duration(rep.result.position) + 1
	if remaining > tenYears/turns {
		return tenYears
	}
	return remaining * turns
}

func checkListing(req *client.GetLocksRequest) *failure {
	fault := cmp.Or(input.Count("limit", req.Limit), input.Count("offset", req.Offset), input.StartAfter(req.StartAfter))
	if f := req.Filter; f != nil {
		fault = cmp.Or(fault,
			input.Pattern("lock_id_pattern", f.LockIDPattern), input.Pattern("owner_id_pattern", f.OwnerIDPattern))
	}
	return faulty(pb.ErrorCode_INVALID_ARGUMENT, fault)
}

// listingOf scans the clone of the table in a reply. A limit of 0 gathers all
// pages of it, so that they are of one moment.
func listingOf(ctx context.Context, op string, req *client.GetLocksRequest, rep *reply) (*client.GetLocksResult, error) {
	query := lockQuery{
		filter: filterOf(req.Filter, rep), startAfter: req.StartAfter,
		offset: int(req.Offset), limit: int(req.Limit), waiters: req.IncludeWaiters,
	}
	result := &client.GetLocksResult{}
	for first := true; ; first = false {
		page := rep.table.list(&query)
		for i := range page.locks {
			l := &page.locks[i]
			result.Locks = append(result.Locks, infoOf(&l.lockView, l.queue, rep))
		}
		if first {
			result.TotalMatching = int32(min(page.total, 1<<31-1))
		}
		result.HasMore = page.more
		if req.Limit > 0 || !page.more || len(page.locks) == 0 {
			return result, nil
		}
		if err := ctx.Err(); err != nil {
			return &client.GetLocksResult{}, errorOf(op, endedBy(err, outcomeNotProposed), err)
		}
		query.startAfter, query.offset, query.uncounted = page.locks[len(page.locks)-1].id, 0, true
	}
}

func filterOf(f *client.LockFilter, rep *reply) lockFilter {
	if f == nil {
		return lockFilter{}
	}
	filter := lockFilter{
		id: f.LockIDPattern, owner: f.OwnerIDPattern,
		onlyHeld: f.OnlyHeld, onlyContested: f.OnlyContested, metadata: metadataOf(f.MetadataFilter),
	}
	if f.ExpiresBefore != nil {
		filter.before, filter.hasBefore = rep.clusterTime(*f.ExpiresBefore), true
	}
	if f.ExpiresAfter != nil {
		filter.after, filter.hasAfter = rep.clusterTime(*f.ExpiresAfter), true
	}
	return filter
}

// clusterTime is the cluster time of a local instant, the inverse of instant.
func (rep *reply) clusterTime(t time.Time) logTime {
	ahead := t.Sub(rep.at)
	if ahead >= 0 {
		return rep.now.plus(span(ahead))
	}
	return max(0, rep.now+logTime(max(ahead, -tenYears)))
}

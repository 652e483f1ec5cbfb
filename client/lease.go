package client

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/raftlock/raftlock/internal/clock"
	"github.com/raftlock/raftlock/pb"
)

const (
	// defaultTTL is what Hold asks for, and what a grant without a word about
	// its end is taken to last.
	defaultTTL = 30 * time.Second
	// longestWait is how long an acquire stands in the queue that shall wait
	// for as long as its context.
	longestWait = 24 * time.Hour
	// releaseLimit bounds a release that no caller's context bounds.
	releaseLimit = 5 * time.Second
)

var (
	errExpired  = fmt.Errorf("%w: its time was over before it was renewed", ErrLockLost)
	errReleased = fmt.Errorf("%w: it has released the lock", ErrNotLockOwner)
)

// lease is one grant in the hands of this process, under everything here that
// holds a lock. It ends once, by release, by a refusal, or at its local end, and
// never comes back.
//
// The local end lies before the end in the table, network or not: what the
// cluster said was left, counted from before it was asked, less 1 % for clocks
// that run at different rates, and at least 50 ms for the time that it takes to
// stop. A renewal moves it to later, never to sooner.
type lease struct {
	client   RaftLockClient
	clock    clock.Clock
	lockID   string
	clientID string
	version  int64

	// eager says that what a late renewal may have won is released at once: no
	// work has to be waited for.
	eager bool

	life context.Context // ends with the lease; the cause says why

	// releasing has one slot: who puts a token in may release, and owns unsure
	// and outcome.
	releasing chan struct{}
	unsure    bool  // an earlier release may have been applied
	outcome   error // of the release that settled it
	settled   atomic.Bool

	mu struct {
		sync.Mutex
		lock    *Lock      // as last granted
		from    clock.Mark // the local end is left after it
		left    time.Duration
		timer   clock.Timer // never fires after the local end; may fire before
		over    error       // why it is not held any more
		cancels []context.CancelCauseFunc
	}
}

// acquire makes the call, under an identity of its own, and returns the lease. A
// grant that comes although ctx has ended, or together with an error, is given
// back behind the caller's back: clients withdraw such calls themselves, but
// not every implementation of the interface is ours.
func acquire(ctx context.Context, c RaftLockClient, want AcquireRequest) (*lease, error) {
	want.RequestID = rand.Text()
	asLongAsCtx := want.Wait && want.WaitTimeout == 0
	if asLongAsCtx {
		want.WaitTimeout = longestWait
	}
	l := &lease{
		client: c, clock: clock.Of(c), lockID: want.LockID, clientID: want.ClientID,
		releasing: make(chan struct{}, 1),
	}
	l.mu.over = errReleased // until it begins
	from := l.clock.Mark()
	res, err := c.Acquire(ctx, &want)
	if longest, ok := longestAllowed(err); ok && asLongAsCtx {
		want.WaitTimeout = longest
		res, err = c.Acquire(ctx, &want)
	}
	granted := res != nil && res.Acquired && res.Lock != nil
	if !granted {
		return nil, refusalOr(err, res)
	}
	l.version = res.Lock.Version
	if err == nil && ctx.Err() != nil {
		err = endedError("Acquire", ctx)
	}
	lock := res.Lock
	if err == nil && l.clock.SleptSince(from) > 0 {
		lock, from, err = l.confirm(ctx, lock, want.TTL)
	}
	if err == nil && !l.begin(ctx, lock, from, want.TTL) {
		err = NewClientError("Acquire", errExpired, pb.ErrorCode_TIMEOUT, nil)
	}
	if err != nil {
		l.releaseBehind()
		return nil, err
	}
	return l, nil
}

// confirm renews a grant before its lease begins: the machine has slept during
// the call, perhaps in the queue and perhaps under the grant, and nobody here can
// tell what is left of it.
func (l *lease) confirm(ctx context.Context, lock *Lock, ttl time.Duration) (*Lock, clock.Mark, error) {
	if ttl <= 0 {
		ttl = defaultTTL
	}
	from := l.clock.Mark()
	renewed, err := l.askToRenew(ctx, ttl)
	if isRefusal(err) {
		err = fmt.Errorf("%w: %w", ErrLockLost, err)
	}
	if renewed == nil { // its end, as it was heard of, does not count the sleep
		own := *lock
		own.ExpiresAt = time.Time{}
		renewed = &own
	}
	return renewed, from, err
}

// askToRenew makes the call. An answer that neither renews nor says why breaks
// the client's contract, and is an error.
func (l *lease) askToRenew(ctx context.Context, ttl time.Duration) (*Lock, error) {
	res, err := l.client.Renew(ctx, &RenewRequest{LockID: l.lockID, ClientID: l.clientID, Version: l.version, NewTTL: ttl})
	switch {
	case err != nil:
		return nil, err
	case res == nil || !res.Renewed && res.Error == nil:
		return nil, NewClientError("Renew", ErrUnavailable, pb.ErrorCode_ERROR_CODE_UNSPECIFIED, nil)
	case !res.Renewed:
		return nil, NewClientError("Renew", ErrorFromCode(res.Error.Code), res.Error.Code, res.Error.Details)
	}
	return res.Lock, nil
}

// begin starts the life of a lease that was granted, and reports whether it has
// any.
func (l *lease) begin(ctx context.Context, lock *Lock, from clock.Mark, ttl time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	life, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	l.life, l.mu.cancels, l.mu.over = life, []context.CancelCauseFunc{cancel}, nil
	lock = completed(lock, from, ttl)
	left := lock.ExpiresAt.Sub(from.Time())
	remaining := left - l.clock.Since(from) // of a wait nobody knows when it was over
	if ttl > 0 {
		remaining = min(left, ttl)
	}
	l.mu.lock, l.mu.from, l.mu.left = lock, from, left-margin(remaining)
	l.mu.timer = l.clock.AfterFunc(l.leftLocked(), l.expire)
	return l.lookLocked() == nil
}

// margin is by how much a holder stops before the end of its grant.
func margin(remaining time.Duration) time.Duration {
	return max(0, min(max(remaining/100, 50*time.Millisecond), remaining/2))
}

// completed is a copy of a grant, with an end if its client did not tell one.
func completed(lock *Lock, from clock.Mark, ttl time.Duration) *Lock {
	own := *lock
	own.Metadata = maps.Clone(lock.Metadata)
	if own.ExpiresAt.IsZero() {
		if ttl <= 0 {
			ttl = defaultTTL
		}
		own.ExpiresAt = from.Time().Add(ttl)
	}
	return &own
}

// onEnd has cancel called with the cause when the lease ends, before anybody can
// see that it has.
func (l *lease) onEnd(cancel context.CancelCauseFunc) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.over != nil {
		cancel(l.mu.over)
		return
	}
	l.mu.cancels = append(l.mu.cancels, cancel)
}

// look returns why the lease is over, nil while it is held. It reads the clock.
func (l *lease) look() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lookLocked()
}

func (l *lease) lookLocked() error {
	if l.mu.over == nil && l.leftLocked() <= 0 {
		l.endLocked(errExpired)
	}
	return l.mu.over
}

func (l *lease) leftLocked() time.Duration { return l.mu.left - l.clock.Since(l.mu.from) }

// left is how long the lease lasts unless it is renewed.
func (l *lease) left() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leftLocked()
}

// loss is the look of those who care only whether the lease was lost; a release
// is none.
func (l *lease) loss() error {
	if over := l.look(); errors.Is(over, ErrLockLost) {
		return over
	}
	return nil
}

// grant is a copy of the grant as it was last heard of.
func (l *lease) grant() *Lock {
	l.mu.Lock()
	defer l.mu.Unlock()
	own := *l.mu.lock
	own.Metadata = maps.Clone(own.Metadata)
	return &own
}

// expire is what the timer calls. Renewals leave the timer where it was.
func (l *lease) expire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lookLocked() == nil {
		l.mu.timer.Reset(l.leftLocked())
	}
}

// end ends the lease, if it is not over yet.
func (l *lease) end(cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lookLocked() == nil {
		l.endLocked(cause)
	}
}

// endLocked cancels under the mutex, so that no context outlives for a moment
// what look says. Contexts call nobody back when they are cancelled.
func (l *lease) endLocked(cause error) {
	l.mu.over = cause
	l.mu.timer.Stop()
	for _, cancel := range l.mu.cancels {
		cancel(cause)
	}
	l.mu.cancels = nil
}

// renew lets the grant last for ttl from now. It returns at the lease's end, too.
// A refusal is the end, and so is a client that was closed: nothing can be
// renewed through it any more. Of anything else that fails the outcome is not
// known, and the lease goes on to its local end.
func (l *lease) renew(ctx context.Context, ttl time.Duration) error {
	if over := l.look(); over != nil {
		return over
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(l.life, func() { cancel(context.Cause(l.life)) })()
	from := l.clock.Mark()
	lock, err := l.askToRenew(ctx, ttl)
	if err == nil {
		err = l.raise(lock, from, ttl)
	} else if isRefusal(err) || errors.Is(err, ErrClientClosed) {
		l.end(fmt.Errorf("%w: %w", ErrLockLost, err))
	}
	over := l.look()
	if l.eager && errors.Is(over, errExpired) {
		l.releaseBehind() // the renewal may have come through
	}
	switch {
	case over == nil:
		return err
	case err == nil || errors.Is(over, err):
		return over
	}
	return fmt.Errorf("%w: %w", over, err)
}

// raise takes in what a renewal was granted. An end that is later already stays.
// Of a lease that is over it returns why.
func (l *lease) raise(lock *Lock, from clock.Mark, ttl time.Duration) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if over := l.lookLocked(); over != nil {
		return over
	}
	if lock == nil {
		lock = &Lock{LockID: l.lockID, OwnerID: l.clientID, Version: l.version, AcquiredAt: l.mu.lock.AcquiredAt, Metadata: l.mu.lock.Metadata}
	}
	lock = completed(lock, from, ttl)
	left := lock.ExpiresAt.Sub(from.Time())
	left -= margin(left)
	if left-l.clock.Since(from) > l.leftLocked() {
		l.mu.lock, l.mu.from, l.mu.left = lock, from, left
	}
	return nil
}

// keep renews the lease every third of ttl, until it ends. What fails is tried
// again soon; no attempt takes so long that there is no time for another one.
func (l *lease) keep(ttl time.Duration) {
	interval := renewalDue(l.left(), ttl/3, ttl)
	wait := interval
	for {
		timer := l.clock.NewTimer(wait)
		select {
		case <-timer.C:
		case <-l.life.Done():
			timer.Stop()
			return
		}
		ctx, cancel := l.clock.WithTimeout(l.life, attemptLimit(l.left(), interval))
		err := l.renew(ctx, ttl)
		cancel()
		if err != nil {
			wait = retryPause(interval)
			continue
		}
		interval = renewalDue(l.left(), ttl/3, ttl)
		wait = interval
	}
}

// renewalDue is when to renew a grant: after the interval, or after a third of what
// is left, if that is less than was asked for by more than a margin and a swift
// answer explain. Its answer may have been a long time on its way, or it was
// granted for less.
func renewalDue(left, interval, ttl time.Duration) time.Duration {
	if left+margin(ttl) < ttl-ttl/10 {
		return max(0, min(interval, left/3))
	}
	return interval
}

// attemptLimit bounds one renewal: half of what is left, so that another can
// follow over another connection, and not so little that none can succeed.
func attemptLimit(left, interval time.Duration) time.Duration { return max(left/2, interval/4) }

// retryPause is how long to wait after a renewal that failed.
func retryPause(interval time.Duration) time.Duration {
	return max(time.Millisecond, min(interval/4, time.Second))
}

// release ends the lease and gives the grant back; it can be repeated until it
// is settled. When ctx is done already, it takes a time of its own.
func (l *lease) release(ctx context.Context) error {
	l.end(errReleased)
	if ctx.Err() != nil {
		own, cancel := l.clock.WithTimeout(context.WithoutCancel(ctx), releaseLimit)
		defer cancel()
		ctx = own
	}
	select {
	case l.releasing <- struct{}{}:
		defer func() { <-l.releasing }()
	case <-ctx.Done():
		return endedError("Release", ctx)
	}
	if l.settled.Load() {
		return l.outcome
	}
	_, err := l.client.Release(ctx, &ReleaseRequest{LockID: l.lockID, ClientID: l.clientID, Version: l.version})
	switch {
	case err == nil:
	case !isRefusal(err):
		l.unsure = true
		return err
	case l.unsure:
		err = nil // the release before this one came through, or the grant ended by itself
	}
	l.outcome = err
	l.settled.Store(true)
	return err
}

// releaseBehind releases behind the caller's back, for a while.
func (l *lease) releaseBehind() {
	go func() {
		ctx, cancel := l.clock.WithTimeout(context.Background(), releaseLimit)
		defer cancel()
		_ = l.release(ctx) // nobody is there to be told; the grant lapses
	}()
}

// isRefusal reports whether a Renew or Release was refused because the grant
// that it named is over.
func isRefusal(err error) bool {
	return errors.Is(err, ErrNotLockOwner) || errors.Is(err, ErrVersionMismatch) || errors.Is(err, ErrLockNotFound)
}

// refusalOr is the error of an Acquire that was not granted. A client that has
// none to tell breaks its contract, and gets one.
func refusalOr(err error, res *AcquireResult) error {
	switch {
	case err != nil:
		return err
	case res != nil && res.Error != nil:
		return NewClientError("Acquire", ErrorFromCode(res.Error.Code), res.Error.Code, res.Error.Details)
	case res != nil && res.Acquired: // without the token it is of no use
		return NewClientError("Acquire", fmt.Errorf("%w: the answer has no lock: %w", ErrUnavailable, ErrOutcomeUnknown), pb.ErrorCode_UNAVAILABLE, nil)
	}
	return NewClientError("Acquire", ErrLockHeld, pb.ErrorCode_LOCK_HELD, nil)
}

// longestAllowed is the longest wait that a cluster allows which refused one for
// being longer.
func longestAllowed(err error) (time.Duration, bool) {
	e, ok := errors.AsType[*ClientError](err)
	if !ok || e.Code != pb.ErrorCode_INVALID_ARGUMENT || e.Details["field"] != "wait_timeout" {
		return 0, false
	}
	longest, parseErr := time.ParseDuration(e.Details["max"])
	return longest, parseErr == nil && longest > 0
}

// endedError is the error of a call that did nothing because ctx ended.
func endedError(op string, ctx context.Context) error {
	why, code := ErrUnavailable, pb.ErrorCode_UNAVAILABLE
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		why, code = ErrTimeout, pb.ErrorCode_TIMEOUT
	}
	return NewClientError(op, fmt.Errorf("%w: %w", why, ctx.Err()), code, nil)
}

// badArgument is the error of an argument that nothing was sent with.
func badArgument(op, field string, value any, message string) error {
	why, code := ErrInvalidArgument, pb.ErrorCode_INVALID_ARGUMENT
	if field == "ttl" {
		why, code = ErrInvalidTTL, pb.ErrorCode_INVALID_TTL
	}
	fault := NewValidationError(field, value, message)
	return NewClientError(op, fmt.Errorf("%w: %w", why, fault), code, map[string]string{"field": field, "outcome": "not_proposed"})
}

package client_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/internal/clock"
	"github.com/raftlock/raftlock/testcluster"
)

// What the tests of holds, handles and renewers have in common: a cluster in
// virtual time, and a client whose machine and network a test has in its hands.

// bubble runs a test on a cluster in virtual time.
func bubble(t *testing.T, test func(t *testing.T, c *testcluster.Cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, testcluster.New(t, 1)) })
}

// machine is a client on a machine with a clock of its own, whose calls a test
// lets through, loses, delays or answers.
type machine struct {
	client.RaftLockClient
	warp *clock.Warp

	mu struct {
		sync.Mutex
		acquire func(ctx context.Context, req *client.AcquireRequest) (*client.AcquireResult, error)
		renew   func(ctx context.Context, req *client.RenewRequest) (*client.RenewResult, error)
		release func(ctx context.Context, req *client.ReleaseRequest) (*client.ReleaseResult, error)

		acquires []client.AcquireRequest
		renewals []time.Time // of the calls, by package time
		releases int
	}
}

func newMachine(c client.RaftLockClient) *machine {
	return &machine{RaftLockClient: c, warp: clock.NewWarp()}
}

func (m *machine) Clock() clock.Clock { return m.warp.Clock() }

// here is a grant as this machine's clock sees it.
func (m *machine) here(lock *client.Lock) {
	if lock != nil {
		lock.ExpiresAt = m.Clock().Now().Add(time.Until(lock.ExpiresAt))
	}
}

func (m *machine) Acquire(ctx context.Context, req *client.AcquireRequest) (*client.AcquireResult, error) {
	m.mu.Lock()
	m.mu.acquires = append(m.mu.acquires, *req)
	call := m.mu.acquire
	m.mu.Unlock()
	if call != nil {
		return call(ctx, req)
	}
	res, err := m.RaftLockClient.Acquire(ctx, req)
	if res != nil { // a cluster that is down altogether has none
		m.here(res.Lock)
	}
	return res, err
}

func (m *machine) Renew(ctx context.Context, req *client.RenewRequest) (*client.RenewResult, error) {
	m.mu.Lock()
	m.mu.renewals = append(m.mu.renewals, time.Now())
	call := m.mu.renew
	m.mu.Unlock()
	if call != nil {
		return call(ctx, req)
	}
	res, err := m.RaftLockClient.Renew(ctx, req)
	if res != nil { // a cluster that is down altogether has none
		m.here(res.Lock)
	}
	return res, err
}

func (m *machine) Release(ctx context.Context, req *client.ReleaseRequest) (*client.ReleaseResult, error) {
	m.mu.Lock()
	m.mu.releases++
	call := m.mu.release
	m.mu.Unlock()
	if call != nil {
		return call(ctx, req)
	}
	return m.RaftLockClient.Release(ctx, req)
}

// onRenew has renewals answered by call; nil lets them through.
func (m *machine) onRenew(call func(ctx context.Context, req *client.RenewRequest) (*client.RenewResult, error)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.renew = call
}

func (m *machine) onAcquire(call func(ctx context.Context, req *client.AcquireRequest) (*client.AcquireResult, error)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.acquire = call
}

func (m *machine) onRelease(call func(ctx context.Context, req *client.ReleaseRequest) (*client.ReleaseResult, error)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.release = call
}

func (m *machine) calls() (acquires []client.AcquireRequest, renewals []time.Time, releases int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append(acquires, m.mu.acquires...), append(renewals, m.mu.renewals...), m.mu.releases
}

// cut loses every call from now on: it is not sent, and nothing comes back.
func (m *machine) cut() {
	m.onAcquire(func(ctx context.Context, _ *client.AcquireRequest) (*client.AcquireResult, error) {
		<-ctx.Done()
		return &client.AcquireResult{}, unknown(ctx.Err())
	})
	m.onRenew(lostRenewal)
	m.onRelease(lostRelease)
}

func (m *machine) mend() {
	m.onAcquire(nil)
	m.onRenew(nil)
	m.onRelease(nil)
}

// lostRenewal is a renewal that is never answered.
func lostRenewal(ctx context.Context, _ *client.RenewRequest) (*client.RenewResult, error) {
	<-ctx.Done()
	return &client.RenewResult{}, unknown(ctx.Err())
}

// lostRelease is a release that is never answered.
func lostRelease(ctx context.Context, _ *client.ReleaseRequest) (*client.ReleaseResult, error) {
	<-ctx.Done()
	return &client.ReleaseResult{}, unknown(ctx.Err())
}

// brokenRenewal is one whose connection breaks at once.
func brokenRenewal(context.Context, *client.RenewRequest) (*client.RenewResult, error) {
	return &client.RenewResult{}, unknown(errors.New("broken pipe"))
}

func unknown(err error) error {
	return errors.Join(client.ErrUnavailable, client.ErrOutcomeUnknown, err)
}

// info reads a lock, which must succeed.
func info(t *testing.T, c client.RaftLockClient, lock string) *client.LockInfo {
	t.Helper()
	got, err := c.GetLockInfo(t.Context(), &client.GetLockInfoRequest{LockID: lock, IncludeWaiters: true})
	if err != nil {
		t.Fatalf("look at %s: %v", lock, err)
	}
	return got
}

// isFree fails the test if a lock is held or waited for.
func isFree(t *testing.T, c client.RaftLockClient, lock string) {
	t.Helper()
	if got := info(t, c, lock); got.OwnerID != "" || got.WaiterCount != 0 {
		t.Errorf("%s is held by %q, and %d wait", lock, got.OwnerID, got.WaiterCount)
	}
}

// take acquires a lock as somebody else and returns when that was.
func take(t *testing.T, c client.RaftLockClient, lock string) time.Time {
	t.Helper()
	_, err := c.Acquire(t.Context(), &client.AcquireRequest{LockID: lock, ClientID: "another", Wait: true, WaitTimeout: time.Hour})
	if err != nil {
		t.Fatalf("another takes %s: %v", lock, err)
	}
	return time.Now()
}

// is fails the test unless err is each of the targets.
func is(t *testing.T, what string, err error, targets ...error) {
	t.Helper()
	for _, target := range targets {
		if !errors.Is(err, target) {
			t.Errorf("%s: %v, want an error around %q", what, err, target)
		}
	}
}

// isNot fails the test if err is one of the targets.
func isNot(t *testing.T, what string, err error, targets ...error) {
	t.Helper()
	for _, target := range targets {
		if errors.Is(err, target) {
			t.Errorf("%s: %v, want none around %q", what, err, target)
		}
	}
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if got != want {
		t.Errorf("%s is %v, want %v", what, got, want)
	}
}

package client_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/testcluster"
)

func newHandle(t *testing.T, c client.RaftLockClient, lock string) client.LockHandle {
	t.Helper()
	h, err := client.NewLockHandle(c, lock, "me")
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// acquired is a handle that holds its lock.
func acquired(t *testing.T, c client.RaftLockClient, lock string, ttl time.Duration) client.LockHandle {
	t.Helper()
	h := newHandle(t, c, lock)
	if err := h.Acquire(t.Context(), ttl, false); err != nil {
		t.Fatalf("acquire %s: %v", lock, err)
	}
	return h
}

func TestHandle(t *testing.T) {
	bubble(t, func(t *testing.T, c *testcluster.Cluster) {
		m := newMachine(c.Client())
		h := newHandle(t, m, "a")
		equal(t, "IsHeld at first", h.IsHeld(), false)
		equal(t, "Lock at first", h.Lock(), (*client.Lock)(nil))
		is(t, "Release at first", h.Release(t.Context()), client.ErrNotLockOwner)
		is(t, "Renew at first", h.Renew(t.Context(), time.Minute), client.ErrNotLockOwner)

		if err := h.Acquire(t.Context(), time.Minute, true); err != nil {
			t.Fatal(err)
		}
		first := h.Lock()
		equal(t, "IsHeld", h.IsHeld(), true)
		equal(t, "the owner", first.OwnerID, "me")
		equal(t, "the end", time.Until(first.ExpiresAt), time.Minute)
		first.Version = 0
		if h.Lock().Version == 0 {
			t.Error("Lock is not a copy")
		}
		_, _, _ = m.calls()
		is(t, "Acquire on a held handle", h.Acquire(t.Context(), time.Minute, true), client.ErrLockHeld)
		if acquires, _, _ := m.calls(); len(acquires) != 1 {
			t.Error("Acquire on a held handle was sent")
		}

		time.Sleep(50 * time.Second)
		if err := h.Renew(t.Context(), time.Hour); err != nil {
			t.Fatal(err)
		}
		equal(t, "the end, renewed", time.Until(h.Lock().ExpiresAt), time.Hour)
		if err := h.Renew(t.Context(), time.Second); err != nil {
			t.Fatal(err)
		}
		equal(t, "the end, renewed for less", time.Until(h.Lock().ExpiresAt), time.Hour)
		m.onRenew(func(_ context.Context, req *client.RenewRequest) (*client.RenewResult, error) {
			late := &client.Lock{LockID: "a", OwnerID: "me", Version: req.Version, ExpiresAt: m.Clock().Now().Add(time.Second)}
			return &client.RenewResult{Renewed: true, Lock: late}, nil // overtaken by the longer one
		})
		if err := h.Renew(t.Context(), time.Second); err != nil {
			t.Fatal(err)
		}
		m.onRenew(nil)
		equal(t, "the end after a late answer", time.Until(h.Lock().ExpiresAt), time.Hour)
		time.Sleep(5 * time.Minute)
		equal(t, "IsHeld after five minutes", h.IsHeld(), true)

		for range 2 {
			if err := h.Release(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		equal(t, "IsHeld after Release", h.IsHeld(), false)
		is(t, "Renew after Release", h.Renew(t.Context(), time.Minute), client.ErrNotLockOwner)
		isFree(t, m, "a")
		if err := h.Acquire(t.Context(), 0, false); err != nil {
			t.Fatal(err)
		}
		equal(t, "the end by default", time.Until(h.Lock().ExpiresAt), 30*time.Second)
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		isFree(t, m, "a")
		is(t, "Acquire after Close", h.Acquire(t.Context(), time.Minute, false), client.ErrClientClosed)
		is(t, "Renew after Close", h.Renew(t.Context(), time.Minute), client.ErrClientClosed)
		is(t, "Release after Close", h.Release(t.Context()), client.ErrClientClosed)
		if err := h.Close(t.Context()); err != nil {
			t.Errorf("a second Close: %v", err)
		}
		_, _, releases := m.calls()
		equal(t, "the number of releases", releases, 2)
	})
}

func TestNewLockHandleRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(nil)
		for name, args := range map[string]struct {
			c          client.RaftLockClient
			lock, name string
		}{
			"client": {nil, "a", "me"}, "lock_id": {m, "", "me"}, "client_id": {m, "a", ""},
		} {
			_, err := client.NewLockHandle(args.c, args.lock, args.name)
			is(t, name, err, client.ErrInvalidArgument)
			if v, ok := errors.AsType[*client.ValidationError](err); !ok || v.Field != name {
				t.Errorf("%v does not name %s", err, name)
			}
		}
		h := newHandle(t, m, "a")
		is(t, "a negative TTL", h.Acquire(t.Context(), -1, false), client.ErrInvalidTTL)
		is(t, "a renewal for nothing", h.Renew(t.Context(), 0), client.ErrInvalidTTL)
	})
}

// Handles of one ClientID exclude each other; each acquire is a new contender.
func TestHandlesExcludeEachOther(t *testing.T) {
	bubble(t, func(t *testing.T, c *testcluster.Cluster) {
		m := newMachine(c.Client())
		one, two := acquired(t, m, "a", time.Minute), newHandle(t, m, "a")
		is(t, "the other handle", two.Acquire(t.Context(), time.Minute, false), client.ErrLockHeld)
		waited := make(chan error)
		go func() { waited <- two.Acquire(t.Context(), time.Minute, true) }()
		synctest.Wait()
		if err := one.Release(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-waited; err != nil {
			t.Error(err)
		}
		if err := two.Close(t.Context()); err != nil {
			t.Error(err)
		}
		acquires, _, _ := m.calls()
		equal(t, "the longest wait", acquires[2].WaitTimeout, 24*time.Hour)
		ids := map[string]bool{}
		for _, a := range acquires {
			ids[a.RequestID] = a.RequestID != ""
		}
		equal(t, "the number of RequestIDs", len(ids), len(acquires))
	})
}

// IsHeld and Lock answer at once beside calls that hang, and turn by themselves
// at the local end.
func TestHandleAnswersBesideACallThatHangs(t *testing.T) {
	bubble(t, func(t *testing.T, c *testcluster.Cluster) {
		m := newMachine(c.Client())
		h := acquired(t, m, "a", 10*time.Second)
		m.cut()
		renewed := make(chan error, 2)
		for range 2 {
			go func() { renewed <- h.Renew(t.Context(), 10*time.Second) }()
		}
		time.Sleep(9899 * time.Millisecond)
		equal(t, "IsHeld beside the call", h.IsHeld(), true)
		if h.Lock() == nil {
			t.Error("Lock is nil beside the call")
		}
		time.Sleep(time.Millisecond)
		equal(t, "IsHeld at the end", h.IsHeld(), false)
		for range 2 {
			is(t, "the renewal", <-renewed, client.ErrLockLost)
		}

		h = newHandle(t, m, "a")
		ctx, cancel := context.WithCancel(t.Context())
		acquiring := make(chan error, 1)
		go func() { acquiring <- h.Acquire(ctx, time.Second, true) }()
		synctest.Wait()
		equal(t, "IsHeld beside Acquire", h.IsHeld(), false)
		is(t, "a second Acquire that does not wait", h.Acquire(t.Context(), time.Second, false), client.ErrLockHeld)
		short, cancelShort := context.WithTimeout(t.Context(), time.Second)
		defer cancelShort()
		is(t, "a second Acquire that waits", h.Acquire(short, time.Second, true), context.DeadlineExceeded, client.ErrTimeout)
		cancel()
		is(t, "the Acquire", <-acquiring, context.Canceled)
		m.mend()
		time.Sleep(10 * time.Second) // what is done behind the callers' backs ends
	})
}

// A renewal whose outcome is unknown leaves the lock held until its local end,
// and a refused one ends it.
func TestHandleAfterAFailedRenewal(t *testing.T) {
	bubble(t, func(t *testing.T, c *testcluster.Cluster) {
		m := newMachine(c.Client())
		h := acquired(t, m, "a", 10*time.Second)
		m.onRenew(brokenRenewal)
		is(t, "the renewal", h.Renew(t.Context(), 10*time.Second), client.ErrOutcomeUnknown)
		isNot(t, "the renewal", h.Renew(t.Context(), 10*time.Second), client.ErrLockLost)
		equal(t, "IsHeld", h.IsHeld(), true)
		time.Sleep(9 * time.Second)
		equal(t, "IsHeld before the end", h.IsHeld(), true)
		time.Sleep(time.Second)
		equal(t, "IsHeld after the end", h.IsHeld(), false)
		m.onRenew(nil)
		is(t, "a renewal after the end", h.Renew(t.Context(), time.Minute), client.ErrNotLockOwner, client.ErrLockLost)
		_, renewals, _ := m.calls()
		equal(t, "the renewals that were sent", len(renewals), 2)

		h = acquired(t, m, "b", 10*time.Second)
		lock := h.Lock()
		_, err := m.RaftLockClient.Release(t.Context(), &client.ReleaseRequest{LockID: "b", ClientID: "me", Version: lock.Version})
		if err != nil {
			t.Fatal(err)
		}
		is(t, "a renewal that is refused", h.Renew(t.Context(), time.Minute), client.ErrNotLockOwner, client.ErrLockLost)
		equal(t, "IsHeld after the refusal", h.IsHeld(), false)
	})
}

// From the call of Release on the lock is not held, whatever comes of it, and
// the token is kept for another try.
func TestHandleReleaseWithoutANetwork(t *testing.T) {
	for _, closing := range []bool{false, true} {
		bubble(t, func(t *testing.T, c *testcluster.Cluster) {
			m := newMachine(c.Client())
			h := acquired(t, m, "a", time.Hour)
			end := h.Release
			if closing {
				end = h.Close
			}
			m.cut()
			ctx, cancel := context.WithCancel(t.Context())
			released := make(chan error)
			go func() { released <- end(ctx) }()
			synctest.Wait()
			equal(t, "IsHeld beside the call", h.IsHeld(), false)
			equal(t, "Lock beside the call", h.Lock(), (*client.Lock)(nil))
			cancel()
			is(t, "the release", <-released, client.ErrOutcomeUnknown)
			equal(t, "IsHeld after the failure", h.IsHeld(), false)
			begun := time.Now()
			is(t, "the release again", end(ctx), client.ErrOutcomeUnknown)
			equal(t, "its own time", time.Since(begun), 5*time.Second)
			equal(t, "the owner", info(t, m, "a").OwnerID, "me")
			m.mend()
			if err := end(ctx); err != nil { // with a context that is done
				t.Errorf("the release at last: %v", err)
			}
			isFree(t, m, "a")
		})
	}
}

// A handle whose release failed gives that grant back before it acquires, or it
// would wait for itself.
func TestHandleAcquiresAfterAFailedRelease(t *testing.T) {
	bubble(t, func(t *testing.T, c *testcluster.Cluster) {
		m := newMachine(c.Client())
		h := acquired(t, m, "a", time.Hour)
		m.onRelease(func(context.Context, *client.ReleaseRequest) (*client.ReleaseResult, error) {
			return &client.ReleaseResult{}, client.ErrUnavailable
		})
		is(t, "the release", h.Release(t.Context()), client.ErrUnavailable)
		m.onRelease(nil)
		if err := h.Acquire(t.Context(), time.Minute, false); err != nil {
			t.Error(err)
		}
	})
}

// Close ends an Acquire that waits, and leaves neither a waiter nor a grant.
func TestCloseEndsAcquire(t *testing.T) {
	bubble(t, func(t *testing.T, c *testcluster.Cluster) {
		cl := c.Client()
		holder, h := acquired(t, cl, "a", time.Hour), newHandle(t, cl, "a")
		ended := make(chan error, 2)
		for range 2 { // the second one waits for its turn
			go func() { ended <- h.Acquire(t.Context(), time.Minute, true) }()
		}
		synctest.Wait()
		if err := h.Close(t.Context()); err != nil {
			t.Error(err)
		}
		for range 2 {
			is(t, "Acquire", <-ended, client.ErrClientClosed)
		}
		synctest.Wait()
		equal(t, "the number of waiters", info(t, cl, "a").WaiterCount, int32(0))
		if err := holder.Release(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// A grant that comes while the handle is being closed is given back.
func TestCloseDuringAGrant(t *testing.T) {
	bubble(t, func(t *testing.T, c *testcluster.Cluster) {
		m := newMachine(c.Client())
		h := newHandle(t, m, "a")
		m.onAcquire(func(ctx context.Context, req *client.AcquireRequest) (*client.AcquireResult, error) {
			res, err := m.RaftLockClient.Acquire(ctx, req)
			if err := h.Close(ctx); err != nil {
				t.Error(err)
			}
			return res, err
		})
		is(t, "Acquire", h.Acquire(t.Context(), time.Minute, false), client.ErrClientClosed)
		equal(t, "IsHeld", h.IsHeld(), false)
		synctest.Wait()
		isFree(t, m, "a")
	})
}

// A handle may be used by many goroutines: never do two of them hold the lock by
// one grant, and none blocks for ever.
func TestHandleIsUsedByMany(t *testing.T) {
	bubble(t, func(t *testing.T, c *testcluster.Cluster) {
		handles := make([]client.LockHandle, 3)
		for i := range handles {
			handles[i] = newHandle(t, c.Client(), "a")
		}
		var tokens sync.Map
		var all sync.WaitGroup
		for i := range 24 {
			all.Go(func() {
				h := handles[i%len(handles)]
				for range 20 {
					err := h.Acquire(t.Context(), time.Second, i%2 == 0)
					if err == nil {
						if lock := h.Lock(); lock != nil {
							if _, twice := tokens.LoadOrStore(lock.Version, fmt.Sprint(i)); twice {
								t.Errorf("token %d was acquired twice", lock.Version)
							}
						}
						_ = h.Renew(t.Context(), time.Second) // it may be lost or released by now
					} else if !errors.Is(err, client.ErrLockHeld) {
						t.Errorf("acquire: %v", err)
					}
					h.IsHeld()
					time.Sleep(time.Millisecond)
					_ = h.Release(t.Context()) // another goroutine may have
				}
			})
		}
		all.Wait()
		for _, h := range handles {
			if err := h.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
		isFree(t, c.Client(), "a")
	})
}

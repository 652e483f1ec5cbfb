package client_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/pb"
	"github.com/raftlock/raftlock/testcluster"
)

// key is of a value in a context.
type key struct{}

func mustHold(t *testing.T, c client.RaftLockClient, lock string, opts ...client.HoldOption) *client.Held {
	t.Helper()
	h, err := client.Hold(t.Context(), c, lock, opts...)
	if err != nil {
		t.Fatalf("hold %s: %v", lock, err)
	}
	return h
}

// A hold is renewed every third of its TTL, for as long as it lasts, and given
// back once.
func TestHold(t *testing.T) {
	bubble(t, func(t *testing.T, c *testcluster.Cluster) {
		m := newMachine(c.Client())
		begun := time.Now()
		h := mustHold(t, m, "a", client.WithMetadata(map[string]string{"job": "nightly"}), client.WithPriority(7))
		acquires, _, _ := m.calls()
		equal(t, "the TTL", acquires[0].TTL, 30*time.Second)
		equal(t, "the priority", acquires[0].Priority, int32(7))
		equal(t, "Wait", acquires[0].Wait, true)
		equal(t, "the longest wait", acquires[0].WaitTimeout, 24*time.Hour)
		if len(acquires[0].ClientID) == 0 || len(acquires[0].RequestID) == 0 {
			t.Errorf("the identity is (%q, %q)", acquires[0].ClientID, acquires[0].RequestID)
		}
		time.Sleep(5*time.Minute + time.Second)
		_, renewals, _ := m.calls()
		equal(t, "the number of renewals", len(renewals), 30)
		for i, at := range renewals {
			equal(t, "a renewal's time", at.Sub(begun), time.Duration(i+1)*10*time.Second)
		}
		if err := h.Err(); err != nil {
			t.Errorf("a hold that is kept says %v", err)
		}
		select {
		case <-h.Done():
			t.Error("a hold that is kept is done")
		default:
		}
		got := info(t, m, "a")
		equal(t, "the token", h.Token(), got.Version)
		equal(t, "the metadata", got.Metadata["job"], "nightly")
		lock := h.Lock()
		equal(t, "the lock's version", lock.Version, h.Token())
		equal(t, "the lock's end", time.Until(lock.ExpiresAt), 29*time.Second)
		lock.Metadata["job"] = "mine"
		equal(t, "the metadata of another copy", h.Lock().Metadata["job"], "nightly")

		for range 3 {
			if err := h.Release(t.Context()); err != nil {
				t.Errorf("release: %v", err)
			}
		}
		isFree(t, m, "a")
		_, renewals, releases := m.calls()
		equal(t, "the number of releases", releases, 1)
		<-h.Done()
		is(t, "after the release", h.Err(), client.ErrNotLockOwner)
		isNot(t, "after the release", h.Err(), client.ErrLockLost)
		is(t, "the context", h.Context().Err(), context.Canceled)
		isNot(t, "the cause", context.Cause(h.Context()), client.ErrLockLost)
		equal(t, "the token of old", h.Token(), h.Lock().Version)
		time.Sleep(time.Minute)
		_, later, _ := m.calls()
		equal(t, "renewals after the release", len(later)-len(renewals), 0)
	})
}

// Holds exclude each other, also in one name, and wait in the lock's queue.
func TestHoldsExcludeEachOther(t *testing.T) {
	bubble(t, func(t *testing.T, c *testcluster.Cluster) {
		m := newMachine(c.Client())
		h := mustHold(t, m, "a", client.WithClientID("me"))
		_, err := client.Hold(t.Context(), m, "a", client.WithClientID("me"), client.NoWait())
		is(t, "a second hold that does not wait", err, client.ErrLockHeld)

		begun := time.Now()
		_, err = client.Hold(t.Context(), m, "a", client.WithClientID("me"), client.WithWait(time.Minute))
		is(t, "a second hold that waits for a minute", err, client.ErrTimeout)
		equal(t, "the wait", time.Since(begun), time.Minute)

		got := make(chan *client.Held)
		go func() {
			h, err := client.Hold(t.Context(), m, "a", client.WithClientID("me"))
			equal(t, "the error of the hold that waits", err, nil)
			got <- h
		}()
		time.Sleep(3 * time.Minute) // as long as it takes
		equal(t, "the number of waiters", info(t, m, "a").WaiterCount, int32(1))
		if err := h.Release(t.Context()); err != nil {
			t.Error(err)
		}
		next := <-got
		if next == nil {
			return
		}
		if next.Token() <= h.Token() || next.Err() != nil {
			t.Errorf("token %d after %d, %v", next.Token(), h.Token(), next.Err())
		}
		acquires, _, _ := m.calls()
		ids := map[string]bool{}
		for _, a := range acquires {
			ids[a.RequestID] = true
		}
		equal(t, "the number of RequestIDs", len(ids), len(acquires))
		if err := next.Release(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// Two holds without a ClientID have two.
func TestHoldNamesItself(t *testing.T) {
	bubble(t, func(t *testing.T, c *testcluster.Cluster) {
		m := newMachine(c.Client())
		for _, lock := range []string{"a", "b"} {
			defer mustHold(t, m, lock).Release(context.Background())
		}
		acquires, _, _ := m.calls()
		if acquires[0].ClientID == acquires[1].ClientID {
			t.Errorf("both are %q", acquires[0].ClientID)
		}
	})
}

// The end of its context ends a hold and releases the lock at once.
func TestHoldEndsWithItsContext(t *testing.T) {
	bubble(t, func(t *testing.T, c *testcluster.Cluster) {
		m := newMachine(c.Client())
		ctx, cancel := context.WithCancelCause(context.WithValue(t.Context(), key{}, "value"))
		h, err := client.Hold(ctx, m, "a")
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "a value of the context", h.Context().Value(key{}), "value")
		enough := errors.New("enough")
		cancel(enough)
		<-h.Done()
		synctest.Wait()
		is(t, "the hold", h.Err(), enough)
		is(t, "the cause", context.Cause(h.Context()), enough)
		isFree(t, m, "a")
		if err := h.Release(ctx); err != nil {
			t.Errorf("release after the end of the context: %v", err)
		}
		is(t, "the hold, released", h.Err(), enough)
	})
}

// Release works with a context that is done, and takes 5 s at most then.
func TestReleaseWithAContextThatIsDone(t *testing.T) {
	bubble(t, func(t *testing.T, c *testcluster.Cluster) {
		m := newMachine(c.Client())
		done, cancel := context.WithCancel(t.Context())
		cancel()
		if err := mustHold(t, m, "a").Release(done); err != nil {
			t.Errorf("release: %v", err)
		}
		isFree(t, m, "a")

		h := mustHold(t, m, "b")
		m.cut()
		begun := time.Now()
		is(t, "release without a network", h.Release(done), client.ErrOutcomeUnknown)
		equal(t, "the time it took", time.Since(begun), 5*time.Second)
		is(t, "the hold", h.Err(), client.ErrNotLockOwner)
		m.mend()
		if err := h.Release(done); err != nil {
			t.Errorf("release again: %v", err)
		}
		isFree(t, m, "b")
	})
}

// A release that is repeated after an unknown outcome succeeds when the grant is
// over: the first one had come through.
func TestReleaseAfterAnUnknownOutcome(t *testing.T) {
	bubble(t, func(t *testing.T, c *testcluster.Cluster) {
		m := newMachine(c.Client())
		h := mustHold(t, m, "a")
		m.onRelease(func(ctx context.Context, req *client.ReleaseRequest) (*client.ReleaseResult, error) {
			if _, err := m.RaftLockClient.Release(ctx, req); err != nil {
				t.Errorf("the release that came through: %v", err)
			}
			return &client.ReleaseResult{}, unknown(nil)
		})
		is(t, "the first release", h.Release(t.Context()), client.ErrOutcomeUnknown)
		take(t, m, "a")
		m.onRelease(nil)
		if err := h.Release(t.Context()); err != nil {
			t.Errorf("the second release: %v", err)
		}
		equal(t, "the owner", info(t, m, "a").OwnerID, "another")
	})
}

// A wait that is given up leaves neither a waiter nor a grant.
func TestCancelWhileWaiting(t *testing.T) {
	bubble(t, func(t *testing.T, c *testcluster.Cluster) {
		cl := c.Client()
		h := mustHold(t, cl, "a")
		for name, wait := range map[string]func(ctx context.Context) error{
			"Hold": func(ctx context.Context) error {
				_, err := client.Hold(ctx, cl, "a")
				return err
			},
			"Do": func(ctx context.Context) error {
				return client.Do(ctx, cl, "a", func(context.Context, int64) error { t.Error("called"); return nil })
			},
			"RunWithLock": func(ctx context.Context) error {
				return client.RunWithLock(ctx, cl, "a", "me", time.Minute, time.Second, func(context.Context) error { t.Error("called"); return nil })
			},
			"LockHandle": func(ctx context.Context) error {
				handle, err := client.NewLockHandle(cl, "a", "me")
				if err != nil {
					t.Fatal(err)
				}
				return handle.Acquire(ctx, time.Minute, true)
			},
		} {
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() { ended <- wait(ctx) }()
			synctest.Wait()
			equal(t, "the number of waiters with "+name, info(t, cl, "a").WaiterCount, int32(1))
			cancel()
			is(t, name, <-ended, context.Canceled)
			synctest.Wait()
			equal(t, "the number of waiters after "+name, info(t, cl, "a").WaiterCount, int32(0))
		}
		if err := h.Release(t.Context()); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		isFree(t, cl, "a")
	})
}

// A client that grants although the context has ended, or that grants and fails,
// is given back what nobody will use.
func TestGrantForNobodyIsGivenBack(t *testing.T) {
	bubble(t, func(t *testing.T, c *testcluster.Cluster) {
		m := newMachine(c.Client())
		ctx, cancel := context.WithCancel(t.Context())
		broken := errors.New("broken")
		for _, late := range []struct {
			name string
			call func(ctx context.Context, req *client.AcquireRequest) (*client.AcquireResult, error)
			want error
		}{
			{"granted and broken", func(ctx context.Context, req *client.AcquireRequest) (*client.AcquireResult, error) {
				res, _ := m.RaftLockClient.Acquire(ctx, req)
				return res, broken
			}, broken},
			{"granted too late", func(ctx context.Context, req *client.AcquireRequest) (*client.AcquireResult, error) {
				res, err := m.RaftLockClient.Acquire(context.WithoutCancel(ctx), req)
				cancel()
				return res, err
			}, context.Canceled},
		} {
			m.onAcquire(late.call)
			_, err := client.Hold(ctx, m, "a")
			is(t, late.name, err, late.want)
			synctest.Wait()
			isFree(t, m, "a")
		}
	})
}

// A grant whose time is over when the answer comes is none.
func TestGrantThatCameTooLate(t *testing.T) {
	bubble(t, func(t *testing.T, c *testcluster.Cluster) {
		m := newMachine(c.Client())
		m.onAcquire(func(ctx context.Context, req *client.AcquireRequest) (*client.AcquireResult, error) {
			res, err := m.RaftLockClient.Acquire(ctx, req)
			time.Sleep(950 * time.Millisecond)
			return res, err
		})
		_, err := client.Hold(t.Context(), m, "a", client.WithTTL(time.Second))
		is(t, "a grant that came after its local end", err, client.ErrLockLost)
		synctest.Wait()
		isFree(t, m, "a")
	})
}

// A machine may sleep while it waits: what it is granted afterwards it holds. What
// it was granted before, and slept through, it does not.
func TestMachineSleepsWhileItWaits(t *testing.T) {
	bubble(t, func(t *testing.T, c *testcluster.Cluster) {
		m := newMachine(c.Client())
		holder := acquired(t, c.Client(), "a", time.Hour)
		got := make(chan *client.Held)
		go func() {
			h, err := client.Hold(t.Context(), m, "a")
			equal(t, "the error of the hold that waited", err, nil)
			got <- h
		}()
		synctest.Wait()
		m.warp.Pause()
		time.Sleep(5 * time.Minute)
		m.warp.Wake()
		if err := holder.Release(t.Context()); err != nil {
			t.Error(err)
		}
		h := <-got
		if h == nil {
			return
		}
		equal(t, "Err", h.Err(), nil)
		equal(t, "the end", h.Lock().ExpiresAt.Sub(m.Clock().Now()), 30*time.Second)
		if err := h.Release(t.Context()); err != nil {
			t.Error(err)
		}

		m.onAcquire(func(ctx context.Context, req *client.AcquireRequest) (*client.AcquireResult, error) {
			res, err := m.RaftLockClient.Acquire(ctx, req)
			m.warp.Pause()
			time.Sleep(5 * time.Minute)
			m.warp.Wake()
			m.here(res.Lock)
			return res, err
		})
		_, err := client.Hold(t.Context(), m, "a")
		is(t, "a grant that was slept through", err, client.ErrLockLost)
		m.onRenew(func(context.Context, *client.RenewRequest) (*client.RenewResult, error) {
			return &client.RenewResult{Error: &client.ErrorDetail{Code: pb.ErrorCode_NOT_LOCK_OWNER}}, nil
		})
		_, err = client.Hold(t.Context(), m, "b")
		is(t, "the same, of a client that has no error for it", err, client.ErrLockLost, client.ErrNotLockOwner)
	})
}

// A grant whose answer was long on its way is renewed in time.
func TestGrantWithLittleLeft(t *testing.T) {
	bubble(t, func(t *testing.T, c *testcluster.Cluster) {
		m := newMachine(c.Client())
		m.onAcquire(func(ctx context.Context, req *client.AcquireRequest) (*client.AcquireResult, error) {
			res, err := m.RaftLockClient.Acquire(ctx, req)
			m.here(res.Lock)
			time.Sleep(14 * time.Second)
			return res, err
		})
		h, err := client.Hold(t.Context(), m, "a", client.WithTTL(20*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		equal(t, "Err", h.Err(), nil)
		if err := h.Release(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// A cluster may allow shorter waits than a day; a hold waits as long as it may.
func TestHoldWaitsAsLongAsTheClusterAllows(t *testing.T) {
	bubble(t, func(t *testing.T, c *testcluster.Cluster) {
		m := newMachine(c.Client())
		m.onAcquire(func(ctx context.Context, req *client.AcquireRequest) (*client.AcquireResult, error) {
			if req.WaitTimeout > time.Hour {
				err := client.NewClientError("Acquire", client.ErrInvalidArgument, pb.ErrorCode_INVALID_ARGUMENT,
					map[string]string{"field": "wait_timeout", "min": "0s", "max": "1h0m0s"})
				return &client.AcquireResult{}, err
			}
			return m.RaftLockClient.Acquire(ctx, req)
		})
		if err := mustHold(t, m, "a").Release(t.Context()); err != nil {
			t.Error(err)
		}
		acquires, _, _ := m.calls()
		equal(t, "the second try", acquires[1].WaitTimeout, time.Hour)
		_, err := client.Hold(t.Context(), m, "a", client.WithWait(2*time.Hour))
		is(t, "a wait that was asked for", err, client.ErrInvalidArgument)
	})
}

// What cannot be asked for is refused before anything is sent.
func TestHoldRefuses(t *testing.T) {
	bubble(t, func(t *testing.T, c *testcluster.Cluster) {
		m := newMachine(c.Client())
		for _, bad := range []struct {
			field string
			want  error
			opt   client.HoldOption
		}{
			{"ttl", client.ErrInvalidTTL, client.WithTTL(0)},
			{"ttl", client.ErrInvalidTTL, client.WithTTL(-time.Second)},
			{"wait", client.ErrInvalidArgument, client.WithWait(0)},
		} {
			_, err := client.Hold(t.Context(), m, "a", bad.opt)
			is(t, bad.field, err, bad.want)
			if v, ok := errors.AsType[*client.ValidationError](err); !ok || v.Field != bad.field {
				t.Errorf("%v does not name the field %s", err, bad.field)
			}
		}
		_, err := client.Hold(t.Context(), nil, "a")
		is(t, "no client", err, client.ErrInvalidArgument)
		if acquires, _, _ := m.calls(); len(acquires) != 0 {
			t.Error("something was sent")
		}
		_, err = client.Hold(t.Context(), m, "")
		is(t, "no name", err, client.ErrInvalidArgument)
	})
}

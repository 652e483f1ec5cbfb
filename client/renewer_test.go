package client_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jonboulle/clockwork"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/testcluster"
)

func newRenewer(t *testing.T, h client.LockHandle, interval, ttl time.Duration, opts ...client.AutoRenewerOption) client.AutoRenewer {
	t.Helper()
	r, err := client.NewAutoRenewer(h, interval, ttl, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A renewer renews every interval until it is stopped, and has no error then.
func TestAutoRenewer(t *testing.T) {
	bubble(t, func(t *testing.T, c *testcluster.Cluster) {
		m := newMachine(c.Client())
		h := acquired(t, m, "a", 10*time.Second)
		begun := time.Now()
		r := newRenewer(t, h, 3*time.Second, 10*time.Second)
		time.Sleep(time.Second)
		for range 3 { // the others start nothing
			r.Start(t.Context())
		}
		time.Sleep(61 * time.Second)
		_, renewals, _ := m.calls()
		equal(t, "the number of renewals", len(renewals), 20)
		for i, at := range renewals {
			equal(t, "a renewal's time", at.Sub(begun), time.Second+time.Duration(i+1)*3*time.Second)
		}
		equal(t, "Err while it runs", r.Err(), nil)
		equal(t, "Done while it runs", isClosed(r.Done()), false)
		for range 2 {
			equal(t, "Stop", r.Stop(t.Context()), nil)
		}
		equal(t, "Err", r.Err(), nil)
		equal(t, "Done", isClosed(r.Done()), true)
		equal(t, "the handle after Stop", h.IsHeld(), true)
		time.Sleep(5 * time.Second)
		_, later, _ := m.calls()
		equal(t, "the number of renewals later", len(later), len(renewals))
	})
}

// The end of the run context ends a renewer, without an error, also beside a
// call that hangs.
func TestAutoRenewerEndsWithItsContext(t *testing.T) {
	for _, hangs := range []bool{false, true} {
		bubble(t, func(t *testing.T, c *testcluster.Cluster) {
			m := newMachine(c.Client())
			h := acquired(t, m, "a", 10*time.Second)
			r := newRenewer(t, h, 3*time.Second, 10*time.Second)
			ctx, cancel := context.WithCancel(t.Context())
			r.Start(ctx)
			if hangs {
				m.cut()
			}
			time.Sleep(4 * time.Second)
			cancel()
			<-r.Done()
			equal(t, "Err", r.Err(), nil)
			equal(t, "Stop", r.Stop(ctx), nil)
			equal(t, "the handle", h.IsHeld(), true)
		})
	}
}

// Stop comes before Start, and then there is nothing to start.
func TestAutoRenewerStoppedBeforeStart(t *testing.T) {
	bubble(t, func(t *testing.T, c *testcluster.Cluster) {
		m := newMachine(c.Client())
		r := newRenewer(t, acquired(t, m, "a", 10*time.Second), time.Second, 10*time.Second)
		equal(t, "Stop", r.Stop(t.Context()), nil)
		<-r.Done()
		r.Start(t.Context())
		time.Sleep(5 * time.Second)
		if _, renewals, _ := m.calls(); len(renewals) != 0 {
			t.Error("it renews")
		}
	})
}

// Stop waits for the renewer's end, or for its own context.
func TestStopIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T, c *testcluster.Cluster) {
		m := newMachine(c.Client())
		r := newRenewer(t, acquired(t, m, "a", time.Minute), time.Second, time.Minute)
		stuck := make(chan struct{})
		m.onRenew(func(ctx context.Context, _ *client.RenewRequest) (*client.RenewResult, error) {
			<-stuck // a client that ignores its context
			return &client.RenewResult{}, unknown(ctx.Err())
		})
		r.Start(t.Context())
		time.Sleep(2 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		is(t, "Stop", r.Stop(ctx), context.DeadlineExceeded)
		close(stuck)
		<-r.Done()
		equal(t, "Stop later", r.Stop(ctx), nil)
	})
}

// A renewal that fails is tried again for as long as the grant lasts, and then
// the lock is lost.
func TestAutoRenewerRetries(t *testing.T) {
	bubble(t, func(t *testing.T, c *testcluster.Cluster) {
		m := newMachine(c.Client())
		h := acquired(t, m, "a", 10*time.Second)
		begun := time.Now()
		r := newRenewer(t, h, 3*time.Second, 10*time.Second)
		r.Start(t.Context())
		m.onRenew(brokenRenewal)
		time.Sleep(9 * time.Second)
		m.onRenew(nil)
		time.Sleep(9 * time.Second)
		equal(t, "the handle after an outage", h.IsHeld(), true)
		equal(t, "Err after an outage", r.Err(), nil)

		m.cut()
		cut := time.Now()
		<-r.Done()
		within := time.Since(cut)
		if within < 6900*time.Millisecond || within > 9900*time.Millisecond {
			t.Errorf("lost %v after the cut", within)
		}
		is(t, "Err", r.Err(), client.ErrLockLost)
		is(t, "Stop", r.Stop(t.Context()), client.ErrLockLost)
		equal(t, "the handle", h.IsHeld(), false)
		_, renewals, _ := m.calls()
		if len(renewals) < 10 {
			t.Errorf("%d renewals in %v", len(renewals), time.Since(begun))
		}
		m.mend()
		time.Sleep(10 * time.Second)
	})
}

// A lock that is lost shows at its local end, not at the next renewal.
func TestAutoRenewerNoticesTheEnd(t *testing.T) {
	bubble(t, func(t *testing.T, c *testcluster.Cluster) {
		m := newMachine(c.Client())
		begun := time.Now()
		r := newRenewer(t, acquired(t, m, "a", 10*time.Second), time.Hour, 2*time.Hour)
		m.onRenew(lostRenewal)
		r.Start(t.Context())
		<-r.Done()
		equal(t, "the end", time.Since(begun), 9900*time.Millisecond)
		is(t, "Err", r.Err(), client.ErrLockLost)
	})
}

// A lock that its holder gives back is not lost.
func TestAutoRenewerOfAReleasedLock(t *testing.T) {
	for name, end := range map[string]func(client.LockHandle, context.Context) error{
		"Release": client.LockHandle.Release, "Close": client.LockHandle.Close,
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, c *testcluster.Cluster) {
				h := acquired(t, c.Client(), "a", 10*time.Second)
				r := newRenewer(t, h, 3*time.Second, 10*time.Second)
				r.Start(t.Context())
				if err := end(h, t.Context()); err != nil {
					t.Error(err)
				}
				<-r.Done()
				equal(t, "Err", r.Err(), nil)
			})
		})
	}
}

// A clock of the test's own says when to renew; the lock ends by the client's.
func TestAutoRenewerWithAFakeClock(t *testing.T) {
	bubble(t, func(t *testing.T, c *testcluster.Cluster) {
		m := newMachine(c.Client())
		h := acquired(t, m, "a", 10*time.Second)
		fake := clockwork.NewFakeClock()
		r := newRenewer(t, h, 3*time.Second, 10*time.Second, client.WithClock(fake), client.WithClock(nil))
		r.Start(t.Context())
		for i := range 5 {
			if err := fake.BlockUntilContext(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
			fake.Advance(3*time.Second - 1)
			synctest.Wait()
			_, renewals, _ := m.calls()
			equal(t, "the renewals before the interval", len(renewals), i)
			fake.Advance(1)
			synctest.Wait()
			_, renewals, _ = m.calls()
			equal(t, "the renewals", len(renewals), i+1)
			time.Sleep(9 * time.Second) // no reason to renew
		}
		<-r.Done()
		is(t, "Err", r.Err(), client.ErrLockLost)
	})
}

// mock is a handle that somebody wrote for a test.
type mock struct {
	client.LockHandle // nil: nothing else is called
	renew             func() error
	held              bool
}

func (h *mock) Renew(context.Context, time.Duration) error { return h.renew() }
func (h *mock) IsHeld() bool                               { return h.held }
func (h *mock) Lock() *client.Lock                         { return &client.Lock{} }

// A renewer works on any handle.
func TestAutoRenewerOfAMock(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error // of every renewal
		held bool
		want []error
	}{
		{"lost", errors.New("broken"), false, []error{client.ErrLockLost}},
		{"refused", client.ErrVersionMismatch, true, []error{client.ErrLockLost, client.ErrVersionMismatch}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				calls := 0
				h := &mock{held: c.held, renew: func() error {
					if calls++; calls <= 3 {
						return nil
					}
					return c.err
				}}
				begun := time.Now()
				r := newRenewer(t, h, time.Second, time.Minute)
				r.Start(t.Context())
				<-r.Done()
				is(t, "Err", r.Err(), c.want...)
				equal(t, "the end", time.Since(begun), 4*time.Second)
			})
		})
	}
}

func TestNewAutoRenewerRefuses(t *testing.T) {
	h := &mock{}
	for _, c := range []struct {
		field         string
		handle        client.LockHandle
		interval, ttl time.Duration
		want          error
	}{
		{"handle", nil, time.Second, time.Minute, client.ErrInvalidArgument},
		{"interval", h, 0, time.Minute, client.ErrInvalidArgument},
		{"interval", h, -1, time.Minute, client.ErrInvalidArgument},
		{"interval", h, time.Minute, time.Minute, client.ErrInvalidArgument},
		{"ttl", h, time.Second, 0, client.ErrInvalidTTL},
	} {
		_, err := client.NewAutoRenewer(c.handle, c.interval, c.ttl)
		is(t, c.field, err, c.want)
		if v, ok := errors.AsType[*client.ValidationError](err); !ok || v.Field != c.field {
			t.Errorf("%v does not name %s", err, c.field)
		}
	}
}

// late has a machine's grants, and its renewals, come with little of their time
// left: for so long they were on their way.
func late(m *machine, by time.Duration) {
	m.onAcquire(func(ctx context.Context, req *client.AcquireRequest) (*client.AcquireResult, error) {
		res, err := m.RaftLockClient.Acquire(ctx, req)
		m.here(res.Lock)
		time.Sleep(by)
		return res, err
	})
	m.onRenew(func(ctx context.Context, req *client.RenewRequest) (*client.RenewResult, error) {
		short := *req
		short.NewTTL -= by
		res, err := m.RaftLockClient.Renew(ctx, &short)
		m.here(res.Lock)
		return res, err
	})
}

// A grant that has less left than the interval is renewed in time all the same,
// the first time and later, and with time to try again.
func TestGrantsWithLittleLeftAreRenewedInTime(t *testing.T) {
	const ttl, by, interval = 20 * time.Second, 17 * time.Second, 8 * time.Second
	check := func(t *testing.T, m *machine, begun time.Time) {
		t.Helper()
		_, renewals, _ := m.calls()
		if len(renewals) < 20 {
			t.Errorf("%d renewals", len(renewals))
		}
		for _, at := range renewals {
			within := (ttl - by) / 3
			if gap := at.Sub(begun); gap > within {
				t.Errorf("a renewal comes after %v, and must within %v", gap, within)
			}
			begun = at
		}
	}
	t.Run("RunWithLock", func(t *testing.T) {
		bubble(t, func(t *testing.T, c *testcluster.Cluster) {
			m := newMachine(c.Client())
			late(m, by)
			err := client.RunWithLock(t.Context(), m, "a", "me", ttl, interval, func(ctx context.Context) error {
				begun := time.Now()
				time.Sleep(20 * time.Second)
				check(t, m, begun)
				return ctx.Err()
			})
			equal(t, "the error", err, nil)
		})
	})
	t.Run("Do", func(t *testing.T) {
		bubble(t, func(t *testing.T, c *testcluster.Cluster) {
			m := newMachine(c.Client())
			late(m, by)
			err := client.Do(t.Context(), m, "a", func(ctx context.Context, _ int64) error {
				begun := time.Now()
				time.Sleep(20 * time.Second)
				check(t, m, begun)
				return ctx.Err()
			}, client.WithTTL(ttl))
			equal(t, "the error", err, nil)
		})
	})
}

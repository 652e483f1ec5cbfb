package client_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/testcluster"
)

// ways are all functions that call work under a lock.
var ways = map[string]func(ctx context.Context, c client.RaftLockClient, work func(context.Context) error) error{
	"Do": func(ctx context.Context, c client.RaftLockClient, work func(context.Context) error) error {
		return client.Do(ctx, c, "a", func(ctx context.Context, _ int64) error { return work(ctx) }, client.NoWait())
	},
	"RunWithLock": func(ctx context.Context, c client.RaftLockClient, work func(context.Context) error) error {
		return client.RunWithLock(ctx, c, "a", "me", 30*time.Second, 10*time.Second, work)
	},
	"DoWithLock": func(ctx context.Context, c client.RaftLockClient, work func(context.Context) error) error {
		return client.DoWithLock(ctx, c, "a", "me", 30*time.Second, work)
	},
}

func eachWay(t *testing.T, test func(t *testing.T, m *machine, with func(ctx context.Context, work func(context.Context) error) error)) {
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, c *testcluster.Cluster) {
				m := newMachine(c.Client())
				test(t, m, func(ctx context.Context, work func(context.Context) error) error { return way(ctx, m, work) })
			})
		})
	}
}

// Work that succeeds under its lock has no error; other work has its own. The
// lock is held meanwhile and free afterwards.
func TestWorkUnderALock(t *testing.T) {
	failed := errors.New("failed")
	eachWay(t, func(t *testing.T, m *machine, with func(context.Context, func(context.Context) error) error) {
		for _, want := range []error{nil, failed} {
			var inside context.Context
			err := with(context.WithValue(t.Context(), key{}, "value"), func(ctx context.Context) error {
				inside = ctx
				equal(t, "a value of the context", ctx.Value(key{}), "value")
				if info(t, m, "a").OwnerID == "" {
					t.Error("the lock is free")
				}
				return want
			})
			if err != want {
				t.Errorf("got %v, want %v and nothing around it", err, want)
			}
			isFree(t, m, "a")
			is(t, "the context afterwards", inside.Err(), context.Canceled)
			isNot(t, "the cause", context.Cause(inside), client.ErrLockLost)
		}
	})
}

// The token that Do gives is that of the grant.
func TestDoGivesTheToken(t *testing.T) {
	bubble(t, func(t *testing.T, c *testcluster.Cluster) {
		var last int64
		for range 3 {
			err := client.Do(t.Context(), c.Client(), "a", func(ctx context.Context, token int64) error {
				equal(t, "the token", token, info(t, c.Client(), "a").Version)
				if token <= last {
					t.Errorf("token %d after %d", token, last)
				}
				last = token
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}
	})
}

// Work that panics or ends its goroutine releases the lock all the same.
func TestWorkThatDoesNotReturn(t *testing.T) {
	eachWay(t, func(t *testing.T, m *machine, with func(context.Context, func(context.Context) error) error) {
		func() {
			defer func() { equal(t, "what was recovered", recover(), "oh") }()
			_ = with(t.Context(), func(context.Context) error { panic("oh") })
			t.Error("the panic is gone")
		}()
		isFree(t, m, "a")
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = with(t.Context(), func(context.Context) error { runtime.Goexit(); return nil })
			t.Error("the goroutine goes on")
		}()
		<-ended
		isFree(t, m, "a")
	})
}

// The lock is kept until the work has returned, also when its context ends; it
// is released although that context has ended.
func TestLockIsKeptUntilTheWorkReturns(t *testing.T) {
	eachWay(t, func(t *testing.T, m *machine, with func(context.Context, func(context.Context) error) error) {
		ctx, cancel := context.WithCancel(t.Context())
		err := with(ctx, func(ctx context.Context) error {
			cancel()
			<-ctx.Done()
			isNot(t, "the cause", context.Cause(ctx), client.ErrLockLost)
			time.Sleep(20 * time.Second) // it takes its time
			if info(t, m, "a").OwnerID == "" {
				t.Error("the lock is free before the work is over")
			}
			return ctx.Err()
		})
		equal(t, "the error", err, context.Canceled)
		isFree(t, m, "a")
	})
}

// Do and RunWithLock go on renewing for work that is slow to stop.
func TestSlowWorkKeepsItsLock(t *testing.T) {
	for _, name := range []string{"Do", "RunWithLock"} {
		bubble(t, func(t *testing.T, c *testcluster.Cluster) {
			m := newMachine(c.Client())
			ctx, cancel := context.WithCancel(t.Context())
			err := ways[name](ctx, m, func(context.Context) error {
				cancel()
				time.Sleep(5 * time.Minute)
				if info(t, m, "a").OwnerID == "" {
					t.Error("the lock is free before the work is over")
				}
				return nil
			})
			equal(t, "the error of "+name, err, nil)
			isFree(t, m, "a")
		})
	}
}

// A loss is told beside the work's own error, and once.
func TestLossIsJoined(t *testing.T) {
	failed := errors.New("failed")
	eachWay(t, func(t *testing.T, m *machine, with func(context.Context, func(context.Context) error) error) {
		for name, result := range map[string]func(ctx context.Context) error{
			"nothing":         func(context.Context) error { return nil },
			"its own error":   func(context.Context) error { return failed },
			"the cause":       context.Cause,
			"the cause, told": func(ctx context.Context) error { return errors.Join(failed, context.Cause(ctx)) },
		} {
			var own error
			err := with(t.Context(), func(ctx context.Context) error {
				m.onRenew(brokenRenewal)
				<-ctx.Done()
				is(t, "the cause", context.Cause(ctx), client.ErrLockLost)
				own = result(ctx)
				return own
			})
			m.onRenew(nil)
			is(t, name, err, client.ErrLockLost)
			if own != nil {
				is(t, name, err, own)
			}
			if errors.Is(own, client.ErrLockLost) && err != own {
				t.Errorf("%s: the loss is told twice: %v", name, err)
			}
			time.Sleep(time.Minute)
		}
	})
}

// They release only after the work has returned, also when the lock was lost.
func TestNothingIsReleasedUnderTheWork(t *testing.T) {
	eachWay(t, func(t *testing.T, m *machine, with func(context.Context, func(context.Context) error) error) {
		_ = with(t.Context(), func(ctx context.Context) error {
			m.onRenew(brokenRenewal)
			<-ctx.Done()
			time.Sleep(time.Minute)
			_, _, releases := m.calls()
			equal(t, "the number of releases under the work", releases, 0)
			return nil
		})
		_, _, releases := m.calls()
		equal(t, "the number of releases", releases, 1)
	})
}

// A release that fails is no error of the work.
func TestFailedReleaseIsNoError(t *testing.T) {
	eachWay(t, func(t *testing.T, m *machine, with func(context.Context, func(context.Context) error) error) {
		m.onRelease(lostRelease)
		var returned time.Time
		err := with(t.Context(), func(context.Context) error { returned = time.Now(); return nil })
		equal(t, "the error", err, nil)
		equal(t, "the time it took", time.Since(returned), 5*time.Second)
	})
}

// Do and RunWithLock wait for their turn, DoWithLock does not.
func TestWaysWait(t *testing.T) {
	bubble(t, func(t *testing.T, c *testcluster.Cluster) {
		cl := c.Client()
		h := mustHold(t, cl, "a")
		called := func(context.Context) error { t.Error("called"); return nil }
		is(t, "DoWithLock", ways["DoWithLock"](t.Context(), cl, called), client.ErrLockHeld)
		is(t, "Do with NoWait", ways["Do"](t.Context(), cl, called), client.ErrLockHeld)

		done := make(chan error, 2)
		go func() {
			done <- client.Do(t.Context(), cl, "a", func(context.Context, int64) error { return nil })
		}()
		go func() {
			done <- ways["RunWithLock"](t.Context(), cl, func(context.Context) error { return nil })
		}()
		time.Sleep(10 * time.Minute)
		equal(t, "the number of waiters", info(t, cl, "a").WaiterCount, int32(2))
		if err := h.Release(t.Context()); err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		isFree(t, cl, "a")
	})
}

// DoWithLock does not renew: the work's context ends with the TTL.
func TestDoWithLockEndsWithTheTTL(t *testing.T) {
	for _, ttl := range []time.Duration{10 * time.Second, 0} {
		bubble(t, func(t *testing.T, c *testcluster.Cluster) {
			m := newMachine(c.Client())
			begun := time.Now()
			err := client.DoWithLock(t.Context(), m, "a", "me", ttl, func(ctx context.Context) error {
				<-ctx.Done()
				is(t, "the cause", context.Cause(ctx), client.ErrLockLost)
				return nil
			})
			is(t, "DoWithLock", err, client.ErrLockLost)
			want := ttl
			if ttl == 0 {
				want = 30 * time.Second
			}
			equal(t, "the end", time.Since(begun), want-want/100)
			if _, renewals, _ := m.calls(); len(renewals) != 0 {
				t.Error("it renews")
			}
		})
	}
}

// Work under one lock excludes all other work under it, in one name or in many.
func TestWorkExcludesWork(t *testing.T) {
	bubble(t, func(t *testing.T, c *testcluster.Cluster) {
		const workers, rounds = 9, 30
		count := 0 // unguarded: the race detector looks on
		var all sync.WaitGroup
		for i := range workers {
			all.Go(func() {
				cl := c.Client()
				for range rounds {
					err := client.ErrLockHeld
					for errors.Is(err, client.ErrLockHeld) {
						name := []string{"Do", "RunWithLock", "DoWithLock"}[i%3]
						err = ways[name](t.Context(), cl, func(context.Context) error {
							now := count
							time.Sleep(time.Millisecond)
							count = now + 1
							return nil
						})
						time.Sleep(time.Millisecond)
					}
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		equal(t, "the count", count, workers*rounds)
	})
}

// What cannot work is refused before the lock is taken.
func TestWaysRefuse(t *testing.T) {
	bubble(t, func(t *testing.T, c *testcluster.Cluster) {
		m := newMachine(c.Client())
		ctx, fn := t.Context(), func(context.Context) error { t.Error("called"); return nil }
		is(t, "Do without work", client.Do(ctx, m, "a", nil), client.ErrInvalidArgument)
		is(t, "Do without a client", client.Do(ctx, nil, "a", func(context.Context, int64) error { return nil }), client.ErrInvalidArgument)
		is(t, "DoWithLock without work", client.DoWithLock(ctx, m, "a", "me", time.Second, nil), client.ErrInvalidArgument)
		is(t, "DoWithLock without a client", client.DoWithLock(ctx, nil, "a", "me", time.Second, fn), client.ErrInvalidArgument)
		is(t, "RunWithLock without work", client.RunWithLock(ctx, m, "a", "me", time.Second, 1, nil), client.ErrInvalidArgument)
		is(t, "RunWithLock without a name", client.RunWithLock(ctx, m, "", "me", time.Second, 1, fn), client.ErrInvalidArgument)
		is(t, "RunWithLock without a TTL", client.RunWithLock(ctx, m, "a", "me", 0, 1, fn), client.ErrInvalidTTL)
		is(t, "RunWithLock with a long interval", client.RunWithLock(ctx, m, "a", "me", time.Second, time.Second, fn), client.ErrInvalidArgument)
		if acquires, _, _ := m.calls(); len(acquires) != 0 {
			t.Error("something was sent")
		}
	})
}

// The hook variables replace the parts of DoWithLock and RunWithLock.
func TestHooks(t *testing.T) {
	handles, renewers := client.NewLockHandleFunc, client.NewAutoRenewerFunc
	defer func() { client.NewLockHandleFunc, client.NewAutoRenewerFunc = handles, renewers }()
	noHandle, noRenewer := errors.New("no handle"), errors.New("no renewer")
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(nil)
		h := &spy{held: true}
		client.NewLockHandleFunc = func(c client.RaftLockClient, lock, id string) (client.LockHandle, error) {
			if c != client.RaftLockClient(m) || lock != "a" || id != "me" {
				t.Errorf("a handle of %v, %s, %s", c, lock, id)
			}
			return h, nil
		}
		ran := 0
		ctx, cancel := context.WithCancel(t.Context())
		work := func(context.Context) error { ran++; cancel(); return nil }
		equal(t, "DoWithLock", ways["DoWithLock"](ctx, m, work), nil)
		equal(t, "the calls", h.told, "acquire 30s false, close, ")

		h.told = ""
		client.NewAutoRenewerFunc = func(got client.LockHandle, interval, ttl time.Duration, opts ...client.AutoRenewerOption) (client.AutoRenewer, error) {
			if got != client.LockHandle(h) || interval != 10*time.Second || ttl != 30*time.Second || len(opts) != 0 {
				t.Errorf("a renewer of %v, %v, %v", got, interval, ttl)
			}
			return renewers(got, interval, ttl, opts...)
		}
		err := ways["RunWithLock"](t.Context(), m, func(ctx context.Context) error {
			time.Sleep(15 * time.Second)
			return work(ctx)
		})
		equal(t, "RunWithLock", err, nil)
		equal(t, "the calls", h.told, "acquire 30s true, renew 30s, close, ")

		client.NewAutoRenewerFunc = func(client.LockHandle, time.Duration, time.Duration, ...client.AutoRenewerOption) (client.AutoRenewer, error) {
			return nil, noRenewer
		}
		is(t, "RunWithLock without a renewer", ways["RunWithLock"](t.Context(), m, work), noRenewer)
		client.NewLockHandleFunc = func(client.RaftLockClient, string, string) (client.LockHandle, error) { return nil, noHandle }
		is(t, "RunWithLock without a handle", ways["RunWithLock"](t.Context(), m, work), noHandle)
		is(t, "DoWithLock without a handle", ways["DoWithLock"](t.Context(), m, work), noHandle)
		equal(t, "how often work was done", ran, 2)
	})
}

// spy is a handle that notes what is done with it.
type spy struct {
	told string
	held bool
}

func (h *spy) Acquire(_ context.Context, ttl time.Duration, wait bool) error {
	h.told += "acquire " + ttl.String()
	if wait {
		h.told += " true, "
	} else {
		h.told += " false, "
	}
	return nil
}

func (h *spy) Renew(_ context.Context, ttl time.Duration) error {
	h.told += "renew " + ttl.String() + ", "
	return nil
}

func (h *spy) Release(context.Context) error { h.told += "release, "; return nil }
func (h *spy) IsHeld() bool                  { return h.held }
func (h *spy) Lock() *client.Lock            { return &client.Lock{} }

func (h *spy) Close(ctx context.Context) error {
	h.told += "close, "
	if _, bounded := ctx.Deadline(); ctx.Err() != nil || !bounded {
		h.told += "without a time of its own, "
	}
	return nil
}

// A renewal that hangs beyond its context does not keep the work from its end.
func TestRenewalThatOverstays(t *testing.T) {
	bubble(t, func(t *testing.T, c *testcluster.Cluster) {
		m := newMachine(c.Client())
		m.onRenew(func(context.Context, *client.RenewRequest) (*client.RenewResult, error) {
			time.Sleep(30 * time.Second)
			return nil, client.NewClientError("Renew", client.ErrUnavailable, 0, nil)
		})
		begun := time.Now()
		err := client.RunWithLock(t.Context(), m, "a", "me", 3*time.Second, time.Second, func(ctx context.Context) error {
			<-ctx.Done()
			is(t, "the cause", context.Cause(ctx), client.ErrLockLost)
			equal(t, "the end", time.Since(begun), 2950*time.Millisecond)
			return nil
		})
		is(t, "RunWithLock", err, client.ErrLockLost)
		time.Sleep(time.Minute) // the renewal ends
	})
}

package testcluster_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/testcluster"
)

// eachMachine runs a test with a client on a machine of its own, in process and
// over gRPC, and another one that suffers nothing.
func eachMachine(t *testing.T, test func(t *testing.T, c *testcluster.Cluster, cl, other *testcluster.Client)) {
	t.Helper()
	for name, dial := range map[string]func(c *testcluster.Cluster) *testcluster.Client{
		"in process": func(c *testcluster.Cluster) *testcluster.Client { return c.ClientOn(follower(c)) },
		"gRPC":       func(c *testcluster.Cluster) *testcluster.Client { return c.Dial(c.ClientConfig()) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
				cl := dial(c)
				if _, err := cl.Health(t.Context(), &client.HealthRequest{}); err != nil {
					t.Fatal(err) // and the connections stand
				}
				test(t, c, cl, c.Client())
			}, testcluster.WithGRPC())
		})
	}
}

// holdsOn holds a lock by each way that renews, calls fault, and checks that
// every holder was told of its loss before another had the lock.
func holdsOn(t *testing.T, cl, other *testcluster.Client, fault func()) {
	t.Helper()
	held, err := client.Hold(t.Context(), cl, "hold", client.WithTTL(9*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	ways := map[string]func(work func(context.Context) error) error{
		"do": func(work func(context.Context) error) error {
			return client.Do(t.Context(), cl, "do", func(ctx context.Context, _ int64) error { return work(ctx) }, client.WithTTL(9*time.Second))
		},
		"run": func(work func(context.Context) error) error {
			return client.RunWithLock(t.Context(), cl, "run", "me", 9*time.Second, 3*time.Second, work)
		},
	}
	told := map[string]chan time.Time{}
	for lock, way := range ways {
		done := make(chan time.Time, 1)
		told[lock] = done
		go func() {
			err := way(func(ctx context.Context) error {
				<-ctx.Done()
				done <- time.Now()
				return nil
			})
			if !errors.Is(err, client.ErrLockLost) {
				t.Errorf("%s ended with %v", lock, err)
			}
		}()
	}
	time.Sleep(20 * time.Second) // past several renewals
	if held.Err() != nil || len(told["do"])+len(told["run"]) > 0 {
		t.Fatal("a hold is over before the fault: ", held.Err())
	}
	fault()
	free := map[string]time.Time{}
	for _, lock := range []string{"hold", "do", "run"} {
		take(t, other, &client.AcquireRequest{LockID: lock, ClientID: "other", TTL: longTTL, Wait: true})
		free[lock] = time.Now()
	}
	<-held.Done()
	if err := held.Err(); !errors.Is(err, client.ErrLockLost) {
		t.Error("the hold ended with ", err)
	}
	for lock, done := range told {
		if at := <-done; !at.Before(free[lock]) {
			t.Errorf("%s was told %v after the next grant", lock, at.Sub(free[lock]))
		}
	}
}

func TestCutClientLosesItsHolds(t *testing.T) {
	eachMachine(t, func(t *testing.T, _ *testcluster.Cluster, cl, other *testcluster.Client) {
		holdsOn(t, cl, other, cl.Cut)
		cl.Mend()
		if l := hold(t, cl, "after", "me"); l.OwnerID != "me" {
			t.Error(l)
		}
	})
}

func TestHoldsEndWithoutAnswers(t *testing.T) {
	eachMachine(t, func(t *testing.T, _ *testcluster.Cluster, cl, other *testcluster.Client) {
		// Renewals are applied, so that only the holders' ends free the locks.
		held, err := client.Hold(t.Context(), cl, "a", client.WithTTL(9*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		cl.DropAnswers()
		<-held.Done()
		if err := held.Err(); !errors.Is(err, client.ErrLockLost) {
			t.Error("the hold ended with ", err)
		}
		if owner := look(t, other, "a").OwnerID; owner == "" {
			t.Error("no renewal of the hold was applied")
		}
	})
}

// A release that a hold makes behind the back of its test must not outlive it, or
// the bubble would report a deadlock.
func TestPausesEndWithTheTest(t *testing.T) {
	eachMachine(t, func(t *testing.T, _ *testcluster.Cluster, cl, _ *testcluster.Client) {
		patient := client.DefaultRetryPolicy()
		patient.InitialBackoff, patient.MaxBackoff = time.Hour, time.Hour
		cl.SetRetryPolicy(patient)
		cl.DropAnswers()
		go func() {
			_, _ = cl.Release(context.Background(), &client.ReleaseRequest{LockID: "a", ClientID: "me", Version: 1})
		}()
		synctest.Wait() // it is in the pause before its next attempt
	})
}

// An attempt whose line broke may still be about to begin when the next one does: they
// share nothing (under the race detector), and each is numbered.
func TestAttemptsOfOneCallSideBySide(t *testing.T) {
	bubble(t, 1, func(t *testing.T, c *testcluster.Cluster) {
		hold(t, c.Client(), "a", "other")
		quick := client.DefaultRetryPolicy()
		quick.InitialBackoff, quick.MaxBackoff = time.Microsecond, time.Microsecond
		for i := range 100 {
			cl := c.ClientOn(0)
			cl.SetRetryPolicy(quick)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() {
				_, err := cl.Acquire(ctx, &client.AcquireRequest{LockID: "a", ClientID: "me", RequestID: fmt.Sprint(i), Wait: true})
				ended <- err
			}()
			for range 3 {
				yield(i % 10)
				cl.Cut()
				cl.Mend()
				time.Sleep(time.Microsecond)
			}
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
		}
	})
}

// A place in a queue is kept for 2 s: a slow policy does not lose it in process
// either.
func TestSlowPolicyClaimsThePlaceInTime(t *testing.T) {
	eachMachine(t, func(t *testing.T, c *testcluster.Cluster, cl, other *testcluster.Client) {
		slow := client.DefaultRetryPolicy()
		slow.InitialBackoff, slow.MaxBackoff = 5*time.Second, 5*time.Second
		cl.SetRetryPolicy(slow)
		held := hold(t, other, "a", "other")
		won := make(chan *client.Lock, 1)
		go func() {
			res, err := cl.Acquire(t.Context(), &client.AcquireRequest{LockID: "a", ClientID: "first", TTL: longTTL, Wait: true})
			if err != nil {
				t.Error(err)
			}
			won <- res.Lock
		}()
		time.Sleep(time.Second)
		later := make(chan *client.Lock, 1)
		go func() {
			later <- take(t, other, &client.AcquireRequest{LockID: "a", ClientID: "later", TTL: longTTL, Wait: true})
		}()
		time.Sleep(time.Second)
		cl.Cut()
		cl.Mend()
		time.Sleep(3 * time.Second)
		give(t, other, held)
		select {
		case first := <-won:
			give(t, other, first)
			<-later
		case <-later:
			t.Fatal("who came later was served first")
		}
	})
}

// What a call over a cut line ends with: first nobody can know whether it was
// applied, then the client knows that it was not.
func TestCallsOverACutLine(t *testing.T) {
	eachMachine(t, func(t *testing.T, _ *testcluster.Cluster, cl, other *testcluster.Client) {
		cl.SetRetryPolicy(noRetries())
		cl.Cut()
		begun := time.Now()
		res, err := cl.Acquire(t.Context(), &client.AcquireRequest{LockID: "a", ClientID: "me"})
		wantEnd(t, "the call into the dead connection", err, client.ErrUnavailable, true)
		wantDetail(t, res.Error, err)
		within(t, "its time", time.Since(begun), 3*time.Second, 3*time.Second)
		synctest.Wait() // all its connections break at this instant, that one was the first to notice
		begun = time.Now()
		res, err = cl.Acquire(t.Context(), &client.AcquireRequest{LockID: "a", ClientID: "me"})
		wantEnd(t, "the call without a connection", err, client.ErrUnavailable, false)
		wantDetail(t, res.Error, err)
		within(t, "its time", time.Since(begun), time.Second, 15*time.Second) // gRPC draws its pauses
		if cl.IsConnected() {
			t.Error("a client that is cut off says that it is connected")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = cl.Renew(ctx, &client.RenewRequest{LockID: "a", ClientID: "me", Version: 1, NewTTL: time.Second})
		if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, client.ErrUnavailable) {
			t.Error("a call with a deadline ended with ", err)
		}
		if _, err := other.GetLockInfo(t.Context(), &client.GetLockInfoRequest{LockID: "a"}); !errors.Is(err, client.ErrLockNotFound) {
			t.Error("a call over a cut line was applied: ", err)
		}
	})
}

// wantEnd checks the error of a call that was not answered.
func wantEnd(t *testing.T, what string, err, is error, unknown bool) {
	t.Helper()
	if !errors.Is(err, is) || errors.Is(err, client.ErrOutcomeUnknown) != unknown {
		t.Errorf("%s ended with %v, want %v, unknown: %v", what, err, is, unknown)
	}
}

// A call that a fault interrupts goes on after it.
func TestMendedCallsGoOn(t *testing.T) {
	eachMachine(t, func(t *testing.T, _ *testcluster.Cluster, cl, other *testcluster.Client) {
		first := hold(t, other, "a", "other")
		call := waiting(t.Context(), cl, client.AcquireRequest{LockID: "a", ClientID: "me", RequestID: "r", TTL: time.Minute})
		behind := waiting(t.Context(), other, client.AcquireRequest{LockID: "a", ClientID: "third", RequestID: "r", TTL: time.Minute})
		for range 5 { // more often than the policy has attempts
			time.Sleep(time.Second)
			cl.Cut()
			time.Sleep(time.Second)
			cl.Mend()
		}
		time.Sleep(time.Second)
		give(t, other, first)
		l := granted(t, call, time.Second)
		stillWaits(t, behind)
		give(t, cl, l)
		granted(t, behind, 0)
		cl.Cut()
		call = waiting(t.Context(), cl, client.AcquireRequest{LockID: "b", ClientID: "me"})
		stillWaits(t, call)
		cl.Mend()
		granted(t, call, time.Second)
	})
}

// Who is cut off loses the place in the queue, as one whose machine is gone.
func TestCutClientLosesItsPlace(t *testing.T) {
	eachMachine(t, func(t *testing.T, _ *testcluster.Cluster, cl, other *testcluster.Client) {
		first := hold(t, other, "a", "other")
		call := waiting(t.Context(), cl, client.AcquireRequest{LockID: "a", ClientID: "me", RequestID: "r"})
		behind := waiting(t.Context(), other, client.AcquireRequest{LockID: "a", ClientID: "third", RequestID: "r"})
		cl.Cut()
		time.Sleep(6 * time.Second)
		give(t, other, first)
		granted(t, behind, 0)
		o := ended(t, call, time.Minute)
		wantEnd(t, "the wait", o.err, client.ErrUnavailable, true)
	})
}

// Calls whose answers are lost are applied; the same call made again finds out.
func TestDroppedAnswers(t *testing.T) {
	eachMachine(t, func(t *testing.T, _ *testcluster.Cluster, cl, other *testcluster.Client) {
		cl.DropAnswers()
		req := &client.AcquireRequest{LockID: "a", ClientID: "me", RequestID: "r", TTL: longTTL}
		res, err := cl.Acquire(t.Context(), req)
		wantEnd(t, "Acquire", err, client.ErrUnavailable, true)
		wantDetail(t, res.Error, err)
		_, err = cl.GetLockInfo(t.Context(), &client.GetLockInfoRequest{LockID: "a"})
		wantEnd(t, "GetLockInfo", err, client.ErrUnavailable, false)
		info := look(t, other, "a")
		if info.OwnerID != "me" {
			t.Fatal("the call without an answer was not applied")
		}
		cl.Mend()
		if l := take(t, cl, req); l.Version != info.Version {
			t.Errorf("the repeat was granted %d, the table has %d", l.Version, info.Version)
		}
	})
}

// A waiting call whose answers are lost ends too: no attempt has stood in a queue, so
// each of them counts, however long all of them have taken together.
func TestDroppedAnswersEndAWaitingCall(t *testing.T) {
	eachMachine(t, func(t *testing.T, _ *testcluster.Cluster, cl, _ *testcluster.Client) {
		cl.DropAnswers()
		begun := time.Now()
		req := &client.AcquireRequest{LockID: "a", ClientID: "me", RequestID: "r", TTL: longTTL, Wait: true}
		_, err := cl.Acquire(limit(t, time.Hour), req)
		wantEnd(t, "Acquire", err, client.ErrUnavailable, true)
		within(t, "its time", time.Since(begun), 0, time.Minute)
	})
}

// A machine that is paused believes in its locks until it runs again.
func TestPausedClientBelieves(t *testing.T) {
	for name, resume := range map[string]func(*testcluster.Client){
		"Resume": (*testcluster.Client).Resume, "Wake": (*testcluster.Client).Wake,
	} {
		t.Run(name, func(t *testing.T) {
			eachMachine(t, func(t *testing.T, _ *testcluster.Cluster, cl, other *testcluster.Client) {
				held, err := client.Hold(t.Context(), cl, "a", client.WithTTL(9*time.Second))
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(20 * time.Second)
				cl.Pause()
				next := take(t, other, &client.AcquireRequest{LockID: "a", ClientID: "other", TTL: longTTL, Wait: true})
				time.Sleep(time.Minute)
				if err := held.Err(); err != nil {
					t.Error("a paused machine has found out: ", err)
				}
				if next.Version <= held.Token() {
					t.Errorf("the next token is %d after %d", next.Version, held.Token())
				}
				resume(cl)
				if err := held.Err(); !errors.Is(err, client.ErrLockLost) {
					t.Error("after the pause the hold says ", err)
				}
				hold(t, cl, "b", "me")
			})
		})
	}
}

// A short pause costs nothing but time; the calls of a paused machine wait for
// its end.
func TestPausedCallsStandStill(t *testing.T) {
	eachMachine(t, func(t *testing.T, _ *testcluster.Cluster, cl, other *testcluster.Client) {
		first := hold(t, other, "b", "other")
		under := waiting(t.Context(), cl, client.AcquireRequest{LockID: "b", ClientID: "me", RequestID: "r"})
		held, err := client.Hold(t.Context(), cl, "h", client.WithTTL(30*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		cl.Pause()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begun := waiting(ctx, cl, client.AcquireRequest{LockID: "a", ClientID: "me"})
		give(t, other, first)
		time.Sleep(5 * time.Second)
		stillWaits(t, begun)
		stillWaits(t, under)
		if _, err := other.GetLockInfo(t.Context(), &client.GetLockInfoRequest{LockID: "a"}); !errors.Is(err, client.ErrLockNotFound) {
			t.Error("a call of a paused machine was applied: ", err)
		}
		cl.Resume()
		if o := ended(t, begun, time.Second); !errors.Is(o.err, context.DeadlineExceeded) {
			t.Error("the call whose deadline passed in the pause ended with ", o.err)
		}
		granted(t, under, time.Second)
		time.Sleep(time.Minute)
		if err := held.Err(); err != nil {
			t.Error("a short pause cost the hold: ", err)
		}
	})
}

// A cluster lets go of what a machine waited for that has been paused for long.
func TestPausedClientLosesItsPlace(t *testing.T) {
	eachMachine(t, func(t *testing.T, _ *testcluster.Cluster, cl, other *testcluster.Client) {
		first := hold(t, other, "a", "other")
		call := waiting(t.Context(), cl, client.AcquireRequest{LockID: "a", ClientID: "me", RequestID: "r"})
		cl.Pause()
		time.Sleep(20 * time.Second)
		if ids := queueOf(t, other, "a"); len(ids) != 0 {
			t.Error("a paused machine stands in the queue: ", ids)
		}
		cl.Resume()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		give(t, other, first)
		granted(t, call, time.Second)
	})
}

// The end of the test ends what a machine suffers, and the calls that it has under
// way.
func TestFaultsEndWithTheTest(t *testing.T) {
	faults := map[string]func(*testcluster.Client){
		"Cut": (*testcluster.Client).Cut, "Pause": (*testcluster.Client).Pause, "DropAnswers": (*testcluster.Client).DropAnswers,
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &recorder{TB: t}
				c := testcluster.New(r, 3, testcluster.WithGRPC())
				hold(t, c.Client(), "a", "other")
				var calls []<-chan outcome
				for id, cl := range map[string]*testcluster.Client{"one": c.Client(), "two": c.Dial(c.ClientConfig())} {
					calls = append(calls, waiting(t.Context(), cl, client.AcquireRequest{LockID: "a", ClientID: id, RequestID: "r"}))
					fault(cl)
					calls = append(calls, waiting(t.Context(), cl, client.AcquireRequest{LockID: "a", ClientID: id, RequestID: "s"}))
				}
				r.end()
				r.wants(t, false)
				for _, call := range calls {
					if o := ended(t, call, 10*time.Second); !errors.Is(o.err, client.ErrUnavailable) {
						t.Errorf("a call at the end of the test ended with %+v, %v", o.res, o.err)
					}
				}
			})
		})
	}
}

package client_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/pb"
	"github.com/raftlock/raftlock/testcluster"
)

// ending is how the work of a holder has ended that works until it is told.
type ending struct {
	at    time.Time // when the work's context ended
	cause error
	err   error // what Do or RunWithLock returned
}

// holders are the ways to hold a lock that is kept. Each calls work under the
// lock and returns what the way returns.
var holders = map[string]func(ctx context.Context, c client.RaftLockClient, lock string, ttl time.Duration, work func(context.Context) error) error{
	"Hold": func(ctx context.Context, c client.RaftLockClient, lock string, ttl time.Duration, work func(context.Context) error) error {
		h, err := client.Hold(ctx, c, lock, client.WithTTL(ttl))
		if err != nil {
			return err
		}
		err = work(h.Context())
		lost := h.Err()
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		return errors.Join(err, lost, h.Release(ctx))
	},
	"Do": func(ctx context.Context, c client.RaftLockClient, lock string, ttl time.Duration, work func(context.Context) error) error {
		return client.Do(ctx, c, lock, func(ctx context.Context, _ int64) error { return work(ctx) }, client.WithTTL(ttl))
	},
	"RunWithLock": func(ctx context.Context, c client.RaftLockClient, lock string, ttl time.Duration, work func(context.Context) error) error {
		return client.RunWithLock(ctx, c, lock, "holder", ttl, ttl/3, work)
	},
}

// holdToTheEnd holds a lock in one of the ways and returns the end of the work's
// context, after started was closed.
func holdToTheEnd(t *testing.T, way string, c client.RaftLockClient, lock string, ttl time.Duration, started chan<- struct{}) ending {
	var e ending
	e.err = holders[way](t.Context(), c, lock, ttl, func(ctx context.Context) error {
		close(started)
		<-ctx.Done()
		e.at, e.cause = time.Now(), context.Cause(ctx)
		return nil
	})
	return e
}

// beside runs holdToTheEnd beside the test, and returns when the lock is held.
func beside(t *testing.T, way string, c client.RaftLockClient, lock string, ttl time.Duration) <-chan ending {
	started, ended := make(chan struct{}), make(chan ending, 1)
	go func() { ended <- holdToTheEnd(t, way, c, lock, ttl, started) }()
	<-started
	return ended
}

// Whatever keeps renewals from coming through, the work's context ends before
// another is granted the lock, and the loss is told.
func TestLossIsToldBeforeTheNextGrant(t *testing.T) {
	const ttl = 9 * time.Second
	ways := map[string]func(m *machine){
		"calls hang":        func(m *machine) { m.cut() },
		"connections break": func(m *machine) { m.onRenew(brokenRenewal) },
		"answers are lost": func(m *machine) {
			m.onRenew(func(ctx context.Context, _ *client.RenewRequest) (*client.RenewResult, error) {
				return lostRenewal(ctx, nil)
			})
		},
		"renewals are refused for another reason": func(m *machine) {
			m.onRenew(func(context.Context, *client.RenewRequest) (*client.RenewResult, error) {
				return &client.RenewResult{}, client.NewClientError("Renew", client.ErrRateLimit, pb.ErrorCode_RATE_LIMITED, nil)
			})
		},
	}
	for way := range holders {
		for name, fail := range ways {
			t.Run(way+", "+name, func(t *testing.T) {
				bubble(t, func(t *testing.T, c *testcluster.Cluster) {
					m := newMachine(c.Client())
					begun := time.Now()
					ended := beside(t, way, m, "a", ttl)
					time.Sleep(4 * time.Second) // past the first renewal
					fail(m)
					m.onRelease(lostRelease) // or the end itself would bring the next grant
					next := take(t, c.Client(), "a")
					e := <-ended
					is(t, "the cause", e.cause, client.ErrLockLost)
					is(t, "what is returned", e.err, client.ErrLockLost)
					equal(t, "the end of the work", e.at.Sub(begun), 12*time.Second-90*time.Millisecond)
					if !e.at.Before(next) {
						t.Errorf("the work ended %v after the next grant", e.at.Sub(next))
					}
				})
			})
		}
	}
}

// A refusal that says that the grant is over ends a hold at once, and so does a
// client that was closed.
func TestRefusalEndsAHoldAtOnce(t *testing.T) {
	for way := range holders {
		for _, refusal := range []error{
			client.ErrNotLockOwner, client.ErrVersionMismatch, client.ErrLockNotFound, client.ErrClientClosed,
		} {
			t.Run(fmt.Sprint(way, ", ", refusal), func(t *testing.T) {
				bubble(t, func(t *testing.T, c *testcluster.Cluster) {
					m := newMachine(c.Client())
					begun := time.Now()
					ended := beside(t, way, m, "a", 30*time.Second)
					m.onRenew(func(context.Context, *client.RenewRequest) (*client.RenewResult, error) {
						return &client.RenewResult{}, client.NewClientError("Renew", refusal, 0, nil)
					})
					e := <-ended
					equal(t, "the end of the work", e.at.Sub(begun), 10*time.Second)
					is(t, "the cause", e.cause, client.ErrLockLost, refusal)
					is(t, "what is returned", e.err, client.ErrLockLost, refusal)
				})
			})
		}
	}
}

// A client that is closed under a hold ends it at the next renewal; the cluster
// lets the lock go when its time is over, and not before.
func TestClientIsClosedUnderAHold(t *testing.T) {
	bubble(t, func(t *testing.T, c *testcluster.Cluster) {
		cl, begun := c.Client(), time.Now()
		h := mustHold(t, cl, "a")
		time.Sleep(15 * time.Second)
		if err := cl.Close(); err != nil {
			t.Error(err)
		}
		equal(t, "Err before the renewal", h.Err(), nil)
		<-h.Done()
		equal(t, "the end", time.Since(begun), 20*time.Second)
		is(t, "Err", h.Err(), client.ErrLockLost, client.ErrClientClosed)
		is(t, "Release", h.Release(t.Context()), client.ErrLockLost)
		if next := take(t, c.Client(), "a").Sub(begun); next < 40*time.Second {
			t.Errorf("the next grant came after %v", next)
		}
	})
}

// A holder whose member is cut off from the others is told before the next
// grant; one whose leader falls goes on.
func TestHoldersInAClusterOfThree(t *testing.T) {
	for way := range holders {
		t.Run(way, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := testcluster.New(t, 3)
				for i := range 3 {
					<-c.Node(i).Ready()
				}
				leader := c.Leader()
				cl := c.ClientOn((leader + 1) % 3)
				ended := beside(t, way, cl, "a", 9*time.Second)
				for range 3 {
					fell := c.CrashLeader()
					time.Sleep(5 * time.Second)
					c.Restart(fell)
					time.Sleep(5 * time.Second)
				}
				if len(ended) > 0 {
					t.Fatal("lost with a leader")
				}
				cut := c.ClientOn((c.Leader() + 1) % 3)
				other := c.ClientOn(c.Leader())
				cutEnded := beside(t, way, cut, "b", 9*time.Second)
				c.Isolate((c.Leader() + 1) % 3)
				next := take(t, other, "b")
				e := <-cutEnded
				is(t, "the cause", e.cause, client.ErrLockLost)
				if !e.at.Before(next) {
					t.Errorf("told %v after the next grant", e.at.Sub(next))
				}
				c.Heal()
				_ = cl.Close()
				<-ended
			})
		})
	}
}

// A hold that cannot be renewed for a while goes on when it can be again.
func TestHoldOutlastsAnOutage(t *testing.T) {
	for way := range holders {
		t.Run(way, func(t *testing.T) {
			bubble(t, func(t *testing.T, c *testcluster.Cluster) {
				m := newMachine(c.Client())
				ended := beside(t, way, m, "a", 9*time.Second)
				for range 10 {
					time.Sleep(3500 * time.Millisecond)
					m.cut()
					time.Sleep(4500 * time.Millisecond) // less than what a renewal leaves
					m.mend()
				}
				select {
				case e := <-ended:
					t.Fatalf("lost: %+v", e)
				default:
				}
				m.cut()
				<-ended
			})
		})
	}
}

// A process that was stopped past its end is told at its first look, and the
// cluster refuses it, whichever way its clock tells of the pause.
func TestStoppedHolder(t *testing.T) {
	for _, goOn := range []struct {
		name string
		do   func(m *machine)
	}{
		{"stopped process", func(m *machine) { m.warp.Resume() }},
		{"suspended machine", func(m *machine) { m.warp.Wake() }},
	} {
		t.Run(goOn.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, c *testcluster.Cluster) {
				m := newMachine(c.Client())
				h := mustHold(t, m, "a")
				handle := acquired(t, m, "b", 30*time.Second)
				for name, look := range map[string]func() bool{
					"Err":                func() bool { return h.Err() != nil },
					"the context's Err":  func() bool { return h.Context().Err() != nil },
					"the context's Done": func() bool { return isClosed(h.Context().Done()) },
					"Done":               func() bool { return isClosed(h.Done()) },
					"IsHeld":             func() bool { return !handle.IsHeld() },
					"Lock":               func() bool { return handle.Lock() == nil },
				} {
					if look() {
						t.Errorf("%s says lost before the pause", name)
					}
				}
				m.warp.Pause()
				take(t, c.Client(), "a")
				take(t, c.Client(), "b")
				goOn.do(m)
				// No goroutine of the holder has run since: these are first looks.
				equal(t, "IsHeld", handle.IsHeld(), false)
				equal(t, "Lock", handle.Lock(), (*client.Lock)(nil))
				is(t, "Err", h.Err(), client.ErrLockLost)
				if !isClosed(h.Done()) || h.Context().Err() == nil {
					t.Error("the context still runs")
				}
				is(t, "the handle's renewal", handle.Renew(t.Context(), time.Minute), client.ErrNotLockOwner, client.ErrLockLost)
				is(t, "the handle's release", handle.Release(t.Context()), client.ErrNotLockOwner)
				is(t, "the hold's release", h.Release(t.Context()), client.ErrLockLost)
				stale := &client.RenewRequest{LockID: "a", ClientID: h.Lock().OwnerID, Version: h.Token(), NewTTL: time.Minute}
				_, err := m.Renew(t.Context(), stale)
				is(t, "the cluster on the token", err, client.ErrNotLockOwner)
				equal(t, "the owner of a", info(t, m, "a").OwnerID, "another")
				equal(t, "the owner of b", info(t, m, "b").OwnerID, "another")
			})
		})
	}
}

// Each look alone tells a holder on a machine that slept, whose timers are late.
func TestFirstLook(t *testing.T) {
	looks := map[string]func(h *client.Held) bool{
		"Err":                func(h *client.Held) bool { return h.Err() != nil },
		"the context's Err":  func(h *client.Held) bool { return h.Context().Err() != nil },
		"the context's Done": func(h *client.Held) bool { return isClosed(h.Context().Done()) },
		"Done":               func(h *client.Held) bool { return isClosed(h.Done()) },
	}
	for name, look := range looks {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, c *testcluster.Cluster) {
				m := newMachine(c.Client())
				h := mustHold(t, m, "a")
				m.warp.Pause()
				time.Sleep(time.Minute)
				m.warp.Wake()
				if !look(h) {
					t.Error("does not say that the lock is lost")
				}
			})
		})
	}
	for _, way := range []string{"Do", "RunWithLock"} {
		t.Run(way, func(t *testing.T) {
			bubble(t, func(t *testing.T, c *testcluster.Cluster) {
				m := newMachine(c.Client())
				err := holders[way](t.Context(), m, "a", 30*time.Second, func(ctx context.Context) error {
					m.warp.Pause()
					time.Sleep(time.Minute)
					m.warp.Wake()
					if ctx.Err() == nil {
						t.Error("does not say that the lock is lost")
					}
					return nil
				})
				is(t, "what is returned", err, client.ErrLockLost)
			})
		})
		t.Run(way+" without a look", func(t *testing.T) {
			bubble(t, func(t *testing.T, c *testcluster.Cluster) {
				m := newMachine(c.Client())
				err := holders[way](t.Context(), m, "a", 30*time.Second, func(ctx context.Context) error {
					m.warp.Pause()
					time.Sleep(time.Minute)
					m.warp.Wake()
					return nil
				})
				is(t, "what is returned", err, client.ErrLockLost)
			})
		})
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// A thousand holders with clocks that run wrong, cut off at any time: each one's
// work ends before the next holder is granted the lock.
func TestThousandLosses(t *testing.T) {
	bubble(t, func(t *testing.T, c *testcluster.Cluster) {
		seeds := uint64(1000)
		if underRace {
			seeds = 100 // the thousand are for finding what happens once in a while
		}
		var all sync.WaitGroup
		for seed := range seeds {
			all.Go(func() { loseOnce(t, c, seed) })
		}
		all.Wait()
	})
}

func loseOnce(t *testing.T, c *testcluster.Cluster, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 1))
	ttl := 100*time.Millisecond + time.Duration(random.Int64N(int64(2*time.Minute)))
	if seed%4 == 0 {
		ttl = 100*time.Millisecond + time.Duration(random.Int64N(int64(time.Second)))
	}
	way := []string{"Hold", "Do", "RunWithLock"}[random.IntN(3)]
	lock := fmt.Sprint("lock-", seed)
	m := newMachine(c.Client())
	m.warp.SkewRate(1000*random.Float64() - 500)
	ended := beside(t, way, m, lock, ttl)

	next := make(chan time.Time)
	go func() { next <- take(t, c.Client(), lock) }()
	time.Sleep(time.Duration(random.Int64N(int64(5 * ttl))))
	m.onRelease(lostRelease)
	switch random.IntN(3) {
	case 0:
		m.cut()
	case 1:
		m.onRenew(brokenRenewal)
	case 2: // renewed, and not answered
		m.onRenew(func(ctx context.Context, req *client.RenewRequest) (*client.RenewResult, error) {
			if random.IntN(2) == 0 {
				_, _ = m.RaftLockClient.Renew(ctx, req) // refused when it comes too late
			}
			return brokenRenewal(ctx, req)
		})
	}
	e := <-ended
	at := <-next
	if e.cause == nil || !errors.Is(e.cause, client.ErrLockLost) || !e.at.Before(at) {
		t.Errorf("seed %d (%s, TTL %v): told %v before the next grant, %v", seed, way, ttl, at.Sub(e.at), e.cause)
	}
}

// A renewal that comes through after the end does not bring the lock back, and
// what it won is given back.
func TestLateRenewalIsReleased(t *testing.T) {
	bubble(t, func(t *testing.T, c *testcluster.Cluster) {
		m := newMachine(c.Client())
		handle := acquired(t, m, "a", time.Second)
		m.onRenew(func(ctx context.Context, req *client.RenewRequest) (*client.RenewResult, error) {
			res, err := m.RaftLockClient.Renew(context.WithoutCancel(ctx), req)
			time.Sleep(time.Minute) // the answer is late
			return res, err
		})
		time.Sleep(900 * time.Millisecond)
		err := handle.Renew(t.Context(), time.Hour)
		is(t, "the late renewal", err, client.ErrLockLost, client.ErrNotLockOwner)
		equal(t, "IsHeld", handle.IsHeld(), false)
		synctest.Wait()
		isFree(t, m, "a")
	})
}

// The same when nobody hears of it.
func TestLateRenewalWithoutAnAnswerIsReleased(t *testing.T) {
	bubble(t, func(t *testing.T, c *testcluster.Cluster) {
		m := newMachine(c.Client())
		handle := acquired(t, m, "a", time.Second)
		m.onRenew(func(ctx context.Context, req *client.RenewRequest) (*client.RenewResult, error) {
			_, _ = m.RaftLockClient.Renew(ctx, req)
			return lostRenewal(ctx, req)
		})
		begun := time.Now()
		is(t, "the renewal", handle.Renew(t.Context(), time.Hour), client.ErrLockLost, client.ErrOutcomeUnknown)
		equal(t, "its end", time.Since(begun), 950*time.Millisecond)
		synctest.Wait()
		isFree(t, m, "a")
	})
}

// The local end, for each length of a grant.
func TestLocalEnd(t *testing.T) {
	for _, c := range []struct{ ttl, end time.Duration }{
		{100 * time.Millisecond, 50 * time.Millisecond}, // at most half
		{160 * time.Millisecond, 110 * time.Millisecond},
		{time.Second, 950 * time.Millisecond},
		{5 * time.Second, 4950 * time.Millisecond},
		{30 * time.Second, 29700 * time.Millisecond}, // a hundredth
		{10 * time.Minute, 594 * time.Second},
	} {
		bubble(t, func(t *testing.T, cluster *testcluster.Cluster) {
			m := newMachine(cluster.Client())
			begun := time.Now()
			handle := acquired(t, m, "a", c.ttl)
			time.Sleep(c.end - time.Nanosecond - time.Since(begun))
			equal(t, fmt.Sprint(c.ttl, ": held a moment before ", c.end), handle.IsHeld(), true)
			time.Sleep(time.Nanosecond)
			equal(t, fmt.Sprint(c.ttl, ": held at ", c.end), handle.IsHeld(), false)
			equal(t, fmt.Sprint(c.ttl, ": the lock at ", c.end), handle.Lock(), (*client.Lock)(nil))
		})
	}
}

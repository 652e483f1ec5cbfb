package e2e

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/raftlock/raftlock/client"
)

// outcome is how an acquire came out.
type outcome struct {
	version int64
	err     error
}

// acquire starts an acquire that may wait.
func acquire(ctx context.Context, c client.Client, lock, id string, ttl time.Duration) <-chan outcome {
	out := make(chan outcome, 1)
	go func() {
		got, err := c.Acquire(ctx, &client.AcquireRequest{
			LockID: lock, ClientID: id, RequestID: "r", Wait: true, TTL: ttl, WaitTimeout: longTTL,
		})
		if err != nil {
			out <- outcome{err: err}
			return
		}
		out <- outcome{got.Lock.Version, nil}
	}()
	return out
}

// is checks that an acquire has got the grant that the cluster shows.
func (o outcome) is(t *testing.T, what string, shown *client.LockInfo) {
	t.Helper()
	if o.err != nil || o.version != shown.Version {
		t.Errorf("%s: token %d, %v; the cluster granted token %d", what, o.version, o.err, shown.Version)
	}
}

// connect makes the connections of a client: releases have one of their own.
func connect(t *testing.T, c client.Client) {
	t.Helper()
	_ = info(t, c, "a")
	_, err := c.Release(within(t), &client.ReleaseRequest{LockID: "none", ClientID: "none", Version: 1})
	if !errors.Is(err, client.ErrLockNotFound) {
		t.Fatalf("the release of an unknown lock: %v", err)
	}
}

// Answers are lost, then the connections break: the repeats find what the first
// attempts have done.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	f := serving(t, 3)
	sees := dial(t, f.endpoints())
	var w wires
	c := dial(t, f.endpoints(), w.option())
	shows := func(owner string, waiters int) *client.LockInfo {
		t.Helper()
		f.eventually(fmt.Sprintf("%q has the lock, %d wait", owner, waiters), func() bool {
			got := info(t, sees, "a")
			return got.OwnerID == owner && int(got.WaiterCount) == waiters
		})
		return info(t, sees, "a")
	}
	release := func(id string, version int64) <-chan error {
		out := make(chan error, 1)
		go func() {
			_, err := c.Release(within(t), &client.ReleaseRequest{LockID: "a", ClientID: id, Version: version})
			out <- err
		}()
		return out
	}

	connect(t, c)
	w.deaf.Store(true)
	first := acquire(within(t), c, "a", "one", longTTL)
	one := shows("one", 0)
	if len(first) > 0 {
		t.Error("the first attempt is answered")
	}
	w.mend()
	(<-first).is(t, "the acquire of a free lock", one)
	if got := info(t, sees, "a"); got.Version != one.Version {
		t.Errorf("token %d was granted after %d", got.Version, one.Version)
	}

	connect(t, c)
	w.deaf.Store(true)
	second := acquire(within(t), c, "a", "two", longTTL)
	shows("one", 1)
	behind := acquire(within(t), sees, "a", "three", longTTL)
	shows("one", 2)
	given := release("one", one.Version) // its answer is lost as well
	two := shows("two", 1)
	if len(second) > 0 || len(given) > 0 {
		t.Error("the second attempt, or the release, is answered")
	}
	w.mend()
	(<-second).is(t, "the acquire of a held lock", two)
	if err := <-given; err != nil {
		t.Errorf("the release before a waiter: %v", err)
	}

	connect(t, c)
	w.deaf.Store(true)
	given = release("two", two.Version)
	three := shows("three", 0)
	w.mend()
	(<-behind).is(t, "who stood behind", three)
	if err := <-given; err != nil {
		t.Errorf("the release before the last waiter: %v", err)
	}

	connect(t, c)
	w.deaf.Store(true)
	given = release("three", three.Version)
	shows("", 0)
	w.mend()
	if err := <-given; err != nil {
		t.Errorf("the release before nobody: %v", err)
	}
}

// The leader is killed when it has granted and not answered.
func TestLeaderDiesBeforeItsAnswer(t *testing.T) {
	t.Parallel()
	f := serving(t, 3)
	sees := dial(t, f.endpoints())
	var w wires
	c := dial(t, f.endpoints(), w.option())
	_ = info(t, c, "a")
	leader := f.leader()
	w.deaf.Store(true)
	asked := acquire(within(t), c, "a", "one", longTTL)
	f.eventually("the leader has granted", func() bool { return info(t, sees, "a").OwnerID == "one" })
	shown := info(t, sees, "a")
	f.at(leader).kill()
	w.mend()
	(<-asked).is(t, "the acquire at the leader that died", shown)
	if got := info(t, sees, "a"); got.Version != shown.Version || got.OwnerID != "one" {
		t.Errorf("afterwards %+v", got)
	}
}

// The same request comes to all members at once: that is one grant.
func TestTheSameRequestEverywhere(t *testing.T) {
	t.Parallel()
	f := serving(t, 3)
	for round := range 20 {
		lock := fmt.Sprint("lock-", round)
		answers := make(chan answer, 3)
		for _, name := range f.names() {
			go func() {
				a, _ := f.at(name).call(request{Op: "acquire", Lock: lock, Client: "c", Request: "r", TTL: longTTL})
				answers <- a
			}()
		}
		first := <-answers
		for range 2 {
			if a := <-answers; a.Error != "" || first.Error != "" || a.Version != first.Version {
				t.Errorf("%s: %+v and %+v", lock, first, a)
			}
		}
	}
}

// A wait is cancelled, and an attempt of it arrives late, at each member: nobody
// gets the lock for it.
func TestLateAttemptOfACancelledCall(t *testing.T) {
	t.Parallel()
	f := serving(t, 3)
	c := dial(t, f.endpoints())
	held := f.at("n1").must(request{Op: "acquire", Lock: "a", Client: "holder", TTL: longTTL})
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	waits := acquire(ctx, c, "a", "gone", longTTL)
	f.eventually("it waits", func() bool { return info(t, c, "a").WaiterCount == 1 })
	cancel()
	if got := <-waits; !errors.Is(got.err, context.Canceled) {
		t.Errorf("the cancelled call: %+v", got)
	}
	f.eventually("nobody waits", func() bool { return info(t, c, "a").WaiterCount == 0 })
	f.at("n2").must(request{Op: "release", Lock: "a", Client: "holder", Version: held.Version})
	for _, name := range f.names() {
		late := acquire(within(t), dial(t, f.endpoints(name)), "a", "gone", longTTL)
		if got := <-late; !errors.Is(got.err, client.ErrNotWaiting) {
			t.Errorf("the late attempt at %s: %+v", name, got)
		}
	}
	if got := info(t, c, "a"); got.OwnerID != "" {
		t.Errorf("in the end %q has the lock", got.OwnerID)
	}
}

// A program never hears that it was granted the lock, and is gone for good: that
// grant lasts for its TTL.
func TestGrantThatNobodyHeardOf(t *testing.T) {
	t.Parallel()
	f := serving(t, 3)
	sees := dial(t, f.endpoints())
	var w wires
	c := dial(t, f.endpoints(), w.option())
	connect(t, c)
	w.deaf.Store(true)
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	lost := acquire(ctx, c, "a", "gone", time.Second)
	f.eventually("it is granted", func() bool { return info(t, sees, "a").OwnerID == "gone" })
	granted := info(t, sees, "a").Version
	w.mute.Store(true) // nor can it be taken back
	next := acquire(within(t), sees, "a", "next", longTTL)
	cancel()
	if got := <-lost; !errors.Is(got.err, context.Canceled) {
		t.Errorf("the call of who is gone: %+v", got)
	}
	if got := <-next; got.err != nil || got.version <= granted {
		t.Errorf("the next: %+v after token %d", got, granted)
	}
}

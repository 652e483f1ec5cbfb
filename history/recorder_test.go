package history_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/history"
	"github.com/raftlock/raftlock/internal/clock"
	"github.com/raftlock/raftlock/pb"
	"github.com/raftlock/raftlock/testcluster"
)

// bubble runs a test on a cluster of its own in virtual time.
func bubble(t *testing.T, test func(t *testing.T, c *testcluster.Cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, testcluster.New(t, 3)) })
}

// What clients of a real cluster see while leaders crash and are cut off breaks no
// rule, is not thin, and says the same after it was written and read.
func TestRealCluster(t *testing.T) {
	for range 3 {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		bubble(t, func(t *testing.T, c *testcluster.Cluster) { record(t, c, seed) })
	}
}

func record(t *testing.T, c *testcluster.Cluster, seed uint64) {
	rec := history.New()
	var stop atomic.Bool
	var work sync.WaitGroup
	for i := range 6 {
		work.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(i)))
			cl := rec.Client(c.ClientOn(i%3), fmt.Sprintf("client %d", i))
			for !stop.Load() {
				locking(t.Context(), rng, rec, cl, fmt.Sprintf("id %d", i))
			}
		})
	}
	watcher := rec.Client(c.ClientOn(1), "watcher")
	work.Go(func() {
		for !stop.Load() {
			_, _ = watcher.GetLocks(t.Context(), &client.GetLocksRequest{IncludeWaiters: true})
			time.Sleep(20 * time.Millisecond)
		}
	})
	for round := range 4 {
		time.Sleep(2 * time.Second)
		victim := c.Leader()
		if round%2 == 0 {
			c.Crash(victim)
			time.Sleep(time.Second)
			c.Restart(victim)
			continue
		}
		c.Isolate(victim)
		time.Sleep(4 * time.Second)
		c.Heal()
	}
	stop.Store(true)
	work.Wait()
	h := rec.History()
	report := h.Check(history.Bounds{})
	if report.Err() != nil || report.Thin() {
		t.Errorf("seed %d: thin: %t, %v", seed, report.Thin(), report.Err())
	}
	t.Logf("%d operations, compared: %v", len(h.Ops), report.Compared)
	var text bytes.Buffer
	if _, err := rec.WriteTo(&text); err != nil {
		t.Fatal(err)
	}
	again, err := history.Read(&text)
	if err != nil {
		t.Fatal(err)
	}
	if again.Check(history.Bounds{}).Compared[history.MutualExclusion] != report.Compared[history.MutualExclusion] {
		t.Error("what was read says something else")
	}
}

// locking takes a lock in some way, does something under it, and gives it back, or
// does not.
func locking(ctx context.Context, rng *rand.Rand, rec *history.Recorder, cl client.Client, me string) {
	id := fmt.Sprint("lock", rng.IntN(2))
	req := &client.AcquireRequest{
		LockID: id, ClientID: me, TTL: time.Duration(200+rng.IntN(2000)) * time.Millisecond,
		Wait: rng.IntN(3) > 0, WaitTimeout: time.Duration(1+rng.IntN(5)) * time.Second, Priority: int32(rng.IntN(2)),
	}
	if rng.IntN(3) > 0 {
		req.RequestID = fmt.Sprint(rng.Uint64())
	}
	callCtx, cancel := context.WithTimeout(ctx, time.Duration(1+rng.IntN(6000))*time.Millisecond)
	defer cancel()
	res, err := cl.Acquire(callCtx, req)
	if err != nil {
		time.Sleep(time.Duration(rng.IntN(100)) * time.Millisecond)
		return
	}
	token := res.Lock.Version
	for range rng.IntN(3) {
		_ = rec.Write(id, token, func() error { return errors.New("the resource is not part of this") })
		time.Sleep(time.Duration(rng.IntN(300)) * time.Millisecond)
		if _, err := cl.Renew(ctx, &client.RenewRequest{LockID: id, ClientID: me, Version: token, NewTTL: time.Second}); err != nil {
			return
		}
	}
	if rng.IntN(6) > 0 {
		_, _ = cl.Release(ctx, &client.ReleaseRequest{LockID: id, ClientID: me, Version: token})
	}
}

// A client that is recorded is the client: its answers, its errors, its clock.
func TestRecordedClient(t *testing.T) {
	bubble(t, func(t *testing.T, c *testcluster.Cluster) {
		inner := c.Client()
		rec := history.New()
		cl := rec.Client(inner, "me")
		inner.SkewRate(1e6)
		time.Sleep(time.Second)
		if time.Until(clock.Of(cl).Now()) < time.Second/2 {
			t.Error("it has another clock")
		}
		res, err := cl.Acquire(t.Context(), &client.AcquireRequest{LockID: "a", ClientID: "A", TTL: time.Minute})
		if err != nil || !res.Acquired {
			t.Fatal(err)
		}
		_, err = cl.Acquire(t.Context(), &client.AcquireRequest{LockID: "a", ClientID: "B", RequestID: "r", Priority: 3})
		if !errors.Is(err, client.ErrLockHeld) {
			t.Error(err)
		}
		if _, err := cl.Acquire(t.Context(), nil); !errors.Is(err, client.ErrInvalidArgument) {
			t.Error(err)
		}
		_, err = cl.Renew(t.Context(), &client.RenewRequest{LockID: "a", ClientID: "A", Version: res.Lock.Version, NewTTL: 1 << 62})
		if !errors.Is(err, client.ErrInvalidTTL) {
			t.Error(err)
		}
		ops := rec.History().Ops
		if len(ops) != 3 {
			t.Fatalf("%d operations", len(ops))
		}
		granted, refused, failed := ops[0], ops[1], ops[2]
		left := granted.Expires - granted.To
		if granted.Outcome != history.OK || granted.Token != res.Lock.Version || left > time.Minute || left < 59*time.Second {
			t.Errorf("%+v", granted)
		}
		if refused.Outcome != history.Refused || refused.Code != "LOCK_HELD" || refused.Priority != 3 || len(refused.Seen) != 1 ||
			refused.Seen[0].Token != granted.Token || refused.Seen[0].Owner != "A" || !refused.Seen[0].Held {
			t.Errorf("%+v", refused)
		}
		if failed.Outcome != history.Failed || failed.TTL < 0 {
			t.Errorf("%+v", failed)
		}
	})
}

// stub answers every call with one error.
type stub struct {
	client.Client
	err error
}

func (s stub) Acquire(context.Context, *client.AcquireRequest) (*client.AcquireResult, error) {
	return nil, s.err
}

// Only an error that says so is one without an effect.
func TestOutcomes(t *testing.T) {
	said := func(err error, code pb.ErrorCode, outcome string) error {
		return client.NewClientError("Acquire", err, code, map[string]string{"outcome": outcome})
	}
	for _, c := range []struct {
		err  error
		want history.Outcome
	}{
		{nil, history.Unknown}, // neither granted nor an error
		{errors.New("anything"), history.Unknown},
		{context.Canceled, history.Unknown},
		{client.ErrLockHeld, history.Unknown}, // not a *ClientError: some other client's
		{said(client.ErrLockHeld, pb.ErrorCode_LOCK_HELD, ""), history.Refused},
		{said(client.ErrNotWaiting, pb.ErrorCode_NOT_WAITING, ""), history.Refused},
		{said(client.ErrTimeout, pb.ErrorCode_TIMEOUT, "not_acquired"), history.Refused},
		{said(client.ErrTimeout, pb.ErrorCode_TIMEOUT, "not_proposed"), history.Failed},
		{said(client.ErrTimeout, pb.ErrorCode_TIMEOUT, ""), history.Unknown},
		{said(client.ErrRateLimit, pb.ErrorCode_RATE_LIMITED, "not_acquired"), history.Failed},
		{said(client.ErrUnavailable, pb.ErrorCode_UNAVAILABLE, ""), history.Unknown},
		{said(client.ErrLeaderUnavailable, pb.ErrorCode_NO_LEADER, ""), history.Failed},
		{said(fmt.Errorf("%w: %w", client.ErrUnavailable, client.ErrOutcomeUnknown), pb.ErrorCode_UNAVAILABLE, "unknown"), history.Unknown},
	} {
		rec := history.New()
		_, err := rec.Client(stub{err: c.err}, "s").Acquire(t.Context(), &client.AcquireRequest{LockID: "a", ClientID: "A"})
		if !errors.Is(err, c.err) {
			t.Errorf("%v became %v", c.err, err)
		}
		if got := rec.History().Ops[0].Outcome; got != c.want {
			t.Errorf("%v: %s, want %s", c.err, got, c.want)
		}
	}
}

// What is under way is open.
func TestOpenOperation(t *testing.T) {
	rec := history.New()
	_ = rec.Write("a", 1, func() error {
		if op := rec.History().Ops[0]; op.Outcome != history.Open || op.To != 0 {
			t.Errorf("%+v", op)
		}
		return nil
	})
	if op := rec.History().Ops[0]; op.Outcome != history.OK || op.To < op.From || op.Token != 1 {
		t.Errorf("%+v", op)
	}
}

// Things that happen at one instant, as in virtual time, happened one after the
// other: the rules must know in which order.
func TestOneInstant(t *testing.T) {
	bubble(t, func(t *testing.T, c *testcluster.Cluster) {
		rec := history.New()
		cl := rec.Client(c.Client(), "")
		if _, err := cl.GetLockInfo(t.Context(), &client.GetLockInfoRequest{LockID: "a"}); !errors.Is(err, client.ErrLockNotFound) {
			t.Fatal(err)
		}
		res, err := cl.Acquire(t.Context(), &client.AcquireRequest{LockID: "a", ClientID: "me", TTL: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		h := rec.History()
		if look, grant := h.Ops[0], h.Ops[1]; look.To <= look.From || grant.From <= look.To || grant.To <= grant.From {
			t.Errorf("the look lasts from %d to %d, the call after it from %d to %d", look.From, look.To, grant.From, grant.To)
		}
		if left := time.Until(res.Lock.ExpiresAt); h.Ops[1].Expires > left+h.Ops[1].To {
			t.Errorf("the end is at %d, %d from an answer at %d", h.Ops[1].Expires, left, h.Ops[1].To)
		}
		if err := h.Check(history.Bounds{}).Err(); err != nil {
			t.Error(err)
		}
	})
}

package testcluster_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/pb"
	"github.com/raftlock/raftlock/testcluster"
)

// badInput is a call with one field out of bounds.
type badInput struct {
	name string
	call func(ctx context.Context, cl client.Client) (*client.ErrorDetail, error)

	code       pb.ErrorCode
	field      string
	value      string // quoted; "" is not checked
	min, max   string // "" for none
	resultless bool   // the call's result has no Error
}

func acquireOf(edit func(r *client.AcquireRequest)) func(context.Context, client.Client) (*client.ErrorDetail, error) {
	return func(ctx context.Context, cl client.Client) (*client.ErrorDetail, error) {
		req := &client.AcquireRequest{LockID: "a", ClientID: "me"}
		edit(req)
		res, err := cl.Acquire(ctx, req)
		return res.Error, err
	}
}

func renewOf(edit func(r *client.RenewRequest)) func(context.Context, client.Client) (*client.ErrorDetail, error) {
	return func(ctx context.Context, cl client.Client) (*client.ErrorDetail, error) {
		req := &client.RenewRequest{LockID: "a", ClientID: "me", NewTTL: time.Second}
		edit(req)
		res, err := cl.Renew(ctx, req)
		return res.Error, err
	}
}

func enqueueOf(edit func(r *client.EnqueueWaiterRequest)) func(context.Context, client.Client) (*client.ErrorDetail, error) {
	return func(ctx context.Context, cl client.Client) (*client.ErrorDetail, error) {
		req := &client.EnqueueWaiterRequest{LockID: "a", ClientID: "me"}
		edit(req)
		res, err := cl.EnqueueWaiter(ctx, req)
		return res.Error, err
	}
}

func listOf(req *client.GetLocksRequest) func(context.Context, client.Client) (*client.ErrorDetail, error) {
	return func(ctx context.Context, cl client.Client) (*client.ErrorDetail, error) {
		_, err := cl.GetLocks(ctx, req)
		return nil, err
	}
}

// idInputs are bad ids in every call that has them.
func idInputs() (inputs []badInput) {
	const code = pb.ErrorCode_INVALID_ARGUMENT
	long := strings.Repeat("x", 257)
	ids := []badInput{
		{name: "empty", value: `""`, min: "1", max: "256"},
		{name: "long", min: "1", max: "256"},
		{name: "control character", value: `"a\nb"`},
		{name: "zero byte", value: `"\x00"`},
		{name: "high control character", value: `"\u0085"`},
		{name: "broken UTF-8", value: `"a\xff"`},
		{name: "surrogate", value: `"\xed\xa0\x80"`},
	}
	raw := []string{"", long, "a\nb", "\x00", "\u0085", "a\xff", "\xed\xa0\x80"}
	type idCall struct {
		name, field string
		call        func(ctx context.Context, cl client.Client, id string) (*client.ErrorDetail, error)
		resultless  bool
	}
	calls := []idCall{
		{"Acquire", "lock_id", func(ctx context.Context, cl client.Client, id string) (*client.ErrorDetail, error) {
			return acquireOf(func(r *client.AcquireRequest) { r.LockID = id })(ctx, cl)
		}, false},
		{"Acquire", "client_id", func(ctx context.Context, cl client.Client, id string) (*client.ErrorDetail, error) {
			return acquireOf(func(r *client.AcquireRequest) { r.ClientID = id })(ctx, cl)
		}, false},
		{"Release", "lock_id", func(ctx context.Context, cl client.Client, id string) (*client.ErrorDetail, error) {
			res, err := cl.Release(ctx, &client.ReleaseRequest{LockID: id, ClientID: "me", Version: 1})
			return res.Error, err
		}, false},
		{"Release", "client_id", func(ctx context.Context, cl client.Client, id string) (*client.ErrorDetail, error) {
			res, err := cl.Release(ctx, &client.ReleaseRequest{LockID: "a", ClientID: id, Version: 1})
			return res.Error, err
		}, false},
		{"Renew", "lock_id", func(ctx context.Context, cl client.Client, id string) (*client.ErrorDetail, error) {
			return renewOf(func(r *client.RenewRequest) { r.LockID = id })(ctx, cl)
		}, false},
		{"Renew", "client_id", func(ctx context.Context, cl client.Client, id string) (*client.ErrorDetail, error) {
			return renewOf(func(r *client.RenewRequest) { r.ClientID = id })(ctx, cl)
		}, false},
		{"EnqueueWaiter", "lock_id", func(ctx context.Context, cl client.Client, id string) (*client.ErrorDetail, error) {
			return enqueueOf(func(r *client.EnqueueWaiterRequest) { r.LockID = id })(ctx, cl)
		}, false},
		{"EnqueueWaiter", "client_id", func(ctx context.Context, cl client.Client, id string) (*client.ErrorDetail, error) {
			return enqueueOf(func(r *client.EnqueueWaiterRequest) { r.ClientID = id })(ctx, cl)
		}, false},
		{"CancelWait", "lock_id", func(ctx context.Context, cl client.Client, id string) (*client.ErrorDetail, error) {
			res, err := cl.CancelWait(ctx, &client.CancelWaitRequest{LockID: id, ClientID: "me"})
			return res.Error, err
		}, false},
		{"CancelWait", "client_id", func(ctx context.Context, cl client.Client, id string) (*client.ErrorDetail, error) {
			res, err := cl.CancelWait(ctx, &client.CancelWaitRequest{LockID: "a", ClientID: id})
			return res.Error, err
		}, false},
		{"GetLockInfo", "lock_id", func(ctx context.Context, cl client.Client, id string) (*client.ErrorDetail, error) {
			_, err := cl.GetLockInfo(ctx, &client.GetLockInfoRequest{LockID: id})
			return nil, err
		}, true},
		{"GetBackoffAdvice", "lock_id", func(ctx context.Context, cl client.Client, id string) (*client.ErrorDetail, error) {
			_, err := cl.GetBackoffAdvice(ctx, &client.BackoffAdviceRequest{LockID: id})
			return nil, err
		}, true},
	}
	for _, call := range calls {
		for i, id := range ids {
			id.name = fmt.Sprintf("%s: %s %s", call.name, call.field, id.name)
			id.code, id.field, id.resultless = code, call.field, call.resultless
			id.call = func(ctx context.Context, cl client.Client) (*client.ErrorDetail, error) {
				return call.call(ctx, cl, raw[i])
			}
			inputs = append(inputs, id)
		}
	}
	return inputs
}

// fieldInputs are the other fields out of bounds.
func fieldInputs() []badInput {
	const (
		argument = pb.ErrorCode_INVALID_ARGUMENT
		ttl      = pb.ErrorCode_INVALID_TTL
		day      = 24 * time.Hour
	)
	many := map[string]string{}
	for i := range 33 {
		many[strconv.Itoa(i)] = ""
	}
	acquire := func(name, field, value, low, high string, code pb.ErrorCode, edit func(r *client.AcquireRequest)) badInput {
		return badInput{name: "Acquire: " + name, call: acquireOf(edit), code: code, field: field, value: value, min: low, max: high}
	}
	return []badInput{
		acquire("ttl too short", "ttl", `"99ms"`, "100ms", "24h0m0s", ttl, func(r *client.AcquireRequest) { r.TTL = 99 * time.Millisecond }),
		acquire("ttl a nanosecond too short", "ttl", "", "100ms", "24h0m0s", ttl, func(r *client.AcquireRequest) { r.TTL = 100*time.Millisecond - 1 }),
		acquire("ttl negative", "ttl", `"-1s"`, "100ms", "24h0m0s", ttl, func(r *client.AcquireRequest) { r.TTL = -time.Second }),
		acquire("ttl too long", "ttl", "", "100ms", "24h0m0s", ttl, func(r *client.AcquireRequest) { r.TTL = day + 1 }),
		acquire("ttl endless", "ttl", "", "100ms", "24h0m0s", ttl, func(r *client.AcquireRequest) { r.TTL = 1<<63 - 1 }),
		acquire("ttl of the distant past", "ttl", "", "100ms", "24h0m0s", ttl, func(r *client.AcquireRequest) { r.TTL = -1 << 63 }),
		acquire("wait negative", "wait_timeout", `"-1ns"`, "0s", "24h0m0s", argument, func(r *client.AcquireRequest) { r.Wait, r.WaitTimeout = true, -1 }),
		acquire("wait too long", "wait_timeout", "", "0s", "24h0m0s", argument, func(r *client.AcquireRequest) { r.Wait, r.WaitTimeout = true, day+1 }),
		acquire("priority too low", "priority", `"-1001"`, "-1000", "1000", argument, func(r *client.AcquireRequest) { r.Priority = -1001 }),
		acquire("priority too high", "priority", `"1001"`, "-1000", "1000", argument, func(r *client.AcquireRequest) { r.Priority = 1001 }),
		acquire("priority lowest", "priority", "", "-1000", "1000", argument, func(r *client.AcquireRequest) { r.Priority = -1 << 31 }),
		acquire("request_id too long", "request_id", "", "0", "128", argument, func(r *client.AcquireRequest) { r.RequestID = strings.Repeat("r", 129) }),
		acquire("request_id with a control character", "request_id", `"\t"`, "", "", argument, func(r *client.AcquireRequest) { r.RequestID = "\t" }),
		acquire("request_id with broken UTF-8", "request_id", `"\xff"`, "", "", argument, func(r *client.AcquireRequest) { r.RequestID = "\xff" }),
		acquire("metadata with too many entries", "metadata", "", "0", "32", argument, func(r *client.AcquireRequest) { r.Metadata = many }),
		acquire("metadata with an empty key", "metadata", "", "1", "64", argument, func(r *client.AcquireRequest) { r.Metadata = map[string]string{"": "v"} }),
		acquire("metadata with a long key", "metadata", "", "1", "64", argument, func(r *client.AcquireRequest) {
			r.Metadata = map[string]string{strings.Repeat("k", 65): "v"}
		}),
		acquire("metadata with a long value", "metadata", "", "0", "256", argument, func(r *client.AcquireRequest) {
			r.Metadata = map[string]string{"k": strings.Repeat("v", 257)}
		}),
		acquire("metadata with broken UTF-8", "metadata", "", "", "", argument, func(r *client.AcquireRequest) {
			r.Metadata = map[string]string{"k": "\xff"}
		}),
		{name: "Renew: new_ttl zero", call: renewOf(func(r *client.RenewRequest) { r.NewTTL = 0 }), code: ttl, field: "new_ttl", value: `"0s"`, min: "100ms", max: "24h0m0s"},
		{name: "Renew: new_ttl too short", call: renewOf(func(r *client.RenewRequest) { r.NewTTL = 1 }), code: ttl, field: "new_ttl", value: `"1ns"`, min: "100ms", max: "24h0m0s"},
		{name: "Renew: new_ttl negative", call: renewOf(func(r *client.RenewRequest) { r.NewTTL = -1 }), code: ttl, field: "new_ttl", value: `"-1ns"`, min: "100ms", max: "24h0m0s"},
		{name: "Renew: new_ttl too long", call: renewOf(func(r *client.RenewRequest) { r.NewTTL = day + 1 }), code: ttl, field: "new_ttl", min: "100ms", max: "24h0m0s"},
		{name: "EnqueueWaiter: priority", call: enqueueOf(func(r *client.EnqueueWaiterRequest) { r.Priority = 1001 }), code: argument, field: "priority", value: `"1001"`, min: "-1000", max: "1000"},
		{name: "EnqueueWaiter: timeout negative", call: enqueueOf(func(r *client.EnqueueWaiterRequest) { r.Timeout = -1 }), code: argument, field: "timeout", value: `"-1ns"`, min: "0s", max: "24h0m0s"},
		{name: "EnqueueWaiter: timeout too long", call: enqueueOf(func(r *client.EnqueueWaiterRequest) { r.Timeout = day + 1 }), code: argument, field: "timeout", min: "0s", max: "24h0m0s"},
		{name: "CancelWait: request_id", call: func(ctx context.Context, cl client.Client) (*client.ErrorDetail, error) {
			res, err := cl.CancelWait(ctx, &client.CancelWaitRequest{LockID: "a", ClientID: "me", RequestID: "\xff"})
			return res.Error, err
		}, code: argument, field: "request_id", value: `"\xff"`},
		{name: "GetLocks: limit", call: listOf(&client.GetLocksRequest{Limit: -1}), code: argument, field: "limit", value: `"-1"`, min: "0", max: "2147483647", resultless: true},
		{name: "GetLocks: offset", call: listOf(&client.GetLocksRequest{Offset: -1}), code: argument, field: "offset", value: `"-1"`, min: "0", max: "2147483647", resultless: true},
	}
}

// A field out of bounds is refused with a name and a reason, at the leader and
// at a follower alike, and changes nothing.
func TestBadInputIsRefused(t *testing.T) {
	inputs := append(idInputs(), fieldInputs()...)
	eachPlace(t, func(t *testing.T, c *testcluster.Cluster, cl client.Client) {
		hold(t, cl, "held", "you")
		index, hash, err := c.Node(c.Leader()).StateHash(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, input := range inputs {
			refuseInput(t, cl, input)
		}
		again, after, err := c.Node(c.Leader()).StateHash(t.Context())
		if err != nil || after != hash || again != index {
			t.Errorf("the table has changed: from entry %d, %x to entry %d, %x; %v", index, hash, again, after, err)
		}
	})
}

func refuseInput(t *testing.T, cl client.Client, input badInput) {
	t.Helper()
	is := client.ErrInvalidArgument
	if input.code == pb.ErrorCode_INVALID_TTL {
		is = client.ErrInvalidTTL
	}
	detail, err := input.call(t.Context(), cl)
	var (
		ce *client.ClientError
		ve *client.ValidationError
	)
	if !errors.Is(err, is) || errors.Is(err, client.ErrOutcomeUnknown) || !errors.As(err, &ce) || !errors.As(err, &ve) {
		t.Errorf("%s: %v", input.name, err)
		return
	}
	value := ce.Details["value"]
	if ce.Code != input.code || ce.Details["field"] != input.field || ce.Details["min"] != input.min || ce.Details["max"] != input.max ||
		input.value != "" && value != input.value || value == "" || len(value) > 64 {
		t.Errorf("%s: %v %q, want %v of %s %s, %q to %q", input.name, ce.Code, ce.Details, input.code, input.field, input.value, input.min, input.max)
	}
	if ve.Field != input.field || ve.Message == "" {
		t.Errorf("%s: the ValidationError is %+v", input.name, ve)
	}
	if !input.resultless {
		wantDetail(t, detail, err)
	}
}

// What is just within the bounds goes through.
func TestGoodInputAtTheBounds(t *testing.T) {
	eachPlace(t, func(t *testing.T, _ *testcluster.Cluster, cl client.Client) {
		metadata := map[string]string{}
		for i := range 32 {
			key := fmt.Sprintf("%064d", i)
			metadata[key] = strings.Repeat("v", 256)
		}
		long, unicode := strings.Repeat("x", 256), "Schloß 🔒 *?"
		for i, req := range []*client.AcquireRequest{
			{LockID: long, ClientID: long, RequestID: strings.Repeat("r", 128), Metadata: metadata},
			{LockID: unicode, ClientID: unicode, RequestID: unicode, Metadata: map[string]string{unicode: "\x00\n"}},
			{LockID: "a", ClientID: "me", TTL: 100 * time.Millisecond, Priority: 1000, WaitTimeout: -1},
			{LockID: "b", ClientID: "me", TTL: 24 * time.Hour, Priority: -1000, Wait: true, WaitTimeout: 24 * time.Hour},
			{LockID: "c", ClientID: "me", Attempt: -1 << 31},
			{LockID: "d", ClientID: "me", Attempt: 1<<31 - 1},
		} {
			lock := take(t, cl, req)
			info := look(t, cl, req.LockID)
			if fmt.Sprint(info.Metadata) != fmt.Sprint(req.Metadata) || info.OwnerID != req.ClientID {
				t.Errorf("request %d: the lock is %+v", i, info)
			}
			give(t, cl, lock)
		}
	})
}

// A nil request is refused like any other bad input.
func TestNilRequests(t *testing.T) {
	eachPlace(t, func(t *testing.T, c *testcluster.Cluster, cl client.Client) {
		ctx := t.Context()
		for _, cl := range []client.Client{cl, c.Node(0).Client()} {
			acquired, acquire := cl.Acquire(ctx, nil)
			released, release := cl.Release(ctx, nil)
			renewed, renew := cl.Renew(ctx, nil)
			enqueued, enqueue := cl.EnqueueWaiter(ctx, nil)
			cancelled, cancel := cl.CancelWait(ctx, nil)
			_, info := cl.GetLockInfo(ctx, nil)
			_, locks := cl.GetLocks(ctx, nil)
			_, advice := cl.GetBackoffAdvice(ctx, nil)
			_, status := cl.GetStatus(ctx, nil)
			_, health := cl.Health(ctx, nil)
			for _, err := range []error{acquire, release, renew, enqueue, cancel, info, locks, advice, status, health} {
				wantError(t, err, client.ErrInvalidArgument, pb.ErrorCode_INVALID_ARGUMENT)
			}
			wantDetail(t, acquired.Error, acquire)
			wantDetail(t, released.Error, release)
			wantDetail(t, renewed.Error, renew)
			wantDetail(t, enqueued.Error, enqueue)
			wantDetail(t, cancelled.Error, cancel)
		}
	})
}

// A queue takes no more than its limit; the refusal changes nothing.
func TestWaitQueueFull(t *testing.T) {
	eachPlace(t, func(t *testing.T, c *testcluster.Cluster, cl client.Client) {
		hold(t, cl, "a", "first")
		for i := range 3 {
			waiting(t.Context(), cl, client.AcquireRequest{LockID: "a", ClientID: fmt.Sprint("w", i), WaitTimeout: time.Minute})
		}
		res, err := cl.Acquire(t.Context(), &client.AcquireRequest{LockID: "a", ClientID: "me", RequestID: "r", Wait: true})
		ce := wantError(t, err, client.ErrWaitQueueFull, pb.ErrorCode_WAIT_QUEUE_FULL, "depth", "3", "limit", "3")
		wantDetail(t, res.Error, ce)
		enqueued, err := cl.EnqueueWaiter(t.Context(), &client.EnqueueWaiterRequest{LockID: "a", ClientID: "me"})
		ce = wantError(t, err, client.ErrWaitQueueFull, pb.ErrorCode_WAIT_QUEUE_FULL, "depth", "3", "limit", "3")
		wantDetail(t, enqueued.Error, ce)
		if got := queueOf(t, cl, "a"); len(got) != 3 {
			t.Errorf("the queue is %v", got)
		}
		// Who is in it already is not refused, and neither is another lock.
		if _, err := cl.EnqueueWaiter(t.Context(), &client.EnqueueWaiterRequest{LockID: "a", ClientID: "w1", Timeout: time.Minute}); err != nil {
			t.Error(err)
		}
		hold(t, cl, "b", "me")
	}, testcluster.WithLimits(raftlock.Limits{LockWaiters: 3}))
}

// The cluster's own bounds on locks and waiters refuse with RATE_LIMITED.
func TestTableLimits(t *testing.T) {
	eachPlace(t, func(t *testing.T, c *testcluster.Cluster, cl client.Client) {
		first := hold(t, cl, "a", "me")
		hold(t, cl, "b", "me")
		res, err := cl.Acquire(t.Context(), &client.AcquireRequest{LockID: "c", ClientID: "me"})
		ce := wantError(t, err, client.ErrRateLimit, pb.ErrorCode_RATE_LIMITED, "outcome", "not_acquired")
		wantDetail(t, res.Error, ce)
		enqueued, err := cl.EnqueueWaiter(t.Context(), &client.EnqueueWaiterRequest{LockID: "c", ClientID: "me"})
		ce = wantError(t, err, client.ErrRateLimit, pb.ErrorCode_RATE_LIMITED, "outcome", "not_acquired")
		wantDetail(t, enqueued.Error, ce)

		waiting(t.Context(), cl, client.AcquireRequest{LockID: "a", ClientID: "w1", WaitTimeout: time.Minute})
		waiting(t.Context(), cl, client.AcquireRequest{LockID: "b", ClientID: "w2", WaitTimeout: time.Minute})
		for _, lock := range []string{"a", "b"} {
			res, err := cl.Acquire(t.Context(), &client.AcquireRequest{LockID: lock, ClientID: "w3", Wait: true})
			ce := wantError(t, err, client.ErrRateLimit, pb.ErrorCode_RATE_LIMITED, "outcome", "not_acquired")
			wantDetail(t, res.Error, ce)
		}

		give(t, cl, first) // w1 gets it
		give(t, cl, take(t, cl, &client.AcquireRequest{LockID: "a", ClientID: "w1"}))
		hold(t, cl, "a", "me") // a freed lock has its place still
		_, err = cl.Acquire(t.Context(), &client.AcquireRequest{LockID: "c", ClientID: "me"})
		wantError(t, err, client.ErrRateLimit, pb.ErrorCode_RATE_LIMITED)
	}, testcluster.WithLimits(raftlock.Limits{Locks: 2, Waiters: 2}))
}

// Overload costs those who want locks their calls, and nobody the lock he has.
func TestOverloadSparesHolders(t *testing.T) {
	const pending = 16
	overload := func(t *testing.T, c *testcluster.Cluster, cl client.Client) {
		var held []*client.Lock
		for i := range pending {
			held = append(held, take(t, cl, &client.AcquireRequest{LockID: fmt.Sprint("held", i), ClientID: "me", TTL: time.Minute}))
		}
		leader := c.Leader()
		c.Partition([]int{0}, []int{1}, []int{2}) // calls pile up
		var calls sync.WaitGroup
		for i := range pending {
			calls.Go(func() {
				if _, err := cl.Acquire(t.Context(), &client.AcquireRequest{LockID: fmt.Sprint("new", i), ClientID: "me"}); err != nil {
					t.Errorf("acquire %d: %v", i, err)
				}
			})
		}
		synctest.Wait()
		begun := time.Now()
		res, err := cl.Acquire(t.Context(), &client.AcquireRequest{LockID: "more", ClientID: "me"})
		ce := wantError(t, err, client.ErrRateLimit, pb.ErrorCode_RATE_LIMITED, "outcome", "not_proposed")
		wantDetail(t, res.Error, ce)
		_, err = cl.EnqueueWaiter(t.Context(), &client.EnqueueWaiterRequest{LockID: "more", ClientID: "me"})
		wantError(t, err, client.ErrRateLimit, pb.ErrorCode_RATE_LIMITED, "outcome", "not_proposed")
		_, err = cl.GetLocks(t.Context(), &client.GetLocksRequest{})
		wantError(t, err, client.ErrRateLimit, pb.ErrorCode_RATE_LIMITED, "outcome", "not_proposed")
		within(t, "the time to refuse", time.Since(begun), 0, 0)

		for i, lock := range held {
			calls.Go(func() {
				var err error
				if i%2 == 0 {
					_, err = cl.Renew(t.Context(), &client.RenewRequest{LockID: lock.LockID, ClientID: "me", Version: lock.Version, NewTTL: time.Hour})
				} else {
					_, err = cl.Release(t.Context(), releaseOf(lock))
				}
				if err != nil {
					t.Errorf("holder %d: %v", i, err)
				}
			})
		}
		synctest.Wait()
		c.Heal()
		calls.Wait()
		if c.Leader() != leader {
			t.Log("another member leads now")
		}
		hold(t, cl, "more", "me")
		for i, lock := range held {
			if owner := look(t, cl, lock.LockID).OwnerID; (owner == "me") != (i%2 == 0) {
				t.Errorf("lock %d is held by %q", i, owner)
			}
		}
	}
	for _, p := range places(t) {
		if strings.HasPrefix(p.name, "remote") && p.name != "remote, leader" {
			continue // calls on their way to a leader that was just heard of are at two members, each with a load of its own
		}
		runAt(t, p, overload, testcluster.WithLimits(raftlock.Limits{Pending: pending}))
	}
}

// A wait in a queue is no load.
func TestWaitersAreNoLoad(t *testing.T) {
	eachPlace(t, func(t *testing.T, c *testcluster.Cluster, cl client.Client) {
		first := hold(t, cl, "a", "first")
		for i := range 50 {
			waiting(t.Context(), cl, client.AcquireRequest{LockID: "a", ClientID: fmt.Sprint("w", i), WaitTimeout: time.Minute})
		}
		if got := queueOf(t, cl, "a"); len(got) != 50 {
			t.Fatalf("%d waiters", len(got))
		}
		give(t, cl, first)
	}, testcluster.WithLimits(raftlock.Limits{Pending: 4}))
}

package testcluster_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/internal/clock"
	"github.com/raftlock/raftlock/testcluster"
)

// shortestTTL is what the members of a lab allow.
const shortestTTL = 50 * time.Millisecond

// desk is a client on a machine of its own, recorded, and told on.
type desk struct {
	client.Client // recorded
	name          string
	lab           *lab
	machine       *testcluster.Client
	paused        atomic.Bool
}

func (l *lab) newDesk(name string, member int, remote bool) *desk {
	d := &desk{name: name, lab: l}
	if remote {
		d.machine = l.c.Dial(l.c.ClientConfig())
	} else {
		d.machine = l.c.ClientOn(member)
	}
	d.Client = l.record.Client(d.machine, name)
	return d
}

// Clock is the machine's, for leases.
func (d *desk) Clock() clock.Clock { return d.machine.Clock() }

func (d *desk) pause() {
	d.paused.Store(true)
	d.machine.Pause()
}

func (d *desk) resume() {
	d.machine.Resume()
	d.paused.Store(false)
}

func (d *desk) wake() {
	d.machine.Wake()
	d.paused.Store(false)
}

func (d *desk) Acquire(ctx context.Context, req *client.AcquireRequest) (*client.AcquireResult, error) {
	res, err := d.Client.Acquire(ctx, req)
	if err == nil && res.Acquired {
		d.lab.holders.won(req.LockID, req.ClientID, res.Lock.Version)
	}
	return res, err
}

func (d *desk) GetLockInfo(ctx context.Context, req *client.GetLockInfoRequest) (*client.LockInfo, error) {
	info, err := d.Client.GetLockInfo(ctx, req)
	if err == nil {
		d.lab.holders.saw(info.LockID, info.Version)
	}
	return info, err
}

// holders are the leases that believe in their locks.
type holders struct {
	lab *lab

	mu struct {
		sync.Mutex
		all    map[*holder]bool
		tokens map[string]int64 // the last one of each ClientID
		seen   map[string]int64 // the greatest one of each lock
	}
}

func newHolders(l *lab) *holders {
	h := &holders{lab: l}
	h.mu.all, h.mu.tokens, h.mu.seen = map[*holder]bool{}, map[string]int64{}, map[string]int64{}
	return h
}

// holder is one of them.
type holder struct {
	lock  string
	token int64
	desk  *desk
	ctx   context.Context // ends before another is granted the lock
}

// won notes a grant that its owner has heard of.
func (h *holders) won(lock, clientID string, token int64) {
	h.mu.Lock()
	h.mu.tokens[clientID] = token
	h.mu.Unlock()
	h.saw(lock, token)
}

// tokenOf is what a ClientID was granted last.
func (h *holders) tokenOf(clientID string) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.tokens[clientID]
}

// enter notes that somebody works under a lock as long as ctx lasts, until the
// function that it returns is called.
func (h *holders) enter(ctx context.Context, d *desk, lock string, token int64) (leave func()) {
	held := &holder{lock: lock, token: token, desk: d, ctx: ctx}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.all[held] = true
	h.check(held)
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.mu.all, held)
	}
}

// saw is told of each grant that an answer shows.
func (h *holders) saw(lock string, token int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if token <= h.mu.seen[lock] {
		return
	}
	h.mu.seen[lock] = token
	for held := range h.mu.all {
		h.check(held)
	}
}

// check holds that who works under a lock was told of its loss before another was
// granted it, unless its machine stands still.
func (h *holders) check(held *holder) {
	if last := h.mu.seen[held.lock]; held.token < last && !held.desk.paused.Load() && held.ctx.Err() == nil {
		h.lab.t.Errorf("%s works under token %d of %s, and token %d was granted", held.desk.name, held.token, held.lock, last)
	}
}

// worker is one caller.
type worker struct {
	lab  *lab
	name string
	desk *desk
	dice *rand.Rand
	call int
	deck []int
}

// workload is one thing that callers do. It reports whether it came to what it is
// for: most are refused or interrupted now and then, none always.
type workload struct {
	kind string
	do   func(w *worker) bool
}

func workloads() []workload {
	return []workload{
		{"wait", (*worker).wait},
		{"wait", (*worker).wait},
		{"try", (*worker).try},
		{"repeat elsewhere", (*worker).repeat},
		{"twice at once", (*worker).twice},
		{"cancelled wait", (*worker).cancelled},
		{"withdrawal", (*worker).withdrawn},
		{"enqueue", (*worker).enqueue},
		{"late release", (*worker).late},
		{"hold", (*worker).hold},
		{"do", (*worker).do},
		{"run", (*worker).runs},
		{"do once", (*worker).once},
		{"burst", (*worker).burst},
		{"list", (*worker).list},
		{"status", (*worker).status},
	}
}

func workKinds() (kinds []string) {
	for _, w := range workloads() {
		kinds = append(kinds, w.kind)
	}
	return kinds
}

func (w *worker) run() {
	all := workloads()
	for w.lab.ctx.Err() == nil {
		if len(w.deck) == 0 {
			w.deck = w.dice.Perm(len(all))
		}
		next := all[w.deck[0]]
		w.deck = w.deck[1:]
		if next.kind != "burst" || w.dice.IntN(3) == 0 { // or there is nothing else
			if next.do(w) {
				w.lab.works.add(next.kind, 1)
			}
		}
		w.pause(40 * time.Millisecond)
	}
}

func (w *worker) pause(most time.Duration) { pause(w.lab.ctx, w.upTo(most)) }

func (w *worker) upTo(most time.Duration) time.Duration {
	return time.Duration(w.dice.Int64N(int64(most)))
}

func (w *worker) lock() string { return w.lab.lock(w.dice.IntN(labLocks)) }

// other is a desk that may be another one.
func (w *worker) other() *desk { return w.lab.desks[w.dice.IntN(len(w.lab.desks))] }

// ttl is short, long, or very long.
func (w *worker) ttl() time.Duration {
	switch w.dice.IntN(8) {
	case 0, 1:
		return shortestTTL + w.upTo(100*time.Millisecond)
	case 2:
		return time.Minute + w.upTo(time.Minute)
	}
	return 200*time.Millisecond + w.upTo(3*time.Second)
}

// request is a call of an identity of its own.
func (w *worker) request(waits bool) *client.AcquireRequest {
	id, request := w.identity()
	return &client.AcquireRequest{
		LockID: w.lock(), ClientID: id, RequestID: request, TTL: w.ttl(),
		Wait: waits, WaitTimeout: 100*time.Millisecond + w.upTo(4*time.Second), Priority: int32(w.dice.IntN(3)),
	}
}

// limit is a context for one call or a few.
func (w *worker) limit(most time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(w.lab.ctx, 50*time.Millisecond+w.upTo(most))
}

// identity is a fresh ClientID, about which the rules know more, or a fresh RequestID
// of the worker's own.
func (w *worker) identity() (id, request string) {
	w.call++
	if w.dice.IntN(3) == 0 {
		return w.name, fmt.Sprint(w.call)
	}
	return fmt.Sprintf("%s/%d", w.name, w.call), "r"
}

func (w *worker) wait() bool {
	ctx, done := w.limit(6 * time.Second)
	defer done()
	return w.use(ctx, w.desk, w.request(true))
}

func (w *worker) try() bool {
	ctx, done := w.limit(2 * time.Second)
	defer done()
	return w.use(ctx, w.desk, w.request(false))
}

// use takes a lock, keeps it for a while, and gives it back or forgets it. It reports
// whether it was granted.
func (w *worker) use(ctx context.Context, d *desk, req *client.AcquireRequest) bool {
	res, err := d.Acquire(ctx, req)
	if err != nil || !res.Acquired {
		return false
	}
	w.keep(ctx, d, res.Lock)
	return true
}

// keep renews a grant, perhaps, and gives it back, unless it is forgotten.
func (w *worker) keep(ctx context.Context, d *desk, lock *client.Lock) {
	for w.dice.IntN(2) == 0 {
		w.pause(80 * time.Millisecond)
		_, _ = d.Renew(ctx, &client.RenewRequest{LockID: lock.LockID, ClientID: lock.OwnerID, Version: lock.Version, NewTTL: 100*time.Millisecond + w.upTo(2*time.Second)})
	}
	if w.dice.IntN(8) > 0 {
		_, _ = d.Release(ctx, releaseOf(lock))
	}
}

// repeat makes a call with little patience and, while its outcome is unknown, makes
// it again at other members, until one of them says what came of it.
func (w *worker) repeat() bool {
	req := w.request(w.dice.IntN(2) == 0)
	d := w.desk
	for attempt := range 5 {
		ctx, done := context.WithTimeout(w.lab.ctx, 5*time.Millisecond+w.upTo(500*time.Millisecond))
		call := *req
		call.Attempt = int32(attempt + 1)
		res, err := d.Acquire(ctx, &call)
		done()
		if err == nil && res.Acquired {
			limit, done := w.limit(time.Second)
			w.keep(limit, d, res.Lock)
			done()
			return attempt > 0
		}
		if !errors.Is(err, client.ErrOutcomeUnknown) {
			return attempt > 0 && decided(err)
		}
		d = w.other()
	}
	return false
}

// twice makes one call from two machines at the same time, and both are granted.
func (w *worker) twice() bool {
	ctx, done := w.limit(3 * time.Second)
	defer done()
	req, d := w.request(w.dice.IntN(2) == 0), w.other()
	var second sync.WaitGroup
	both := false
	second.Go(func() {
		call := *req
		res, err := d.Acquire(ctx, &call)
		both = err == nil && res.Acquired
	})
	one := w.use(ctx, w.desk, req)
	second.Wait()
	return one && both
}

// cancelled goes away while it waits.
func (w *worker) cancelled() bool {
	ctx, done := context.WithTimeout(w.lab.ctx, w.upTo(200*time.Millisecond))
	defer done()
	return !w.use(ctx, w.desk, w.request(true)) && ctx.Err() != nil
}

// withdrawn is called off, from another machine.
func (w *worker) withdrawn() bool {
	ctx, done := w.limit(4 * time.Second)
	defer done()
	req, d, after := w.request(true), w.other(), w.upTo(200*time.Millisecond)
	var second sync.WaitGroup
	var err error
	second.Go(func() {
		pause(ctx, after)
		_, err = d.CancelWait(ctx, &client.CancelWaitRequest{LockID: req.LockID, ClientID: req.ClientID, RequestID: req.RequestID})
	})
	w.use(ctx, w.desk, req)
	second.Wait()
	if err == nil {
		w.pause(2 * time.Second)
		return w.tooLate(req)
	}
	return false
}

// tooLate makes a call that was called off: for a minute it is never granted. It
// reports whether it was answered.
func (w *worker) tooLate(req *client.AcquireRequest) bool {
	ctx, done := w.limit(time.Second)
	defer done()
	call := *req
	call.Attempt = 2
	res, err := w.other().Acquire(ctx, &call)
	if err == nil && res.Acquired {
		w.lab.t.Errorf("%s of %s was called off, and is granted %s with token %d", req.RequestID, req.ClientID, req.LockID, res.Lock.Version)
	}
	return decided(err)
}

// decided reports whether an error is the lock table's word on the call.
func decided(err error) bool {
	for _, other := range []error{client.ErrOutcomeUnknown, client.ErrUnavailable, client.ErrLeaderUnavailable, client.ErrRateLimit} {
		if errors.Is(err, other) {
			return false
		}
	}
	return true
}

// enqueue waits without a call, has a look, and takes what it was granted, or
// leaves the queue. It has locks of its own: what it wins nobody sees.
func (w *worker) enqueue() bool {
	ctx, done := w.limit(3 * time.Second)
	defer done()
	w.call++
	lock, id := w.lab.lock(labLocks), fmt.Sprintf("%s/%d", w.name, w.call)
	_, err := w.desk.EnqueueWaiter(ctx, &client.EnqueueWaiterRequest{LockID: lock, ClientID: id, Timeout: time.Second, Priority: int32(w.dice.IntN(3))})
	if err != nil {
		return false
	}
	w.pause(100 * time.Millisecond)
	if w.dice.IntN(3) == 0 {
		_, _ = w.other().CancelWait(ctx, &client.CancelWaitRequest{LockID: lock, ClientID: id})
	}
	return w.use(ctx, w.desk, &client.AcquireRequest{LockID: lock, ClientID: id, TTL: w.ttl()})
}

// late gives back a grant that is over while it has another: that one stands.
func (w *worker) late() bool {
	ctx, done := w.limit(3 * time.Second)
	defer done()
	req := w.request(true)
	req.TTL = shortestTTL
	res, err := w.desk.Acquire(ctx, req)
	if err != nil || !res.Acquired {
		return false
	}
	old := res.Lock
	w.pause(100 * time.Millisecond)
	again := *req
	again.RequestID, again.TTL = req.RequestID+"/again", time.Second
	if res, err = w.desk.Acquire(ctx, &again); err != nil || !res.Acquired {
		return false
	}
	_, err = w.other().Release(ctx, releaseOf(old))
	w.keep(ctx, w.desk, res.Lock)
	return errors.Is(err, client.ErrVersionMismatch)
}

// stay works under a lock for a while, or as long as it may, and writes to what the
// lock protects when it goes.
func (w *worker) stay(ctx context.Context, lock string, token int64) {
	defer w.lab.holders.enter(ctx, w.desk, lock, token)()
	defer w.write(lock, token)
	most := 300 * time.Millisecond
	if w.dice.IntN(6) == 0 {
		most = 3 * time.Second
	}
	pause(ctx, w.upTo(most))
}

// write goes by a guard: one that comes late is refused.
func (w *worker) write(lock string, token int64) {
	_ = w.lab.record.Write(lock, token, func() error {
		return w.lab.guard.Do(context.Background(), lock, token, func() error { return nil })
	})
}

func (w *worker) leaseTTL() time.Duration { return 300*time.Millisecond + w.upTo(2*time.Second) }

func (w *worker) hold() bool {
	ctx, done := w.limit(4 * time.Second)
	defer done()
	lock := w.lock()
	held, err := client.Hold(ctx, w.desk, lock, client.WithTTL(w.leaseTTL()), client.WithWait(2*time.Second), client.WithPriority(int32(w.dice.IntN(3))))
	if err != nil {
		return false
	}
	w.stay(held.Context(), lock, held.Token())
	return held.Release(ctx) == nil
}

func (w *worker) do() bool {
	ctx, done := w.limit(4 * time.Second)
	defer done()
	lock := w.lock()
	return client.Do(ctx, w.desk, lock, func(ctx context.Context, token int64) error {
		w.stay(ctx, lock, token)
		return nil
	}, client.WithTTL(w.leaseTTL())) == nil
}

func (w *worker) runs() bool {
	ctx, done := w.limit(4 * time.Second)
	defer done()
	w.call++
	lock, id, ttl := w.lock(), fmt.Sprintf("%s/%d", w.name, w.call), w.leaseTTL()
	return client.RunWithLock(ctx, w.desk, lock, id, ttl, ttl/3, func(ctx context.Context) error {
		w.stay(ctx, lock, w.lab.holders.tokenOf(id))
		return nil
	}) == nil
}

func (w *worker) once() bool {
	ctx, done := w.limit(4 * time.Second)
	defer done()
	w.call++
	lock, id := w.lock(), fmt.Sprintf("%s/%d", w.name, w.call)
	return client.DoWithLock(ctx, w.desk, lock, id, w.leaseTTL(), func(ctx context.Context) error {
		w.stay(ctx, lock, w.lab.holders.tokenOf(id))
		return nil
	}) == nil
}

// burst makes dozens of calls at once, of which some are granted.
func (w *worker) burst() bool {
	ctx, done := w.limit(500 * time.Millisecond)
	defer done()
	var calls sync.WaitGroup
	var granted atomic.Bool
	lock := w.lock()
	for range 24 + w.dice.IntN(24) {
		req, d := w.request(w.dice.IntN(2) == 0), w.other()
		req.LockID, req.TTL = lock, shortestTTL
		calls.Go(func() {
			if res, err := d.Acquire(ctx, req); err == nil && res.Acquired {
				granted.Store(true)
				_, _ = d.Release(ctx, releaseOf(res.Lock))
			}
		})
	}
	calls.Wait()
	return granted.Load()
}

func (w *worker) list() bool {
	ctx, done := w.limit(time.Second)
	defer done()
	_, err := w.desk.GetLocks(ctx, &client.GetLocksRequest{Limit: 1 + int32(w.dice.IntN(20)), IncludeWaiters: true})
	_, _ = w.desk.GetLockInfo(ctx, &client.GetLockInfoRequest{LockID: w.lock(), IncludeWaiters: true})
	return err == nil
}

func (w *worker) status() bool {
	ctx, done := w.limit(time.Second)
	defer done()
	_, status := w.desk.GetStatus(ctx, &client.GetStatusRequest{})
	_, health := w.desk.Health(ctx, &client.HealthRequest{})
	_, advice := w.desk.GetBackoffAdvice(ctx, &client.BackoffAdviceRequest{LockID: w.lock()})
	return status == nil && health == nil && advice == nil
}

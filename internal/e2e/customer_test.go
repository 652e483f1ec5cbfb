package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/internal/supervise"
)

const (
	// era is for how long locks are used before others are: an order of the
	// operations on one lock can only be looked for among so many.
	era = 2 * time.Second
	// turnLimit bounds a turn of a customer.
	turnLimit = 15 * time.Second
	// workers is how many turns of a customer go on at once.
	workers = 6
)

// customerConfig is what a customer is told through its environment.
type customerConfig struct {
	Name      string
	Endpoints []string
	Journal   string // the file to write what happens to
	Base      supervise.Instant
	Seed      uint64
	Retries   int
}

// customer is a program over the network that does with locks whatever can be
// done, and writes down what comes of it. It does not judge.
type customer struct {
	cfg  customerConfig
	c    *journal
	over atomic.Bool
}

// runCustomer is the life of a customer: until its input ends.
func runCustomer(text string) int {
	s := &customer{}
	if err := json.Unmarshal([]byte(text), &s.cfg); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	if err := s.run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func (s *customer) run() (err error) {
	policy := client.DefaultRetryPolicy()
	policy.MaxRetries, policy.MaxBackoff = s.cfg.Retries, 300*time.Millisecond
	c, err := client.Dial(client.Config{
		Endpoints: s.cfg.Endpoints, DialTimeout: time.Second, RequestTimeout: 3 * time.Second, RetryPolicy: policy,
	})
	if err != nil {
		return err
	}
	if s.c, err = newJournal(c, s.cfg.Name, s.cfg.Journal, s.cfg.Base); err != nil {
		return errors.Join(err, c.Close())
	}
	var work sync.WaitGroup
	for i := range workers {
		w := &worker{customer: s, d: rand.New(rand.NewPCG(s.cfg.Seed, uint64(i))), id: fmt.Sprint(s.cfg.Name, "-", i)}
		work.Go(func() { s.repeat(w.turn) })
	}
	d := rand.New(rand.NewPCG(s.cfg.Seed, workers))
	work.Go(func() { s.repeat(func() { s.look(d) }) })
	_, err = io.Copy(io.Discard, os.Stdin)
	s.over.Store(true)
	work.Wait()
	return errors.Join(err, c.Close(), s.c.finish())
}

func (s *customer) repeat(turn func()) {
	for !s.over.Load() {
		turn()
	}
}

// lock is one of those of the present era.
func (s *customer) lock(d *rand.Rand) string {
	return fmt.Sprintf("era-%04d-%d", s.c.instant()/era, d.IntN(4))
}

// look sees a lock and its queue every few milliseconds: what ends late is
// measured in the time in which such looks are answered.
func (s *customer) look(d *rand.Rand) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if d.IntN(100) == 0 {
		_, _ = s.c.GetLocks(ctx, &client.GetLocksRequest{Limit: 4, StartAfter: fmt.Sprintf("era-%04d", s.c.instant()/era), IncludeWaiters: true})
	} else {
		_, _ = s.c.GetLockInfo(ctx, &client.GetLockInfoRequest{LockID: s.lock(d), IncludeWaiters: true})
	}
	pass(40*time.Millisecond, d)
}

// worker takes turns.
type worker struct {
	*customer
	d     *rand.Rand
	id    string // its ClientID
	turns int
	old   client.Lock // a grant that it has given back
}

func (w *worker) turn() {
	w.turns++
	ctx, cancel := context.WithTimeout(context.Background(), turnLimit)
	defer cancel()
	lock := w.lock(w.d)
	switch w.d.IntN(20) {
	case 0:
		w.hold(ctx, lock)
	case 1:
		w.within(ctx, lock)
	case 2:
		w.regret(ctx, lock)
	case 3:
		w.stale(ctx)
	case 4:
		w.take(ctx, &client.AcquireRequest{LockID: lock})
	default:
		w.take(ctx, &client.AcquireRequest{
			LockID: lock, Wait: true, WaitTimeout: time.Second + w.upTo(4*time.Second), Priority: int32(w.d.IntN(4)) - 1,
		})
	}
	pass(20*time.Millisecond, w.d)
}

func (w *worker) upTo(d time.Duration) time.Duration { return time.Duration(w.d.Int64N(int64(d))) }

// ttl is of holders who may die.
func (w *worker) ttl() time.Duration { return 150*time.Millisecond + w.upTo(800*time.Millisecond) }

// isOpen reports whether the same call again can find out more.
func isOpen(err error) bool {
	return errors.Is(err, client.ErrOutcomeUnknown) || errors.Is(err, client.ErrUnavailable) || errors.Is(err, client.ErrLeaderUnavailable)
}

// take takes a lock by itself, renews it at times, and gives it back, or not.
func (w *worker) take(ctx context.Context, req *client.AcquireRequest) {
	req.ClientID, req.RequestID, req.TTL = w.id, fmt.Sprint(w.turns), w.ttl()
	lapses := w.d.IntN(8) == 0
	if lapses {
		req.TTL = 100*time.Millisecond + w.upTo(200*time.Millisecond)
	}
	res, err := w.c.Acquire(ctx, req)
	for again := 0; err != nil && isOpen(err) && again < 3 && ctx.Err() == nil; again++ {
		pass(100*time.Millisecond, w.d)
		res, err = w.c.Acquire(ctx, req)
	}
	if err != nil {
		return
	}
	for range w.d.IntN(3) {
		pass(20*time.Millisecond, w.d)
		_, _ = w.c.Renew(ctx, &client.RenewRequest{LockID: req.LockID, ClientID: w.id, Version: res.Lock.Version, NewTTL: w.ttl()})
	}
	w.old = *res.Lock
	if lapses {
		return
	}
	release := &client.ReleaseRequest{LockID: req.LockID, ClientID: w.id, Version: res.Lock.Version}
	_, err = w.c.Release(ctx, release)
	for again := 0; err != nil && isOpen(err) && again < 3; again++ {
		_, err = w.c.Release(ctx, release)
	}
	if w.d.IntN(4) == 0 { // when the next one has it, perhaps
		w.stale(ctx)
	}
}

// hold keeps a lock for longer than its TTL.
func (w *worker) hold(ctx context.Context, lock string) {
	held, err := client.Hold(ctx, w.c, lock, client.WithTTL(w.ttl()), client.WithWait(3*time.Second), client.WithPriority(int32(w.d.IntN(4))))
	if err != nil {
		return
	}
	select {
	case <-held.Done():
	case <-time.After(w.upTo(400 * time.Millisecond)):
	}
	_ = held.Release(ctx) // what came of it is in the journal
}

// within works under a lock.
func (w *worker) within(ctx context.Context, lock string) {
	work := func(ctx context.Context) error {
		select {
		case <-ctx.Done():
		case <-time.After(w.upTo(100 * time.Millisecond)):
		}
		return nil
	}
	ttl, own := w.ttl(), client.NewClientID(w.id)
	if w.d.IntN(2) == 0 {
		_ = client.DoWithLock(ctx, w.c, lock, own, ttl, work)
	} else {
		_ = client.RunWithLock(ctx, w.c, lock, own, ttl, ttl/3, work)
	}
}

// regret gives up waiting, by its context or by withdrawing the call, which may
// have won by then.
func (w *worker) regret(ctx context.Context, lock string) {
	req := &client.AcquireRequest{LockID: lock, ClientID: w.id, RequestID: fmt.Sprint(w.turns), Wait: true, WaitTimeout: 2 * time.Second, TTL: w.ttl()}
	brief, cancel := context.WithTimeout(ctx, w.upTo(150*time.Millisecond))
	defer cancel()
	res, err := w.c.Acquire(brief, req)
	if err == nil {
		w.old = *res.Lock
	}
	if w.d.IntN(2) == 0 {
		_, _ = w.c.CancelWait(ctx, &client.CancelWaitRequest{LockID: lock, ClientID: w.id, RequestID: req.RequestID})
	}
}

// stale acts under a grant that may be over.
func (w *worker) stale(ctx context.Context) {
	if w.old.Version == 0 {
		return
	}
	if w.d.IntN(2) == 0 {
		_, _ = w.c.Renew(ctx, &client.RenewRequest{LockID: w.old.LockID, ClientID: w.id, Version: w.old.Version, NewTTL: w.ttl()})
	} else {
		_, _ = w.c.Release(ctx, &client.ReleaseRequest{LockID: w.old.LockID, ClientID: w.id, Version: w.old.Version})
	}
}

package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/raftlock/raftlock/client"
)

const (
	keptLocks  = 64  // locks that a caller holds for long, once it has so many
	usedNames  = 512 // names that a caller uses briefly
	briefNames = 128 // names that a caller leaves to their TTL
	sharedLock = 8   // names that all callers of a crew wait for
)

// crew is callers that work without a pause at one client. What they leave in the
// table is bounded by their number, not by their speed.
type crew struct {
	client  client.Client
	name    string
	ctx     context.Context // ends the work
	stop    context.CancelFunc
	callers sync.WaitGroup
	acks    atomic.Int64 // calls that were answered by the table, refusals included
	outages atomic.Int64 // attempts that nobody answered

	mu  sync.Mutex
	err error // the first answer that must not be
}

// newCrew starts n callers. All their names begin with the crew's.
func newCrew(c client.Client, name string, n int) *crew {
	w := &crew{client: c, name: name}
	w.ctx, w.stop = context.WithCancel(context.Background())
	for i := range n {
		h := &hand{crew: w, id: fmt.Sprintf("%s-%d", name, i), dice: rand.New(rand.NewPCG(uint64(i), 0))}
		w.callers.Go(h.run)
	}
	return w
}

func (w *crew) end() {
	w.stop()
	w.callers.Wait()
}

// failure is what went wrong.
func (w *crew) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

func (w *crew) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
}

// hand is one caller of a crew.
type hand struct {
	*crew
	id   string
	dice *rand.Rand
	turn int
	kept []*client.Lock // the oldest first
}

func (h *hand) run() {
	for h.ctx.Err() == nil {
		h.turn++
		if err := h.work(); err != nil && h.ctx.Err() == nil {
			h.fail(fmt.Errorf("%s, turn %d: %w", h.id, h.turn, err))
			return
		}
	}
}

// work is one turn: mostly plain use, and now and then each of the ways in which a
// call or a grant can end.
func (h *hand) work() error {
	switch d := h.dice.IntN(64); {
	case d < 32:
		return h.use()
	case d < 42:
		return h.keep()
	case d < 48:
		return h.abandon()
	case d < 54:
		return h.share()
	case d < 58:
		return h.ask()
	case d < 61:
		return h.waitInVain()
	default:
		return h.leave()
	}
}

// use takes a lock, renews it now and then, and gives it back.
func (h *hand) use() error {
	lock, err := h.acquire(&client.AcquireRequest{LockID: fmt.Sprintf("%s-used-%d", h.id, h.turn%usedNames), TTL: longTTL, Metadata: h.metadata()})
	if err == nil && h.turn%4 == 0 {
		err = h.renew(lock)
	}
	if err == nil {
		err = h.release(lock)
	}
	return err
}

// keep takes a lock for long, and gives back the one that was taken first when
// there are many. It waits for the name: a leaver of whom the cluster does not
// know yet that he left may be granted it in between.
func (h *hand) keep() error {
	name := fmt.Sprintf("%s-kept-%d", h.id, h.turn)
	if len(h.kept) == keptLocks {
		oldest := h.kept[0]
		h.kept = append(h.kept[:0], h.kept[1:]...)
		if err := h.release(oldest); err != nil {
			return err
		}
		name = oldest.LockID // so that names do not become more
	}
	lock, err := h.acquire(&client.AcquireRequest{LockID: name, TTL: longTTL, Wait: true, WaitTimeout: longTTL, Metadata: h.metadata()})
	if err == nil {
		h.kept = append(h.kept, lock)
	}
	return err
}

// abandon takes a lock that ends by its TTL.
func (h *hand) abandon() error {
	_, err := h.acquire(&client.AcquireRequest{
		LockID: fmt.Sprintf("%s-brief-%d", h.id, h.turn%briefNames), TTL: time.Duration(100+h.dice.IntN(200)) * time.Millisecond, Wait: true,
	})
	return err
}

// share takes its turn at a lock that others want, too.
func (h *hand) share() error {
	lock, err := h.acquire(&client.AcquireRequest{
		LockID: fmt.Sprintf("%s-shared-%d", h.name, h.dice.IntN(sharedLock)), TTL: longTTL, Wait: true, WaitTimeout: longTTL, Priority: int32(h.dice.IntN(3)),
	})
	if err == nil {
		err = h.release(lock)
	}
	return err
}

// ask asks about a lock, or is refused one.
func (h *hand) ask() error {
	if len(h.kept) == 0 {
		return nil
	}
	lock := h.kept[h.dice.IntN(len(h.kept))]
	if h.turn%2 == 0 {
		return h.call(func(ctx context.Context) error {
			_, err := h.client.GetLockInfo(ctx, &client.GetLockInfoRequest{LockID: lock.LockID, IncludeWaiters: true})
			return err
		})
	}
	return expect(client.ErrLockHeld, h.call(func(ctx context.Context) error {
		_, err := h.client.Acquire(ctx, &client.AcquireRequest{LockID: lock.LockID, ClientID: h.id + "-other"})
		return err
	}))
}

// waitInVain waits until the time for it is over.
func (h *hand) waitInVain() error {
	if len(h.kept) == 0 {
		return nil
	}
	return expect(client.ErrTimeout, h.call(func(ctx context.Context) error {
		_, err := h.client.Acquire(ctx, &client.AcquireRequest{
			LockID: h.kept[0].LockID, ClientID: h.id + "-other", RequestID: fmt.Sprint(h.turn), Wait: true, WaitTimeout: time.Millisecond,
		})
		return err
	}))
}

// leave goes away while it waits, without a word.
func (h *hand) leave() error {
	if len(h.kept) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(h.ctx, time.Duration(h.dice.IntN(2000))*time.Microsecond)
	defer cancel()
	got, err := h.client.Acquire(ctx, &client.AcquireRequest{
		LockID: h.kept[0].LockID, ClientID: h.id + "-leaver", RequestID: fmt.Sprint(h.turn), Wait: true, WaitTimeout: longTTL, TTL: time.Second,
	})
	if err == nil {
		return fmt.Errorf("%s is held, and was granted: %+v", h.kept[0].LockID, got.Lock)
	}
	h.acks.Add(1)
	return nil
}

// acquire takes a lock under a fresh request id, whatever it takes.
func (h *hand) acquire(req *client.AcquireRequest) (lock *client.Lock, err error) {
	req.ClientID, req.RequestID = h.id, fmt.Sprint(h.turn)
	err = h.call(func(ctx context.Context) error {
		got, err := h.client.Acquire(ctx, req)
		if err == nil {
			lock = got.Lock
		}
		return err
	})
	return lock, err
}

func (h *hand) renew(lock *client.Lock) error {
	return h.call(func(ctx context.Context) error {
		_, err := h.client.Renew(ctx, &client.RenewRequest{LockID: lock.LockID, ClientID: h.id, Version: lock.Version, NewTTL: longTTL})
		return err
	})
}

func (h *hand) release(lock *client.Lock) error {
	return h.call(func(ctx context.Context) error {
		_, err := h.client.Release(ctx, &client.ReleaseRequest{LockID: lock.LockID, ClientID: h.id, Version: lock.Version})
		return err
	})
}

// call repeats a call until the table has answered it.
func (h *hand) call(do func(ctx context.Context) error) error {
	for outage := false; ; outage = true {
		err := do(h.ctx)
		if h.ctx.Err() != nil {
			return h.ctx.Err()
		}
		if !isOutage(err) {
			h.acks.Add(1)
			if outage && errors.Is(err, client.ErrNotLockOwner) {
				return nil // a release that was applied before its answer was lost
			}
			return err
		}
		h.outages.Add(1)
		select {
		case <-time.After(10 * time.Millisecond):
		case <-h.ctx.Done():
		}
	}
}

func (h *hand) metadata() map[string]string {
	if h.dice.IntN(4) > 0 {
		return nil
	}
	return map[string]string{"turn": fmt.Sprint(h.turn), "what": strings.Repeat("x", h.dice.IntN(64))}
}

// expect is nil if err is what was wanted.
func expect(want, err error) error {
	if errors.Is(err, want) {
		return nil
	}
	return fmt.Errorf("want %q, got: %w", want, err)
}

// visitors are programs that come, want one lock that nobody has ever had, and
// go: at a rate of their own, so that the cluster has the same to remember of
// them however fast the others are. They dial anew every so often.
func (w *crew) visitors(endpoints []string, every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for i := 0; ; i++ {
		select {
		case <-ticker.C:
		case <-w.ctx.Done():
			return
		}
		var err error
		if name := fmt.Sprintf("%s-visitor-%d", w.name, i); i%64 == 0 {
			err = visit(w.ctx, endpoints, name)
		} else {
			err = client.Do(w.ctx, w.client, name, nothing, client.WithTTL(10*time.Second))
		}
		switch {
		case w.ctx.Err() != nil:
			return
		case isOutage(err):
			w.outages.Add(1)
		case err != nil:
			w.fail(fmt.Errorf("visitor %d: %w", i, err))
			return
		default:
			w.acks.Add(2)
		}
	}
}

// visit is a program's whole life.
func visit(ctx context.Context, endpoints []string, lock string) error {
	c, err := client.Dial(client.Config{Endpoints: endpoints})
	if err != nil {
		return err
	}
	return errors.Join(client.Do(ctx, c, lock, nothing), c.Close())
}

func nothing(context.Context, int64) error { return nil }

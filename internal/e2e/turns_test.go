package e2e

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/raftlock/raftlock/client"
)

// briefTTL is the TTL of grants that nobody releases.
const briefTTL = 300 * time.Millisecond

// turns are callers over the network, who outlive the members. They take turns
// at a few locks; what they are told is held against each other.
type turns struct {
	*load
	t      *testing.T
	work   sync.WaitGroup
	stop   atomic.Bool
	grants atomic.Int64
	mu     sync.Mutex
	holder map[string]string       // by lock: whose acknowledged grant lasts
	brief  map[string][]briefGrant // by lock
}

// briefGrant is an acknowledged grant that ends by itself.
type briefGrant struct {
	version int64
	begins  time.Time // not before
	told    time.Time
}

// takeTurns starts two callers for each of a few locks.
func takeTurns(t *testing.T, l *load) *turns {
	s := &turns{load: l, t: t, holder: map[string]string{}, brief: map[string][]briefGrant{}}
	for i := range 4 {
		policy := client.DefaultRetryPolicy()
		policy.MaxRetries, policy.MaxBackoff = 1000, 200*time.Millisecond
		c := dial(t, l.f.endpoints())
		c.SetRetryPolicy(policy)
		for lock := range 2 {
			s.work.Go(func() { s.taker(c, fmt.Sprint("turn-", lock), fmt.Sprint("taker-", i)) })
		}
		s.work.Go(func() { s.leaver(c, fmt.Sprint("brief-", i%2), fmt.Sprint("leaver-", i)) })
	}
	return s
}

func (s *turns) end() {
	s.stop.Store(true)
	s.work.Wait()
}

// acquire waits for a lock as long as it takes. An outage is no answer: the same
// request again finds out what became of it.
func (s *turns) acquire(c client.Client, req *client.AcquireRequest) (*client.Lock, error) {
	floor := s.max.Load()
	for begun := time.Now(); ; {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		got, err := c.Acquire(ctx, req)
		cancel()
		if err == nil {
			s.grants.Add(1)
			return got.Lock, s.acknowledged(req.LockID, got.Lock.Version, floor)
		}
		if !isOutage(err) || time.Since(begun) > patience {
			return nil, err
		}
	}
}

// isOutage reports whether an error says only that nobody answered.
func isOutage(err error) bool {
	return errors.Is(err, client.ErrOutcomeUnknown) || errors.Is(err, client.ErrUnavailable) || errors.Is(err, client.ErrLeaderUnavailable)
}

// taker takes a lock, renews it and gives it back, again and again.
func (s *turns) taker(c client.Client, lock, id string) {
	for n := 0; !s.stop.Load(); n++ {
		got, err := s.acquire(c, &client.AcquireRequest{
			LockID: lock, ClientID: id, RequestID: fmt.Sprint(n), Wait: true, WaitTimeout: longTTL, TTL: longTTL,
		})
		if err == nil {
			err = s.begin(lock, id)
		}
		if err == nil {
			err = s.renew(c, got, n%3)
		}
		if err == nil {
			s.over(lock)
			err = s.release(c, got)
		}
		if err != nil {
			s.t.Errorf("%s, turn %d at %s: %v", id, n, lock, err)
			return
		}
	}
}

func (s *turns) begin(lock, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if other := s.holder[lock]; other != "" {
		return fmt.Errorf("it is granted while %s has it", other)
	}
	s.holder[lock] = id
	return nil
}

func (s *turns) over(lock string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.holder, lock)
}

func (s *turns) renew(c client.Client, lock *client.Lock, times int) error {
	for begun := time.Now(); times > 0; {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		got, err := c.Renew(ctx, &client.RenewRequest{LockID: lock.LockID, ClientID: lock.OwnerID, Version: lock.Version, NewTTL: longTTL})
		cancel()
		switch {
		case err == nil && got.Lock.Version != lock.Version:
			return fmt.Errorf("renewing made token %d of %d", got.Lock.Version, lock.Version)
		case err == nil:
			times--
		case !isOutage(err) || time.Since(begun) > patience:
			return fmt.Errorf("renew: %w", err)
		}
	}
	return nil
}

// release gives a lock back. After an outage it may find that it has done so.
func (s *turns) release(c client.Client, lock *client.Lock) error {
	begun, again := time.Now(), false
	for {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		_, err := c.Release(ctx, &client.ReleaseRequest{LockID: lock.LockID, ClientID: lock.OwnerID, Version: lock.Version})
		cancel()
		gone := errors.Is(err, client.ErrNotLockOwner) || errors.Is(err, client.ErrVersionMismatch) || errors.Is(err, client.ErrLockNotFound)
		switch {
		case err == nil, again && gone:
			return nil
		case !isOutage(err) || time.Since(begun) > patience:
			return fmt.Errorf("release: %w", err)
		}
		again = true
	}
}

// leaver takes a lock and lets its grant end by itself, again and again.
func (s *turns) leaver(c client.Client, lock, id string) {
	for n := 0; !s.stop.Load(); n++ {
		asked := time.Now()
		got, err := s.acquire(c, &client.AcquireRequest{
			LockID: lock, ClientID: id, RequestID: fmt.Sprint(n), Wait: true, WaitTimeout: longTTL, TTL: briefTTL,
		})
		if errors.Is(err, client.ErrNotWaiting) {
			continue // it was granted, and is over, before anybody heard of it
		}
		if err == nil {
			err = s.passes(lock, briefGrant{version: got.Version, begins: asked, told: time.Now()})
		}
		if err != nil {
			s.t.Errorf("%s, grant %d of %s: %v", id, n, lock, err)
			return
		}
	}
}

// passes notes a grant that ends by itself: no other was told before that.
func (s *turns) passes(lock string, g briefGrant) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.brief[lock]
	for _, b := range before {
		if end := b.begins.Add(briefTTL); b.version < g.version && end.After(g.begins) {
			g.begins = end
		}
	}
	if early := g.begins.Sub(g.told); early > 0 {
		return fmt.Errorf("it is granted %v before the end of the grant before", early)
	}
	for _, b := range before {
		if early := g.begins.Add(briefTTL).Sub(b.told); b.version > g.version && early > 0 {
			return fmt.Errorf("the next was granted %v before its end", early)
		}
	}
	s.brief[lock] = append(before[max(0, len(before)-16):], g)
	return nil
}

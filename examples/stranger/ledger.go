// Package stranger is what a stranger to raftlock has: a service of his own, in a
// module of his own, that uses what is exported and nothing else, and tests it
// with a cluster of package testcluster.
package stranger

import (
	"context"
	"sync"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/fence"
)

// ttl is how long the ledger's lock outlives a poster that has died.
const ttl = 10 * time.Second

// Poster posts to a ledger that it shares with others.
type Poster struct {
	Locks  client.RaftLockClient
	Ledger *Ledger
}

// Post adds an amount to the ledger when it is the poster's turn. fn, if it is not
// nil, is called before, under the lock, and may take its time.
func (p *Poster) Post(ctx context.Context, amount int, fn func(ctx context.Context, token int64)) error {
	return client.Do(ctx, p.Locks, "ledger", func(ctx context.Context, token int64) error {
		if fn != nil {
			fn(ctx, token)
		}
		return p.Ledger.Add(ctx, token, amount)
	}, client.WithTTL(ttl))
}

// Ledger is a sum that only the holder of a lock may change.
type Ledger struct {
	guard fence.Guard

	mu  sync.Mutex
	sum int
}

// Add adds an amount in the name of a token. It returns an error around
// fence.ErrStale when a greater token has been here.
func (l *Ledger) Add(ctx context.Context, token int64, amount int) error {
	return l.guard.Do(ctx, "ledger", token, func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.sum += amount
		return nil
	})
}

// Sum is the present sum.
func (l *Ledger) Sum() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sum
}

package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/raftlock/raftlock/client"
)

// invoicer is one instance of a service that numbers invoices. All instances
// share one book, and only the holder of a lock may write into it.
type invoicer struct {
	id    string
	locks client.RaftLockClient
	book  *book
}

// invoice writes one invoice, as soon as it is this instance's turn.
func (v *invoicer) invoice(ctx context.Context, customer string) error {
	return client.Do(ctx, v.locks, "invoices", func(_ context.Context, token int64) error {
		return v.book.write(token, v.id, customer)
	}, client.WithClientID(v.id), client.WithTTL(10*time.Second))
}

// book is what the lock protects; in a real service a database. It remembers the
// greatest token it has seen and refuses smaller ones: a writer that was stopped,
// lost its lock meanwhile and goes on as if nothing had happened does no harm.
type book struct {
	mu       sync.Mutex
	greatest int64
	invoices []string
}

var errStale = errors.New("a newer holder has written already")

func (b *book) write(token int64, by, customer string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if token < b.greatest {
		return fmt.Errorf("%w: token %d after %d", errStale, token, b.greatest)
	}
	b.greatest = token
	b.invoices = append(b.invoices, fmt.Sprintf("%d  %s  by %s", len(b.invoices)+1, customer, by))
	return nil
}

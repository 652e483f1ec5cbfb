package main

import (
	"context"
	"fmt"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/fence"
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
	return client.Do(ctx, v.locks, "invoices", func(ctx context.Context, token int64) error {
		return v.book.write(ctx, token, v.id, customer)
	}, client.WithClientID(v.id), client.WithTTL(10*time.Second))
}

// book is what the lock protects; in a real service a database. Its guard remembers
// the greatest token it has seen and refuses smaller ones: a writer that was stopped,
// lost its lock meanwhile and goes on as if nothing had happened does no harm.
type book struct {
	guard    fence.Guard
	invoices []string // written by who has the guard's turn
}

func (b *book) write(ctx context.Context, token int64, by, customer string) error {
	return b.guard.Do(ctx, "invoices", token, func() error {
		b.invoices = append(b.invoices, fmt.Sprintf("%d  %s  by %s", len(b.invoices)+1, customer, by))
		return nil
	})
}

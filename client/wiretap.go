package client

import (
	"context"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/stats"
)

// wiretap hears from gRPC what its results do not tell: whether an attempt got
// as far as a member's connection, and how many connections stand.
type wiretap struct {
	changed func(connections int) // called in order; must not block

	mu struct {
		sync.Mutex
		connections int
	}
}

var _ stats.Handler = (*wiretap)(nil)

// sentKey finds the mark of an attempt in its context.
type sentKey struct{}

// withMark returns the context of one attempt, and what is set when a member
// may have received it. gRPC tells so before it hands the message to the
// connection; an attempt without a mark never left this process.
func withMark(ctx context.Context) (context.Context, *atomic.Bool) {
	sent := new(atomic.Bool)
	return context.WithValue(ctx, sentKey{}, sent), sent
}

func (w *wiretap) HandleRPC(ctx context.Context, event stats.RPCStats) {
	if _, ok := event.(*stats.OutHeader); !ok {
		return
	}
	if sent, ok := ctx.Value(sentKey{}).(*atomic.Bool); ok {
		sent.Store(true)
	}
}

func (w *wiretap) HandleConn(_ context.Context, event stats.ConnStats) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch event.(type) {
	case *stats.ConnBegin:
		w.mu.connections++
	case *stats.ConnEnd:
		w.mu.connections--
	}
	w.changed(w.mu.connections)
}

func (w *wiretap) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

func (w *wiretap) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

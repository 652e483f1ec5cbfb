package memnet

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/raftlock/raftlock"
)

// errClosed answers every use of what this side has closed.
var errClosed = fmt.Errorf("closed: %w", net.ErrClosed)

type acceptFunc = func(raftlock.PeerStream)

// Transport is one machine on a Network. It implements raftlock.Transport.
// Close must not be called from within accept: it waits for it.
type Transport struct {
	network *Network
	addr    string
	// done is closed by Close; it ends dials that hang.
	done chan struct{}
	// acceptors counts the goroutines that run accept. They are started
	// under network.mu, and never once closed is set.
	acceptors sync.WaitGroup

	// Guarded by network.mu. accept is set once and constant from then on.
	accept acceptFunc
	closed bool
}

var _ raftlock.Transport = (*Transport)(nil)

// Addr returns the address that New's Network gave the transport.
func (t *Transport) Addr() string { return t.addr }

// Serve listens at the transport's address. It returns an error when another
// transport does, on a second call, and after Close.
func (t *Transport) Serve(accept func(raftlock.PeerStream)) error {
	if err := t.network.listen(t, accept); err != nil {
		return fmt.Errorf("memnet: serve at %s: %w", t.addr, err)
	}
	return nil
}

// Dial opens a stream to whoever serves at addr. Over a cut link it hangs
// until the link is mended, ctx ends, or the transport is closed; if nobody
// serves it returns an error at once. The stream's end with the peer closes
// when the peer's accept returns.
func (t *Transport) Dial(ctx context.Context, addr string) (raftlock.PeerStream, error) {
	end, err := t.dial(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("memnet: dial %s from %s: %w", addr, t.addr, err)
	}
	return end, nil
}

func (t *Transport) dial(ctx context.Context, addr string) (*stream, error) {
	for {
		t.cross(ctx, addr)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		end, again, err := t.network.connect(t, addr)
		if again == nil {
			return end, err
		}
		select {
		case <-again:
		case <-ctx.Done():
		case <-t.done:
		}
	}
}

// cross waits as long as the way to addr and back takes, unless it is cut short.
func (t *Transport) cross(ctx context.Context, addr string) {
	way := t.network.roundTrip(t.addr, addr)
	if way == 0 {
		return
	}
	timer := time.NewTimer(way)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-t.done:
	}
}

// receive runs accept for one stream, and ends the stream after it.
func (t *Transport) receive(end *stream) {
	defer end.Close() //nolint:errcheck // never fails
	t.accept(end)
}

// Close hangs up every stream, frees the address, and returns when every
// accept has. It returns nil, every time.
func (t *Transport) Close() error {
	t.network.remove(t)
	t.acceptors.Wait()
	return nil
}

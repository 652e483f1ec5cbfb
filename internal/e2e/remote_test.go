package e2e

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"

	"github.com/raftlock/raftlock/client"
)

// serving starts n members that serve programs over the network.
func serving(t *testing.T, n int) *fleet {
	t.Helper()
	if testing.Short() {
		t.Skip("short")
	}
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("n%d", i+1))
	}
	f := newFleet(t, names...)
	f.ports = map[string]string{}
	f.choose(names, f.ports)
	f.startAll()
	return f
}

// endpoints are where members serve: those named, or all.
func (f *fleet) endpoints(names ...string) (list []string) {
	if len(names) == 0 {
		names = f.names()
	}
	for _, name := range names {
		list = append(list, f.ports[name])
	}
	return list
}

// program starts a process without a member, which ends with the test.
func (f *fleet) program(name string) *process {
	f.tb.Helper()
	p := newProcess(f.tb, childConfig{Name: name, Endpoints: f.endpoints()}, &f.log, nil)
	f.tb.Cleanup(p.end)
	p.await(eventReady)
	return p
}

// dial makes a client of the test's own.
func dial(tb testing.TB, endpoints []string, opts ...grpc.DialOption) client.Client {
	tb.Helper()
	c, err := client.Dial(client.Config{Endpoints: endpoints, DialOptions: opts})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.Close() })
	return c
}

// within is a context for one wait.
func within(tb testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	tb.Cleanup(cancel)
	return ctx
}

// info is what a client hears of a lock; nothing of one that was never taken.
func info(tb testing.TB, c client.Client, lock string) *client.LockInfo {
	tb.Helper()
	got, err := c.GetLockInfo(within(tb), &client.GetLockInfoRequest{LockID: lock, IncludeWaiters: true})
	if err != nil {
		return &client.LockInfo{}
	}
	return got
}

// wires are the connections of a client, in the hands of the test.
type wires struct {
	deaf atomic.Bool // what the members say is lost
	mute atomic.Bool // what the client says is lost

	mu   sync.Mutex
	open []net.Conn
}

// option makes a client's connections wires.
func (w *wires) option() grpc.DialOption {
	return grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.open = append(w.open, conn)
		return &wire{conn, w}, nil
	})
}

// mend breaks all connections; those that are made from now on are sound.
func (w *wires) mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deaf.Store(false)
	w.mute.Store(false)
	for _, conn := range w.open {
		_ = conn.Close()
	}
	w.open = nil
}

type wire struct {
	net.Conn
	of *wires
}

// Read looks again after it has read: what was said to the deaf is lost, also
// when the reading began before.
func (w *wire) Read(p []byte) (int, error) {
	for {
		n, err := w.Conn.Read(p)
		if err != nil || !w.of.deaf.Load() {
			return n, err
		}
	}
}

func (w *wire) Write(p []byte) (int, error) {
	if w.of.mute.Load() {
		return len(p), nil
	}
	return w.Conn.Write(p)
}

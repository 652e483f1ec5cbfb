package peerwire

import (
	"context"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/internal/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long anything may take before it counts as hanging.
const patience = 30 * time.Second

// open returns a transport on the loopback interface and its address.
func open(tb testing.TB, addr string, cfg Config, limits limits) (*Transport, string) {
	tb.Helper()
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	cfg.Listener = listener
	transport, err := newTransport(cfg, limits)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := transport.Close(); err != nil {
			tb.Error(err)
		}
	})
	return transport, listener.Addr().String()
}

func serve(tb testing.TB, t *Transport, accept func(raftlock.PeerStream)) {
	tb.Helper()
	if err := t.Serve(accept); err != nil {
		tb.Fatal(err)
	}
}

func echoAll(s raftlock.PeerStream) {
	for {
		frame, err := s.Recv()
		if err != nil || s.Send(frame) != nil {
			return
		}
	}
}

// dial is Dial that hangs at most for patience.
func dial(tb testing.TB, t *Transport, addr string) (raftlock.PeerStream, error) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	return t.Dial(ctx, addr)
}

// echoes checks that the acceptor at addr takes a stream and sends back.
func echoes(t *testing.T, from *Transport, addr string) {
	t.Helper()
	s, err := dial(t, from, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close() //nolint:errcheck // never fails
	if err := s.Send([]byte("there and back")); err != nil {
		t.Fatal(err)
	}
	if frame, err := s.Recv(); err != nil || string(frame) != "there and back" {
		t.Fatalf("received %q, %v", frame, err)
	}
}

// take receives from a channel, in time.
func take[T any](t *testing.T, what string, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatalf("wait for %s: nothing after %v", what, patience)
		panic("unreachable")
	}
}

func factory(cfg Config) transporttest.Factory {
	return func(tb testing.TB) transporttest.Open {
		return func(addr string) (raftlock.Transport, string) {
			return open(tb, addr, cfg, defaultLimits)
		}
	}
}

func TestContract(t *testing.T) { transporttest.Run(t, factory(Config{})) }

func TestContractMutualTLS(t *testing.T) {
	if testing.Short() {
		t.Skip("the plain one runs")
	}
	transporttest.Run(t, factory(Config{TLS: newAuthority(t).mutual(t)}))
}

func TestNewNeedsListener(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("New takes a Config without a listener")
	}
}

// A stream that broke costs nothing once its error was received, nor once it
// was closed, however long the transport lives on.
func TestStreamsDoNotPile(t *testing.T) {
	server, addr := open(t, "", Config{}, defaultLimits)
	client, _ := open(t, "", Config{}, defaultLimits)
	serve(t, server, func(s raftlock.PeerStream) { _, _ = s.Recv() })
	before := goleak.IgnoreCurrent()
	for i := range 20 {
		s, err := dial(t, client, addr)
		if err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			_ = s.Close()
			continue
		}
		if err := s.Send([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); err == nil {
			t.Error("receives what nobody sent")
		}
	}
	if err := goleak.Find(before); err != nil {
		t.Error(err)
	}
}

package transporttest

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/raftlock/raftlock"
)

func dialNobody(t *testing.T, open Open) {
	gone := newMember(t, open, "")
	closes(t, gone)
	from := newMember(t, open, "")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := from.Dial(ctx, gone.addr)
	if err == nil {
		t.Fatalf("Dial finds %v where nobody listens", s)
	}
	if ctx.Err() != nil {
		t.Errorf("Dial waits for its context where nobody listens: %v", err)
	}
}

func dialEnded(t *testing.T, open Open) {
	server := serving(t, open, echoing)
	from := newMember(t, open, "")
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := from.Dial(canceled, server.addr); !errors.Is(err, context.Canceled) {
		t.Errorf("Dial with a cancelled context: %v", err)
	}
	late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	if _, err := from.Dial(late, server.addr); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Dial after its deadline: %v", err)
	}
}

func contextBoundsDial(t *testing.T, open Open) {
	server := serving(t, open, echoing)
	ctx, cancel := context.WithCancel(t.Context())
	s, err := newMember(t, open, "").Dial(ctx, server.addr)
	noError(t, "dial", err)
	cancel()
	for range 20 {
		noError(t, "send after the context's end", s.Send([]byte("x")))
		_, err := s.Recv()
		noError(t, "receive after the context's end", err)
	}
	noError(t, "close", s.Close())
}

// dialBeforeServe says only that it ends, and that it works afterwards: a
// transport may refuse until Serve, or keep the dial waiting.
func dialBeforeServe(t *testing.T, open Open) {
	server := newMember(t, open, "")
	from := newMember(t, open, "")
	early, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if s, err := from.Dial(early, server.addr); err == nil {
		t.Errorf("Dial finds %v before Serve", s)
	}
	noError(t, "serve", server.Serve(echoing))
	s := dial(t, from, server.addr)
	noError(t, "send", s.Send([]byte("x")))
	_, err := s.Recv()
	noError(t, "receive", err)
	noError(t, "close", s.Close())
}

func serveTwice(t *testing.T, open Open) {
	server := serving(t, open, echoing)
	if err := server.Serve(echoing); err == nil {
		t.Error("a second Serve succeeds")
	}
	s := dial(t, server, server.addr) // to itself, the first still works
	noError(t, "send", s.Send([]byte("x")))
	_, err := s.Recv()
	noError(t, "receive", err)
}

func transportCloseBreaks(t *testing.T, open Open) {
	for _, dialler := range []bool{true, false} {
		p := newPair(t, open)
		closing, own, other := p.acceptor, p.accepted, p.dialled
		if dialler {
			closing, own, other = p.dialler, p.dialled, p.accepted
		}
		received := make(chan error, 2)
		for _, s := range []raftlock.PeerStream{own, other} {
			go func() {
				_, err := s.Recv()
				received <- err
			}()
		}
		closes(t, closing)
		for range 2 {
			if err := take(t, "a Recv", received); err == nil {
				t.Error("Recv returns a frame that nobody sent")
			}
		}
		if err := own.Send([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Send after the own transport's Close: %v, want net.ErrClosed", err)
		}
		sendFails(t, own)
		sendFails(t, other)
	}
}

func transportCloseWaits(t *testing.T, open Open) {
	entered := make(chan struct{})
	release := make(chan struct{})
	returned := make(chan struct{})
	server := serving(t, open, func(s raftlock.PeerStream) {
		close(entered)
		_, _ = s.Recv()
		<-release
		close(returned)
	})
	s := dial(t, newMember(t, open, ""), server.addr)
	take(t, "accept to run", entered)
	closed := make(chan error, 1)
	go func() {
		err := server.Close()
		select {
		case <-returned:
		default:
			t.Error("Close returns before accept has")
		}
		closed <- err
	}()
	recvFails(t, s) // so Close is well under way
	close(release)
	noError(t, "close", take(t, "Close", closed))
	noError(t, "close", s.Close())
}

func transportCloseTwice(t *testing.T, open Open) {
	p := newPair(t, open)
	closed := make(chan error, 4)
	for range cap(closed) {
		go func() { closed <- p.acceptor.Close() }()
	}
	recvFails(t, p.accepted)
	for range cap(closed) {
		noError(t, "close", take(t, "a Close of several", closed))
	}
	closes(t, p.acceptor)
	closes(t, p.dialler)
	closes(t, p.dialler)
}

func closedTransport(t *testing.T, open Open) {
	server := serving(t, open, echoing)
	m := newMember(t, open, "") // never served
	closes(t, m)
	if _, err := m.Dial(t.Context(), server.addr); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Dial after Close: %v, want net.ErrClosed", err)
	}
	if err := m.Serve(echoing); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve after Close: %v, want net.ErrClosed", err)
	}
}

// closeWhileDialling races Dial with Close of either side: whatever comes
// first, nothing hangs and nothing stays.
func closeWhileDialling(t *testing.T, open Open) {
	for i := range 30 {
		server := serving(t, open, echoing)
		from := newMember(t, open, "")
		dialled := make(chan struct{}, 8)
		for range cap(dialled) {
			go func() {
				if s, err := from.Dial(t.Context(), server.addr); err == nil {
					_ = s.Send([]byte("x"))
					_, _ = s.Recv()
					_ = s.Close()
				}
				dialled <- struct{}{}
			}()
		}
		first, second := server, from
		if i%2 == 0 {
			first, second = from, server
		}
		closes(t, first)
		for range cap(dialled) {
			take(t, "a Dial", dialled)
		}
		closes(t, second)
	}
}

func restart(t *testing.T, open Open) {
	first := serving(t, open, echoing)
	from := newMember(t, open, "")
	server := first
	for i := range 5 {
		s := dial(t, from, server.addr)
		noError(t, "send", s.Send(pattern(i, 200)))
		_, err := s.Recv()
		noError(t, "receive", err)
		closes(t, server)
		recvFails(t, s)
		noError(t, "close", s.Close())

		server = newMember(t, open, first.addr)
		if server.addr != first.addr {
			t.Fatalf("reopened at %s instead of %s", server.addr, first.addr)
		}
		noError(t, "serve again", server.Serve(echoing))
	}
}

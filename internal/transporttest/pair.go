package transporttest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/raftlock/raftlock"
)

// patience is how long anything may take before it counts as hanging.
const patience = 30 * time.Second

// member is one transport of a check, closed when the check ends.
type member struct {
	raftlock.Transport
	addr string
}

func newMember(t *testing.T, open Open, addr string) member {
	t.Helper()
	transport, address := open(addr)
	m := member{transport, address}
	t.Cleanup(func() { closes(t, m) })
	return m
}

// closes closes a transport, which may have to wait, but not for ever.
func closes(t *testing.T, m member) {
	t.Helper()
	var err error
	within(t, "close a transport", func() { err = m.Close() })
	noError(t, "close a transport", err)
}

// serving returns a member that gives what it accepts to accept.
func serving(t *testing.T, open Open, accept func(raftlock.PeerStream)) member {
	t.Helper()
	m := newMember(t, open, "")
	noError(t, "serve", m.Serve(accept))
	return m
}

// stay returns an accept for Serve that publishes its streams. It stays until
// Recv has returned an error, or to the end of the check: in particular after
// Close, which has to break the stream by itself.
func stay(t *testing.T) (func(raftlock.PeerStream), <-chan raftlock.PeerStream) {
	t.Helper()
	streams, released := make(chan raftlock.PeerStream, 1), make(chan struct{})
	// Registered by callers after the transport's Close, so it runs before.
	t.Cleanup(func() { close(released) })
	return func(s raftlock.PeerStream) {
		watched := newWatched(s)
		streams <- watched
		select {
		case <-watched.over:
		case <-released:
		}
	}, streams
}

// watched is an accepted stream that tells when its Recv has returned an
// error.
type watched struct {
	raftlock.PeerStream
	over chan struct{}
	end  func() // closes over, once
}

func newWatched(s raftlock.PeerStream) *watched {
	over := make(chan struct{})
	return &watched{s, over, sync.OnceFunc(func() { close(over) })}
}

func (w *watched) Recv() ([]byte, error) {
	frame, err := w.PeerStream.Recv()
	if err != nil {
		w.end()
	}
	return frame, err
}

// pair is a stream with both its ends in the hands of the check.
type pair struct {
	dialler, acceptor member
	dialled, accepted raftlock.PeerStream
}

func newPair(t *testing.T, open Open) pair {
	t.Helper()
	p := pair{acceptor: newMember(t, open, ""), dialler: newMember(t, open, "")}
	accept, streams := stay(t)
	noError(t, "serve", p.acceptor.Serve(accept))
	p.dialled = dial(t, p.dialler, p.acceptor.addr)
	p.accepted = take(t, "an accepted stream", streams)
	// Last in, first out: the ends close before the transports wait for them.
	t.Cleanup(func() {
		noError(t, "close the accepting end", p.accepted.Close())
		noError(t, "close the dialled end", p.dialled.Close())
	})
	return p
}

func dial(t *testing.T, from member, addr string) raftlock.PeerStream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := from.Dial(ctx, addr)
	noError(t, "dial", err)
	return s
}

// within fails the check when f does not return in time.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		t.Fatalf("%s: still not done after %v", what, patience)
	}
}

// take receives from a channel, in time.
func take[T any](t *testing.T, what string, from <-chan T) T {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case v := <-from:
		return v
	case <-timer.C:
		t.Fatalf("wait for %s: nothing after %v", what, patience)
		panic("unreachable")
	}
}

func noError(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// recvFails waits until Recv returns an error, and checks that it stays.
func recvFails(t *testing.T, s raftlock.PeerStream) {
	t.Helper()
	within(t, "receive until an error", func() {
		for {
			if _, err := s.Recv(); err != nil {
				break
			}
		}
		for range 3 {
			if _, err := s.Recv(); err == nil {
				t.Error("a frame after an error of Recv")
			}
		}
	})
}

// sendFails waits until Send returns an error, and checks that it stays.
func sendFails(t *testing.T, s raftlock.PeerStream) {
	t.Helper()
	within(t, "send until an error", func() {
		for s.Send(make([]byte, 64<<10)) == nil {
			continue
		}
		for range 3 {
			if err := s.Send([]byte("more")); err == nil {
				t.Error("Send succeeds after an error of Send")
			}
		}
	})
}

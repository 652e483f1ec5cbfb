package transporttest

import (
	"errors"
	"net"
	"testing"

	"github.com/raftlock/raftlock"
)

func diallerCloses(t *testing.T, open Open) {
	p := newPair(t, open)
	bothEnd(t, p.dialled, p.accepted)
}

func acceptorCloses(t *testing.T, open Open) {
	p := newPair(t, open)
	bothEnd(t, p.accepted, p.dialled)
}

// bothEnd closes one end while both wait to receive, and checks both.
func bothEnd(t *testing.T, closing, other raftlock.PeerStream) {
	t.Helper()
	received := make(chan error, 1)
	go func() {
		_, err := other.Recv()
		received <- err
	}()
	noError(t, "send", other.Send([]byte("never read")))
	noError(t, "close", closing.Close())
	if err := take(t, "the other end's Recv", received); err == nil {
		t.Error("the other end receives a frame that nobody sent")
	}
	if _, err := closing.Recv(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Recv after the own Close: %v, want net.ErrClosed", err)
	}
	if err := closing.Send([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Send after the own Close: %v, want net.ErrClosed", err)
	}
	for _, s := range []raftlock.PeerStream{closing, other} {
		recvFails(t, s)
		sendFails(t, s)
	}
}

func closeUnblocksOwnRecv(t *testing.T, open Open) {
	p := newPair(t, open)
	for _, s := range []raftlock.PeerStream{p.dialled, p.accepted} {
		received := make(chan error, 1)
		go func() {
			_, err := s.Recv()
			received <- err
		}()
		noError(t, "close", s.Close())
		if err := take(t, "Recv at the end that closes", received); err == nil {
			t.Error("Recv returns a frame that nobody sent")
		}
	}
}

// closeUnblocksSend fills both directions, with nobody receiving, and closes:
// the blocked senders of both ends have to come free.
func closeUnblocksSend(t *testing.T, open Open) {
	for _, dialler := range []bool{true, false} {
		p := newPair(t, open)
		closing := p.accepted
		if dialler {
			closing = p.dialled
		}
		filled := make(chan struct{}, 2)
		ended := make(chan error, 2)
		for _, s := range []raftlock.PeerStream{p.dialled, p.accepted} {
			go func() {
				for i := 0; ; i++ {
					if i == 4 {
						filled <- struct{}{}
					}
					if err := s.Send(make([]byte, 1<<20)); err != nil {
						ended <- err
						return
					}
				}
			}()
		}
		take(t, "a sender to be under way", filled)
		take(t, "the other sender to be under way", filled)
		within(t, "close", func() { _ = closing.Close() })
		take(t, "a sender to come free", ended)
		take(t, "the other sender to come free", ended)
		recvFails(t, p.dialled)
		recvFails(t, p.accepted)
	}
}

func closeTwice(t *testing.T, open Open) {
	p := newPair(t, open)
	for range 3 {
		noError(t, "close", p.dialled.Close())
		noError(t, "close", p.accepted.Close())
	}
}

// acceptReturns checks that a stream ends with accept, and that what was sent
// before arrives: an acceptor that refuses a peer says why and returns.
func acceptReturns(t *testing.T, open Open) {
	kept := make(chan raftlock.PeerStream, 1)
	server := serving(t, open, func(s raftlock.PeerStream) {
		kept <- s
		_, _ = s.Recv()
		for range 3 {
			_ = s.Send([]byte("refused"))
		}
	})
	s := dial(t, newMember(t, open, ""), server.addr)
	noError(t, "send", s.Send([]byte("hello")))
	sendFails(t, s) // the end is here before the frames are read
	for range 3 {
		frame, err := s.Recv()
		noError(t, "receive what was sent before the end", err)
		if string(frame) != "refused" {
			t.Errorf("received %q", frame)
		}
	}
	recvFails(t, s)
	sendFails(t, s)
	accepted := take(t, "the accepted stream", kept)
	if err := accepted.Send([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Send after accept has returned: %v, want net.ErrClosed", err)
	}
	recvFails(t, accepted)
	sendFails(t, accepted)
	noError(t, "close", s.Close())
	noError(t, "close after accept", accepted.Close())
}

// acceptReturnsBusy lets accept return while goroutines that it leaves behind
// send and receive.
func acceptReturnsBusy(t *testing.T, open Open) {
	ended := make(chan struct{}, 2)
	server := serving(t, open, func(s raftlock.PeerStream) {
		entered := make(chan struct{})
		go func() {
			for s.Send(make([]byte, 1<<20)) == nil {
				continue
			}
			ended <- struct{}{}
		}()
		go func() {
			_, _ = s.Recv()
			close(entered)
			for {
				if _, err := s.Recv(); err != nil {
					break
				}
			}
			ended <- struct{}{}
		}()
		<-entered
	})
	s := dial(t, newMember(t, open, ""), server.addr)
	noError(t, "send", s.Send([]byte("hello")))
	take(t, "a goroutine on the ended stream", ended)
	take(t, "the other goroutine on the ended stream", ended)
	recvFails(t, s)
	noError(t, "close", s.Close())
}

package peerwire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/raftlock/raftlock"
)

var (
	// errClosed answers every use of what this side has closed.
	errClosed = fmt.Errorf("closed: %w", net.ErrClosed)
	// errEnded is what a stream's end by the peer looks like.
	errEnded = errors.New("the peer ended the stream")
)

// call is what gRPC calls a stream, at either end.
type call interface {
	SendMsg(v any) error
	RecvMsg(v any) error
}

// stream is one end of a stream. It implements raftlock.PeerStream.
type stream struct {
	call call
	link *link
	peer string
	// cancel ends the call. At the accepting end it does nothing: there the
	// call ends with its link.
	cancel context.CancelFunc
	// broken is why every further Send and Recv returns an error; nil while
	// they need not.
	broken atomic.Pointer[error]
}

var _ raftlock.PeerStream = (*stream)(nil)

// Send hands frame to gRPC, which keeps it until it is written. It blocks
// while the peer has a full window to receive. A frame that is too large is
// refused and leaves the stream whole.
func (s *stream) Send(frame []byte) error {
	if len(frame) > raftlock.MaxFrame {
		return fmt.Errorf("peerwire: send to %s: a frame of %d bytes is larger than MaxFrame, %d", s.peer, len(frame), raftlock.MaxFrame)
	}
	if err := s.err(); err != nil {
		return fmt.Errorf("peerwire: send to %s: %w", s.peer, err)
	}
	err := s.call.SendMsg(&frame)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF):
		// The dialling end's call is over, but the peer's last frames may
		// still wait for Recv, and they often say why: Recv ends the stream.
		return fmt.Errorf("peerwire: send to %s: %w", s.peer, explain(err, s.link))
	default:
		return fmt.Errorf("peerwire: send to %s: %w", s.peer, s.fail(err))
	}
}

// Recv returns the next frame. When the peer's accept has returned, what it
// sent before is received first.
func (s *stream) Recv() ([]byte, error) {
	if err := s.err(); err != nil {
		return nil, fmt.Errorf("peerwire: receive from %s: %w", s.peer, err)
	}
	var frame []byte
	if err := s.call.RecvMsg(&frame); err != nil {
		return nil, fmt.Errorf("peerwire: receive from %s: %w", s.peer, s.fail(err))
	}
	return frame, nil
}

// Close breaks the stream by closing its connection. What was sent a moment
// before may be lost.
func (s *stream) Close() error {
	s.breakWith(errClosed)
	return nil
}

func (s *stream) err() error {
	if broken := s.broken.Load(); broken != nil {
		return *broken
	}
	return nil
}

// fail breaks the stream on an error of gRPC, and returns the reason in the
// words that say most.
func (s *stream) fail(err error) error {
	return s.breakWith(explain(err, s.link))
}

// breakWith breaks the stream, unless it is, and returns the first reason.
func (s *stream) breakWith(reason error) error {
	s.broken.CompareAndSwap(nil, &reason)
	s.link.hangUp()
	s.cancel()
	return s.err()
}

// explain prefers what the connection said to what gRPC made of it.
func explain(err error, link *link) error {
	cause := link.why()
	switch {
	case errors.Is(cause, io.EOF):
		return errors.New("the peer closed the connection")
	case cause != nil:
		return cause
	case errors.Is(err, io.EOF):
		return errEnded
	case status.Code(err) == codes.Canceled && link.isClosed():
		// By gRPC, which at the accepting end does not say why.
		return errors.New("the peer does not answer, or breaks the protocol")
	case status.Code(err) == codes.Canceled:
		return errors.New("the peer cancelled the stream")
	default:
		return errors.New(status.Convert(err).Message())
	}
}

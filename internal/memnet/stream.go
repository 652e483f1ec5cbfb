package memnet

import (
	"fmt"
	"time"

	"github.com/raftlock/raftlock"
)

// wire is one stream: its two ends, and the clock of its stall.
type wire struct {
	id   uint64
	ends [2]*stream // the dialler's first
	// timer runs from the first stall on. Guarded by Network.mu.
	timer *time.Timer
}

func newWire(id uint64, from, to *Transport, addr string) *wire {
	w := &wire{id: id}
	there, back := newPipe(), newPipe()
	dialler := &stream{wire: w, owner: from, local: from.addr, remote: addr, out: there, in: back}
	acceptor := &stream{wire: w, owner: to, local: addr, remote: from.addr, out: back, in: there}
	dialler.other, acceptor.other = acceptor, dialler
	w.ends = [2]*stream{dialler, acceptor}
	return w
}

// stream is one end of a wire. It implements raftlock.PeerStream.
type stream struct {
	wire          *wire
	other         *stream
	owner         *Transport
	local, remote string
	out, in       *pipe
	// stalled says that what this end sends is lost. Guarded by Network.mu;
	// never reset, as a stream that may have lost a frame must not go on.
	stalled bool
}

var _ raftlock.PeerStream = (*stream)(nil)

func (s *stream) link() link { return link{s.local, s.remote} }

// Send hands frame to the peer, slice and all. It blocks while the peer has
// maxFrames or maxBytes to receive. A frame that is too large is refused and
// leaves the stream whole.
func (s *stream) Send(frame []byte) error {
	if len(frame) > raftlock.MaxFrame {
		return fmt.Errorf("memnet: send to %s: a frame of %d bytes is larger than MaxFrame, %d", s.remote, len(frame), raftlock.MaxFrame)
	}
	if err := s.out.send(frame); err != nil {
		return fmt.Errorf("memnet: send to %s: %w", s.remote, err)
	}
	return nil
}

// Recv returns the next frame. When the peer is gone, what it sent before can
// still be received; after this end's Close nothing can.
func (s *stream) Recv() ([]byte, error) {
	frame, err := s.in.recv()
	if err != nil {
		return nil, fmt.Errorf("memnet: receive from %s: %w", s.remote, err)
	}
	return frame, nil
}

// Close ends the stream on both sides; across a cut link only on this one.
func (s *stream) Close() error {
	s.owner.network.hangUp(s)
	return nil
}

// close ends this end by its own wish.
func (s *stream) close() {
	s.out.endSend(errClosed)
	s.in.drop(errClosed)
}

// fail ends this end for a reason from outside.
func (s *stream) fail(cause error) {
	s.out.endSend(cause)
	s.in.endRecv(cause)
}

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

// newWire makes a stream between two transports, under their skies.
func newWire(id uint64, from, to *Transport, there, back *sky) *wire {
	w := &wire{id: id}
	out, in := newPipe(), newPipe()
	dialler := &stream{wire: w, owner: from, local: from.addr, remote: to.addr, out: out, in: in, sky: there}
	acceptor := &stream{wire: w, owner: to, local: to.addr, remote: from.addr, out: in, in: out, sky: back}
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
	sky           *sky // over what this end sends
	// stalled says that what this end sends is lost. Guarded by Network.mu;
	// never reset, as a stream that may have lost a frame must not go on.
	stalled bool
	// parted says that this end was told that the stream broke, and the other
	// one was not: it learns of it behind what is under way. Guarded by
	// Network.mu.
	parted bool
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
	if err := s.send(frame); err != nil {
		return fmt.Errorf("memnet: send to %s: %w", s.remote, err)
	}
	return nil
}

func (s *stream) send(frame []byte) error {
	f := s.sky.next()
	if f.lost {
		err := s.out.failed()
		s.owner.network.lose(s)
		return err
	}
	err := s.out.send(frame, f.delay)
	if f.told && err == nil {
		s.owner.network.part(s, f.late)
	}
	return err
}

// Recv returns the next frame. When the peer is gone, what it sent before can
// still be received; after this end's Close nothing can.
func (s *stream) Recv() ([]byte, error) {
	frame, err := s.in.recv()
	if err != nil {
		s.out.endSend(err)
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

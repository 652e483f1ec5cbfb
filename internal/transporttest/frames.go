package transporttest

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/raftlock/raftlock"
)

// pattern returns a frame that only the same number and size give again.
func pattern(number, size int) []byte {
	var seed [13]byte // no divisor of any block size, so that blocks differ
	binary.BigEndian.PutUint64(seed[:], uint64(number))
	copy(seed[8:], "frame")
	return bytes.Repeat(seed[:], size/len(seed)+1)[:size]
}

// sizes go around every boundary that a wire may have.
var sizes = []int{1, 200, 4 << 10, 16<<10 - 5, 16 << 10, 16<<10 + 1, 64 << 10, 200_000}

func sendPatterns(s raftlock.PeerStream, count int) error {
	for i := range count {
		if err := s.Send(pattern(i, sizes[i%len(sizes)])); err != nil {
			return fmt.Errorf("frame %d: %w", i, err)
		}
	}
	return nil
}

func recvPatterns(s raftlock.PeerStream, count int) error {
	for i := range count {
		frame, err := s.Recv()
		if err != nil {
			return fmt.Errorf("frame %d: %w", i, err)
		}
		if !bytes.Equal(frame, pattern(i, sizes[i%len(sizes)])) {
			return fmt.Errorf("frame %d, of %d bytes, is not what was sent", i, len(frame))
		}
		// The frame is ours: a wire that still uses the memory shows.
		clear(frame)
	}
	return nil
}

// echoing is an accept that sends back what it receives, until the end.
func echoing(s raftlock.PeerStream) {
	for {
		frame, err := s.Recv()
		if err != nil {
			return
		}
		if s.Send(frame) != nil {
			return
		}
	}
}

func echo(t *testing.T, open Open) {
	server := serving(t, open, echoing)
	s := dial(t, newMember(t, open, ""), server.addr)
	for i := range 200 {
		noError(t, "send", s.Send(pattern(i, 200)))
		frame, err := s.Recv()
		noError(t, "receive", err)
		if !bytes.Equal(frame, pattern(i, 200)) {
			t.Fatalf("frame %d came back changed", i)
		}
	}
	noError(t, "close", s.Close())
}

func emptyFrame(t *testing.T, open Open) {
	p := newPair(t, open)
	for _, size := range []int{0, 3, 0, 0} {
		noError(t, "send", p.dialled.Send(make([]byte, size)))
		frame, err := p.accepted.Recv()
		noError(t, "receive", err)
		if len(frame) != size {
			t.Errorf("a frame of %d bytes arrives with %d", size, len(frame))
		}
	}
}

func order(t *testing.T, open Open) {
	p := newPair(t, open)
	const count = 300
	errs := make(chan error, 4)
	go func() { errs <- sendPatterns(p.dialled, count) }()
	go func() { errs <- sendPatterns(p.accepted, count) }()
	go func() { errs <- recvPatterns(p.dialled, count) }()
	go func() { errs <- recvPatterns(p.accepted, count) }()
	for range 4 {
		noError(t, "exchange", take(t, "an end of the exchange", errs))
	}
}

func largestFrame(t *testing.T, open Open) {
	p := newPair(t, open)
	for _, ends := range [][2]raftlock.PeerStream{{p.dialled, p.accepted}, {p.accepted, p.dialled}} {
		sent := make(chan error, 1)
		go func() { sent <- ends[0].Send(pattern(1, raftlock.MaxFrame)) }()
		frame, err := ends[1].Recv()
		noError(t, "receive", err)
		noError(t, "send", take(t, "the sender", sent))
		if !bytes.Equal(frame, pattern(1, raftlock.MaxFrame)) {
			t.Error("the largest frame is not what was sent")
		}
	}
}

// tooLarge also holds both implementations to leaving the stream whole, so
// that what a node learns with one is true with the other.
func tooLarge(t *testing.T, open Open) {
	p := newPair(t, open)
	for _, ends := range [][2]raftlock.PeerStream{{p.dialled, p.accepted}, {p.accepted, p.dialled}} {
		if err := ends[0].Send(make([]byte, raftlock.MaxFrame+1)); err == nil {
			t.Fatal("a frame larger than MaxFrame is taken")
		}
		noError(t, "send after the refusal", ends[0].Send([]byte("small")))
		frame, err := ends[1].Recv()
		noError(t, "receive after the refusal", err)
		if string(frame) != "small" {
			t.Errorf("received %d bytes, want the small frame", len(frame))
		}
	}
}

func manyStreams(t *testing.T, open Open) {
	server := serving(t, open, echoing)
	from := newMember(t, open, "")
	const streams, frames = 32, 20
	errs := make(chan error, streams)
	for range streams {
		go func() { errs <- exchange(t.Context(), from, server.addr, frames) }()
	}
	for range streams {
		noError(t, "exchange", take(t, "a stream", errs))
	}
}

// exchange dials, sends and receives at the same time, and closes.
func exchange(ctx context.Context, from member, addr string, frames int) error {
	s, err := from.Dial(ctx, addr)
	if err != nil {
		return err
	}
	defer s.Close() //nolint:errcheck // checked elsewhere
	sent := make(chan error, 1)
	go func() { sent <- sendPatterns(s, frames) }()
	if err := recvPatterns(s, frames); err != nil {
		return err
	}
	return <-sent
}

// slowReader lets the sender run against a reader that starts late: the sender
// has to wait, and nothing is lost or out of order.
func slowReader(t *testing.T, open Open) {
	p := newPair(t, open)
	const count, size, mostInFlight = 90, 1 << 20, 72
	var sent atomic.Int64
	started := make(chan struct{})
	start := sync.OnceFunc(func() { close(started) })
	errs := make(chan error, 1)
	go func() {
		for i := range count {
			if err := p.dialled.Send(pattern(i, size)); err != nil {
				errs <- err
				return
			}
			if sent.Add(1) == 4 {
				start()
			}
		}
		errs <- nil
	}()
	take(t, "the first frames", started)
	for i := range int64(count) {
		if ahead := sent.Load() - i; ahead > mostInFlight {
			t.Fatalf("the sender is %d frames of %d bytes ahead: nothing holds it back", ahead, size)
		}
		frame, err := p.accepted.Recv()
		noError(t, "receive", err)
		if !bytes.Equal(frame, pattern(int(i), size)) {
			t.Fatalf("frame %d is not what was sent", i)
		}
	}
	noError(t, "send", take(t, "the sender", errs))
}

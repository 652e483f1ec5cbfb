package raftlock

import "context"

// MaxFrame is the largest frame, in bytes, that a Transport has to carry: four
// times the largest raft message, so that a single entry can never be too
// large for the wire and block the cluster.
const MaxFrame = 16 << 20

// Transport carries frames between members. It knows nothing of what is in
// them: the node's outboxes fill and its receivers read them. One Node owns it
// from Open to Close. All methods may be called concurrently.
type Transport interface {
	// Serve begins to accept streams and returns. For every stream that a
	// peer opens it calls accept in a goroutine of its own; the stream ends
	// when accept returns. Called once.
	Serve(accept func(PeerStream)) error

	// Dial opens a stream to the member that listens at addr. It blocks until
	// the stream is up, or ctx ends, or it is refused. addr is resolved at
	// every call. ctx bounds the call only, not the stream.
	Dial(ctx context.Context, addr string) (PeerStream, error)

	// Close stops accepting, breaks every stream, and returns when every
	// goroutine of the transport, and every accept, has ended. A second Close
	// returns nil; Dial after Close returns an error.
	Close() error
}

// PeerStream is one stream between two members: frames arrive whole, in order,
// each at most once. A stream may lose a suffix of what was sent, never a frame
// in between: after a loss it is broken. One goroutine may send while another
// receives.
type PeerStream interface {
	// Send hands one frame over. It may block while the peer does not read; it
	// returns an error when the stream is broken or the frame is larger than
	// MaxFrame. The stream owns frame from then on. A nil error does not mean
	// that the peer has it.
	Send(frame []byte) error
	// Recv blocks for the next frame, which the caller owns. Once the stream
	// is broken, by either side or by a loss, it returns an error, for ever.
	Recv() ([]byte, error)
	// Close breaks the stream: both sides' Send and Recv return errors soon.
	// It does not block. A second Close does nothing.
	Close() error
}

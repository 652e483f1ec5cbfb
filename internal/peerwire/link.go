package peerwire

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// link is one connection to a peer, below gRPC. It adds to a net.Conn a Close
// that never blocks, the reason of its end, and a date by which it closes
// itself.
type link struct {
	// Conn is what is read and written: the TCP connection, or at the
	// dialling end TLS over it. (At the accepting end gRPC puts TLS on top.)
	net.Conn
	// tcp is what Close closes. Never the TLS connection: that one first says
	// good-bye, for up to 5 s when the peer reads nothing.
	tcp net.Conn
	// forget takes the link off the transport's list.
	forget func(*link)

	closeOnce sync.Once
	// cause is the first error of the network, if any came before Close.
	cause atomic.Pointer[error]
	// hungUp says that this side wanted the end (gRPC calls Close too).
	hungUp atomic.Bool

	mu struct {
		sync.Mutex
		closed bool
		expiry *time.Timer
	}
}

func newLink(tcp net.Conn, forget func(*link)) *link {
	return &link{Conn: tcp, tcp: tcp, forget: forget}
}

func (l *link) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	l.note(err)
	return n, err
}

func (l *link) Write(p []byte) (int, error) {
	n, err := l.Conn.Write(p)
	l.note(err)
	return n, err
}

// note keeps what ended the connection: gRPC's own errors say less, or
// nothing at the accepting end. Deadlines are gRPC's way to close, and
// net.ErrClosed is ours: neither is a cause.
func (l *link) note(err error) {
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) {
		return
	}
	l.cause.CompareAndSwap(nil, &err)
}

// why returns what ended the connection, nil if nothing or nothing known.
func (l *link) why() error {
	if l.hungUp.Load() {
		return errClosed
	}
	if cause := l.cause.Load(); cause != nil {
		return *cause
	}
	return nil
}

// isClosed reports whether the link was closed, by whomever.
func (l *link) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.closed
}

// hangUp breaks the connection by this side's wish. It does not block.
func (l *link) hangUp() {
	l.hungUp.Store(true)
	_ = l.Close()
}

// expireIn closes the link after d, unless it is called again before, with 0
// to keep the link.
func (l *link) expireIn(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.expiry != nil {
		l.mu.expiry.Stop()
		l.mu.expiry = nil
	}
	if d > 0 && !l.mu.closed {
		l.mu.expiry = time.AfterFunc(d, func() { _ = l.Close() })
	}
}

// Close breaks the connection. It does not block, whatever is unsent.
func (l *link) Close() error {
	var err error
	l.closeOnce.Do(func() {
		l.mu.Lock()
		l.mu.closed = true
		l.mu.Unlock()
		l.expireIn(0)
		err = l.tcp.Close()
		l.forget(l)
	})
	return err
}

package e2e

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// relay is a way over TCP in the hands of the test. What is held up on it arrives
// later, as over a network that was cut for less time than TCP bears with; what
// is broken is not.
type relay struct {
	listener    net.Listener
	to          string
	forth, back gate
	running     sync.WaitGroup

	mu     sync.Mutex
	broken bool // connections are closed as they come
	conns  map[net.Conn]bool
	ended  bool
}

// newRelay makes a way to an address, which lasts as long as the test.
func newRelay(tb testing.TB, to string) *relay {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	r := &relay{listener: l, to: to, conns: map[net.Conn]bool{}}
	r.running.Go(r.accept)
	tb.Cleanup(r.end)
	return r
}

func (r *relay) addr() string { return r.listener.Addr().String() }

func (r *relay) accept() {
	for {
		near, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.running.Go(func() { r.carry(near) })
	}
}

// carry lasts as long as a connection.
func (r *relay) carry(near net.Conn) {
	defer r.forget(near)
	if !r.keep(near) {
		return
	}
	far, err := net.DialTimeout("tcp", r.to, patience)
	if err != nil {
		return
	}
	defer r.forget(far)
	if !r.keep(far) {
		return
	}
	over := make(chan struct{})
	var both sync.WaitGroup
	end := sync.OnceFunc(func() {
		close(over)
		_ = near.Close() // the other end may have done so
		_ = far.Close()
	})
	both.Go(func() { r.forth.pump(far, near, over); end() })
	both.Go(func() { r.back.pump(near, far, over); end() })
	both.Wait()
}

// keep notes what a break closes, and reports whether it may stay open.
func (r *relay) keep(conn net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns[conn] = true
	return !r.broken && !r.ended
}

func (r *relay) forget(conn net.Conn) {
	_ = conn.Close() // it may be closed
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, conn)
}

// sever closes all connections, and those to come until mend.
func (r *relay) sever() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.broken = true
	r.close()
}

func (r *relay) close() {
	for conn := range r.conns {
		_ = conn.Close() // the other end may have done so
	}
}

func (r *relay) mend() {
	r.forth.set(false, 0)
	r.back.set(false, 0)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.broken = false
}

func (r *relay) end() {
	_ = r.listener.Close() // nothing is lost
	r.mend()
	r.mu.Lock()
	r.ended = true
	r.close()
	r.mu.Unlock()
	r.running.Wait()
}

// gate is one direction of a relay.
type gate struct {
	mu    sync.Mutex
	shut  chan struct{} // closed when it opens; nil: it is open
	delay time.Duration
}

// set shuts or opens it, and says how late everything is that passes.
func (g *gate) set(shut bool, delay time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.delay = delay
	switch {
	case shut && g.shut == nil:
		g.shut = make(chan struct{})
	case !shut && g.shut != nil:
		close(g.shut)
		g.shut = nil
	}
}

// pump carries bytes until one side ends, or all is over.
func (g *gate) pump(to io.Writer, from io.Reader, over <-chan struct{}) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil || !g.pass(over) {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// pass waits until what was read may go on.
func (g *gate) pass(over <-chan struct{}) bool {
	g.mu.Lock()
	shut, delay := g.shut, g.delay
	g.mu.Unlock()
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-over:
			return false
		}
	}
	if shut == nil {
		return true
	}
	select {
	case <-shut:
		return true
	case <-over:
		return false
	}
}

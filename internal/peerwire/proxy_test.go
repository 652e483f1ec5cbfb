package peerwire

import (
	"net"
	"sync"
	"testing"
)

// proxy passes TCP connections on until it is told to hold everything back:
// the closest that a test can come to a peer whose machine stands still.
type proxy struct {
	listener net.Listener
	target   string
	held     chan struct{} // closed by hold
	released chan struct{} // closed at the end of the test
	work     sync.WaitGroup
}

func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: listener, target: target, held: make(chan struct{}), released: make(chan struct{})}
	p.work.Go(p.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		close(p.released)
		p.work.Wait()
	})
	return p
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

func (p *proxy) hold() { close(p.held) }

func (p *proxy) accept() {
	for {
		near, err := p.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = near.Close()
			continue
		}
		p.work.Go(func() { p.pass(near, far) })
		p.work.Go(func() { p.pass(far, near) })
		p.work.Go(func() {
			<-p.released
			_ = near.Close()
			_ = far.Close()
		})
	}
}

func (p *proxy) pass(from, to net.Conn) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		select {
		case <-p.held:
			<-p.released
		default:
		}
		if err != nil {
			_ = to.Close()
			return
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

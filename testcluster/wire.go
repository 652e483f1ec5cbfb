package testcluster

import (
	"context"
	"net"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// wire brings the faults of a machine to its gRPC connections.
type wire struct {
	machine *machine
	front   *front
}

// dial connects over the machine's line. It hangs while the machine is cut off or
// paused.
func (w *wire) dial(ctx context.Context, address string) (net.Conn, error) {
	l, again := w.machine.open()
	for again != nil {
		select {
		case <-again:
			l, again = w.machine.open()
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	conn, err := w.front.dial(ctx, address)
	if err != nil {
		return nil, err
	}
	c := &wiredConn{Conn: conn, machine: w.machine, line: l, closed: make(chan struct{})}
	c.detach = l.attach(func() { _ = conn.Close() }) // in memory: no error
	return c, nil
}

// intercept loses answers. The mark that the client's own interceptors and handlers
// left in the context says that the call was sent.
func (w *wire) intercept(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := invoke(ctx, method, req, reply, conn, opts...)
	if ctx.Err() == nil && w.machine.dropsAnswers() {
		return status.Error(codes.Unavailable, "the connection broke before the answer")
	}
	return err
}

// wiredConn is a connection over a machine's line. Once that is cut nothing
// comes through it any more, and nothing is said, until it breaks.
type wiredConn struct {
	net.Conn
	machine *machine
	line    *line
	detach  func()
	closing sync.Once
	closed  chan struct{} // closed by Close
}

func (c *wiredConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.stand()
	if !c.line.isDead() {
		return n, err
	}
	select {
	case <-c.line.broken:
	case <-c.closed:
	}
	return 0, net.ErrClosed
}

func (c *wiredConn) Write(p []byte) (int, error) {
	c.stand()
	if c.line.isDead() && !c.line.isBroken() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// stand waits while the machine is paused, unless the connection is closed.
func (c *wiredConn) stand() {
	for {
		resumed := c.machine.paused()
		if resumed == nil {
			return
		}
		select {
		case <-resumed:
		case <-c.closed:
			return
		}
	}
}

func (c *wiredConn) Close() error {
	c.closing.Do(func() {
		close(c.closed)
		c.detach()
	})
	return c.Conn.Close()
}

package testcluster

import (
	"context"
	"net"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/internal/clock"
	"github.com/raftlock/raftlock/internal/memnet"
)

// Pause stops member i as SIGSTOP stops a process, until Resume: it thinks
// nothing, sends nothing, writes nothing, and no timer of it fires. Who calls it
// waits, and so does what it is sent. It fails the test when the member is down.
// A Crash ends the pause as well, as SIGKILL would.
func (c *Cluster) Pause(i int) {
	c.tb.Helper()
	if c.isAlive("Pause") && c.node(i) != nil {
		c.roll.list()[i].warp.Pause()
	}
}

// Resume lets member i go on: time has passed, what was due meanwhile is due now,
// and what has come meanwhile is there. It does nothing to a member that runs.
func (c *Cluster) Resume(i int) {
	if c.isAlive("Resume") {
		c.roll.list()[i].warp.Resume()
	}
}

// SkewRate lets member i's clock gain ppm microseconds in each second from now on,
// or lose them if it is negative, also after a Restart; real machines keep within
// 500. It ends with SkewRate(i, 0), which leaves the clock where it is.
func (c *Cluster) SkewRate(i int, ppm float64) {
	if c.isAlive("SkewRate") {
		c.watch.skewed(ppm)
		c.roll.list()[i].warp.SkewRate(ppm)
	}
}

// awake returns member i, nil when it is down or paused.
func (c *Cluster) awake(i int) *raftlock.Node {
	if c.roll.list()[i].warp.Paused() {
		return nil
	}
	return c.running(i)
}

// process is one run of a member, seen from outside: a Pause holds up what goes
// in and out, until it ends or the member does.
type process struct {
	clock clock.Clock
	gone  <-chan struct{} // closed when the member is crashed
}

// stand waits while the member is paused, and reports whether it goes on.
func (p process) stand() bool {
	p.clock.Await(p.gone)
	select {
	case <-p.gone:
		return false
	default:
		return true
	}
}

// nic is the member's way to the network.
type nic struct {
	*memnet.Transport
	process process
}

// Serve implements raftlock.Transport.
func (n nic) Serve(accept func(raftlock.PeerStream)) error {
	return n.Transport.Serve(func(s raftlock.PeerStream) { accept(socket{s, n.process}) })
}

// Dial implements raftlock.Transport.
func (n nic) Dial(ctx context.Context, addr string) (raftlock.PeerStream, error) {
	if !n.process.stand() {
		return nil, net.ErrClosed
	}
	s, err := n.Transport.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	return socket{s, n.process}, nil
}

// socket is one of its streams. The machine's buffers take what comes during a
// pause.
type socket struct {
	raftlock.PeerStream
	process process
}

// Send implements raftlock.PeerStream.
func (s socket) Send(frame []byte) error {
	if !s.process.stand() {
		return net.ErrClosed
	}
	return s.PeerStream.Send(frame)
}

// Recv implements raftlock.PeerStream.
func (s socket) Recv() ([]byte, error) {
	frame, err := s.PeerStream.Recv()
	if !s.process.stand() {
		return nil, net.ErrClosed
	}
	return frame, err
}

// stoppable is where a member listens for clients.
type stoppable struct {
	net.Listener
	process process
}

// Accept implements net.Listener.
func (l stoppable) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return clientConn{conn, l.process}, nil
}

// clientConn is a connection of a client at its member.
type clientConn struct {
	net.Conn
	process process
}

// Read implements net.Conn.
func (c clientConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if !c.process.stand() {
		return 0, net.ErrClosed
	}
	return n, err
}

// Write implements net.Conn.
func (c clientConn) Write(b []byte) (int, error) {
	if !c.process.stand() {
		return 0, net.ErrClosed
	}
	return c.Conn.Write(b)
}

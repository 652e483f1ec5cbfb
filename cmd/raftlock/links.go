package main

import (
	"errors"
	"fmt"
	"net"
	"sync"
)

// links are the connections between the demo's members: a TCP port of the
// loopback interface for each ordered pair, so that it is known who is at either
// end of each connection. Killing a member breaks every connection that has it at
// an end and refuses new ones, which is what the others see when a process dies.
//
// The ports stay open all the time, and what comes for the dead is closed at once:
// a port that were given up could belong to somebody else a moment later.
type links struct {
	ports map[pair]net.Listener
	work  sync.WaitGroup // the goroutines that accept

	mu struct {
		sync.Mutex
		conns map[net.Conn]pair
		doors map[string]*door // of the members that live
	}
}

// pair is one direction between two members.
type pair struct{ from, to string }

func newLinks(names []string) (*links, error) {
	l := &links{ports: map[pair]net.Listener{}}
	l.mu.conns, l.mu.doors = map[net.Conn]pair{}, map[string]*door{}
	for _, from := range names {
		for _, to := range names {
			if from == to {
				continue
			}
			port, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return nil, errors.Join(fmt.Errorf("listen: %w", err), l.close())
			}
			between := pair{from, to}
			l.ports[between] = port
			l.work.Go(func() { l.accept(port, between) })
		}
	}
	return l, nil
}

// accept brings the connections of one port to the member behind it.
func (l *links) accept(port net.Listener, between pair) {
	for {
		conn, err := port.Accept()
		if err != nil {
			return // close has closed it
		}
		if d := l.admit(conn, between); d == nil || !d.bring(conn) {
			_ = conn.Close() // nobody is there any more
		}
	}
}

// admit notes a connection and returns the door that it goes to; nil when
// either end is dead.
func (l *links) admit(conn net.Conn, between pair) *door {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.mu.doors[between.to]
	if d == nil || l.mu.doors[between.from] == nil {
		return nil
	}
	l.mu.conns[conn] = between
	return d
}

// open brings a member to life, as far as the network goes: what it returns is
// the listener that it gets its peers' connections from, and the addresses at
// which it reaches them.
func (l *links) open(name string) (net.Listener, map[string]string) {
	addrs := map[string]string{}
	d := &door{conns: make(chan net.Conn), closed: make(chan struct{})}
	for between, port := range l.ports {
		switch name {
		case between.from:
			addrs[between.to] = port.Addr().String()
		case between.to:
			d.addr = port.Addr()
		}
	}
	addrs[name] = d.addr.String()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.doors[name] = d
	return d, addrs
}

// cut takes a member off the network.
func (l *links) cut(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.mu.doors, name)
	for conn, between := range l.mu.conns {
		if between.from == name || between.to == name {
			_ = conn.Close() // broken is all that it should be
			delete(l.mu.conns, conn)
		}
	}
}

// close gives the ports back. The members must be closed.
func (l *links) close() error {
	var errs []error
	for _, port := range l.ports {
		errs = append(errs, port.Close())
	}
	l.work.Wait()
	return errors.Join(errs...)
}

// door is the listener of one member: what came in by any of its ports.
type door struct {
	addr   net.Addr
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{} // closed by Close
}

// bring hands a connection to the member; false when it has closed its door.
func (d *door) bring(conn net.Conn) bool {
	select {
	case d.conns <- conn:
		return true
	case <-d.closed:
		return false
	}
}

// Accept implements net.Listener.
func (d *door) Accept() (net.Conn, error) {
	select {
	case conn := <-d.conns:
		return conn, nil
	case <-d.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (d *door) Close() error {
	d.once.Do(func() { close(d.closed) })
	return nil
}

// Addr implements net.Listener: one of the ports.
func (d *door) Addr() net.Addr { return d.addr }

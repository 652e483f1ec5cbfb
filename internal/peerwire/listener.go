package peerwire

import (
	"net"
)

// linkListener makes links of what it accepts, as many as the transport
// admits; the rest is closed at once.
type linkListener struct {
	net.Listener
	transport *Transport
}

func (l linkListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		link, err := l.transport.admit(conn, true)
		if err != nil {
			l.transport.warn("refuse a connection", conn.RemoteAddr(), err)
			_ = conn.Close()
			continue
		}
		link.expireIn(l.transport.limits.opening)
		return link, nil
	}
}

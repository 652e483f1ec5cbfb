package peerwire

import (
	"crypto/tls"
	"net"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// acceptorCreds are the accepting end's credentials; they tell the call on
// which link it came, and the log why a handshake did not succeed (gRPC tells
// nobody).
type acceptorCreds struct {
	credentials.TransportCredentials
	refused func(remote net.Addr, err error)
}

func newAcceptorCreds(config *tls.Config, refused func(net.Addr, error)) acceptorCreds {
	inner := insecure.NewCredentials()
	if config != nil {
		inner = credentials.NewTLS(config)
	}
	return acceptorCreds{inner, refused}
}

// linkInfo is the identity that gRPC attaches to a call, and the link.
type linkInfo struct {
	credentials.AuthInfo
	link *link
}

func (c acceptorCreds) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := c.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		c.refused(raw.RemoteAddr(), err)
		return nil, nil, err
	}
	accepted, ok := raw.(*link)
	if !ok {
		return nil, nil, errForeignConn
	}
	return conn, linkInfo{info, accepted}, nil
}

func (c acceptorCreds) Clone() credentials.TransportCredentials {
	return acceptorCreds{c.TransportCredentials.Clone(), c.refused}
}

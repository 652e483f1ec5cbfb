package peerwire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync/atomic"

	"google.golang.org/grpc"

	"github.com/raftlock/raftlock"
)

type dialFunc = func(context.Context, string) (net.Conn, error)

// alpn is what both ends must agree on inside TLS.
const alpn = "h2"

// Dial connects, encrypts, and opens the stream; it returns when the acceptor
// has answered. The connection is made here and not by gRPC, which would wrap
// the cause of a failure in text, and wait and try again on its own.
// The caller closes the stream, also after an error of it.
func (t *Transport) Dial(ctx context.Context, addr string) (raftlock.PeerStream, error) {
	if err := t.enter(); err != nil {
		return nil, fmt.Errorf("peerwire: dial %s: %w", addr, err)
	}
	defer t.work.Done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(t.ctx, func() { cancel(errClosed) })()

	link, err := t.connect(ctx, addr)
	if err == nil {
		var opened *stream
		if opened, err = t.open(ctx, link, addr); err == nil {
			return opened, nil
		}
		link.hangUp()
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return nil, fmt.Errorf("peerwire: dial %s: %w", addr, err)
}

// connect resolves addr and makes the connection, TLS included.
func (t *Transport) connect(ctx context.Context, addr string) (*link, error) {
	dialer := net.Dialer{KeepAliveConfig: tcpKeepAlive}
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	link, err := t.admit(conn, false)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	if t.tls == nil {
		return link, nil
	}
	if err := link.encrypt(ctx, dialConfig(t.tls, addr)); err != nil {
		link.hangUp()
		return nil, err
	}
	return link, nil
}

// dialConfig is the transport's TLS config with the address' host as the name
// that the acceptor must prove, unless one is set.
func dialConfig(config *tls.Config, addr string) *tls.Config {
	config = config.Clone()
	if host, _, err := net.SplitHostPort(addr); err == nil && config.ServerName == "" {
		config.ServerName = host
	}
	if !slices.Contains(config.NextProtos, alpn) {
		config.NextProtos = append(slices.Clone(config.NextProtos), alpn)
	}
	return config
}

// encrypt shakes hands over the fresh link, and waits until the acceptor talks
// inside TLS. In TLS 1.3 the handshake is over for the dialler before the
// acceptor has seen its certificate; whoever writes on at once may lose the
// alert that says what is wrong with it to a reset connection.
func (l *link) encrypt(ctx context.Context, config *tls.Config) error {
	conn := tls.Client(l.tcp, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	if conn.ConnectionState().NegotiatedProtocol != alpn {
		return errors.New("TLS handshake: the acceptor does not speak HTTP/2")
	}
	defer context.AfterFunc(ctx, l.hangUp)()
	first := make([]byte, 1)
	if _, err := conn.Read(first); err != nil {
		return fmt.Errorf("after the TLS handshake: %w", err)
	}
	l.Conn = &peeked{conn, first}
	return nil
}

// peeked is a connection of which some was read already.
type peeked struct {
	net.Conn
	first []byte
}

func (p *peeked) Read(to []byte) (int, error) {
	if len(p.first) > 0 {
		n := copy(to, p.first)
		p.first = p.first[n:]
		return n, nil
	}
	return p.Conn.Read(to)
}

// open opens the stream on a connection, and waits for the acceptor.
func (t *Transport) open(ctx context.Context, link *link, addr string) (*stream, error) {
	client, err := grpc.NewClient("passthrough:///peer", dialOptions(handOver(link), addr)...)
	if err != nil {
		return nil, err
	}
	// Not under ctx, which bounds only this call.
	life, end := context.WithCancel(t.ctx)
	t.work.Go(func() {
		<-life.Done()
		_ = link.Close() // first, or closing the client waits for what is unsent
		_ = client.Close()
	})
	keep := context.AfterFunc(ctx, end)

	call, err := client.NewStream(life, &framesDesc, fullMethod)
	if err == nil {
		err = awaitHeader(call)
	}
	if err != nil {
		err = t.refusal(err, link)
	}
	if !keep() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		end()
		return nil, err
	}
	return &stream{call: call, link: link, peer: addr, cancel: end}, nil
}

// awaitHeader waits for the acceptor's word that the stream is up.
func awaitHeader(call grpc.ClientStream) error {
	header, err := call.Header()
	if err != nil || header != nil {
		return err
	}
	// No header means that the call has ended; only receiving tells why.
	var frame []byte
	if err := call.RecvMsg(&frame); err != nil {
		return err
	}
	return errEnded
}

// refusal explains why the acceptor did not take the stream.
func (t *Transport) refusal(err error, link *link) error {
	err = explain(err, link)
	if t.tls == nil && link.why() != nil {
		return fmt.Errorf("open the stream: %w (does the acceptor expect TLS?)", err)
	}
	return fmt.Errorf("open the stream: %w", err)
}

// handOver is a dialer for a single use.
func handOver(link *link) dialFunc {
	var used atomic.Bool
	return func(context.Context, string) (net.Conn, error) {
		if used.Swap(true) {
			return nil, errors.New("the connection is broken")
		}
		return link, nil
	}
}

package peerwire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/raftlock/raftlock"
)

// Config says where a Transport listens and how it encrypts.
type Config struct {
	// Listener is where peers connect. Required. New takes it over: Close
	// closes it, also when Serve was never called.
	Listener net.Listener
	// TLS is used to listen and to dial; nil means plain text. To dial, the
	// host of the address is the ServerName, unless one is set. For mutual
	// TLS set ClientAuth and ClientCAs beside Certificates and RootCAs. It
	// must not be changed afterwards.
	TLS *tls.Config
	// Logger is told of connections that are refused and of a listener that
	// fails; nil means nobody is.
	Logger *slog.Logger
}

// limits bound what strangers at the port can cost.
type limits struct {
	// accepted is how many accepted connections may be open at a time. A
	// cluster of nine with four streams from each peer has 32.
	accepted int
	// opening is how long a connection may take to open its stream.
	opening time.Duration
	// lingering is how long after its stream's end a connection may stay, so
	// that the last frames arrive.
	lingering time.Duration
}

var defaultLimits = limits{accepted: 256, opening: 10 * time.Second, lingering: time.Second}

var errForeignConn = errors.New("peerwire: a connection that the listener did not make")

// Transport is a raftlock.Transport over gRPC. Close must not be called from
// within accept: it waits for it.
type Transport struct {
	listener net.Listener
	tls      *tls.Config
	log      *slog.Logger
	limits   limits
	server   *grpc.Server
	// accept is set by Serve, before the server runs.
	accept func(raftlock.PeerStream)

	// ctx ends when Close begins; everything that the transport started
	// ends with it.
	ctx  context.Context
	stop context.CancelFunc
	// work counts dials, the keepers of dialled streams, and the server's
	// loop. Add only under mu and while open, or within what is counted.
	work      sync.WaitGroup
	closeOnce sync.Once

	mu struct {
		sync.Mutex
		closed bool
		serves bool
		// links holds every connection; true for accepted ones.
		links    map[*link]bool
		accepted int
		// warned and muted keep a port scanner from filling the log.
		warned time.Time
		muted  int
	}
}

var _ raftlock.Transport = (*Transport)(nil)

// New returns a transport that does nothing yet. On an error the listener is
// still the caller's.
func New(cfg Config) (*Transport, error) {
	return newTransport(cfg, defaultLimits)
}

func newTransport(cfg Config, limits limits) (*Transport, error) {
	if cfg.Listener == nil {
		return nil, errors.New("peerwire: Config.Listener is missing")
	}
	t := &Transport{listener: cfg.Listener, log: cfg.Logger, limits: limits}
	if cfg.TLS != nil {
		t.tls = cfg.TLS.Clone()
	}
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	t.ctx, t.stop = context.WithCancel(context.Background())
	t.mu.links = make(map[*link]bool)
	creds := newAcceptorCreds(t.tls, func(remote net.Addr, err error) {
		t.warn("refuse a connection", remote, err)
	})
	t.server = grpc.NewServer(serverOptions(creds, limits)...)
	t.server.RegisterService(&serviceDesc, t)
	return t, nil
}

// Serve begins to accept. It returns an error on a second call and after
// Close.
func (t *Transport) Serve(accept func(raftlock.PeerStream)) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.mu.closed:
		return fmt.Errorf("peerwire: serve: %w", errClosed)
	case t.mu.serves:
		return errors.New("peerwire: serve: already serving")
	}
	t.mu.serves = true
	t.accept = accept
	t.work.Go(func() {
		if err := t.server.Serve(linkListener{t.listener, t}); err != nil && !t.isClosed() {
			t.log.Error("peer listener ended: no peer can connect any more", "error", err)
		}
	})
	return nil
}

// receive is the acceptor's end of one call.
func (t *Transport) receive(call grpc.ServerStream) error {
	from, ok := peer.FromContext(call.Context())
	if !ok {
		return errForeignConn
	}
	info, ok := from.AuthInfo.(linkInfo)
	if !ok {
		return errForeignConn
	}
	if err := call.SendHeader(nil); err != nil {
		return status.Error(codes.Unavailable, "peerwire: the stream is gone")
	}
	info.link.expireIn(0)
	s := &stream{call: call, link: info.link, peer: from.Addr.String(), cancel: func() {}}
	t.accept(s)
	// The call may not be used once its handler has returned. The link stays
	// for a moment, so that the last frames arrive.
	s.broken.CompareAndSwap(nil, &errClosed)
	info.link.expireIn(t.limits.lingering)
	return nil
}

// Close breaks every stream and returns when nothing of the transport is left.
// Only what the listener's Close says can be an error.
func (t *Transport) Close() error {
	var err error
	t.closeOnce.Do(func() {
		err = t.shut()
		t.server.Stop()
		t.work.Wait()
	})
	return err
}

// shut closes everything that a goroutine of the transport may block on.
func (t *Transport) shut() error {
	t.mu.Lock()
	t.mu.closed = true
	links := make([]*link, 0, len(t.mu.links))
	for link := range t.mu.links {
		links = append(links, link)
	}
	t.mu.Unlock()

	err := t.listener.Close()
	for _, link := range links {
		link.hangUp() // takes mu
	}
	t.stop() // after the links, which tell the streams' users why
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("peerwire: close the listener: %w", err)
	}
	return nil
}

// enter counts a dial, unless the transport is closed.
func (t *Transport) enter() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.closed {
		return errClosed
	}
	t.work.Add(1)
	return nil
}

func (t *Transport) isClosed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.closed
}

// admit makes a link of a fresh connection, unless it is one too many.
func (t *Transport) admit(conn net.Conn, accepted bool) (*link, error) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		// A connection without them works, it only dies more slowly.
		_ = tcp.SetKeepAliveConfig(tcpKeepAlive)
		_ = setUserTimeout(tcp, ackTimeout)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.mu.closed:
		return nil, errClosed
	case accepted && t.mu.accepted >= t.limits.accepted:
		return nil, fmt.Errorf("%d connections are open already", t.mu.accepted)
	}
	link := newLink(conn, t.forget)
	t.mu.links[link] = accepted
	if accepted {
		t.mu.accepted++
	}
	return link, nil
}

func (t *Transport) forget(link *link) {
	t.mu.Lock()
	defer t.mu.Unlock()
	accepted, ok := t.mu.links[link]
	if ok && accepted {
		t.mu.accepted--
	}
	delete(t.mu.links, link)
}

// warn logs what a stranger can cause, at most once a second.
func (t *Transport) warn(what string, remote net.Addr, err error) {
	t.mu.Lock()
	now := time.Now()
	if now.Sub(t.mu.warned) < time.Second {
		t.mu.muted++
		t.mu.Unlock()
		return
	}
	muted := t.mu.muted
	t.mu.warned, t.mu.muted = now, 0
	t.mu.Unlock()
	t.log.Warn("peer listener: "+what, "remote", remote, "error", err, "not_logged_before", muted)
}

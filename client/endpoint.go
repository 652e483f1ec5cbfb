package client

import (
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

// A lane is one of an endpoint's connections. What keeps a holder's lock, or
// gives one up, must not stand behind thousands of waiting calls, nor be cut off
// with them.
type lane int

const (
	laneCalls  lane = iota // everything else
	laneUrgent             // Renew, Release, CancelWait
	lanes
)

// endpoint is one address of a member, and the connections to it.
type endpoint struct {
	name  string // host:port as configured or as a member told it
	addr  string // what is dialled: name, or one of several addresses behind it
	conns [lanes]*grpc.ClientConn

	// users counts the attempts that go over it; retired says that it is to be
	// closed when there are none. Both belong to the pool's mutex.
	users   int
	retired bool

	suspectUntil atomic.Int64 // by the pool's clock since its start; last choice until then
	alien        atomic.Bool  // its last answer came from another cluster
	woken        atomic.Int64 // when its reconnecting was last hurried, likewise
}

func (e *endpoint) conn(l lane) *grpc.ClientConn { return e.conns[l] }

// connect starts connecting, if it has not begun. It does not wait.
func (e *endpoint) connect() {
	for _, conn := range e.conns {
		conn.Connect()
	}
}

func (e *endpoint) ready(l lane) bool { return e.conns[l].GetState() == connectivity.Ready }

func (e *endpoint) close() {
	var closing sync.WaitGroup
	for _, conn := range e.conns {
		closing.Go(func() { _ = conn.Close() }) // it says only that it was closed before
	}
	closing.Wait()
}

// maxReconnect is the longest pause between attempts to connect to an endpoint
// that is down.
const maxReconnect = 3 * time.Second

// newEndpoint makes the connections of an endpoint, without connecting. The
// name stands in for the address in all that is said to the member, so that its
// certificate is checked against what the caller wrote.
func newEndpoint(cfg *Config, tap *wiretap, name, addr string) (*endpoint, error) {
	e := &endpoint{name: name, addr: addr}
	target, options := "passthrough:///"+url.PathEscape(addr), dialOptions(cfg, tap)
	for l := range e.conns {
		var conn *grpc.ClientConn
		var err error
		if addr != name {
			conn, err = grpc.NewClient(target, append(options, grpc.WithAuthority(name))...)
		}
		if addr == name || err != nil { // credentials that know the server's name do not bear another
			conn, err = grpc.NewClient(target, options...)
		}
		if err != nil {
			for _, made := range e.conns[:l] {
				_ = made.Close()
			}
			return nil, err
		}
		e.conns[l] = conn
	}
	return e, nil
}

func dialOptions(cfg *Config, tap *wiretap) []grpc.DialOption {
	reconnect := backoff.DefaultConfig
	reconnect.BaseDelay = 100 * time.Millisecond
	reconnect.MaxDelay = min(maxReconnect, cfg.DialTimeout) // a longer one would lengthen the attempts, too
	options := []grpc.DialOption{
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: cfg.DialTimeout}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time:                cfg.KeepAlive.Time,
			Timeout:             cfg.KeepAlive.Timeout,
			PermitWithoutStream: cfg.KeepAlive.PermitWithoutStream,
		}),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(cfg.MaxMessageSize),
			grpc.MaxCallSendMsgSize(cfg.MaxMessageSize),
		),
		grpc.WithStatsHandler(tap),
		grpc.WithDisableServiceConfig(), // repeats are this package's business
		grpc.WithDisableRetry(),
		grpc.WithIdleTimeout(0), // a renewal must find its connection
	}
	if cfg.TLS == nil {
		options = append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))
	} else {
		options = append(options, grpc.WithTransportCredentials(credentials.NewTLS(cfg.TLS)))
	}
	return slices.Clip(append(options, cfg.DialOptions...))
}

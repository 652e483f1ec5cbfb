package embed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/internal/lockservice"
	"github.com/raftlock/raftlock/internal/peerwire"
	"github.com/raftlock/raftlock/internal/walstore"
)

var (
	_ raftlock.Storage   = (*walstore.Store)(nil)
	_ raftlock.Transport = (*peerwire.Transport)(nil)
)

// closeLimit bounds Close; drainLimit is what calls that run get of it.
const (
	closeLimit = 5 * time.Second
	drainLimit = time.Second
)

// Member is a member of a cluster that runs in this process. All methods may be
// called concurrently.
type Member struct {
	node     *raftlock.Node
	peerAddr string
	service  *lockservice.Service
	outlet   *outlet // nil when nobody is served outside of the process

	closing sync.Once
	closed  chan struct{} // closed when close has ended
	err     error         // of close; set before closed is closed
	failed  atomic.Pointer[error]
}

// Open opens a member: it recovers the data directory, listens, and begins to
// look for the other members, without waiting for them. It needs no quorum.
// Errors: a fault in cfg, which names the field, an address that cannot be
// listened on, or one around raftlock.ErrLocked, ErrCorrupt or ErrWrongCluster.
// On an error nothing stays open.
func Open(cfg Config) (*Member, error) {
	cfg.setDefaults()
	if err := cfg.validate(); err != nil {
		return nil, closeListeners(&cfg, err)
	}
	storage, err := walstore.Open(walstore.Config{Dir: cfg.DataDir, Logger: cfg.Logger})
	if err != nil {
		return nil, closeListeners(&cfg, fmt.Errorf("open data directory: %w", err))
	}
	if err := listenClient(&cfg); err != nil {
		return nil, errors.Join(closeListeners(&cfg, err), storage.Close())
	}
	transport, addr, err := listen(&cfg)
	if err != nil {
		return nil, errors.Join(closeListeners(&cfg, err), storage.Close())
	}
	node, err := raftlock.Open(cfg.node(storage, transport))
	if err != nil {
		return nil, closeListeners(&cfg, err) // the node has closed its own
	}
	served := lockservice.Config{Client: node.Client(), Cluster: node.ClusterID, Leader: node.Leader, Logger: cfg.Logger}
	if cfg.ServeMembers {
		served.Members = membership{node}
	}
	m := &Member{node: node, peerAddr: addr, closed: make(chan struct{}), service: lockservice.New(served)}
	if cfg.ClientListener != nil {
		m.outlet = openOutlet(&cfg, m.service, m.fail)
	}
	return m, nil
}

func listen(cfg *Config) (*peerwire.Transport, string, error) {
	listener := cfg.PeerListener
	if listener == nil {
		var err error
		if listener, err = net.Listen("tcp", cfg.ListenPeer); err != nil {
			return nil, "", fmt.Errorf("listen for peers: %w", err)
		}
	}
	addr := listener.Addr().String()
	transport, err := peerwire.New(peerwire.Config{Listener: listener, TLS: cfg.PeerTLS, Logger: cfg.Logger})
	if err != nil {
		return nil, "", errors.Join(fmt.Errorf("listen for peers: %w", err), listener.Close())
	}
	return transport, addr, nil
}

// closeListeners lets go of what the member had been given, or has opened for
// its clients, and returns why.
func closeListeners(cfg *Config, why error) error {
	for _, l := range []net.Listener{cfg.PeerListener, cfg.ClientListener} {
		if l != nil {
			_ = l.Close() // why is the error that matters
		}
	}
	return why
}

// Start is Open, and waits until the member can serve. ctx bounds this call
// only. Beyond Open's errors it returns what ended the member, such as
// raftlock.ErrDiskLost, or ctx's error. On an error nothing stays open.
func Start(ctx context.Context, cfg Config) (*Member, error) {
	m, err := Open(cfg)
	if err != nil {
		return nil, err
	}
	select {
	case <-m.Ready():
		return m, nil
	case <-m.Done():
		err = m.Err()
	case <-ctx.Done():
		err = fmt.Errorf("wait for the cluster: %w", ctx.Err())
	}
	return nil, errors.Join(err, m.Close())
}

// Client returns a client of this member, in process; see raftlock.Node.Client.
func (m *Member) Client() client.Client { return m.node.Client() }

// Node returns the node beneath.
func (m *Member) Node() *raftlock.Node { return m.node }

// Ready is closed when the member can serve.
func (m *Member) Ready() <-chan struct{} { return m.node.Ready() }

// Done is closed when the member has ended, by Close or by a failure.
func (m *Member) Done() <-chan struct{} { return m.node.Done() }

// Err is nil while the member runs and after Close, otherwise what ended it.
func (m *Member) Err() error {
	if err := m.failed.Load(); err != nil {
		return *err
	}
	return m.node.Err()
}

// PeerAddr is the address at which this member listens for its peers.
func (m *Member) PeerAddr() string { return m.peerAddr }

// ClientAddr is the address at which this member listens for programs that do
// not embed, empty when it does not.
func (m *Member) ClientAddr() string {
	if m.outlet == nil {
		return ""
	}
	return m.outlet.addr
}

// RegisterService registers the service raftlock.RaftLock with a gRPC server of
// the host's own, before that serves. Give Config.AdvertiseClient the address of
// that server. Close ends what the service serves, and not the server: stop it
// afterwards. What the host should set on it, so that clients that ping every
// 30 s are not sent away, is keepalive.EnforcementPolicy{MinTime: 5 * time.Second,
// PermitWithoutStream: true}.
func (m *Member) RegisterService(registrar grpc.ServiceRegistrar) { m.service.Register(registrar) }

// HealthHandler answers HTTP requests with status 200 when this member can serve
// now, otherwise with 503, and the reason as text.
func (m *Member) HealthHandler() http.Handler { return m.service.HealthHandler() }

// Close ends the member gracefully: it no longer counts as healthy, takes no new
// calls from other programs, sends those that wait in a queue to another member,
// where they keep their place, and lets the others be answered. Then it hands the
// leadership to another member, fails what is pending, and lets go of the
// listeners and the data directory. It takes at most 5 s, may be called again,
// and releases no lock: release first what you hold.
func (m *Member) Close() error {
	m.closing.Do(func() {
		go func() {
			defer close(m.closed)
			m.err = m.close()
		}()
	})
	limit := time.NewTimer(closeLimit)
	defer limit.Stop()
	select {
	case <-m.closed:
		return m.err
	case <-limit.C:
		return fmt.Errorf("close: the member did not end within %v", closeLimit)
	}
}

func (m *Member) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), drainLimit)
	defer cancel()
	_ = m.service.Drain(ctx) // calls that are late are failed by the node
	err := m.node.Close()
	if m.outlet != nil {
		m.outlet.close()
	}
	return err
}

// fail ends the member because of err.
func (m *Member) fail(err error) {
	m.failed.Store(&err)
	_ = m.Close() // err is what matters
}

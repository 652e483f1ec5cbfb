package embed

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/internal/peerwire"
	"github.com/raftlock/raftlock/internal/walstore"
)

var (
	_ raftlock.Storage   = (*walstore.Store)(nil)
	_ raftlock.Transport = (*peerwire.Transport)(nil)
)

// Member is a member of a cluster that runs in this process. All methods may be
// called concurrently.
type Member struct {
	node     *raftlock.Node
	peerAddr string
}

// Open opens a member: it recovers the data directory, listens, and begins to
// look for the other members, without waiting for them. It needs no quorum.
// Errors: a fault in cfg, which names the field, an address that cannot be
// listened on, or one around raftlock.ErrLocked, ErrCorrupt or ErrWrongCluster.
// On an error nothing stays open.
func Open(cfg Config) (*Member, error) {
	cfg.setDefaults()
	if err := cfg.validate(); err != nil {
		return nil, closeListener(&cfg, err)
	}
	storage, err := walstore.Open(walstore.Config{Dir: cfg.DataDir, Logger: cfg.Logger})
	if err != nil {
		return nil, closeListener(&cfg, fmt.Errorf("open data directory: %w", err))
	}
	transport, addr, err := listen(&cfg)
	if err != nil {
		return nil, errors.Join(err, storage.Close())
	}
	node, err := raftlock.Open(cfg.node(storage, transport))
	if err != nil {
		return nil, err // it has closed both
	}
	return &Member{node: node, peerAddr: addr}, nil
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

// closeListener lets go of what the member had been given and returns why.
func closeListener(cfg *Config, why error) error {
	if cfg.PeerListener != nil {
		_ = cfg.PeerListener.Close() // why is the error that matters
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
func (m *Member) Err() error { return m.node.Err() }

// PeerAddr is the address at which this member listens for its peers.
func (m *Member) PeerAddr() string { return m.peerAddr }

// Close hands the leadership to another member, fails what is pending, and lets
// go of the listener and the data directory. It takes at most 5 s, may be called
// again, and releases no lock: release first what you hold.
func (m *Member) Close() error { return m.node.Close() }

package embed

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/internal/peerwire"
	"github.com/raftlock/raftlock/internal/walstore"
)

// Config says who a member is and where it lives. Name and DataDir are
// required; InitialCluster is, for more than one member.
type Config struct {
	// Name is this member's name, unique in the cluster and the same at every
	// start: 1 to 64 bytes of UTF-8 without control characters.
	Name string
	// ClusterName keeps clusters apart that reach each other by mistake; all
	// members give the same. Default "raftlock".
	ClusterName string
	// DataDir is where this member keeps its log, alone. It is made if it is
	// missing. Losing it means losing the member: see raftlock.ErrDiskLost.
	DataDir string

	// InitialCluster names every member of the first start and the address
	// where its peers reach it, host:port, this member included. At a restart
	// the names must be the same; the addresses may change. Empty means a
	// cluster of one. Where that has grown, its first member must name the
	// others before it is ever started on an empty DataDir: it would make a
	// second cluster.
	InitialCluster map[string]string

	// ListenPeer is where this member listens for its peers, host:port; port 0
	// picks one (see Member.PeerAddr). Default: this member's address in
	// InitialCluster; in a cluster of one a port of the loopback interface.
	ListenPeer string
	// PeerListener is listened on instead of ListenPeer. The member owns it
	// from the call on, whatever comes of it.
	PeerListener net.Listener
	// PeerTLS encrypts what goes between members; it is used to listen and to
	// dial. Set ClientAuth to require certificates of peers: whoever reaches
	// the port and is accepted can take any lock. Without TLS only addresses of
	// the loopback interface are allowed, unless Insecure is set.
	PeerTLS *tls.Config
	// Insecure allows peers and clients without TLS on any network.
	Insecure bool

	// ListenClient is where this member serves programs that do not embed,
	// host:port, over gRPC; port 0 picks one (see Member.ClientAddr). Empty, it
	// serves nobody outside of its process.
	ListenClient string
	// ClientListener is listened on instead of ListenClient. The member owns it
	// from the call on, whatever comes of it.
	ClientListener net.Listener
	// ClientTLS encrypts what goes between this member and its clients. Set
	// ClientAuth to require certificates of them: whoever is accepted can take
	// any lock. Without TLS only addresses of the loopback interface are
	// allowed, unless Insecure is set.
	ClientTLS *tls.Config
	// ServeMembers lets clients see and change who belongs to the cluster (the
	// gRPC service raftlock.Members), beside taking locks. Off by default: whoever
	// is accepted could then take the cluster apart.
	ServeMembers bool
	// ServerOptions are passed to the gRPC server of clients, after the member's
	// own ones, which they can override: interceptors that check a caller's
	// credentials, limits, statistics.
	ServerOptions []grpc.ServerOption
	// AdvertiseClient is the address, host:port, at which this member serves
	// programs that do not embed, as it is told to the other members and, while
	// it leads, to clients. Default: the address that is listened on; when that
	// is of all interfaces, with the host that InitialCluster has for this
	// member. Set it where clients reach the member by another name or port,
	// and with Member.RegisterService.
	AdvertiseClient string

	// TickInterval is the unit of raft's time. Default 50 ms; 1 ms to 1 min.
	TickInterval time.Duration
	// ElectionTicks is how many ticks without a leader make a member campaign.
	// A leader is heard five times in it, or at every tick if it has fewer
	// than ten. Default 10; 3 to 1000.
	ElectionTicks int
	// RequestTimeout bounds a call that waits for its commit, not counting the
	// time in a lock's queue. Default 30 s, at least 10 ms.
	RequestTimeout time.Duration
	// Limits bound what callers may ask; those of the leader count.
	Limits raftlock.Limits
	// Snapshots bound the log, on disk and in memory. The zero value is right but
	// for tests.
	Snapshots raftlock.Snapshots

	// Logger gets what an operator wants to know. nil is silent.
	Logger *slog.Logger
}

// ParseCluster reads "n1=host:port,n2=host:port", as a command line gives it.
// Blanks around names and addresses are dropped. It refuses an empty name or
// address, a name that comes twice, and an address without a port.
func ParseCluster(s string) (map[string]string, error) {
	cluster := map[string]string{}
	for part := range strings.SplitSeq(s, ",") {
		name, addr, ok := strings.Cut(strings.TrimSpace(part), "=")
		name, addr = strings.TrimSpace(name), strings.TrimSpace(addr)
		switch {
		case !ok || name == "" || addr == "":
			return nil, fmt.Errorf("cluster %q: %q is not name=host:port", s, part)
		case cluster[name] != "":
			return nil, fmt.Errorf("cluster %q: member %q comes twice", s, name)
		}
		if _, port, err := net.SplitHostPort(addr); err != nil {
			return nil, fmt.Errorf("cluster %q: address of member %q: %w", s, name, err)
		} else if port == "" {
			return nil, fmt.Errorf("cluster %q: address of member %q: %s has no port", s, name, addr)
		}
		cluster[name] = addr
	}
	return cluster, nil
}

func (c *Config) setDefaults() {
	if c.ListenPeer != "" || c.PeerListener != nil {
		return
	}
	c.ListenPeer = c.InitialCluster[c.Name]
	if len(c.InitialCluster) == 0 {
		c.ListenPeer = "127.0.0.1:0"
	}
}

// node is the part of the configuration that the node beneath gets.
func (c *Config) node(storage *walstore.Store, transport *peerwire.Transport) raftlock.Config {
	return raftlock.Config{
		Name: c.Name, ClusterName: c.ClusterName, InitialCluster: c.InitialCluster,
		ClientAddress: c.AdvertiseClient, Storage: storage, Transport: transport,
		Logger: c.Logger, TickInterval: c.TickInterval, ElectionTicks: c.ElectionTicks,
		RequestTimeout: c.RequestTimeout, Limits: c.Limits, Snapshots: c.Snapshots,
	}
}

// validate reports all faults, those that raftlock.Open would find included:
// nothing must have been made on the disk by then.
func (c *Config) validate() error {
	errs := []error{c.node(nil, nil).Validate()}
	fault := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("config: %s: %s", field, fmt.Sprintf(format, args...)))
	}
	if c.DataDir == "" {
		fault("DataDir", "is required")
	}
	if !canListen(c.PeerTLS) {
		fault("PeerTLS", "has no certificate to listen with")
	}
	for _, name := range slices.Sorted(maps.Keys(c.InitialCluster)) {
		addr := c.InitialCluster[name]
		if _, _, err := net.SplitHostPort(addr); err != nil {
			fault("InitialCluster", "address of member %q: %v", name, err)
		} else if c.PeerTLS == nil && !c.Insecure && !isLoopback(addr) {
			fault("PeerTLS", "is required, as member %q is at %s: without TLS only loopback addresses are allowed (or set Insecure)", name, addr)
		}
	}
	c.validateListener(fault)
	c.validateClient(fault)
	return errors.Join(errs...)
}

func (c *Config) validateListener(fault func(field, format string, args ...any)) {
	listen := c.ListenPeer
	if c.PeerListener != nil {
		if listen != "" {
			fault("ListenPeer", "is set beside PeerListener")
		}
		listen = c.PeerListener.Addr().String()
	}
	if listen == "" {
		return // no such member; that is a fault already
	}
	if _, _, err := net.SplitHostPort(listen); err != nil {
		fault("ListenPeer", "%v", err)
		return
	}
	if isLoopback(listen) {
		return
	}
	if len(c.InitialCluster) == 0 {
		fault("InitialCluster", "is required to listen for peers at %s: a cluster of one listens on the loopback interface only", listen)
	}
	if c.PeerTLS == nil && !c.Insecure {
		fault("PeerTLS", "is required to listen at %s: without TLS only loopback addresses are allowed (or set Insecure)", listen)
	}
}

func (c *Config) validateClient(fault func(field, format string, args ...any)) {
	if !canListen(c.ClientTLS) {
		fault("ClientTLS", "has no certificate to listen with")
	}
	if a := c.AdvertiseClient; a != "" {
		if host, port, err := net.SplitHostPort(a); err != nil {
			fault("AdvertiseClient", "%v", err)
		} else if isWildcard(host) || port == "" || port == "0" {
			fault("AdvertiseClient", "%s is no address that clients could reach", a)
		}
	}
	listen := c.ListenClient
	if c.ClientListener != nil {
		if listen != "" {
			fault("ListenClient", "is set beside ClientListener")
		}
		if _, ok := c.ClientListener.Addr().(*net.TCPAddr); !ok {
			return // a socket of this machine, or of this process
		}
		listen = c.ClientListener.Addr().String()
	}
	if listen == "" {
		return
	}
	if _, _, err := net.SplitHostPort(listen); err != nil {
		fault("ListenClient", "%v", err)
		return
	}
	if c.ClientTLS == nil && !c.Insecure && !isLoopback(listen) {
		fault("ClientTLS", "is required to listen at %s: without TLS only loopback addresses are allowed (or set Insecure)", listen)
	}
}

// advertise is the address for clients that the member tells, when it listens at
// addr for them.
func (c *Config) advertise(addr net.Addr) string {
	if c.AdvertiseClient != "" {
		return c.AdvertiseClient
	}
	if _, ok := addr.(*net.TCPAddr); !ok {
		return ""
	}
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil || !isWildcard(host) {
		return addr.String()
	}
	host, _, err = net.SplitHostPort(c.InitialCluster[c.Name])
	if err != nil || isWildcard(host) {
		return "" // nothing is better than an address that means another machine to each
	}
	return net.JoinHostPort(host, port)
}

// canListen reports whether a configuration has what a listener needs; none at
// all is fine.
func canListen(t *tls.Config) bool {
	return t == nil || len(t.Certificates) > 0 || t.GetCertificate != nil || t.GetConfigForClient != nil
}

// isWildcard reports whether a host means all interfaces.
func isWildcard(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}

// isLoopback reports whether an address is of the loopback interface, by its
// text: names other than localhost are not looked up.
func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

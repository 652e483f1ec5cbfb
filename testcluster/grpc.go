package testcluster

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"sync"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/internal/lockservice"
)

// WithGRPC has every member serve programs that do not embed, over connections
// in memory, for tests of the remote client; see ClientConfig. A member that is
// crashed takes its connections with it, without a word.
func WithGRPC() Option {
	return func(c *Cluster) { c.front = &front{doors: map[string]*door{}} }
}

// ClientConfig is what client.Dial needs to reach a cluster made WithGRPC. Its
// endpoints are the members' in their order: leave some out for a client that
// does not know them. It fails the test of another cluster.
func (c *Cluster) ClientConfig() client.Config {
	c.tb.Helper()
	if !c.isAlive("ClientConfig") {
		return client.Config{}
	}
	c.watch.partial.Store(true) // a client.Dial with it is nobody's to see
	if c.front == nil {
		c.tb.Fatal("testcluster: ClientConfig needs a cluster made WithGRPC")
	}
	cfg := client.DefaultClientConfig()
	for i := range c.roll.list() {
		cfg.Endpoints = append(cfg.Endpoints, clientAddress(i))
	}
	cfg.DialOptions = []grpc.DialOption{grpc.WithContextDialer(c.front.dial)}
	return cfg
}

// Dial returns a client that goes over gRPC, on a machine of its own, as a
// program would that does not embed a member. cfg is what ClientConfig returned, or
// what the test made of it. The test's cleanup closes the client. It fails the
// test when client.Dial fails.
func (c *Cluster) Dial(cfg client.Config) *Client {
	c.tb.Helper()
	if !c.isAlive("Dial") {
		return &Client{cluster: c, machine: newMachine()}
	}
	if c.front == nil {
		c.tb.Fatal("testcluster: Dial needs a cluster made WithGRPC")
	}
	cl := &Client{cluster: c, machine: newMachine()}
	cl.seen = c.watch.client(cl)
	w := &wire{machine: cl.machine, front: c.front}
	cfg.DialOptions = append(slices.Clone(cfg.DialOptions), grpc.WithContextDialer(w.dial), grpc.WithChainUnaryInterceptor(w.intercept))
	remote, err := client.Dial(cfg)
	if err != nil {
		c.tb.Fatalf("testcluster: dial: %v", err)
	}
	cl.remote = remote
	c.adopt(cl)
	return cl
}

// clientAddress is where member i serves clients: an address that is nobody's
// (RFC 5737), and no name, which would be looked up.
func clientAddress(i int) string { return fmt.Sprintf("192.0.2.%d:7001", i+1) }

// front is the way of remote clients to the members.
type front struct {
	tls *tls.Config

	mu    sync.Mutex
	doors map[string]*door // of the members that run, by client address
}

// door is where one member serves.
type door struct {
	listener *bufconn.Listener
	server   *grpc.Server
	serving  sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn
}

// open has a member serve.
func (f *front) open(address string, node *raftlock.Node, p process) {
	service := lockservice.New(lockservice.Config{Client: node.Client(), Cluster: node.ClusterID, Leader: node.Leader})
	d := &door{listener: bufconn.Listen(64 << 10), server: lockservice.NewServer(service, f.tls)}
	d.serving.Go(func() { _ = d.server.Serve(stoppable{d.listener, p}) }) // until shut; it has nothing else to tell
	f.mu.Lock()
	defer f.mu.Unlock()
	f.doors[address] = d
}

// shut breaks a member's connections. Its calls end when the member does.
func (f *front) shut(address string) *door {
	f.mu.Lock()
	d := f.doors[address]
	delete(f.doors, address)
	f.mu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, conn := range d.conns {
		_ = conn.Close() // in memory: no error
	}
	d.conns = nil
	return d
}

// stop ends what shut has cut off.
func (d *door) stop() {
	d.server.Stop()
	d.serving.Wait()
}

// dial connects to the member that serves at address.
func (f *front) dial(ctx context.Context, address string) (net.Conn, error) {
	f.mu.Lock()
	d := f.doors[address]
	f.mu.Unlock()
	if d == nil {
		return nil, &net.OpError{Op: "dial", Net: "mem", Err: syscall.ECONNREFUSED}
	}
	conn, err := d.listener.DialContext(ctx)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.conns = append(d.conns, conn)
	return conn, nil
}

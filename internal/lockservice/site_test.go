package lockservice_test

import (
	"context"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/raftlock/raftlock/internal/lockservice"
	"github.com/raftlock/raftlock/pb"
	"github.com/raftlock/raftlock/testcluster"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must come about.
const patience = 30 * time.Second

// desk is a service on a server of its own, and a connection to it.
type desk struct {
	tb       testing.TB
	service  *lockservice.Service
	server   *grpc.Server
	listener *bufconn.Listener
	conn     *grpc.ClientConn
	rpc      pb.RaftLockClient
}

// openDesk serves a configuration in memory until the test ends.
func openDesk(tb testing.TB, cfg lockservice.Config, options ...grpc.DialOption) *desk {
	tb.Helper()
	d := &desk{tb: tb, service: lockservice.New(cfg), listener: bufconn.Listen(1 << 20)}
	d.server = lockservice.NewServer(d.service, nil)
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := d.server.Serve(d.listener); err != nil {
			tb.Errorf("serve: %v", err)
		}
	}()
	tb.Cleanup(func() {
		d.server.Stop()
		<-served
	})
	d.conn = d.dial(options...)
	d.rpc = pb.NewRaftLockClient(d.conn)
	return d
}

// dial opens one more connection.
func (d *desk) dial(options ...grpc.DialOption) *grpc.ClientConn {
	d.tb.Helper()
	options = append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return d.listener.DialContext(ctx) }),
	}, options...)
	conn, err := grpc.NewClient("passthrough:///desk", options...)
	if err != nil {
		d.tb.Fatal(err)
	}
	d.tb.Cleanup(func() { _ = conn.Close() })
	return conn
}

// at is the configuration of a service of member i of a cluster.
func at(c *testcluster.Cluster, i int) lockservice.Config {
	node := c.Node(i)
	return lockservice.Config{
		Client: c.ClientOn(i), Cluster: node.ClusterID,
		Leader: func() (string, string) {
			name, _ := node.Leader()
			if name == "" {
				return "", ""
			}
			return name, name + ".example:7001"
		},
	}
}

func within(tb testing.TB) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	tb.Cleanup(cancel)
	return ctx
}

// detail is the ErrorDetail of a status.
func detail(tb testing.TB, err error) *pb.ErrorDetail {
	tb.Helper()
	for _, d := range status.Convert(err).Details() {
		if detail, ok := d.(*pb.ErrorDetail); ok {
			return detail
		}
	}
	tb.Fatalf("no ErrorDetail in %v", err)
	return nil
}

// call makes a call and returns the headers of its answer.
func call[Q, A any](tb testing.TB, method func(context.Context, Q, ...grpc.CallOption) (A, error), req Q) (A, metadata.MD, error) {
	tb.Helper()
	var header metadata.MD
	answer, err := method(within(tb), req, grpc.Header(&header))
	return answer, header, err
}

// must is call for one that must be answered.
func must[Q, A any](tb testing.TB, method func(context.Context, Q, ...grpc.CallOption) (A, error), req Q) A {
	tb.Helper()
	answer, _, err := call(tb, method, req)
	if err != nil {
		tb.Fatalf("%T: %v", req, err)
	}
	return answer
}

// eventually waits until holds does.
func eventually(tb testing.TB, what string, holds func() bool) {
	tb.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	for !holds() {
		select {
		case <-ticker.C:
		case <-limit.C:
			tb.Fatalf("not within %v: %s", patience, what)
		}
	}
}

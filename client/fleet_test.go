package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/raftlock/raftlock/pb"
)

// fleet is a network with fake members on it, who answer as a test tells them
// to.
type fleet struct {
	t  *testing.T
	mu sync.Mutex
	at map[string]*fakeMember
}

// script answers a call; the method is its name alone.
type script func(ctx context.Context, method string, req proto.Message) (proto.Message, error)

// fakeMember is a gRPC server on a fleet's network.
type fakeMember struct {
	fleet    *fleet
	address  string
	cluster  string // in its answers' headers; "" for none
	leader   string // likewise
	script   script
	listener *bufconn.Listener
	server   *grpc.Server

	mu    sync.Mutex
	calls []heard
	conns []net.Conn // the clients' ends
	dials int
}

// heard is a call that a member was sent.
type heard struct {
	method string
	req    proto.Message
	conn   int // which connection it came over, counted from 1
}

func newFleet(t *testing.T) *fleet {
	return &fleet{t: t, at: map[string]*fakeMember{}}
}

// member adds a member that answers by a script; nil grants and accepts all.
func (f *fleet) member(address string, s script) *fakeMember {
	if s == nil {
		s = yes
	}
	m := &fakeMember{fleet: f, address: address, cluster: "c1", script: s}
	m.start()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at[address] = m
	return m
}

// serve puts another gRPC server on the network.
func (f *fleet) serve(address string, server *grpc.Server) {
	m := &fakeMember{fleet: f, address: address, listener: bufconn.Listen(1 << 16), server: server}
	go func() { _ = server.Serve(m.listener) }()
	f.t.Cleanup(m.stop)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at[address] = m
}

// talk puts a server on the network that says one thing to whoever connects.
func (f *fleet) talk(address, what string) {
	m := &fakeMember{fleet: f, address: address, listener: bufconn.Listen(1 << 16), server: grpc.NewServer()}
	go func() {
		for {
			conn, err := m.listener.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte(what))
			_ = conn.Close()
		}
	}()
	f.t.Cleanup(m.stop)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at[address] = m
}

type connKey struct{}

// connTagger numbers a server's connections.
type connTagger struct {
	stats.Handler
	mu sync.Mutex
	n  int
}

func (c *connTagger) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	return context.WithValue(ctx, connKey{}, c.n)
}

func (c *connTagger) HandleConn(context.Context, stats.ConnStats)                     {}
func (c *connTagger) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }
func (c *connTagger) HandleRPC(context.Context, stats.RPCStats)                       {}

func (m *fakeMember) start(options ...grpc.ServerOption) {
	m.listener = bufconn.Listen(1 << 16)
	m.server = grpc.NewServer(append(options, grpc.UnaryInterceptor(m.answer), grpc.StatsHandler(&connTagger{}))...)
	pb.RegisterRaftLockServer(m.server, pb.UnimplementedRaftLockServer{})
	listener, server := m.listener, m.server
	go func() { _ = server.Serve(listener) }()
	m.fleet.t.Cleanup(func() {
		server.Stop()
		_ = listener.Close()
	})
}

func (m *fakeMember) answer(ctx context.Context, req any, info *grpc.UnaryServerInfo, _ grpc.UnaryHandler) (any, error) {
	message := req.(proto.Message)
	method := path.Base(info.FullMethod)
	conn, _ := ctx.Value(connKey{}).(int)
	m.mu.Lock()
	m.calls = append(m.calls, heard{method, proto.Clone(message), conn})
	cluster, leader := m.cluster, m.leader
	m.mu.Unlock()
	header := metadata.MD{}
	if cluster != "" {
		header.Set(clusterHeader, cluster)
	}
	if leader != "" {
		header.Set(leaderHeader, leader)
	}
	if err := grpc.SetHeader(ctx, header); err != nil {
		return nil, err
	}
	answer, err := m.script(ctx, method, message)
	if err == nil && answer == nil {
		return nil, status.Error(codes.Internal, "the script has no answer")
	}
	return answer, err
}

// heardOf lists the requests of a method that the member was sent.
func (m *fakeMember) heardOf(method string) (reqs []proto.Message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.calls {
		if c.method == method {
			reqs = append(reqs, c.req)
		}
	}
	return reqs
}

// acquires lists the Acquires that the member was sent.
func (m *fakeMember) acquires() (reqs []*pb.AcquireRequest) {
	for _, req := range m.heardOf("Acquire") {
		reqs = append(reqs, req.(*pb.AcquireRequest))
	}
	return reqs
}

// cut breaks all connections to the member, as when a cable is pulled.
func (m *fakeMember) cut() {
	m.mu.Lock()
	conns := m.conns
	m.conns = nil
	m.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
}

// stop takes the member off the network.
func (m *fakeMember) stop() {
	m.fleet.mu.Lock()
	delete(m.fleet.at, m.address)
	m.fleet.mu.Unlock()
	m.server.Stop()
	_ = m.listener.Close()
	m.cut()
}

var errRefused = errors.New("connection refused")

// blackhole is an address whose dials get no answer.
const blackhole = "10.9.9.9:1"

func (f *fleet) dial(ctx context.Context, address string) (net.Conn, error) {
	if address == blackhole {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	f.mu.Lock()
	m := f.at[address]
	f.mu.Unlock()
	if m == nil {
		return nil, fmt.Errorf("dial %s: %w", address, errRefused)
	}
	conn, err := m.listener.DialContext(ctx)
	if err == nil {
		m.mu.Lock()
		m.conns = append(m.conns, conn)
		m.dials++
		m.mu.Unlock()
	}
	return conn, err
}

// client makes a client of the addresses; edit may be nil.
func (f *fleet) client(edit func(*Config), addresses ...string) *remote {
	f.t.Helper()
	cfg := DefaultClientConfig()
	cfg.Endpoints = addresses
	cfg.DialOptions = []grpc.DialOption{grpc.WithContextDialer(f.dial)}
	if edit != nil {
		edit(&cfg)
	}
	c, err := Dial(cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		if err := c.Close(); err != nil {
			f.t.Error(err)
		}
	})
	return c.(*remote)
}

// Some answers.

const grantedTTL = 30 * time.Second

func granted(req *pb.AcquireRequest, version int64) *pb.AcquireResponse {
	return &pb.AcquireResponse{Acquired: true, Lock: &pb.Lock{
		LockId: req.GetLockId(), OwnerId: req.GetClientId(), Version: version, Remaining: durationpb.New(grantedTTL),
	}}
}

func yes(_ context.Context, method string, req proto.Message) (proto.Message, error) {
	switch r := req.(type) {
	case *pb.AcquireRequest:
		return granted(r, 7), nil
	case *pb.ReleaseRequest:
		return &pb.ReleaseResponse{Released: true}, nil
	case *pb.RenewRequest:
		return &pb.RenewResponse{Renewed: true, Lock: &pb.Lock{LockId: r.GetLockId(), Version: r.GetVersion(), Remaining: r.GetNewTtl()}}, nil
	case *pb.CancelWaitRequest:
		return &pb.CancelWaitResponse{Cancelled: true}, nil
	case *pb.EnqueueWaiterRequest:
		return &pb.EnqueueWaiterResponse{Enqueued: true}, nil
	case *pb.GetLockInfoRequest:
		return &pb.GetLockInfoResponse{LockInfo: &pb.LockInfo{LockId: r.GetLockId(), OwnerId: "me", Version: 7, Remaining: durationpb.New(grantedTTL)}}, nil
	case *pb.HealthRequest:
		return &pb.HealthResponse{Status: pb.HealthStatus_SERVING}, nil
	}
	return nil, fmt.Errorf("no answer to %s", method)
}

// refusal is a status with an ErrorDetail.
func refusal(code codes.Code, detail *pb.ErrorDetail) error {
	st, err := status.New(code, detail.GetMessage()).WithDetails(detail)
	if err != nil {
		return err
	}
	return st.Err()
}

func notLeader(address string) error {
	detail := &pb.ErrorDetail{Code: pb.ErrorCode_NOT_LEADER, Message: "not the leader", Details: map[string]string{"outcome": "not_proposed"}}
	if address != "" {
		detail.Details["leader_address"] = address
	}
	return refusal(codes.FailedPrecondition, detail)
}

func noLeader() error {
	return refusal(codes.Unavailable, &pb.ErrorDetail{
		Code: pb.ErrorCode_NO_LEADER, Message: "no leader available", Details: map[string]string{"outcome": "not_proposed"},
	})
}

func acquireReq() *AcquireRequest {
	return &AcquireRequest{LockID: "l", ClientID: "me", RequestID: "r1"}
}

func fewRetries(n int) func(*Config) {
	return func(cfg *Config) { cfg.RetryPolicy.MaxRetries = n }
}

// outcome is the outcome that an error tells, "" if it tells none.
func outcome(t *testing.T, err error) string {
	t.Helper()
	ce, ok := errors.AsType[*ClientError](err)
	if !ok {
		t.Fatalf("%v is no ClientError", err)
	}
	return ce.Details["outcome"]
}

func is(err error, targets ...error) bool {
	return !slices.ContainsFunc(targets, func(target error) bool { return !errors.Is(err, target) })
}

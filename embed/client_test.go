package embed_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/raftlock/raftlock/embed"
	"github.com/raftlock/raftlock/pb"
)

// remote is a connection to a member, as a program that does not embed has one.
func remote(tb testing.TB, addr string, creds credentials.TransportCredentials) *grpc.ClientConn {
	tb.Helper()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(creds))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	return conn
}

// take acquires a lock over a connection and returns the headers of the answer.
func take(tb testing.TB, conn *grpc.ClientConn, lock, id string) (*pb.Lock, metadata.MD) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var header metadata.MD
	got, err := pb.NewRaftLockClient(conn).Acquire(ctx, &pb.AcquireRequest{LockId: lock, ClientId: id}, grpc.Header(&header))
	if err != nil || !got.GetAcquired() {
		tb.Fatalf("acquire %s: %v, %v", lock, got, err)
	}
	return got.GetLock(), header
}

// Every member serves, tells where the leader is, and sees what came over the
// others.
func TestServesClients(t *testing.T) {
	t.Parallel()
	s := newSite(t, names(3)...)
	s.adjust = func(cfg *embed.Config) { cfg.ListenClient = "127.0.0.1:0" }
	members := s.start(names(3)...)
	leader := members[leaderOf(t, members)].ClientAddr()
	for name, m := range members {
		eventually(t, name+" knows the leader's address", func() bool {
			_, addr := m.Node().Leader()
			return addr == leader
		})
		_, header := take(t, remote(t, m.ClientAddr(), insecure.NewCredentials()), "of-"+name, name)
		if got := header.Get("raftlock-leader"); len(got) != 1 || got[0] != leader {
			t.Errorf("%s says that the leader is at %q, it is at %s", name, got, leader)
		}
		if got := header.Get("raftlock-cluster"); len(got) != 1 || got[0] != m.Node().ClusterID() || got[0] == "" {
			t.Errorf("%s says that the cluster is %q, it is %q", name, got, m.Node().ClusterID())
		}
	}
	for name, m := range members {
		for other := range members {
			if info := lockInfo(t, m, "of-"+other); info.OwnerID != other {
				t.Errorf("%s says that %q holds the lock of %s", name, info.OwnerID, other)
			}
		}
	}
}

func TestClientAddress(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		cfg  embed.Config
		want func(port string) string
	}{
		"as listened on": {embed.Config{ListenClient: "127.0.0.1:0"}, func(port string) string { return "127.0.0.1:" + port }},
		"of all interfaces": {
			embed.Config{ListenClient: ":0", Insecure: true, InitialCluster: map[string]string{"n1": "localhost:0"}, ListenPeer: "127.0.0.1:0"},
			func(port string) string { return "localhost:" + port },
		},
		"of all interfaces, without a name": {embed.Config{ListenClient: "0.0.0.0:0", Insecure: true}, func(string) string { return "" }},
		"given":                             {embed.Config{ListenClient: "127.0.0.1:0", AdvertiseClient: "locks.example:7001"}, func(string) string { return "locks.example:7001" }},
		"listened":                          {embed.Config{}, func(string) string { return "" }},
	} {
		cfg := test.cfg
		cfg.Name, cfg.DataDir, cfg.TickInterval = "n1", t.TempDir(), tick
		m := openMember(t, cfg)
		awaitReady(t, "n1", m)
		port := ""
		if m.ClientAddr() != "" {
			_, port, _ = net.SplitHostPort(m.ClientAddr())
		}
		if _, got := m.Node().Leader(); got != test.want(port) {
			t.Errorf("%s: advertises %q, want %q", name, got, test.want(port))
		}
	}
}

func TestClientConfigFaults(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	for fault, change := range map[string]func(*embed.Config){
		"config: ClientTLS: is required to listen at 10.1.2.3:7001": func(c *embed.Config) { c.ListenClient = "10.1.2.3:7001" },
		"config: ClientTLS: is required to listen at :7001":         func(c *embed.Config) { c.ListenClient = ":7001" },
		"config: ClientTLS: has no certificate":                     func(c *embed.Config) { c.ClientTLS = new(tls.Config) },
		"config: ListenClient: address nowhere: missing port":       func(c *embed.Config) { c.ListenClient = "nowhere" },
		"config: ListenClient: is set beside ClientListener": func(c *embed.Config) {
			c.ListenClient, c.ClientListener = "127.0.0.1:0", l
		},
		"config: AdvertiseClient: 0.0.0.0:7001 is no address": func(c *embed.Config) { c.AdvertiseClient = "0.0.0.0:7001" },
		"config: AdvertiseClient: address a: missing port":    func(c *embed.Config) { c.AdvertiseClient = "a" },
	} {
		cfg := embed.Config{Name: "n1", DataDir: t.TempDir(), TickInterval: 1} // one fault more
		change(&cfg)
		m, err := embed.Open(cfg)
		if err == nil {
			_ = m.Close()
			t.Errorf("opened, want %q", fault)
			continue
		}
		for _, want := range []string{fault, "config: TickInterval: "} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("error %q does not say %q", err, want)
			}
		}
	}
	if _, err := l.Accept(); err == nil {
		t.Error("the listener that was given is still open")
	}
}

// A member serves over a gRPC server of its host's, and its health over HTTP.
func TestHostsServers(t *testing.T) {
	t.Parallel()
	m := openMember(t, embed.Config{Name: "n1", DataDir: t.TempDir(), TickInterval: tick})
	server := grpc.NewServer()
	m.RegisterService(server)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	awaitReady(t, "n1", m)
	conn := remote(t, l.Addr().String(), insecure.NewCredentials())
	take(t, conn, "a", "one")
	if code, text := health(m); code != http.StatusOK || text != "serving\n" {
		t.Errorf("health is %d %q", code, text)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if code, text := health(m); code != http.StatusServiceUnavailable || text != "this member is closing\n" {
		t.Errorf("health after Close is %d %q", code, text)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err = pb.NewRaftLockClient(conn).Acquire(ctx, &pb.AcquireRequest{LockId: "a", ClientId: "one"})
	if status.Code(err) != codes.Unavailable || len(status.Convert(err).Details()) != 1 {
		t.Errorf("a call after Close: %v", err)
	}
}

func health(m *embed.Member) (code int, text string) {
	recorder := httptest.NewRecorder()
	m.HealthHandler().ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/health", nil))
	return recorder.Code, recorder.Body.String()
}

// Whoever watches a member's health hears of its end before its connection ends.
func TestWatchedHealth(t *testing.T) {
	t.Parallel()
	m := openMember(t, embed.Config{Name: "n1", DataDir: t.TempDir(), TickInterval: tick, ListenClient: "127.0.0.1:0"})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	watch, err := healthpb.NewHealthClient(remote(t, m.ClientAddr(), insecure.NewCredentials())).
		Watch(ctx, &healthpb.HealthCheckRequest{Service: "raftlock.RaftLock"})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []healthpb.HealthCheckResponse_ServingStatus{
		healthpb.HealthCheckResponse_SERVING, healthpb.HealthCheckResponse_NOT_SERVING,
	} {
		for { // it may not serve yet
			got, err := watch.Recv()
			if err != nil {
				t.Fatalf("want %v: %v", want, err)
			}
			if got.GetStatus() == want {
				break
			}
		}
		if want == healthpb.HealthCheckResponse_SERVING {
			closeAll(t, map[string]*embed.Member{"n1": m})
		}
	}
	if _, err := watch.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the watch ends with %v", err)
	}
}

// With TLS only who shows the right certificate is served.
func TestClientTLS(t *testing.T) {
	t.Parallel()
	ca, stranger := newAuthority(t), newAuthority(t)
	m := openMember(t, embed.Config{
		Name: "n1", DataDir: t.TempDir(), TickInterval: tick, ListenClient: "127.0.0.1:0", ClientTLS: ca.mutual("n1"),
	})
	awaitReady(t, "n1", m)
	dialing := func(a *authority) *tls.Config {
		config := a.mutual("client")
		config.RootCAs, config.ServerName = ca.pool, "127.0.0.1"
		return config
	}
	take(t, remote(t, m.ClientAddr(), credentials.NewTLS(dialing(ca))), "a", "one")
	for name, creds := range map[string]credentials.TransportCredentials{
		"no TLS":            insecure.NewCredentials(),
		"another authority": credentials.NewTLS(dialing(stranger)),
		"no certificate":    credentials.NewTLS(&tls.Config{RootCAs: ca.pool, ServerName: "127.0.0.1"}),
	} {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		_, err := pb.NewRaftLockClient(remote(t, m.ClientAddr(), creds)).Health(ctx, &pb.HealthRequest{})
		cancel()
		if status.Code(err) != codes.Unavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A member whose listener for clients breaks ends, and says why.
func TestBrokenClientListener(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := openMember(t, embed.Config{Name: "n1", DataDir: t.TempDir(), TickInterval: tick, ClientListener: l})
	awaitReady(t, "n1", m)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	awaitDone(t, m)
	if m.Err() == nil || !strings.Contains(m.Err().Error(), "serve clients: ") {
		t.Errorf("it ended with %v", m.Err())
	}
}

// Clients see and change the members where that is allowed, and nowhere else.
func TestServesMembers(t *testing.T) {
	t.Parallel()
	s := newSite(t, names(3)...)
	s.adjust = func(cfg *embed.Config) {
		cfg.ListenClient, cfg.ServeMembers = "127.0.0.1:0", cfg.Name != "n3"
	}
	members := s.start(names(3)...)
	leader := leaderOf(t, members)
	to := map[string]string{"n1": "n2", "n2": "n1", "n3": "n1"}[leader]
	cl := pb.NewMembersClient(remote(t, members["n1"].ClientAddr(), insecure.NewCredentials()))
	eventually(t, to+" leads", func() bool { // refused until it can be reached
		_, err := cl.Transfer(t.Context(), &pb.TransferLeadershipRequest{Name: to})
		return err == nil
	})
	list, err := cl.List(t.Context(), &pb.ListMembersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range list.GetMembers() {
		name := names(3)[i]
		if m.GetName() != name || !m.GetIsVoter() || m.GetIsLeader() != (name == to) || m.GetPeerAddress() != members[name].PeerAddr() {
			t.Errorf("member %d is %v, the leader should be %s", i, m, to)
		}
	}
	if _, err := cl.Remove(t.Context(), &pb.RemoveMemberRequest{Name: "n9"}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("the removal of nobody: %v", err)
	}
	closed := pb.NewMembersClient(remote(t, members["n3"].ClientAddr(), insecure.NewCredentials()))
	if _, err := closed.List(t.Context(), &pb.ListMembersRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("a member that does not serve them: %v", err)
	}
}

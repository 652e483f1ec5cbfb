package client_test

import (
	"context"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/internal/lockservice"
)

// oneMember serves a cluster of one in memory, in place of members on machines of
// their own, and returns how to reach it.
func oneMember() (dialer grpc.DialOption, end func(), err error) {
	node, err := raftlock.Open(raftlock.Config{Name: "n1", Storage: raftlock.NewMemoryStorage()})
	if err != nil {
		return nil, nil, err
	}
	listener := bufconn.Listen(1 << 16)
	server := lockservice.NewServer(lockservice.New(lockservice.Config{
		Client: node.Client(), Cluster: node.ClusterID, Leader: node.Leader,
	}), nil)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener)
	}()
	end = func() {
		server.Stop()
		<-served
		_ = node.Close()
	}
	dialer = grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) })
	return dialer, end, nil
}

// A program that does not embed a member takes a lock over the network. List all
// members: the client finds the leader by itself.
func ExampleDial() {
	inMemory, end, err := oneMember()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer end()

	c, err := client.Dial(client.Config{
		Endpoints:   []string{"10.0.0.1:7001", "10.0.0.2:7001", "10.0.0.3:7001"},
		DialOptions: []grpc.DialOption{inMemory}, // none in a program; Config.TLS instead
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	err = client.Do(context.Background(), c, "invoices", func(_ context.Context, token int64) error {
		fmt.Println("held under a token:", token > 0)
		return nil
	})
	fmt.Println("error:", err)
	// Output:
	// held under a token: true
	// error: <nil>
}

// All faults of a configuration are named at once.
func ExampleNewRaftLockClient() {
	_, err := client.NewRaftLockClient(client.Config{Endpoints: []string{"localhost"}, RequestTimeout: -time.Second})
	fmt.Println(err)
	// Output:
	// dial: invalid argument: validation error for field 'Endpoints[0]': must be host:port
	// validation error for field 'RequestTimeout': must not be negative
}

func ExampleRaftLockClientBuilder() {
	c, err := client.NewRaftLockClientBuilder([]string{"n1.example:7001", "n2.example:7001", "n3.example:7001"}).
		WithTimeouts(2*time.Second, 10*time.Second).
		WithRetryOptions(5, 50*time.Millisecond, time.Second, 2).
		BuildAdvanced()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	fmt.Println("connected:", c.IsConnected()) // not before the first call
	// Output: connected: false
}

// What a client counts, here after one call that reached a member.
func ExampleMetrics() {
	inMemory, end, err := oneMember()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer end()
	cfg := client.DefaultClientConfig()
	cfg.Endpoints, cfg.DialOptions = []string{"10.0.0.1:7001"}, []grpc.DialOption{inMemory}
	c, err := client.Dial(cfg)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	_, err = c.Acquire(context.Background(), &client.AcquireRequest{LockID: "reports", ClientID: "web-1"})
	m := c.GetMetrics()
	fmt.Println(err, m.GetSuccessCount("Acquire"), m.GetMaxLatency("Acquire") > 0)
	// Output: <nil> 1 true
}

// Any number of locks, page by page, as they are looked at.
func ExampleLocks() {
	inMemory, end, err := oneMember()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer end()
	c, err := client.Dial(client.Config{Endpoints: []string{"10.0.0.1:7001"}, DialOptions: []grpc.DialOption{inMemory}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	ctx := context.Background()
	for _, id := range []string{"reports", "invoices", "mails"} {
		if _, err := c.Acquire(ctx, &client.AcquireRequest{LockID: id, ClientID: "web-1"}); err != nil {
			fmt.Println(err)
		}
	}
	for lock, err := range client.Locks(ctx, c, &client.LockFilter{LockIDPattern: "*s"}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(lock.LockID, "is held by", lock.OwnerID)
	}
	// Output:
	// invoices is held by web-1
	// mails is held by web-1
	// reports is held by web-1
}

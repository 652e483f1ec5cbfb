package e2e

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/raftlock/raftlock/client"
)

// silent is a port that takes connections and says nothing.
func silent(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close() // at the end of the test
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return l.Addr().String()
}

// dead is a port where nobody listens.
func dead(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// A client is told of followers only, or of addresses beside a good one that are
// not of its cluster. It works; without a good one it says what is wrong.
func TestEndpoints(t *testing.T) {
	t.Parallel()
	f, other := serving(t, 3), serving(t, 1)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "hello")
	}))
	t.Cleanup(web.Close)
	odd := map[string]string{"http": web.Listener.Addr().String(), "silent": silent(t), "dead": dead(t)}
	leader := f.leader()
	var followers []string
	for _, name := range f.names() {
		if name != leader {
			followers = append(followers, f.ports[name])
		}
	}
	works := func(what string, endpoints ...string) {
		t.Helper()
		c, err := client.Dial(client.Config{Endpoints: endpoints, DialTimeout: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		got, err := c.Acquire(within(t), &client.AcquireRequest{LockID: what, ClientID: "c", TTL: longTTL})
		if err != nil {
			t.Errorf("%s: %v", what, err)
			return
		}
		if a := f.at(leader).must(request{Op: "info", Lock: what}); a.Version != got.Lock.Version {
			t.Errorf("%s: token %d is not of the cluster: %+v", what, got.Lock.Version, a)
		}
		if _, err := c.Release(within(t), &client.ReleaseRequest{LockID: what, ClientID: "c", Version: got.Lock.Version}); err != nil {
			t.Errorf("%s: release: %v", what, err)
		}
	}
	works("followers only", followers...)
	works("one follower", followers[0])
	for kind, addr := range odd {
		works(kind+" first", addr, followers[0])
		c, err := client.Dial(client.Config{Endpoints: []string{addr}, DialTimeout: time.Second, RequestTimeout: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, err = c.Acquire(within(t), &client.AcquireRequest{LockID: "a", ClientID: "c"})
		t.Logf("%s: %v", kind, err)
		if !(errors.Is(err, client.ErrUnavailable) || errors.Is(err, client.ErrTimeout)) || !strings.Contains(err.Error(), addr) {
			t.Errorf("%s alone: %v", kind, err)
		}
	}

	// Another cluster comes into play when ours is gone.
	_ = f.at(leader).must(request{Op: "acquire", Lock: "ours", Client: "holder", TTL: longTTL})
	c := dial(t, append(f.endpoints(), other.endpoints()...))
	for range 20 { // it stays with the cluster that answers first, which is ours as a rule
		if info(t, c, "ours").OwnerID == "holder" {
			break
		}
		c = dial(t, append(f.endpoints(), other.endpoints()...))
	}
	if got := info(t, c, "ours"); got.OwnerID != "holder" {
		t.Fatalf("the client sees %+v", got)
	}
	for _, name := range f.names() {
		f.at(name).kill()
	}
	_, err := c.Acquire(within(t), &client.AcquireRequest{LockID: "ours", ClientID: "c"})
	t.Logf("another cluster: %v", err)
	if !errors.Is(err, client.ErrUnavailable) || !strings.Contains(err.Error(), other.ports["n1"]) || !strings.Contains(err.Error(), "cluster") {
		t.Errorf("the other cluster is answered with %v", err)
	}
}

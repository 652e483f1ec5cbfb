package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/raftlock/raftlock/client"
)

// crew is a cluster of processes of raftlock serve.
type crew struct {
	t       *testing.T
	dir     string
	cluster string
	clients map[string]string // addresses for programs, which stay the same
	peers   map[string]string
	flags   []string
	runs    map[string]*program
	outs    map[string]*lines
}

// lines collects an output, and says when it changes.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newCrew(t *testing.T, size int, flags ...string) *crew {
	t.Helper()
	c := &crew{
		t: t, dir: t.TempDir(), clients: map[string]string{}, peers: map[string]string{}, flags: flags,
		runs: map[string]*program{}, outs: map[string]*lines{},
	}
	var cluster []string
	for i := range size {
		name := fmt.Sprint("n", i+1)
		c.clients[name], c.peers[name] = freePort(t), freePort(t)
		cluster = append(cluster, name+"="+c.peers[name])
	}
	c.cluster = strings.Join(cluster, ",")
	return c
}

// freePort is an address that nobody listens at, and that the system gives to
// nobody who asks for any port.
func freePort(t *testing.T) string {
	t.Helper()
	for {
		l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", 12_000+rand.IntN(18_000)))
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return l.Addr().String()
	}
}

func (c *crew) start(name string) {
	c.t.Helper()
	p := newProgram(c.t, "", append([]string{
		"serve", "--data-dir", filepath.Join(c.dir, name), "--listen-client", c.clients[name], "--tick-interval", "15ms",
	}, c.flags...))
	p.Env = append(p.Env, "RAFTLOCK_NAME="+name, "RAFTLOCK_INITIAL_CLUSTER="+c.cluster)
	c.outs[name] = &lines{}
	p.Stdout = c.outs[name]
	c.runs[name] = p.start()
}

// ready waits until a member says that it serves.
func (c *crew) ready(name string) {
	c.t.Helper()
	want := fmt.Sprintf("ready name=%s client=%s peer=%s\n", name, c.clients[name], c.peers[name])
	eventually(c.t, name+" is ready", func() bool { return c.outs[name].String() != "" })
	if got := c.outs[name].String(); got != want {
		c.t.Fatalf("%s says %q, want %q", name, got, want)
	}
}

// stop ends a member gracefully.
func (c *crew) stop(name string) {
	c.t.Helper()
	p := c.runs[name]
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		c.t.Fatal(err)
	}
	if code := p.end(); code != exitDone {
		c.t.Fatalf("%s ends with %d: %s", name, code, p.err.String())
	}
}

func (c *crew) dial() client.Client {
	c.t.Helper()
	cfg := client.DefaultClientConfig()
	for _, addr := range c.clients {
		cfg.Endpoints = append(cfg.Endpoints, addr)
	}
	locks, err := client.Dial(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = locks.Close() })
	return locks
}

// Members of processes are restarted gracefully, each in its turn, while callers
// stand in a queue: nobody fails, and nobody loses the place.
func TestServeRestartsUnderWaiters(t *testing.T) {
	t.Parallel()
	c := newCrew(t, 3)
	for name := range c.clients {
		c.start(name)
	}
	for name := range c.clients {
		c.ready(name)
	}
	locks := c.dial()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	held, err := locks.Acquire(ctx, &client.AcquireRequest{LockID: "a", ClientID: "holder", TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	var mu sync.Mutex
	var waiting sync.WaitGroup
	for i := range 4 {
		id := fmt.Sprint("w", i)
		waiting.Go(func() {
			got, err := locks.Acquire(ctx, &client.AcquireRequest{LockID: "a", ClientID: id, RequestID: "r", Wait: true, TTL: time.Hour})
			if err != nil {
				t.Errorf("%s: %v", id, err)
				return
			}
			mu.Lock()
			order = append(order, id)
			mu.Unlock()
			if _, err := locks.Release(ctx, &client.ReleaseRequest{LockID: "a", ClientID: id, Version: got.Lock.Version}); err != nil {
				t.Errorf("release by %s: %v", id, err)
			}
		})
		eventually(t, id+" is in the queue", func() bool { return waiters(ctx, t, locks) == int32(i+1) })
	}
	for _, name := range []string{"n1", "n2", "n3"} {
		c.stop(name)
		c.start(name)
		c.ready(name)
		if n := waiters(ctx, t, locks); n != 4 {
			t.Errorf("after the restart of %s %d wait", name, n)
		}
	}
	if _, err := locks.Release(ctx, &client.ReleaseRequest{LockID: "a", ClientID: "holder", Version: held.Lock.Version}); err != nil {
		t.Fatal(err)
	}
	waiting.Wait()
	if got := strings.Join(order, " "); got != "w0 w1 w2 w3" {
		t.Errorf("granted in the order %s", got)
	}
	for name := range c.clients {
		c.stop(name)
	}
}

func waiters(ctx context.Context, t *testing.T, locks client.Client) int32 {
	t.Helper()
	info, err := locks.GetLockInfo(ctx, &client.GetLockInfoRequest{LockID: "a"})
	if err != nil {
		t.Fatal(err)
	}
	return info.WaiterCount
}

// TLS on both sides, from files, and health over HTTP.
func TestServeWithTLS(t *testing.T) {
	t.Parallel()
	own := newPapers(t, "locks.example")
	health := freePort(t)
	c := newCrew(t, 1, "--client-cert", own.cert, "--client-key", own.key, "--client-ca", own.ca,
		"--peer-cert", own.cert, "--peer-key", own.key, "--peer-ca", own.ca, "--listen-health", health)
	c.start("n1")
	c.ready("n1")
	for _, args := range [][]string{
		{"--ca", own.ca, "--cert", own.cert, "--key", own.key, "--server-name", "locks.example"}, {"--ca", own.ca, "--server-name", "locks.example"},
	} {
		var out, errOut bytes.Buffer
		want := exitDone
		if len(args) < 6 {
			want = exitNoCluster // a member that asks for certificates
		}
		if code := run(t.Context(), append([]string{"ls", "--endpoints", c.clients["n1"]}, args...), &out, &errOut); code != want {
			t.Errorf("ls %v: exit code %d, want %d: %s", args, code, want, errOut.String())
		}
	}
	answer, err := http.Get("http://" + health + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if answer.StatusCode != http.StatusOK || string(text) != "serving\n" || err != nil {
		t.Errorf("health: %d %q, %v", answer.StatusCode, text, err)
	}
	c.stop("n1")
}

func TestServeRefuses(t *testing.T) {
	t.Parallel()
	own, taken := newPapers(t, "locks.example"), newFleet(t, 1, nil)
	minimal := []string{"--name", "n1", "--data-dir", filepath.Join(t.TempDir(), "d")}
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"no name":      {[]string{"--data-dir", "d"}, exitUsage, "--name is required"},
		"no directory": {[]string{"--name", "n1"}, exitUsage, "--data-dir is required"},
		"a cluster that is none": {
			append(minimal, "--initial-cluster", "n1"), exitUsage, `--initial-cluster: cluster "n1"`,
		},
		"a level that is none": {append(minimal, "--log-level", "loud"), exitUsage, `--log-level "loud"`},
		"half a pair":          {append(minimal, "--client-cert", own.cert), exitUsage, "--client-cert and --client-key are both needed"},
		"peers that anybody is": {
			append(minimal, "--peer-cert", own.cert, "--peer-key", own.key), exitUsage, "--peer-ca is required",
		},
		"no certificate": {
			append(minimal, "--client-cert", own.key, "--client-key", own.key), exitUsage, "read --client-cert",
		},
		"another machine": {
			append(minimal, "--listen-client", "10.1.2.3:7001"), exitFailed, "--client-cert: is required to listen at 10.1.2.3:7001",
		},
		"not of the cluster": {
			append(minimal, "--initial-cluster", "n2=127.0.0.1:7102"), exitFailed, `--initial-cluster: does not name this member "n1"`,
		},
		"a port that is taken": {append(minimal, "--listen-client", taken.endpoints()), exitFailed, "listen for clients"},
		"a health port that is taken": {
			append(minimal, "--listen-client", "127.0.0.1:0", "--listen-health", taken.endpoints()), exitFailed, "listen for --listen-health",
		},
	} {
		var out, errOut bytes.Buffer
		code := run(t.Context(), append([]string{"serve"}, c.args...), &out, &errOut)
		if code != c.code || !strings.Contains(errOut.String(), c.says) || out.Len() > 0 {
			t.Errorf("%s: exit code %d, want %d and %q:\n%s%s", name, code, c.code, c.says, out.String(), errOut.String())
		}
	}
}

// A member that is told to end before its cluster has come together ends well.
func TestServeEndsBeforeItIsReady(t *testing.T) {
	t.Parallel()
	c := newCrew(t, 3)
	c.start("n1")
	eventually(t, "the member has said something", func() bool {
		conn, err := net.Dial("tcp", c.clients["n1"])
		if err != nil {
			return false
		}
		return conn.Close() == nil
	})
	c.stop("n1")
	if out := c.outs["n1"].String(); out != "" {
		t.Errorf("it says %q", out)
	}
}

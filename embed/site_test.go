package embed_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/embed"
)

const (
	// tick makes an election take a fifth of a second.
	tick = 10 * time.Millisecond
	// patience is how long a test waits for what must come about.
	patience = 30 * time.Second
	// longTTL outlasts every test.
	longTTL = time.Hour
)

// site is the place of one test's cluster: where its members keep their data and
// listen. It closes the members that it opened when the test ends.
type site struct {
	tb    testing.TB
	dir   string
	addrs map[string]string
	log   *logBook
	// held are listeners of members that were never started: until then no
	// other process can be given their ports.
	held map[string]net.Listener
	// adjust changes the configuration that config makes.
	adjust func(cfg *embed.Config)
}

func newSite(tb testing.TB, names ...string) *site {
	tb.Helper()
	s := &site{tb: tb, dir: tb.TempDir(), addrs: map[string]string{}, held: map[string]net.Listener{}, log: &logBook{}}
	for _, name := range names {
		s.move(name)
	}
	tb.Cleanup(func() {
		for _, l := range s.held {
			_ = l.Close()
		}
		if tb.Failed() {
			tb.Logf("log of the members:\n%s", s.log)
		}
	})
	return s
}

// move gives a member another address.
func (s *site) move(name string) {
	s.tb.Helper()
	if l := s.held[name]; l != nil {
		_ = l.Close()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.tb.Fatal(err)
	}
	s.addrs[name], s.held[name] = l.Addr().String(), l
}

// config is a member's configuration: the first time with the listener that was
// held for it, from then on as a program would write it.
func (s *site) config(name string) embed.Config {
	cluster := map[string]string{}
	for member, addr := range s.addrs {
		cluster[member] = addr
	}
	cfg := embed.Config{
		Name: name, DataDir: filepath.Join(s.dir, name), InitialCluster: cluster,
		TickInterval: tick, Logger: slog.New(slog.NewTextHandler(s.log, nil)),
	}
	if l := s.held[name]; l != nil {
		cfg.PeerListener = l
		delete(s.held, name)
	}
	if s.adjust != nil {
		s.adjust(&cfg)
	}
	return cfg
}

// open opens a member, which the end of the test closes.
func (s *site) open(name string) *embed.Member {
	s.tb.Helper()
	return openMember(s.tb, s.config(name))
}

func openMember(tb testing.TB, cfg embed.Config) *embed.Member {
	tb.Helper()
	m, err := embed.Open(cfg)
	if err != nil {
		tb.Fatalf("open %s: %v", cfg.Name, err)
	}
	tb.Cleanup(func() { _ = m.Close() })
	return m
}

// start opens members and waits until all of them can serve.
func (s *site) start(names ...string) map[string]*embed.Member {
	s.tb.Helper()
	members := map[string]*embed.Member{}
	for _, name := range names {
		members[name] = s.open(name)
	}
	for name, m := range members {
		awaitReady(s.tb, name, m)
	}
	return members
}

func awaitReady(tb testing.TB, name string, m *embed.Member) {
	tb.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case <-m.Ready():
	case <-m.Done():
		tb.Fatalf("member %s has ended: %v", name, m.Err())
	case <-limit.C:
		tb.Fatalf("member %s is not ready within %v", name, patience)
	}
}

func awaitDone(tb testing.TB, m *embed.Member) {
	tb.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case <-m.Done():
	case <-limit.C:
		tb.Fatalf("the member has not ended within %v", patience)
	}
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

// leaderOf waits for a leader among members and returns its name.
func leaderOf(tb testing.TB, members map[string]*embed.Member) (name string) {
	tb.Helper()
	eventually(tb, "a leader", func() bool {
		for name = range members {
			if members[name].Node().IsLeader() {
				return true
			}
		}
		return false
	})
	return name
}

// acquire takes a lock for longer than the test and returns its token.
func acquire(tb testing.TB, m *embed.Member, lock, id string) int64 {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	got, err := m.Client().Acquire(ctx, &client.AcquireRequest{LockID: lock, ClientID: id, TTL: longTTL})
	if err != nil {
		tb.Fatalf("acquire %s for %s: %v", lock, id, err)
	}
	return got.Lock.Version
}

func release(tb testing.TB, m *embed.Member, lock, id string, version int64) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := m.Client().Release(ctx, &client.ReleaseRequest{LockID: lock, ClientID: id, Version: version}); err != nil {
		tb.Fatalf("release %s of %s: %v", lock, id, err)
	}
}

func lockInfo(tb testing.TB, m *embed.Member, lock string) *client.LockInfo {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	info, err := m.Client().GetLockInfo(ctx, &client.GetLockInfoRequest{LockID: lock})
	if err != nil {
		tb.Fatalf("look at %s: %v", lock, err)
	}
	return info
}

// closeAll closes members at the same time.
func closeAll(tb testing.TB, members map[string]*embed.Member) {
	tb.Helper()
	var closing sync.WaitGroup
	for name, m := range members {
		closing.Go(func() {
			if err := m.Close(); err != nil {
				tb.Errorf("close %s: %v", name, err)
			}
		})
	}
	closing.Wait()
}

// isClosed reports whether a channel is closed.
func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// refusesOpen opens a configuration that must be refused twice: the second time
// shows that the first one let go of the directory.
func refusesOpen(t *testing.T, cfg func() embed.Config, want error, words ...string) {
	t.Helper()
	for range 2 {
		m, err := embed.Open(cfg())
		if err == nil {
			_ = m.Close()
			t.Fatalf("opened, want %v", want)
		}
		if want == nil || !errors.Is(err, want) {
			t.Fatalf("error is %q, want one around %q", err, want)
		}
		for _, word := range words {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("error %q does not say %q", err, word)
			}
		}
	}
}

// logBook keeps what members log.
type logBook struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBook) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBook) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// says reports whether one line has all the words.
func (b *logBook) says(words ...string) bool {
	for line := range strings.Lines(b.String()) {
		all := true
		for _, word := range words {
			all = all && strings.Contains(line, word)
		}
		if all {
			return true
		}
	}
	return false
}

func names(n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprintf("n%d", i+1))
	}
	return list
}

package embed_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/embed"
)

// wire passes connections on to a member until it is cut: one direction between
// two members, as every member dials its own streams.
type wire struct {
	listener net.Listener
	target   string
	work     sync.WaitGroup

	mu    sync.Mutex
	isCut bool
	conns map[net.Conn]bool
}

func newWire(tb testing.TB, target string) *wire {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	w := &wire{listener: l, target: target, conns: map[net.Conn]bool{}}
	w.work.Go(w.accept)
	tb.Cleanup(func() {
		_ = l.Close()
		w.cut()
		w.work.Wait()
	})
	return w
}

// cut breaks the connections; new ones are closed at once until mend.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.isCut = true
	for c := range w.conns {
		_ = c.Close()
	}
	clear(w.conns)
}

func (w *wire) mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.isCut = false
}

func (w *wire) accept() {
	for {
		near, err := w.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", w.target)
		if err != nil || !w.keep(near, far) {
			_ = near.Close()
			if far != nil {
				_ = far.Close()
			}
		}
	}
}

func (w *wire) keep(near, far net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.isCut {
		return false
	}
	w.conns[near], w.conns[far] = true, true
	w.work.Go(func() { w.pass(near, far) })
	w.work.Go(func() { w.pass(far, near) })
	return true
}

func (w *wire) pass(from, to net.Conn) {
	_, _ = io.Copy(to, from) // its end is all that matters
	w.mu.Lock()
	defer w.mu.Unlock()
	_, _ = from.Close(), to.Close()
	delete(w.conns, from)
	delete(w.conns, to)
}

// wired is a started cluster of three whose streams all go over wires.
type wired struct {
	*site
	members map[string]*embed.Member
	wires   map[string]*wire // by "from to"
}

func newWired(t *testing.T, adjust func(*embed.Config)) *wired {
	t.Helper()
	w := &wired{site: newSite(t, names(3)...), wires: map[string]*wire{}}
	w.adjust = func(cfg *embed.Config) {
		for to, addr := range cfg.InitialCluster {
			if key := cfg.Name + " " + to; to != cfg.Name {
				if w.wires[key] == nil {
					w.wires[key] = newWire(t, addr)
				}
				cfg.InitialCluster[to] = w.wires[key].listener.Addr().String()
			}
		}
		cfg.ListenPeer = ""
		if cfg.PeerListener == nil {
			cfg.ListenPeer = w.addrs[cfg.Name]
		}
		adjust(cfg)
	}
	w.members = w.start(names(3)...)
	return w
}

// pair returns the leader and one of the others.
func (w *wired) pair() (leader, other string) {
	leader = leaderOf(w.tb, w.members)
	for other = range w.members {
		if other != leader {
			return leader, other
		}
	}
	panic("a cluster of one")
}

// A leader's stream to a follower breaks and comes back, too soon for an
// election. What it answered meanwhile is lost; the calls at the follower must
// not wait for it.
func TestAnswersThatAreLostWithTheLeadersStream(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short")
	}
	w := newWired(t, func(cfg *embed.Config) {
		// The answer must not come from a new leader, nor from the time-out.
		cfg.TickInterval, cfg.ElectionTicks, cfg.RequestTimeout = tick, 1000, patience
	})
	leader, other := w.pair()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for i := range 5 {
		lock, done := fmt.Sprint("lock-", i), make(chan error, 4)
		token := acquire(t, w.members[other], lock+"-mine", "c")
		acquire(t, w.members[leader], lock+"-held", "x")
		w.wires[leader+" "+other].cut()
		c := w.members[other].Client()
		go func() {
			_, err := c.Acquire(ctx, &client.AcquireRequest{LockID: lock, ClientID: "c", TTL: longTTL})
			done <- err
		}()
		go func() {
			_, err := c.Renew(ctx, &client.RenewRequest{LockID: lock + "-mine", ClientID: "c", Version: token, NewTTL: longTTL})
			done <- err
		}()
		go func() {
			_, err := c.GetLocks(ctx, &client.GetLocksRequest{})
			done <- err
		}()
		go func() {
			_, err := c.Acquire(ctx, &client.AcquireRequest{LockID: lock + "-held", ClientID: "c", Wait: true, WaitTimeout: longTTL, TTL: longTTL})
			done <- err
		}()
		// Once the leader has granted, it has answered as well.
		eventually(t, "the call has reached the leader", func() bool {
			got, err := w.members[leader].Client().GetLocks(ctx, &client.GetLocksRequest{Filter: &client.LockFilter{LockIDPattern: lock}})
			return err == nil && len(got.Locks) == 1
		})
		w.wires[leader+" "+other].mend()
		for range 3 {
			if err := <-done; err != nil {
				t.Errorf("call at %s: %v", other, err)
			}
		}
		info := lockInfo(t, w.members[leader], lock+"-held")
		release(t, w.members[leader], lock+"-held", "x", info.Version)
		if err := <-done; err != nil {
			t.Errorf("wait at %s: %v", other, err)
		}
	}
}

// Streams break all the time, and nobody loses a call by it.
func TestCallsWhileStreamsBreak(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short")
	}
	w := newWired(t, func(cfg *embed.Config) { cfg.RequestTimeout = patience })
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	var load sync.WaitGroup
	begun, stop := make(chan struct{}, 64), make(chan struct{})
	for name, m := range w.members {
		for i := range 4 {
			load.Go(func() {
				// The streams break more often than the default allows for.
				c, policy := m.Client(), client.DefaultRetryPolicy()
				policy.MaxRetries = 1000
				c.SetRetryPolicy(policy)
				id := fmt.Sprintf("%s-%d", name, i)
				if err := pairsUntil(ctx, c, id, begun, stop); err != nil {
					t.Errorf("%s: %v", id, err)
				}
			})
		}
	}
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for range 5 {
		for _, wire := range w.wires {
			wire.cut()
			<-ticker.C
			wire.mend()
			<-ticker.C
		}
	}
	close(stop)
	load.Wait()
}

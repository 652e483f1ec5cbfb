package peerwire

import (
	"runtime"
	"testing"
	"time"

	"github.com/raftlock/raftlock"
)

// waitUntil polls, for what nobody announces.
func waitUntil(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("wait until %s: still not after %v", what, patience)
		}
	}
}

// connections returns how many the transport has.
func connections(t *Transport) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.mu.links)
}

// The accepting end notices by its pings that nobody answers.
func TestSilentPeerIsNoticed(t *testing.T) {
	t.Parallel() // it mostly waits
	if testing.Short() {
		t.Skip("waits for 5 s of silence")
	}
	server, addr := open(t, "", Config{}, defaultLimits)
	ended := make(chan error, 1)
	serve(t, server, func(s raftlock.PeerStream) {
		_, err := s.Recv()
		ended <- err
	})
	proxy := newProxy(t, addr)
	client, _ := open(t, "", Config{}, defaultLimits)
	if _, err := dial(t, client, proxy.addr()); err != nil {
		t.Fatal(err)
	}
	proxy.hold()
	since := time.Now()
	err := take(t, "the acceptor to give up", ended)
	t.Logf("after %v: %v", time.Since(since).Round(100*time.Millisecond), err)
}

// A peer that reads nothing delays Close neither by what is unsent nor by
// TLS' good-bye, which may take 5 s.
func TestCloseDoesNotWaitForPeer(t *testing.T) {
	config := newAuthority(t).mutual(t)
	server, addr := open(t, "", Config{TLS: config}, defaultLimits)
	filled := make(chan struct{})
	serve(t, server, func(s raftlock.PeerStream) {
		for i := 0; s.Send(make([]byte, 1<<20)) == nil; i++ {
			if i == 4 {
				close(filled)
			}
		}
	})
	proxy := newProxy(t, addr)
	client, _ := open(t, "", Config{TLS: config}, defaultLimits)
	s, err := dial(t, client, proxy.addr())
	if err != nil {
		t.Fatal(err)
	}
	take(t, "the acceptor to send", filled)
	proxy.hold()
	blocked := make(chan struct{})
	go func() {
		defer close(blocked)
		for s.Send(make([]byte, 1<<20)) == nil {
			continue
		}
	}()
	since := time.Now()
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	if err := client.Close(); err != nil {
		t.Error(err)
	}
	take(t, "the dialler's sender", blocked)
	if took := time.Since(since); took > 4*time.Second {
		t.Errorf("the Closes took %v: they waited for the peer", took)
	}
}

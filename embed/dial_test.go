package embed_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/embed"
)

// Programs over the network do not notice that the members are restarted one
// after the other: a holder keeps its lock, and waiters keep their order.
func TestARollingRestartUnderClients(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short")
	}
	s := newSite(t, names(3)...)
	ports := map[string]string{} // a member serves where it served before
	s.adjust = func(cfg *embed.Config) {
		cfg.ListenClient = "127.0.0.1:0"
		if ports[cfg.Name] != "" {
			cfg.ListenClient = ports[cfg.Name]
		}
	}
	members := s.start(names(3)...)
	cfg := client.DefaultClientConfig()
	for name, m := range members {
		ports[name] = m.ClientAddr()
		cfg.Endpoints = append(cfg.Endpoints, m.ClientAddr())
	}
	c, err := client.Dial(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()

	kept, err := client.Hold(ctx, c, "kept", client.WithTTL(3*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	first, err := c.Acquire(ctx, &client.AcquireRequest{LockID: "queue", ClientID: "holder", TTL: longTTL})
	if err != nil {
		t.Fatal(err)
	}
	type grant struct {
		id      string
		version int64
		err     error
	}
	grants := make(chan grant, 5)
	for i := range 5 {
		id := fmt.Sprintf("w%d", i)
		go func() {
			got, err := c.Acquire(ctx, &client.AcquireRequest{LockID: "queue", ClientID: id, RequestID: "r", Wait: true, TTL: longTTL})
			if err != nil {
				grants <- grant{id: id, err: err}
				return
			}
			grants <- grant{id, got.Lock.Version, nil}
		}()
		eventually(t, id+" waits", func() bool { return int(lockInfo(t, members["n1"], "queue").WaiterCount) == i+1 })
	}

	for _, name := range names(3) {
		if err := members[name].Close(); err != nil {
			t.Errorf("close %s: %v", name, err)
		}
		members[name] = s.open(name)
		awaitReady(t, name, members[name])
		if err := kept.Err(); err != nil {
			t.Fatalf("the hold ended when %s was restarted: %v", name, err)
		}
	}

	holder, token := "holder", first.Lock.Version
	for i := range 5 {
		if _, err := c.Release(ctx, &client.ReleaseRequest{LockID: "queue", ClientID: holder, Version: token}); err != nil {
			t.Fatalf("release of %s: %v", holder, err)
		}
		g := <-grants
		if want := fmt.Sprintf("w%d", i); g.err != nil || g.id != want || g.version <= token {
			t.Fatalf("grant %d is %+v after token %d, want %s", i, g, token, want)
		}
		holder, token = g.id, g.version
	}
	if err := kept.Release(ctx); err != nil {
		t.Errorf("release: %v", err)
	}
}

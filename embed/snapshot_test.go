package embed_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/embed"
)

// A snapshot that turns out damaged when a peer needs it is taken anew, by a
// leader that is otherwise idle.
func TestDamagedSnapshotIsReplaced(t *testing.T) {
	s := newSite(t, "n1", "n2", "n3")
	s.adjust = func(cfg *embed.Config) {
		cfg.Snapshots = raftlock.Snapshots{MinLogBytes: 64 << 10, KeepLogBytes: 1 << 10}
	}
	members := s.start("n1", "n2", "n3")
	if err := members["n3"].Close(); err != nil {
		t.Fatal(err)
	}
	cl := members["n1"].Client()
	for i := range 1500 {
		if _, err := cl.Acquire(t.Context(), &client.AcquireRequest{LockID: fmt.Sprint("l", i), ClientID: "me", TTL: time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	damaged := 0
	for _, name := range []string{"n1", "n2"} {
		files, err := filepath.Glob(filepath.Join(s.dir, name, "snap*", "*.snap"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)/2] ^= 1
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
			damaged++
		}
	}
	if damaged == 0 {
		t.Fatal("there are no snapshots")
	}
	back := s.open("n3")
	select {
	case <-back.Ready():
	case <-time.After(30 * time.Second):
		t.Fatalf("it does not catch up: %s", s.log)
	}
	if !bytes.Contains([]byte(fmt.Sprint(s.log)), []byte("does not read back")) {
		t.Error("nobody was told")
	}
}

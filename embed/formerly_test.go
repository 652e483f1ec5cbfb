package embed_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/embed"
)

// A directory that the first version of this package wrote, when there were no
// snapshots, by a member that was killed: its locks are held, its queue stands,
// and tokens go on above the last one; so they do once the member stands on a
// snapshot. testdata/first is never written again; the unused end of its log,
// zeros, was cut off.
func TestDirectoryOfTheFirstVersion(t *testing.T) {
	t.Parallel()
	s := newSite(t, "n1")
	s.adjust = func(cfg *embed.Config) {
		cfg.InitialCluster = nil
		cfg.Snapshots = raftlock.Snapshots{MinLogBytes: 1 << 10, KeepLogBytes: 1 << 10}
	}
	if err := os.CopyFS(filepath.Join(s.dir, "n1"), os.DirFS("testdata/first")); err != nil {
		t.Fatal(err)
	}
	const first, last = 1795715591433717, 1795715591433741 // the tokens that its callers were told
	owners := map[string]string{"held": "owner", "renewed": "owner", "handed-on": "second", "last": "owner"}
	versions := map[string]int64{"held": first, "renewed": first + 1, "handed-on": first + 3, "last": last}
	for i := range 20 {
		owners[fmt.Sprint("freed-", i)], versions[fmt.Sprint("freed-", i)] = "", first+4+int64(i)
	}
	var m *embed.Member
	holds := func() {
		t.Helper()
		for lock, version := range versions {
			if info := lockInfo(t, m, lock); info.OwnerID != owners[lock] || info.Version != version {
				t.Errorf("%s is %q's with token %d, want %q with %d", lock, info.OwnerID, info.Version, owners[lock], version)
			}
		}
	}
	m = s.start("n1")["n1"]
	holds()
	third := claim(m, &client.AcquireRequest{
		LockID: "handed-on", ClientID: "third", RequestID: "r", Attempt: 2, Wait: true, TTL: longTTL, WaitTimeout: longTTL,
	})
	if info := lockInfo(t, m, "handed-on"); info.WaiterCount != 1 {
		t.Errorf("%d wait", info.WaiterCount)
	}
	token := acquire(t, m, "new", "c")
	if token <= last {
		t.Errorf("token %d after %d", token, last)
	}
	release(t, m, "handed-on", "second", versions["handed-on"])
	got := <-third
	if got.err != nil || got.version <= token {
		t.Fatalf("who waited has token %d, %v, after %d", got.version, got.err, token)
	}
	owners["new"], versions["new"] = "c", token
	owners["handed-on"], versions["handed-on"] = "third", got.version

	eventually(t, "a snapshot", func() bool {
		release(t, m, "filler", "c", acquire(t, m, "filler", "c"))
		return s.log.says("snapshot taken")
	})
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m = s.start("n1")["n1"]
	holds()
}

// granted is how an acquire came out.
type granted struct {
	version int64
	err     error
}

// claim makes an acquire that waits.
func claim(m *embed.Member, req *client.AcquireRequest) <-chan granted {
	out := make(chan granted, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		got, err := m.Client().Acquire(ctx, req)
		if err != nil {
			out <- granted{err: errors.Join(err, m.Err())}
			return
		}
		out <- granted{version: got.Lock.Version}
	}()
	return out
}

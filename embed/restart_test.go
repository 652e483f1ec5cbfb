package embed_test

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/embed"
)

// The same call serves first start and restart, and what was granted stands.
func TestRestart(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 3} {
		s := newSite(t, names(size)...)
		members := s.start(names(size)...)
		held := acquire(t, members["n1"], "held", "c")
		freed := acquire(t, members["n1"], "freed", "c")
		release(t, members["n1"], "freed", "c", freed)
		closeAll(t, members)

		members = s.start(names(size)...)
		for name, m := range members {
			if info := lockInfo(t, m, "held"); info.OwnerID != "c" || info.Version != held {
				t.Errorf("%s after a restart: %+v, want token %d of c", name, info, held)
			}
			if info := lockInfo(t, m, "freed"); info.OwnerID != "" || info.Version != freed {
				t.Errorf("%s after a restart: %+v, want it free after token %d", name, info, freed)
			}
		}
		if token := acquire(t, members["n1"], "new", "c"); token <= freed {
			t.Errorf("token %d after %d", token, freed)
		}
	}
}

// One after the other, as a fleet is upgraded; two of three serve all the time.
func TestRestartOneByOne(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short")
	}
	s := newSite(t, names(3)...)
	members := s.start(names(3)...)
	last := acquire(t, members["n1"], "held", "c")
	for _, name := range names(3) {
		if err := members[name].Close(); err != nil {
			t.Errorf("close %s: %v", name, err)
		}
		delete(members, name)
		for other, m := range members {
			token := acquire(t, m, "while-"+name+"-is-down-"+other, "c")
			if token <= last {
				t.Errorf("token %d after %d", token, last)
			}
			last = token
		}
		maps.Copy(members, s.start(name))
		if info := lockInfo(t, members[name], "held"); info.OwnerID != "c" {
			t.Errorf("%s after its restart: %+v", name, info)
		}
	}
}

func TestRestartAtOtherAddresses(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short")
	}
	s := newSite(t, names(3)...)
	members := s.start(names(3)...)
	token := acquire(t, members["n1"], "held", "c")
	closeAll(t, members)
	for _, name := range names(3) {
		s.move(name)
	}
	for name, m := range s.start(names(3)...) {
		if info := lockInfo(t, m, "held"); info.OwnerID != "c" || info.Version != token {
			t.Errorf("%s after the move: %+v, want token %d", name, info, token)
		}
		if m.PeerAddr() != s.addrs[name] {
			t.Errorf("%s listens at %s, want %s", name, m.PeerAddr(), s.addrs[name])
		}
	}
}

// A configuration that does not fit the data is refused with both sides named,
// and nothing is changed by it.
func TestRestartWithAnotherConfig(t *testing.T) {
	t.Parallel()
	s := newSite(t, names(3)...)
	members := s.start(names(3)...)
	token := acquire(t, members["n1"], "held", "c")
	closeAll(t, members)
	for name, test := range map[string]struct {
		change func(*embed.Config)
		words  []string
	}{
		"one more": {func(c *embed.Config) { c.InitialCluster["n4"] = "127.0.0.1:1" }, []string{"[n1, n2, n3, n4]", "[n1, n2, n3]"}},
		"one less": {func(c *embed.Config) { delete(c.InitialCluster, "n2") }, []string{"[n1, n3]", "[n1, n2, n3]"}},
		"another": {func(c *embed.Config) {
			c.InitialCluster["m2"] = c.InitialCluster["n2"]
			delete(c.InitialCluster, "n2")
		}, []string{"[m2, n1, n3]", "[n1, n2, n3]"}},
		"alone":           {func(c *embed.Config) { c.InitialCluster = nil }, []string{"[n1]", "[n1, n2, n3]"}},
		"another member":  {func(c *embed.Config) { c.Name = "n2" }, []string{`"n1"`, `"n2"`, `"raftlock"`}},
		"another cluster": {func(c *embed.Config) { c.ClusterName = "other" }, []string{`"other"`, `"raftlock"`}},
	} {
		t.Run(name, func(t *testing.T) {
			refusesOpen(t, func() embed.Config {
				cfg := s.config("n1")
				test.change(&cfg)
				return cfg
			}, raftlock.ErrWrongCluster, test.words...)
		})
	}
	for name, m := range s.start(names(3)...) {
		if info := lockInfo(t, m, "held"); info.OwnerID != "c" || info.Version != token {
			t.Errorf("%s after the mended configuration: %+v, want token %d", name, info, token)
		}
	}
}

func TestDataDirInUse(t *testing.T) {
	t.Parallel()
	s := newSite(t, "n1")
	m := s.start("n1")["n1"]
	second := func() embed.Config {
		cfg := s.config("n1")
		cfg.ListenPeer = "127.0.0.1:0"
		return cfg
	}
	refusesOpen(t, second, raftlock.ErrLocked, "n1")
	acquire(t, m, "a", "c") // the first one does not mind
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	awaitReady(t, "n1", openMember(t, second()))
}

// A member whose data was lost must not vote again, by whatever call it comes
// back; the others go on.
func TestEmptiedMemberIsRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t, names(3)...)
	members := s.start(names(3)...)
	lost := members["n2"]
	token := acquire(t, lost, "held", "c")
	if err := lost.Close(); err != nil {
		t.Fatal(err)
	}
	delete(members, "n2")
	dir := filepath.Join(s.dir, "n2")
	if err := os.Rename(dir, dir+".kept"); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time with the directory that the first one has made
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		m, err := embed.Start(ctx, s.config("n2"))
		cancel()
		if err == nil {
			_ = m.Close()
			t.Fatal("an emptied member serves")
		}
		saysHowToReplace(t, err)
	}
	opened := s.open("n2")
	awaitDone(t, opened)
	saysHowToReplace(t, opened.Err())
	for call, err := range everyCall(context.Background(), opened.Client()) {
		checkClosed(t, call, err)
	}
	if err := opened.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	last := token
	for name, m := range members {
		next := acquire(t, m, "after-"+name, "c")
		if next <= last {
			t.Errorf("token %d after %d", next, last)
		}
		last = next
	}

	// The advice helps: the old directory is taken back.
	if err := errors.Join(os.RemoveAll(dir), os.Rename(dir+".kept", dir)); err != nil {
		t.Fatal(err)
	}
	if info := lockInfo(t, s.start("n2")["n2"], "held"); info.Version != token {
		t.Errorf("the member with its old directory: %+v, want token %d", info, token)
	}
}

func saysHowToReplace(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, raftlock.ErrDiskLost) {
		t.Fatalf("an emptied member ended with %v", err)
	}
	for _, word := range []string{`"n2"`, "put that directory back", `ReplaceMember("n2")`, "raftlock member replace n2"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("error does not say %q: %v", word, err)
		}
	}
}

// Two of three are emptied: the third is no majority and knows better, and the
// two must not make a second, empty cluster.
func TestTwoEmptiedMembersAreRefused(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short")
	}
	s := newSite(t, names(3)...)
	closeAll(t, s.start(names(3)...))
	for _, name := range []string{"n1", "n2"} {
		if err := os.RemoveAll(filepath.Join(s.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	first, second, third := s.open("n1"), s.open("n2"), s.open("n3")
	for _, m := range []*embed.Member{first, second} {
		awaitDone(t, m)
		if err := m.Err(); !errors.Is(err, raftlock.ErrDiskLost) {
			t.Errorf("an emptied member ended with %v", err)
		}
	}
	if isClosed(third.Ready()) || isClosed(third.Done()) {
		t.Errorf("the one that is left: ready %t, err %v", isClosed(third.Ready()), third.Err())
	}
}

// A flipped bit in what was acknowledged is not repaired, and not left out.
func TestCorruptLogIsRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t, "n1")
	m := s.start("n1")["n1"]
	for _, lock := range []string{"a", "b", "c"} {
		acquire(t, m, lock, "a-client-that-is-easily-found")
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	segments, err := filepath.Glob(filepath.Join(s.dir, "n1", "wal", "*.wal"))
	if err != nil || len(segments) != 1 {
		t.Fatalf("segments %v, %v", segments, err)
	}
	whole, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(whole), "a-client-that")
	if at < 0 {
		t.Fatal("the log does not hold what was acknowledged")
	}
	broken := []byte(string(whole))
	broken[at] ^= 1
	if err := os.WriteFile(segments[0], broken, 0o600); err != nil {
		t.Fatal(err)
	}
	refusesOpen(t, func() embed.Config { return s.config("n1") }, raftlock.ErrCorrupt, segments[0], "offset ")
	if left, err := os.ReadFile(segments[0]); err != nil || string(left) != string(broken) {
		t.Errorf("the file was changed: %v", err)
	}
	if err := os.WriteFile(segments[0], whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if info := lockInfo(t, s.start("n1")["n1"], "c"); info.OwnerID == "" {
		t.Errorf("with its log put back: %+v", info)
	}
}

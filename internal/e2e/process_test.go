package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/embed"
)

// three starts three members that serve.
func three(t *testing.T) *fleet {
	t.Helper()
	f := newFleet(t, "n1", "n2", "n3")
	f.startAll()
	return f
}

// A lock goes from process to process in the order in which they asked.
func TestHandOverBetweenProcesses(t *testing.T) {
	t.Parallel()
	f := three(t)
	last := int64(0)
	for _, name := range f.names() {
		a := f.at(name).must(request{Op: "acquire", Lock: "own-" + name, Client: name, TTL: longTTL})
		if a.Version <= last || a.Owner != name {
			t.Errorf("grant %+v after token %d", a, last)
		}
		last = a.Version
	}
	held := f.at("n1").must(request{Op: "acquire", Lock: "a", Client: "c1", TTL: longTTL})
	if a, _ := f.at("n2").call(request{Op: "acquire", Lock: "a", Client: "c2"}); !a.is("held") {
		t.Errorf("a held lock is answered with %+v", a)
	}
	granted := make([]chan answer, 4)
	for i := range granted {
		granted[i] = make(chan answer, 1)
		p := f.at(f.names()[i%3])
		go func() {
			a, _ := p.call(request{Op: "wait", Lock: "a", Client: fmt.Sprint("w", i), Request: "r", TTL: longTTL})
			granted[i] <- a
		}()
		f.eventually("the waiter is in the queue", func() bool {
			return f.at("n3").must(request{Op: "info", Lock: "a"}).Waiters == i+1
		})
	}
	if a := f.at("n3").must(request{Op: "renew", Lock: "a", Client: "c1", Version: held.Version, TTL: longTTL}); a.Version != held.Version {
		t.Errorf("renewing made token %d of %d", a.Version, held.Version)
	}
	holder, token := "c1", held.Version
	for i := range granted {
		if a := f.at(f.names()[(i+1)%3]).must(request{Op: "release", Lock: "a", Client: holder, Version: token}); !a.Promoted {
			t.Errorf("release %d promoted nobody", i)
		}
		a := <-granted[i]
		if want := fmt.Sprint("w", i); a.Error != "" || a.Owner != want || a.Version <= token {
			t.Fatalf("grant %d is %+v after token %d, want %s", i, a, token, want)
		}
		holder, token = a.Owner, a.Version
	}
}

// The holder's process is killed: its lock ends with the TTL, not before.
func TestDeadHolderExpires(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short")
	}
	f := three(t)
	const ttl = time.Second
	asked := time.Now()
	dead := f.at("n1").must(request{Op: "acquire", Lock: "a", Client: "dead", TTL: ttl})
	f.at("n1").kill()
	next := f.at("n2").must(request{Op: "wait", Lock: "a", Client: "next", Request: "r", TTL: longTTL})
	if early := ttl - time.Since(asked); early > 0 {
		t.Errorf("granted %v before the end of the TTL", early)
	}
	if next.Version <= dead.Version {
		t.Errorf("token %d after %d", next.Version, dead.Version)
	}
	if a, _ := f.at("n3").call(request{Op: "renew", Lock: "a", Client: "dead", Version: dead.Version, TTL: ttl}); !a.is("not owner") {
		t.Errorf("the lost grant is renewed: %+v", a)
	}
}

// The leader is killed: the same request, sent again to another member, finds
// the grant that it had got, and tokens go on growing.
func TestKillTheLeader(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short")
	}
	f := three(t)
	last := int64(0)
	for round := range 3 {
		leader := f.leader()
		req := request{Op: "acquire", Lock: fmt.Sprint("lock-", round), Client: "c", Request: fmt.Sprint("r", round), TTL: longTTL}
		first := f.at(leader).must(req)
		if first.Version <= last {
			t.Errorf("token %d after %d", first.Version, last)
		}
		// Another is on its way when the leader dies: once it is answered, by
		// whomever, it stays at that.
		racing := request{Op: "acquire", Lock: fmt.Sprint("racing-", round), Client: "c", Request: "r", TTL: longTTL}
		raced := make(chan answer, 1)
		p := f.at(leader)
		go func() {
			a, _ := p.call(racing)
			raced <- a
		}()
		p.kill()
		again := f.other(leader).must(req)
		if again.Version != first.Version {
			t.Errorf("round %d: token %d, after the repeat %d", round, first.Version, again.Version)
		}
		late := f.other(leader).must(racing)
		if a := <-raced; a.Version != 0 && a.Version != late.Version || late.Version <= first.Version {
			t.Errorf("round %d: token %d, answered %d, after the repeat %d", round, first.Version, a.Version, late.Version)
		}
		last = late.Version
		f.start(leader).await(eventReady)
	}
}

// With the others killed there is nobody to hand over to, and nobody to say so.
func TestCloseWhenTheOthersWereKilled(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short")
	}
	f := three(t)
	leader := f.leader()
	for _, name := range f.names() {
		if name != leader {
			f.at(name).kill()
		}
	}
	f.at(leader).must(request{Op: "close"})
	if a := f.at(leader).await(eventDone); a.Error != "" {
		t.Errorf("closed with %+v", a)
	}
	if a, _ := f.at(leader).call(request{Op: "info", Lock: "a"}); !a.is("closed") || !a.is("unavailable") {
		t.Errorf("a call after Close: %+v", a)
	}
}

func TestFirstStartWaitsForAll(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short")
	}
	f := newFleet(t, "n1", "n2", "n3")
	asked := map[string]chan answer{"n3": make(chan answer, 1), "n1": make(chan answer, 1)}
	for name, to := range asked {
		cfg := f.config(name)
		cfg.RequestTimeout = 200 * time.Millisecond // which bounds a call without a leader, too
		p := f.run(cfg)
		p.await(eventOpened)
		go func() {
			a, _ := p.call(request{Op: "acquire", Lock: "a", Client: "c"})
			to <- a
		}()
	}
	for name, to := range asked {
		if a := <-to; !a.is("no leader") || a.is("unknown") {
			t.Errorf("%s without n2: %+v", name, a)
		}
		if f.at(name).has(eventReady) {
			t.Errorf("%s is ready without n2", name)
		}
	}
	f.start("n2")
	for _, name := range f.names() {
		f.at(name).await(eventReady)
	}
	held := f.at("n2").must(request{Op: "acquire", Lock: "a", Client: "c", TTL: longTTL})
	for _, name := range f.names() {
		if a := f.at(name).must(request{Op: "info", Lock: "a"}); a.Version != held.Version {
			t.Errorf("%s says %+v, want token %d", name, a, held.Version)
		}
	}
}

func TestEmptiedMemberIsRefused(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short")
	}
	f := three(t)
	held := f.at("n2").must(request{Op: "acquire", Lock: "a", Client: "c", TTL: longTTL})
	f.at("n2").kill()
	if err := os.RemoveAll(filepath.Join(f.dir, "n2")); err != nil {
		t.Fatal(err)
	}
	emptied := f.start("n2")
	if a := emptied.await(eventDone); !a.is("disk lost") || !strings.Contains(a.Error, "raftlock member replace n2") {
		t.Errorf("an emptied member ended with %+v", a)
	}
	if a, alive := emptied.call(request{Op: "info", Lock: "a"}); !alive || !a.is("unavailable") || emptied.has(eventReady) {
		t.Errorf("an emptied member answers %+v", a)
	}
	for _, name := range []string{"n1", "n3"} {
		if a := f.at(name).must(request{Op: "info", Lock: "a"}); a.Owner != "c" || a.Version != held.Version {
			t.Errorf("%s says %+v, want token %d", name, a, held.Version)
		}
		f.at(name).must(request{Op: "acquire", Lock: "own-" + name, Client: name, TTL: longTTL})
	}
}

func TestRefusedRestarts(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short")
	}
	f := three(t)
	if m, err := embed.Open(embed.Config{Name: "n1", DataDir: filepath.Join(f.dir, "n1")}); !errors.Is(err, raftlock.ErrLocked) {
		if err == nil {
			_ = m.Close()
		}
		t.Errorf("a directory that another process has: %v", err)
	}
	f.at("n1").kill()
	other := f.config("n1")
	other.Cluster = map[string]string{"n1": f.addrs["n1"], "n2": f.addrs["n2"], "n4": f.addrs["n3"]}
	refused := f.run(other).await(eventRefused)
	if !refused.is("wrong cluster") || !strings.Contains(refused.Error, "[n1, n2, n4]") || !strings.Contains(refused.Error, "[n1, n2, n3]") {
		t.Errorf("other names are refused with %+v", refused)
	}
	f.start("n1").await(eventReady)
	f.at("n1").must(request{Op: "acquire", Lock: "a", Client: "c", TTL: longTTL})
}

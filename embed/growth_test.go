package embed_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/embed"
)

// traffic is callers who take one lock from each other. None of their calls may
// fail, and none may be in the lock beside another.
type traffic struct {
	cancel context.CancelFunc
	work   sync.WaitGroup
	grants atomic.Int64
	inside atomic.Int64
	mu     struct {
		sync.Mutex
		last   int64 // token
		faults []error
	}
}

func startTraffic(t *testing.T, clients ...client.Client) *traffic {
	t.Helper()
	tr := &traffic{}
	var ctx context.Context
	ctx, tr.cancel = context.WithCancel(context.Background())
	for i, cl := range clients {
		tr.work.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				if err := tr.use(ctx, cl, fmt.Sprint("caller", i), n); err != nil && ctx.Err() == nil {
					tr.fault(fmt.Errorf("caller %d: %w", i, err))
					return
				}
			}
		})
	}
	t.Cleanup(tr.cancel)
	return tr
}

func (tr *traffic) use(ctx context.Context, cl client.Client, id string, n int) error {
	got, err := cl.Acquire(ctx, &client.AcquireRequest{
		LockID: "traffic", ClientID: id, RequestID: fmt.Sprint(n), TTL: longTTL, Wait: true, WaitTimeout: longTTL,
		Metadata: map[string]string{"fill": "the log, so that snapshots are taken"},
	})
	if err != nil {
		return fmt.Errorf("acquire: %w", err)
	}
	if in := tr.inside.Add(1); in != 1 {
		tr.fault(fmt.Errorf("%d are in the lock", in))
	}
	tr.token(got.Lock.Version)
	if _, err := cl.Renew(ctx, &client.RenewRequest{LockID: "traffic", ClientID: id, Version: got.Lock.Version, NewTTL: longTTL}); err != nil {
		return fmt.Errorf("renew: %w", err)
	}
	info, err := cl.GetLockInfo(ctx, &client.GetLockInfoRequest{LockID: "traffic"})
	if err == nil && info.OwnerID != id {
		err = fmt.Errorf("%q has it", info.OwnerID)
	}
	if err != nil {
		return fmt.Errorf("look: %w", err)
	}
	tr.inside.Add(-1)
	if _, err := cl.Release(ctx, &client.ReleaseRequest{LockID: "traffic", ClientID: id, Version: got.Lock.Version}); err != nil {
		return fmt.Errorf("release: %w", err)
	}
	tr.grants.Add(1)
	return nil
}

func (tr *traffic) token(token int64) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if token <= tr.mu.last {
		tr.mu.faults = append(tr.mu.faults, fmt.Errorf("token %d after %d", token, tr.mu.last))
	}
	tr.mu.last = token
}

func (tr *traffic) fault(err error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.mu.faults = append(tr.mu.faults, err)
}

func (tr *traffic) failed() bool {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return len(tr.mu.faults) > 0
}

// flows waits until so many more locks were taken and given back.
func (tr *traffic) flows(t *testing.T, more int64) {
	t.Helper()
	want := tr.grants.Load() + more
	eventually(t, "the traffic goes on", func() bool { return tr.grants.Load() >= want || tr.failed() })
	if tr.failed() {
		tr.stop(t)
		t.FailNow()
	}
}

func (tr *traffic) stop(t *testing.T) {
	t.Helper()
	tr.cancel()
	tr.work.Wait()
	for _, err := range tr.mu.faults {
		t.Error(err)
	}
	t.Logf("%d grants", tr.grants.Load())
}

// growingSite is a site whose members take many snapshots and serve clients.
func growingSite(t *testing.T) *site {
	s := newSite(t, names(3)...)
	s.adjust = func(cfg *embed.Config) {
		cfg.ListenClient = "127.0.0.1:0"
		cfg.Snapshots = raftlock.Snapshots{MinLogBytes: 8 << 10, KeepLogBytes: 2 << 10}
	}
	return s
}

// dialAll is a client of the network that knows members.
func dialAll(t *testing.T, members map[string]*embed.Member) client.Client {
	t.Helper()
	cfg := client.DefaultClientConfig()
	for _, m := range members {
		cfg.Endpoints = append(cfg.Endpoints, m.ClientAddr())
	}
	cl, err := client.Dial(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cl.Close() }) // always nil
	return cl
}

// change makes a change of the members, which must succeed.
func change(t *testing.T, what string, do func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := do(ctx)
	for errors.Is(err, raftlock.ErrChangeRefused) && ctx.Err() == nil { // on a busy machine members are out of reach at times
		err = do(ctx)
	}
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// awaitVoters waits until a member knows so many others and itself, all of which vote.
func awaitVoters(t *testing.T, m *embed.Member, want int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d members vote", want), func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		members, err := m.Node().Members(ctx)
		if err != nil {
			t.Fatal(err)
		}
		voters := 0
		for _, one := range members {
			if one.Voter {
				voters++
			}
		}
		return len(members) == want && voters == want
	})
}

// Three members become five and three again, the leader being the one that goes,
// and move to other addresses after that.
func TestGrowAndShrinkUnderLoad(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short")
	}
	s := growingSite(t)
	members := s.start(names(3)...)
	stays := members["n3"]
	held := acquire(t, stays, "held", "c")
	tr := startTraffic(t, stays.Client(), dialAll(t, members))
	tr.flows(t, 100)
	for i, name := range []string{"n4", "n5"} {
		s.move(name)
		change(t, "add "+name, func(ctx context.Context) error {
			return stays.Node().AddMember(ctx, name, s.addrs[name])
		})
		members[name] = s.start(name)[name]
		awaitVoters(t, stays, 4+i)
		tr.flows(t, 50)
	}
	for i, name := range names(2) {
		change(t, "let "+name+" lead", func(ctx context.Context) error {
			return stays.Node().TransferLeadership(ctx, name)
		})
		change(t, "remove "+name, func(ctx context.Context) error {
			return stays.Node().RemoveMember(ctx, name)
		})
		awaitDone(t, members[name])
		if err := members[name].Err(); !errors.Is(err, raftlock.ErrRemoved) {
			t.Errorf("%s has ended with %v", name, err)
		}
		delete(members, name)
		delete(s.addrs, name)
		awaitVoters(t, stays, 4-i)
		tr.flows(t, 50)
	}
	tr.stop(t)

	closeAll(t, members)
	for name := range members {
		s.move(name)
	}
	for name, m := range s.start("n3", "n4", "n5") {
		if info := lockInfo(t, m, "held"); info.Version != held {
			t.Errorf("%s after the move: %+v, want token %d", name, info, held)
		}
	}
}

// One dead disk of three is repaired under load; the old one is of no use after
// that, and addresses may change as before.
func TestReplaceUnderLoad(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short")
	}
	s := growingSite(t)
	members := s.start(names(3)...)
	stays := members["n1"]
	held := acquire(t, stays, "held", "c")
	tr := startTraffic(t, stays.Client(), dialAll(t, members))
	tr.flows(t, 100)

	dir := filepath.Join(s.dir, "n2")
	if err := errors.Join(members["n2"].Close(), os.Rename(dir, dir+".old")); err != nil {
		t.Fatal(err)
	}
	tr.flows(t, 50)
	change(t, "replace n2", func(ctx context.Context) error { return stays.Node().ReplaceMember(ctx, "n2") })
	members["n2"] = s.start("n2")["n2"]
	awaitVoters(t, stays, 3)
	tr.flows(t, 50)
	if err := members["n3"].Close(); err != nil { // the new one is needed now
		t.Fatal(err)
	}
	tr.flows(t, 50)
	members["n3"] = s.start("n3")["n3"]
	tr.flows(t, 50)
	tr.stop(t)

	closeAll(t, members)
	for _, name := range names(3) {
		s.move(name)
	}
	members = s.start(names(3)...)
	for name, m := range members {
		if info := lockInfo(t, m, "held"); info.Version != held {
			t.Errorf("%s after the move: %+v, want token %d", name, info, held)
		}
	}
	if err := errors.Join(members["n2"].Close(), os.RemoveAll(dir), os.Rename(dir+".old", dir)); err != nil {
		t.Fatal(err)
	}
	old := s.open("n2")
	awaitDone(t, old)
	if err := old.Err(); !errors.Is(err, raftlock.ErrRemoved) {
		t.Errorf("the old disk has ended with %v", err)
	}
}

package raftlock_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/internal/memnet"
	"github.com/raftlock/raftlock/internal/walstore"
)

// An idle cluster does nothing but say that its leader lives: its log does not
// grow, its disks are not written to, and no message goes but heartbeats and
// their answers, as many as the ticks allow. So it is with an empty table, and
// with one in which locks are held and waited for but none ends.
func TestIdleClusterOnlyBeats(t *testing.T) {
	disks := map[string]func(t *testing.T, dir string) raftlock.Storage{
		"memory": func(*testing.T, string) raftlock.Storage { return raftlock.NewMemoryStorage() },
		"log": func(t *testing.T, dir string) raftlock.Storage {
			disk, err := walstore.Open(walstore.Config{Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			return disk
		},
	}
	span := 20 * time.Minute
	if testing.Short() {
		span = 10 * time.Minute
	}
	for name, disk := range disks {
		for use, prepare := range map[string]func(*idleCluster){"free": func(*idleCluster) {}, "held": (*idleCluster).occupy} {
			t.Run(name+", "+use, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := openIdle(t, disk)
					prepare(c)
					time.Sleep(time.Minute) // what came before is told everywhere
					c.watch(span)
				})
			})
		}
	}
}

// idleCluster is three members whose writes and frames are counted.
type idleCluster struct {
	t      *testing.T
	dir    string
	nodes  []*raftlock.Node
	writes atomic.Int64
	frames atomic.Int64
}

func openIdle(t *testing.T, disk func(*testing.T, string) raftlock.Storage) *idleCluster {
	c := &idleCluster{t: t, dir: t.TempDir()}
	network, names := memnet.New(), map[string]string{"n1": "n1", "n2": "n2", "n3": "n3"}
	for name := range names {
		n, err := raftlock.Open(raftlock.Config{
			Name: name, InitialCluster: names, Logger: slog.New(slog.DiscardHandler),
			Storage:   countingDisk{disk(t, filepath.Join(c.dir, name)), &c.writes},
			Transport: countingTransport{network.Transport(name), &c.frames},
		})
		if err != nil {
			t.Fatal(err)
		}
		c.nodes = append(c.nodes, n)
		t.Cleanup(func() {
			if err := n.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	for _, n := range c.nodes {
		<-n.Ready()
	}
	return c
}

// occupy takes locks at all members, for a day, and waits for each of them from
// everywhere.
func (c *idleCluster) occupy() {
	ctx, cancel := context.WithCancel(context.Background())
	gone := make(chan struct{})
	c.t.Cleanup(func() {
		cancel()
		for range len(c.nodes) * len(c.nodes) {
			<-gone
		}
	})
	for i, n := range c.nodes {
		lock := fmt.Sprint("lock", i)
		if _, err := n.Client().Acquire(ctx, &client.AcquireRequest{LockID: lock, ClientID: "holder", TTL: 24 * time.Hour}); err != nil {
			c.t.Fatal(err)
		}
		for j, at := range c.nodes {
			go func() {
				_, _ = at.Client().Acquire(ctx, &client.AcquireRequest{LockID: lock, ClientID: fmt.Sprint("waiter", j), Wait: true, WaitTimeout: 24 * time.Hour})
				gone <- struct{}{}
			}()
		}
	}
	synctest.Wait()
}

// watch lets time pass, in which nobody asks for anything.
func (c *idleCluster) watch(span time.Duration) {
	// Five beats in ten ticks of 50 ms, each to two members and answered.
	const beat, perBeat = 100 * time.Millisecond, 4
	c.t.Helper()
	index, files := c.index(), c.files()
	c.writes.Store(0)
	c.frames.Store(0)
	time.Sleep(span)
	synctest.Wait()
	if got, want := c.frames.Load(), perBeat*int64(span/beat); got < want-perBeat || got > want+perBeat {
		c.t.Errorf("%d frames in %v, want %d", got, span, want)
	}
	if n := c.writes.Load(); n > 0 {
		c.t.Errorf("%d writes in %v", n, span)
	}
	if now := c.index(); now != index {
		c.t.Errorf("the log grew from %d to %d in %v", index, now, span)
	}
	if now := c.files(); now != files {
		c.t.Errorf("the files changed in %v:\n%s\n%s", span, files, now)
	}
}

// index is that of the last entry, which all members have applied.
func (c *idleCluster) index() (last uint64) {
	c.t.Helper()
	for _, n := range c.nodes {
		index, _, err := n.StateHash(context.Background())
		if err != nil {
			c.t.Fatal(err)
		}
		if last != 0 && index != last {
			c.t.Errorf("members of an idle cluster have applied %d and %d", last, index)
		}
		last = index
	}
	return last
}

// files is what lies in the data directories: name, size and a hash of each.
func (c *idleCluster) files() (all string) {
	c.t.Helper()
	err := filepath.WalkDir(c.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all += fmt.Sprintf("%s %d %x\n", path, len(b), sha256.Sum256(b))
		return err
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return all
}

// countingDisk counts what makes the log longer or rewrites its state.
type countingDisk struct {
	raftlock.Storage
	writes *atomic.Int64
}

func (d countingDisk) Append(hard *raftpb.HardState, entries []*raftpb.Entry) error {
	d.writes.Add(1)
	return d.Storage.Append(hard, entries)
}

func (d countingDisk) SaveSnapshot(meta *raftpb.SnapshotMetadata) error {
	d.writes.Add(1)
	return d.Storage.SaveSnapshot(meta)
}

// countingTransport counts what is sent.
type countingTransport struct {
	raftlock.Transport
	frames *atomic.Int64
}

func (t countingTransport) Dial(ctx context.Context, addr string) (raftlock.PeerStream, error) {
	stream, err := t.Transport.Dial(ctx, addr)
	return countingStream{stream, t.frames}, err
}

func (t countingTransport) Serve(accept func(raftlock.PeerStream)) error {
	return t.Transport.Serve(func(s raftlock.PeerStream) { accept(countingStream{s, t.frames}) })
}

type countingStream struct {
	raftlock.PeerStream
	frames *atomic.Int64
}

func (s countingStream) Send(frame []byte) error {
	s.frames.Add(1)
	return s.PeerStream.Send(frame)
}

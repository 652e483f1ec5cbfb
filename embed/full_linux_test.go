package embed_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/embed"
)

// smallDisk mounts a file system in memory of size bytes for the test.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprint("size=", size)); err != nil {
		t.Skipf("no file system of its own: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// fill takes all the room of a disk but spare bytes, and returns how to give it back.
func fill(t *testing.T, dir string, spare int64) (remove func()) {
	t.Helper()
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	ballast := filepath.Join(dir, "ballast")
	f, err := os.Create(ballast)
	if err == nil {
		err = syscall.Fallocate(int(f.Fd()), 0, 0, int64(fs.Bavail)*fs.Bsize-spare)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
	}
}

// A full disk ends its member, which says so; the others go on; and when there
// is room it starts again and catches up.
func TestFullDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("short")
	}
	t.Parallel()
	disk := smallDisk(t, 200<<20)
	s := newSite(t, "n1", "n2", "n3")
	s.adjust = func(cfg *embed.Config) {
		if cfg.Name == "n3" {
			cfg.DataDir = filepath.Join(disk, "n3")
		}
	}
	members := s.start("n1", "n2", "n3")
	kept := acquire(t, members["n1"], "kept", "me")
	makeRoom := fill(t, disk, 64<<10)
	full := members["n3"]
	writeUntil(t, members["n1"], full.Done())
	if err := full.Err(); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "start the member again") {
		t.Errorf("the member ended with %v", err)
	}
	t.Log(full.Err())
	acquire(t, members["n2"], "after", "me")
	if err := full.Close(); err != nil {
		t.Logf("closed with %v", err) // what ended it is in Err
	}

	makeRoom()
	members["n3"] = s.open("n3")
	awaitReady(t, "n3", members["n3"])
	for name, m := range members {
		if info := lockInfo(t, m, "kept"); info.Version != kept || info.OwnerID != "me" {
			t.Errorf("%s says %+v", name, info)
		}
		if info := lockInfo(t, m, "after"); info.OwnerID != "me" {
			t.Errorf("%s says %+v", name, info)
		}
	}
}

// writeUntil fills the members' logs until stop is closed.
func writeUntil(t *testing.T, m *embed.Member, stop <-chan struct{}) {
	t.Helper()
	heavy := map[string]string{}
	for i := range 32 {
		heavy[fmt.Sprint("key", i)] = strings.Repeat("v", 256)
	}
	var writers sync.WaitGroup
	for w := range 16 {
		writers.Go(func() {
			c := m.Client()
			for n := 0; n < 1000 && !isClosed(stop); n++ {
				req := &client.AcquireRequest{LockID: fmt.Sprint("heavy", w), ClientID: "writer", RequestID: fmt.Sprint(n), Metadata: heavy}
				got, err := c.Acquire(t.Context(), req)
				if err == nil {
					_, err = c.Release(t.Context(), &client.ReleaseRequest{LockID: req.LockID, ClientID: "writer", Version: got.Lock.Version})
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	writers.Wait()
	if !isClosed(stop) {
		t.Fatal("the disk was not filled")
	}
}

package embed_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/embed"
)

const (
	// heavyLocks with the most metadata that is allowed make a snapshot of about
	// 800 KB.
	heavyLocks = 100
	// noRoom is too little for that.
	noRoom = 200 << 10
)

// holdHeavy takes a lock with much metadata.
func holdHeavy(t *testing.T, m *embed.Member, lock string) *client.Lock {
	t.Helper()
	heavy := map[string]string{}
	for i := range 32 {
		heavy[fmt.Sprint("key", i)] = strings.Repeat("v", 256)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	got, err := m.Client().Acquire(ctx, &client.AcquireRequest{LockID: lock, ClientID: "c", TTL: longTTL, Metadata: heavy})
	if err != nil {
		t.Fatal(err)
	}
	return got.Lock
}

// fillLog takes and gives back a lock until holds does.
func fillLog(t *testing.T, m *embed.Member, what string, holds func() bool) {
	t.Helper()
	eventually(t, what, func() bool {
		for range 10 {
			release(t, m, "filler", "c", holdHeavy(t, m, "filler").Version)
		}
		return holds()
	})
}

// unfinished are the snapshots in a data directory that are being written.
func unfinished(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "snapshots", "*.tmp"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// A disk that has no room for a snapshot, but for the log: the snapshot is given
// up without a trace, the member serves on, and takes one when there is room.
func TestNoRoomForASnapshot(t *testing.T) {
	if testing.Short() {
		t.Skip("short")
	}
	t.Parallel()
	disk := smallDisk(t, 100<<20)
	s := newSite(t, "n1")
	dir := filepath.Join(disk, "n1")
	s.adjust = func(cfg *embed.Config) {
		cfg.DataDir, cfg.Snapshots = dir, raftlock.Snapshots{MinLogBytes: 64 << 10, KeepLogBytes: 64 << 10}
	}
	m := s.start("n1")["n1"]
	for i := range heavyLocks {
		holdHeavy(t, m, fmt.Sprint("heavy-", i))
	}
	fillLog(t, m, "a snapshot", func() bool { return s.log.says("snapshot taken") })
	makeRoom := fill(t, disk, noRoom)
	fillLog(t, m, "a snapshot that is given up", func() bool {
		return s.log.says("level=ERROR", "snapshot is not taken", "no space left on device")
	})
	if left := unfinished(t, dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	token := acquire(t, m, "without room", "c")
	makeRoom()
	before := snapshotOf(t, m)
	eventually(t, "a snapshot, when there is room", func() bool { return snapshotOf(t, m) > before })
	if isClosed(m.Done()) {
		t.Errorf("the member has ended: %v", m.Err())
	}
	if err := m.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	m = s.start("n1")["n1"]
	for _, lock := range []string{"heavy-0", "heavy-99", "without room"} {
		if info := lockInfo(t, m, lock); info.OwnerID != "c" || lock == "without room" && info.Version != token {
			t.Errorf("%s after a restart: %+v", lock, info)
		}
	}
}

// snapshotOf is the index of a member's newest snapshot.
func snapshotOf(t *testing.T, m *embed.Member) uint64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	status, err := m.Client().GetStatus(ctx, &client.GetStatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return status.RaftStatus.SnapshotIndex
}

// A follower that lacks too much of the log has no room for the leader's snapshot.
// It is offered again and again, but not at once; the follower lives on, and
// catches up when there is room.
func TestNoRoomForALeadersSnapshot(t *testing.T) {
	if testing.Short() {
		t.Skip("short")
	}
	t.Parallel()
	disk := smallDisk(t, 100<<20)
	dir := filepath.Join(disk, "n3")
	const ticks = 20 // an election takes them
	w := newWired(t, func(cfg *embed.Config) {
		cfg.ElectionTicks, cfg.Snapshots = ticks, raftlock.Snapshots{MinLogBytes: 64 << 10, KeepLogBytes: 64 << 10}
		if cfg.Name == "n3" {
			cfg.DataDir = dir
		}
	})
	kept := acquire(t, w.members["n1"], "kept", "me")
	behind := w.members["n3"]
	for way, wire := range w.wires {
		if strings.Contains(way, "n3") {
			wire.cut()
		}
	}
	for i := range heavyLocks {
		holdHeavy(t, w.members["n1"], fmt.Sprint("heavy-", i))
	}
	before := max(snapshotOf(t, w.members["n1"]), snapshotOf(t, w.members["n2"]))
	fillLog(t, w.members["n1"], "newer snapshots", func() bool {
		return snapshotOf(t, w.members["n1"]) > before && snapshotOf(t, w.members["n2"]) > before
	})
	makeRoom := fill(t, disk, noRoom)
	begun := time.Now()
	for _, wire := range w.wires {
		wire.mend()
	}
	eventually(t, "some refusals", func() bool { return refusals(w.log) >= 4 })
	pause := 2 * ticks * tick // from the end of an offer to the next
	if tries, most := refusals(w.log), 2+int(time.Since(begun)/pause); tries > most {
		t.Errorf("%d offers in %v, want at most %d", tries, time.Since(begun), most)
	}
	if isClosed(behind.Done()) {
		t.Fatalf("the member has ended: %v", behind.Err())
	}
	makeRoom()
	token := acquire(t, w.members["n1"], "after", "me")
	eventually(t, "the member has caught up", func() bool { return snapshotOf(t, behind) >= before })
	if info := lockInfo(t, behind, "kept"); info.OwnerID != "me" || info.Version != kept {
		t.Errorf("n3 says %+v", info)
	}
	if info := lockInfo(t, behind, "after"); info.OwnerID != "me" || info.Version != token {
		t.Errorf("n3 says %+v", info)
	}
	if left := unfinished(t, dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// refusals counts how often a sender has logged that its snapshot found no room.
func refusals(log *logBook) (n int) {
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, "snapshot is not sent") && strings.Contains(line, "no space left on device") {
			n++
		}
	}
	return n
}

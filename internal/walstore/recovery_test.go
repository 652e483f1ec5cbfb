package walstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/internal/storagetest"
)

// twoSnapshots is a directory whose log begins at a later segment, with snapshots
// at 20 and 30 and entries to 45, all but the last of which are committed.
func twoSnapshots(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	s := storagetest.Started(t, diskAt(dir))
	must(t, s.Append(storagetest.Hard(2, 7, 1), nil))
	for i := uint64(2); i <= 45; i++ {
		must(t, s.Append(storagetest.Hard(2, 7, i-1), storagetest.Entries(2, i, entryData(i))))
		if i == 12 || i == 22 || i == 32 {
			storagetest.Commit(t, s, storagetest.Meta(i-2, 2), fmt.Sprint("state ", i-2))
			must(t, s.SaveSnapshot(storagetest.Meta(i-2, 2)))
		}
	}
	must(t, s.Close())
	if segments, err := listSegments(filepath.Join(dir, walName)); err != nil || segments[0].seq == 0 {
		t.Fatalf("the first segment is still there, %v", err)
	}
	return dir
}

func entryData(i uint64) string { return strings.Repeat(fmt.Sprintf("entry %d ", i), 1000) }

func snapshotAt(dir string, index uint64) string {
	return filepath.Join(dir, snapshotsName, fmt.Sprintf("%016x-%016x.snap", index, 2))
}

// damages are what can become of a file.
var damages = map[string]func(t *testing.T, path string){
	"missing": func(t *testing.T, path string) { must(t, os.Remove(path)) },
	"empty":   func(t *testing.T, path string) { must(t, os.Truncate(path, 0)) },
	"cut":     func(t *testing.T, path string) { must(t, os.Truncate(path, 20)) },
	"flipped": func(t *testing.T, path string) {
		b, err := os.ReadFile(path)
		must(t, err)
		b[len(b)-6] ^= 1
		must(t, os.WriteFile(path, b, 0o600))
	},
	"another's": func(t *testing.T, path string) {
		must(t, os.WriteFile(path, storagetest.SnapshotBytes(storagetest.Meta(29, 2), "state"), 0o600))
	},
	"of other members": func(t *testing.T, path string) {
		meta := storagetest.Meta(30, 2)
		meta.ConfState.Learners = nil
		must(t, os.WriteFile(path, storagetest.SnapshotBytes(meta, "state"), 0o600))
	},
}

// The older snapshot and the log behind it hold all that the newest did.
func TestLoadUsesTheOlderSnapshotLoudly(t *testing.T) {
	dir := twoSnapshots(t)
	for _, name := range slices.Sorted(maps.Keys(damages)) {
		t.Run(name, func(t *testing.T) {
			bad := filepath.Join(t.TempDir(), "d")
			copyDir(t, dir, bad)
			damages[name](t, snapshotAt(bad, 30))
			var out bytes.Buffer
			s, err := Open(Config{Dir: bad, Logger: slog.New(slog.NewTextHandler(&out, nil))})
			must(t, err)
			defer s.Close()
			s.check = storagetest.CheckSnapshot
			found, err := s.Load()
			must(t, err)
			if found.Snapshot.GetIndex() != 20 || len(found.Entries) != 25 || found.Hard.GetCommit() != 44 {
				t.Errorf("stands on %v with %d entries, %v", found.Snapshot, len(found.Entries), found.Hard)
			}
			for i, e := range found.Entries {
				if string(e.GetData()) != entryData(21+uint64(i)) {
					t.Errorf("entry %d is another", 21+i)
				}
			}
			if text := out.String(); !strings.Contains(text, "level=ERROR") || !strings.Contains(text, snapshotAt(bad, 30)) {
				t.Errorf("logged %q", text)
			}
			// The next one takes the place of the damaged one, at the same index or later.
			storagetest.Commit(t, s, storagetest.Meta(30, 2), "again")
			must(t, s.SaveSnapshot(storagetest.Meta(30, 2)))
			must(t, s.Close())
			again, err := tryLoad(t, bad)
			if err != nil || again.Snapshot.GetIndex() != 30 || len(again.Entries) != 15 {
				t.Errorf("then stands on %v with %d entries, %v", again.Snapshot, len(again.Entries), err)
			}
		})
	}
}

// A damaged file is not kept for ever.
func TestDamagedSnapshotGoesWithTheNextOne(t *testing.T) {
	dir := twoSnapshots(t)
	damages["cut"](t, snapshotAt(dir, 30))
	s, _ := storagetest.Load(t, diskAt(dir))
	if has, err := exists(snapshotAt(dir, 30)); !has || err != nil {
		t.Errorf("the damaged snapshot is gone before there is another, %v", err)
	}
	if _, err := s.OpenSnapshot(30); err == nil {
		t.Error("the damaged snapshot was opened")
	}
	storagetest.Commit(t, s, storagetest.Meta(33, 2), "next")
	must(t, s.SaveSnapshot(storagetest.Meta(33, 2)))
	if has, err := exists(snapshotAt(dir, 30)); has || err != nil {
		t.Errorf("the damaged snapshot is still there, %v", err)
	}
	must(t, s.Close())
	s2 := open(t, dir)
	found, err := s2.Load()
	if err != nil || found.Snapshot.GetIndex() != 33 {
		t.Errorf("stands on %v, %v", found.Snapshot, err)
	}
	bounded(t, s2)
}

// Without a snapshot to stand on, the log is of no use, and that is said.
func TestLoadRefusesWithoutASnapshot(t *testing.T) {
	dir := twoSnapshots(t)
	for _, name := range slices.Sorted(maps.Keys(damages)) {
		bad := filepath.Join(t.TempDir(), "d")
		copyDir(t, dir, bad)
		damages[name](t, snapshotAt(bad, 30))
		damages["cut"](t, snapshotAt(bad, 20))
		refusesUnchanged(t, bad, snapshotAt(bad, 30)+": ")
		refusesUnchanged(t, bad, remedy)
	}
	for _, name := range []string{"missing", "cut"} { // the log jumped over all that it had
		bad := t.TempDir()
		s := storagetest.Started(t, diskAt(bad))
		must(t, s.Append(storagetest.Hard(2, 7, 1), storagetest.Entries(2, 2, "a")))
		storagetest.Commit(t, s, storagetest.Meta(30, 2), "installed")
		must(t, s.InstallSnapshot(storagetest.Meta(30, 2), storagetest.Hard(2, 7, 30)))
		must(t, s.Close())
		damages[name](t, snapshotAt(bad, 30))
		refusesUnchanged(t, bad, snapshotAt(bad, 30)+": ")
	}
}

// As long as the log begins with the first state, every snapshot may be damaged.
func TestLoadGoesBackToTheFirstState(t *testing.T) {
	dir := t.TempDir()
	s := storagetest.Started(t, diskAt(dir))
	must(t, s.Append(storagetest.Hard(2, 7, 1), storagetest.Entries(2, 2, "a", "b", "c")))
	for i := uint64(2); i < 5; i++ {
		storagetest.Commit(t, s, storagetest.Meta(i, 2), "state")
		must(t, s.SaveSnapshot(storagetest.Meta(i, 2)))
	}
	must(t, s.Close())
	damages["cut"](t, snapshotAt(dir, 3))
	damages["flipped"](t, snapshotAt(dir, 4))
	found, err := tryLoad(t, dir)
	if err != nil || found.Snapshot.GetIndex() != 1 || len(found.Entries) != 3 || found.Hard.GetCommit() != 4 {
		t.Errorf("loaded\n%s%v", storagetest.Text(found), err)
	}
}

// A snapshot of a later version is not damage, and not a reason to go back to
// the older one: what has been acknowledged since could depend on it.
func TestLoadNamesANewerSnapshot(t *testing.T) {
	dir := twoSnapshots(t)
	b, err := os.ReadFile(snapshotAt(dir, 30))
	must(t, err)
	must(t, os.WriteFile(snapshotAt(dir, 30), storagetest.OfNewerFormat(b), 0o600))
	before := readDir(t, dir)
	_, err = tryLoad(t, dir)
	if !errors.Is(err, raftlock.ErrUnknownFormat) || errors.Is(err, raftlock.ErrCorrupt) || !strings.Contains(err.Error(), snapshotAt(dir, 30)) {
		t.Errorf("Load: %v, want ErrUnknownFormat alone", err)
	}
	if !maps.Equal(before, readDir(t, dir)) {
		t.Error("the refused directory was changed")
	}
}

// The first segments may be gone, but only those that no snapshot needs.
func TestLoadRefusesTooFewSegments(t *testing.T) {
	dir := twoSnapshots(t)
	segments, err := listSegments(filepath.Join(dir, walName))
	must(t, err)
	for from := 1; from < len(segments); from++ {
		bad := filepath.Join(t.TempDir(), "d")
		copyDir(t, dir, bad)
		for _, seg := range segments[:from] {
			must(t, os.Remove(filepath.Join(bad, walName, filepath.Base(seg.path))))
		}
		if segments[from].index <= 30 { // there is still all that the newest needs
			found, err := tryLoad(t, bad)
			if err != nil || found.Snapshot.GetIndex() != 30 || len(found.Entries) != 15 {
				t.Errorf("without %d segments: stands on %v with %d entries, %v", from, found.Snapshot, len(found.Entries), err)
			}
			continue
		}
		refusesUnchanged(t, bad, walName)
	}
	if last := segments[len(segments)-1]; last.index <= 30 {
		t.Error("the last segment is needed by the snapshot")
	}
}

// A record is not enough: the entries behind the snapshot must be there, too.
func TestLoadRefusesASnapshotWithoutTheEntriesBehindIt(t *testing.T) {
	dir := t.TempDir()
	s := storagetest.Started(t, diskAt(dir))
	must(t, s.Append(storagetest.Hard(2, 7, 1), nil))
	for i := uint64(2); i <= 45; i++ {
		must(t, s.Append(storagetest.Hard(2, 7, i-1), storagetest.Entries(2, i, entryData(i))))
	}
	storagetest.Commit(t, s, storagetest.Meta(20, 2), "state")
	must(t, s.SaveSnapshot(storagetest.Meta(20, 2)))
	must(t, s.Close())
	segments, err := listSegments(filepath.Join(dir, walName))
	must(t, err)
	for i, seg := range segments[:len(segments)-1] {
		must(t, os.Remove(seg.path))
		if segments[i+1].index > 20 {
			refusesUnchanged(t, dir, "does not go on from any snapshot")
			continue
		}
		copied := filepath.Join(t.TempDir(), "d")
		copyDir(t, dir, copied)
		found, err := tryLoad(t, copied)
		if err != nil || found.Snapshot.GetIndex() != 20 || len(found.Entries) != 25 {
			t.Errorf("from entry %d on: stands on %v with %d entries, %v", segments[i+1].index, found.Snapshot, len(found.Entries), err)
		}
	}
}

// What a dead process has left is removed: files that were being written, and
// those that were never named.
func TestLoadRemovesWhatWasNotNamed(t *testing.T) {
	dir := twoSnapshots(t)
	before := readDir(t, dir)
	for _, name := range []string{snapshotAt(dir, 31), snapshotAt(dir, 25), snapshotAt(dir, 500), snapshotAt(dir, 30) + ".1.tmp"} {
		must(t, os.WriteFile(name, []byte("left behind"), 0o600))
	}
	_, err := tryLoad(t, dir)
	must(t, err)
	if after := readDir(t, dir); !slices.Equal(slices.Sorted(maps.Keys(before)), slices.Sorted(maps.Keys(after))) {
		t.Errorf("files %q, want %q", slices.Sorted(maps.Keys(after)), slices.Sorted(maps.Keys(before)))
	}
}

// What does not read back as what it should be is no snapshot.
func TestCommitRefusesWhatItCannotReadBack(t *testing.T) {
	dir := t.TempDir()
	s := storagetest.Started(t, diskAt(dir))
	must(t, s.Append(storagetest.Hard(2, 7, 1), storagetest.Entries(2, 2, "a", "b")))
	good := storagetest.SnapshotBytes(storagetest.Meta(3, 2), "state")
	for _, b := range [][]byte{nil, good[:len(good)-1], storagetest.SnapshotBytes(storagetest.Meta(2, 2), "state")} {
		sink, err := s.CreateSnapshot(storagetest.Meta(3, 2))
		must(t, err)
		_, err = sink.Write(b)
		must(t, err)
		// It says what is wrong where; the data directory is as good as before.
		if err := sink.Commit(t.Context()); err == nil || !strings.Contains(err.Error(), "offset ") {
			t.Errorf("Commit: %v", err)
		}
	}
	if has := readDir(t, filepath.Join(dir, snapshotsName)); len(has) != 0 {
		t.Errorf("left behind: %q", slices.Sorted(maps.Keys(has)))
	}
	storagetest.Commit(t, s, storagetest.Meta(3, 2), "state")
	must(t, s.SaveSnapshot(storagetest.Meta(3, 2)))
}

// A directory does not grow with its age.
func TestDirectoryStaysBounded(t *testing.T) {
	dir := t.TempDir()
	s := storagetest.Started(t, diskAt(dir))
	must(t, s.Append(storagetest.Hard(2, 7, 1), nil))
	i := uint64(2)
	for round := range 20 {
		for range 10 {
			must(t, s.Append(storagetest.Hard(2, 7, i-1), storagetest.Entries(2, i, entryData(i))))
			i++
		}
		meta := storagetest.Meta(i-3, 2)
		storagetest.Commit(t, s, meta, strings.Repeat("state", 100))
		must(t, s.SaveSnapshot(meta))
		bounded(t, s.(*Store))
		segments, err := listSegments(filepath.Join(dir, walName))
		must(t, err)
		if snapshots := readDir(t, filepath.Join(dir, snapshotsName)); len(segments) > 5 || len(snapshots) > 2 {
			t.Fatalf("round %d: %d segments, %d snapshots", round, len(segments), len(snapshots))
		}
		if open := openFiles(t, s.(*Store)); open > len(segments) {
			t.Fatalf("round %d: %d segments are held of %d", round, open, len(segments))
		}
	}
	must(t, s.Close())
	found, err := tryLoad(t, dir)
	if err != nil || found.Snapshot.GetIndex() != i-3 {
		t.Errorf("stands on %v, %v", found.Snapshot, err)
	}
}

// A member that was sent a snapshot and nothing else begins new segments like any
// other, though etcd's code names them after entries that it has read.
func TestSegmentsAfterAnInstalledSnapshot(t *testing.T) {
	for _, lost := range []int{0, 5} { // entries beyond the snapshot, of a leader that lost
		dir := t.TempDir()
		s := storagetest.Started(t, diskAt(dir))
		data := slices.Repeat([]string{"entry"}, 99+lost)
		must(t, s.Append(storagetest.Hard(2, 7, 90), storagetest.Entries(2, 2, data...)))
		meta := storagetest.Meta(100, 3)
		if lost == 0 {
			meta = storagetest.Meta(5000, 3)
		}
		storagetest.Commit(t, s, meta, "installed")
		must(t, s.InstallSnapshot(meta, storagetest.Hard(3, 7, meta.GetIndex())))
		s = manyStates(t, dir, s, meta)
		segments, err := listSegments(filepath.Join(dir, walName))
		must(t, err)
		if last := segments[len(segments)-1]; last.seq < 2 || last.index <= meta.GetIndex() {
			t.Errorf("lost %d: segment %d is named after entry %d", lost, last.seq, last.index)
		}
		must(t, s.Append(nil, storagetest.Entries(3, meta.GetIndex()+1, "next")))
		storagetest.Commit(t, s, storagetest.Meta(meta.GetIndex()+1, 3), "own")
		must(t, s.SaveSnapshot(storagetest.Meta(meta.GetIndex()+1, 3)))
		must(t, s.Close())
		found, err := tryLoad(t, dir)
		if err != nil || found.Snapshot.GetIndex() != meta.GetIndex()+1 {
			t.Fatalf("lost %d: loaded\n%s%v", lost, storagetest.Text(found), err)
		}
	}
}

// Nor is the first state let go of by a member that waits for entries.
func TestSegmentsAfterTheFirstState(t *testing.T) {
	dir := t.TempDir()
	s := storagetest.Started(t, diskAt(dir))
	s = manyStates(t, dir, s, &raftpb.SnapshotMetadata{Index: new(uint64(1))})
	must(t, s.Append(nil, storagetest.Entries(3, 2, "first")))
	must(t, s.Close())
	found, err := tryLoad(t, dir)
	if err != nil || found.Snapshot.GetIndex() != 1 || len(found.Entries) != 1 {
		t.Errorf("loaded\n%s%v", storagetest.Text(found), err)
	}
}

// manyStates starts a member three times and fills more than a segment with
// states each time.
func manyStates(t *testing.T, dir string, s raftlock.Storage, meta *raftpb.SnapshotMetadata) raftlock.Storage {
	t.Helper()
	for round := range 3 {
		must(t, s.Close())
		again, found := storagetest.Load(t, diskAt(dir))
		if found.Snapshot.GetIndex() != meta.GetIndex() || len(found.Entries) != 0 || found.Hard.GetCommit() != meta.GetIndex() {
			t.Fatalf("round %d: loaded\n%s", round, storagetest.Text(found))
		}
		s = again
		for range testSegmentSize / 20 {
			must(t, s.Append(storagetest.Hard(3, 7, meta.GetIndex()), nil))
		}
	}
	return s
}

// The file of a snapshot with any byte changed, or cut anywhere, is not taken for
// it.
func TestEveryFlippedByteOfASnapshot(t *testing.T) {
	meta := storagetest.Meta(30, 2)
	b := storagetest.SnapshotBytes(meta, strings.Repeat("state", 800))
	stride := 1
	if testing.Short() {
		stride = 7
	}
	s := &Store{check: storagetest.CheckSnapshot}
	m := markOf(meta)
	must(t, s.judgeFile("file", bytes.NewReader(b), m))
	for at := 0; at < len(b); at += stride {
		for _, value := range []byte{b[at] ^ 0xff, b[at] ^ 1<<(at%8), 0} {
			if value == b[at] {
				continue
			}
			bad := slices.Clone(b)
			bad[at] = value
			if err := s.judgeFile("file", bytes.NewReader(bad), m); !errors.Is(err, raftlock.ErrCorrupt) {
				t.Fatalf("byte %d %#02x→%#02x: %v", at, b[at], value, err)
			}
		}
		if err := s.judgeFile("file", bytes.NewReader(b[:at]), m); !errors.Is(err, raftlock.ErrCorrupt) {
			t.Fatalf("cut at %d: %v", at, err)
		}
	}
}

// openFiles counts the segments that the log holds.
func openFiles(t *testing.T, s *Store) (n int) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0 // elsewhere nobody can tell
	}
	for _, fd := range fds {
		if path, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil &&
			strings.HasPrefix(path, s.walDir()+"/") && strings.Contains(path, ".wal") {
			n++
		}
	}
	return n
}

// A snapshot that is read back does not hold up whoever ends: however large it is
// and slow its disk, the next read is the last. Nothing is left of it, and the
// next one is as good as any.
func TestCommitEndsWithItsContext(t *testing.T) {
	dir := t.TempDir()
	s := storagetest.Started(t, diskAt(dir)).(*Store)
	must(t, s.Append(storagetest.Hard(2, 7, 1), storagetest.Entries(2, 2, "a", "b")))
	for reads := range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		check := s.check
		s.check = func(from io.Reader) (*raftpb.SnapshotMetadata, error) {
			var b [1]byte
			for range reads {
				if _, err := from.Read(b[:]); err != nil {
					t.Errorf("a read before the end: %v", err)
				}
			}
			cancel()
			for n := 1; ; n++ {
				if _, err := from.Read(b[:]); err != nil {
					if n > 1 {
						t.Errorf("it reads %d times more", n)
					}
					return nil, err
				}
			}
		}
		sink, err := s.CreateSnapshot(storagetest.Meta(3, 2))
		must(t, err)
		storagetest.WriteSnapshot(t, sink, storagetest.Meta(3, 2), "state")
		if err := sink.Commit(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Commit: %v", err)
		}
		s.check = check
		if has := readDir(t, filepath.Join(dir, snapshotsName)); len(has) != 0 {
			t.Errorf("left behind: %q", slices.Sorted(maps.Keys(has)))
		}
	}
	storagetest.Commit(t, s, storagetest.Meta(3, 2), "state")
	must(t, s.SaveSnapshot(storagetest.Meta(3, 2)))
}

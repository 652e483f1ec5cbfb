package walstore

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftlock/raftlock/internal/storagetest"
)

var update = flag.Bool("update", false, "write testdata again; only before a format's first release")

// golden is a directory in testdata, with what Load answers in a .txt beside it.
type golden struct {
	dir  string
	make func(t *testing.T, dir string)
	next uint64 // the index of the next entry
}

func (g golden) text() string { return g.dir + ".txt" }

const goldenDir = "testdata/v1"

func goldens() []golden {
	return []golden{
		{goldenDir, makeGolden, 14},
		{"testdata/v1compacted", makeCompacted, 545},
	}
}

// makeGolden is the history of testdata/v1: a log of three segments, with
// everything in it that the format knows.
func makeGolden(t *testing.T, dir string) {
	t.Helper()
	wal.SegmentSizeBytes = 4096
	t.Cleanup(func() { wal.SegmentSizeBytes = testSegmentSize })
	s := storagetest.Started(t, diskAt(dir))
	started := storagetest.ID()
	started.Started = true
	must(t, s.SaveIdentity(started))
	must(t, s.Append(storagetest.Hard(2, 7, 1), nil))
	must(t, s.Append(nil, storagetest.Entries(2, 2, "", "two", "replaced", "cut off")))
	conf := storagetest.Entries(5, 4, "a change of members", strings.Repeat("\x00", 2000))
	conf[0].Type = new(conf[0].GetType() + 1)
	must(t, s.Append(storagetest.Hard(5, 0x9000000000000003, 3), conf))
	for i := range uint64(8) {
		must(t, s.Append(storagetest.Hard(5, 0x9000000000000003, 4+i), storagetest.Entries(5, 6+i, strings.Repeat("entry", 300))))
	}
	must(t, s.Close())
	if segments, err := listSegments(filepath.Join(dir, walName)); err != nil || len(segments) != 3 {
		t.Fatalf("%d segments, %v, want 3", len(segments), err)
	}
}

// makeCompacted is the history of testdata/v1compacted: a log that begins at a
// later segment, with own snapshots, one from the leader, and a change of members.
func makeCompacted(t *testing.T, dir string) {
	t.Helper()
	wal.SegmentSizeBytes = 4096
	t.Cleanup(func() { wal.SegmentSizeBytes = testSegmentSize })
	s := storagetest.Started(t, diskAt(dir))
	must(t, s.Append(storagetest.Hard(2, 7, 1), nil))
	write := func(from, to uint64) {
		for i := from; i <= to; i++ {
			entries := storagetest.Entries(2, i, strings.Repeat("entry", 100))
			if i%10 == 0 {
				entries[0].Type = raftpb.EntryConfChangeV2.Enum()
			}
			must(t, s.Append(storagetest.Hard(2, 7, i-1), entries))
		}
	}
	snapshot := func(i uint64) {
		storagetest.Commit(t, s, storagetest.Meta(i, 2), fmt.Sprint("state ", i))
		must(t, s.SaveSnapshot(storagetest.Meta(i, 2)))
	}
	write(2, 20)
	snapshot(12)
	write(21, 30)
	meta := storagetest.Meta(500, 2)
	storagetest.Commit(t, s, meta, "installed")
	must(t, s.InstallSnapshot(meta, storagetest.Hard(2, 7, 500)))
	write(501, 530)
	snapshot(520)
	write(531, 544)
	snapshot(540)
	must(t, s.Close())
	if segments, err := listSegments(filepath.Join(dir, walName)); err != nil || segments[0].seq < 3 || len(segments) < 3 {
		t.Fatalf("segments %v, %v", segments, err)
	}
}

// trimmed returns a directory's files without the zeros that segments end in.
func trimmed(t *testing.T, dir string) map[string]string {
	files := readDir(t, dir)
	for name, data := range files {
		if filepath.Ext(name) == ".wal" {
			files[name] = data[:endOf(t, filepath.Join(dir, name))]
		}
	}
	return files
}

// A directory of the first release opens for ever.
func TestGoldenDirectoryOpens(t *testing.T) {
	for _, g := range goldens() {
		t.Run(filepath.Base(g.dir), func(t *testing.T) {
			if *update {
				g.rewrite(t)
			}
			g.opens(t)
		})
	}
}

func (g golden) rewrite(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	g.make(t, dir)
	must(t, os.RemoveAll(g.dir))
	for name, data := range trimmed(t, dir) {
		path := filepath.Join(g.dir, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(data), 0o644))
	}
	found, err := tryLoad(t, dir)
	must(t, err)
	must(t, os.WriteFile(g.text(), []byte(storagetest.Text(found)), 0o644))
}

func (g golden) opens(t *testing.T) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "d")
	copyDir(t, g.dir, dir)
	must(t, filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return os.Chmod(path, 0o700)
		}
		return os.Chmod(path, 0o600)
	}))
	want, err := os.ReadFile(g.text())
	must(t, err)
	s, found := storagetest.Load(t, diskAt(dir))
	if got := storagetest.Text(found); got != string(want) {
		t.Fatalf("loaded\n%s\nwant\n%s", got, want)
	}
	next := storagetest.Entries(5, g.next, "next")
	must(t, s.Append(storagetest.Hard(5, 0x9000000000000003, found.Hard.GetCommit()), next))
	must(t, s.Close())
	again, err := tryLoad(t, dir)
	found.Entries = append(found.Entries, next...)
	found.Hard = storagetest.Hard(5, 0x9000000000000003, found.Hard.GetCommit())
	if got, want := storagetest.Text(again), storagetest.Text(found); err != nil || got != want {
		t.Fatalf("loaded\n%s\n%v, want\n%s", got, err, want)
	}
}

// The same history is still written in the same bytes.
func TestGoldenDirectoryIsStillWritten(t *testing.T) {
	for _, g := range goldens() {
		t.Run(filepath.Base(g.dir), func(t *testing.T) {
			dir := t.TempDir()
			g.make(t, dir)
			got, want := trimmed(t, dir), trimmed(t, g.dir)
			if names := slices.Sorted(maps.Keys(got)); !slices.Equal(names, slices.Sorted(maps.Keys(want))) {
				t.Fatalf("files %q, want %q", names, slices.Sorted(maps.Keys(want)))
			}
			for name := range want {
				if got[name] != want[name] {
					t.Errorf("%s is written otherwise:\n%x\nwant\n%x", name, got[name], want[name])
				}
			}
		})
	}
}

// Whoever changes Identity changes the disk format: an older build refuses a
// field that it does not know.
func TestGoldenIdentity(t *testing.T) {
	file, err := os.ReadFile(filepath.Join(goldenDir, identityName))
	must(t, err)
	id, err := decodeIdentity(file)
	must(t, err)
	want := storagetest.ID()
	want.Started = true
	if !sameIdentity(id, want) {
		t.Errorf("read %+v, want %+v", id, want)
	}
	if again, err := encodeIdentity(id); err != nil || string(again) != string(file) {
		t.Errorf("written as %s, %v, want %s", again, err, file)
	}
}

package walstore

import (
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/etcd/server/v3/storage/wal"

	"github.com/raftlock/raftlock/internal/storagetest"
)

var update = flag.Bool("update", false, "write testdata again; only before a format's first release")

const (
	goldenDir  = "testdata/v1"
	goldenText = "testdata/v1.txt"
)

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
	if *update {
		dir := t.TempDir()
		makeGolden(t, dir)
		for name, data := range trimmed(t, dir) {
			path := filepath.Join(goldenDir, name)
			must(t, os.MkdirAll(filepath.Dir(path), 0o755))
			must(t, os.WriteFile(path, []byte(data), 0o644))
		}
		found, err := tryLoad(t, dir)
		must(t, err)
		must(t, os.WriteFile(goldenText, []byte(storagetest.Text(found)), 0o644))
	}
	dir := filepath.Join(t.TempDir(), "d")
	copyDir(t, goldenDir, dir)
	must(t, filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return os.Chmod(path, 0o700)
		}
		return os.Chmod(path, 0o600)
	}))
	want, err := os.ReadFile(goldenText)
	must(t, err)
	s, found := storagetest.Load(t, diskAt(dir))
	if got := storagetest.Text(found); got != string(want) {
		t.Fatalf("loaded\n%s\nwant\n%s", got, want)
	}
	next := storagetest.Entries(5, 14, "next")
	must(t, s.Append(nil, next))
	must(t, s.Close())
	again, err := tryLoad(t, dir)
	found.Entries = append(found.Entries, next...)
	if got, want := storagetest.Text(again), storagetest.Text(found); err != nil || got != want {
		t.Fatalf("loaded\n%s\n%v, want\n%s", got, err, want)
	}
}

// The same history is still written in the same bytes.
func TestGoldenDirectoryIsStillWritten(t *testing.T) {
	dir := t.TempDir()
	makeGolden(t, dir)
	got, want := trimmed(t, dir), trimmed(t, goldenDir)
	if names := slices.Sorted(maps.Keys(got)); !slices.Equal(names, slices.Sorted(maps.Keys(want))) {
		t.Fatalf("files %q, want %q", names, slices.Sorted(maps.Keys(want)))
	}
	for name := range want {
		if got[name] != want[name] {
			t.Errorf("%s is written otherwise:\n%x\nwant\n%x", name, got[name], want[name])
		}
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

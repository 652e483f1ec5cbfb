package embed_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/embed"
)

// wornDir is the directory of a member after the script: its log does not reach
// back to the beginning. Its two snapshots are named, the older first.
type wornDir struct {
	life
	snapshots [2]string
}

func wearDir(t *testing.T) wornDir {
	t.Helper()
	w := wornDir{life: runLife(t, filepath.Join(t.TempDir(), "worn"))}
	if len(w.tokens) != scriptLength {
		t.Fatalf("%d of %d steps: %s", len(w.tokens), scriptLength, w.said)
	}
	if _, err := os.Stat(filepath.Join(w.dir, "wal", "0000000000000000-0000000000000000.wal")); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("the beginning of the log: %v, want it released", err)
	}
	files, err := filepath.Glob(filepath.Join(w.dir, "snapshots", "*.snap"))
	if err != nil || len(files) < 2 {
		t.Fatalf("snapshots %v, %v, want 2", files, err)
	}
	for i := range w.snapshots { // in the order of their indexes
		if w.snapshots[i], err = filepath.Rel(w.dir, files[i]); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range files[2:] { // the member was closed before the log named it
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// damaged is a copy in which some files are others.
func (w *wornDir) damaged(t *testing.T, files map[string][]byte) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "d")
	if err := os.CopyFS(dir, os.DirFS(w.dir)); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func (w *wornDir) read(t *testing.T, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(w.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// eachDamage makes the damages of a file: every length and every byte, or a
// sample of them.
func eachDamage(whole []byte, made func(what string, content []byte)) {
	stride := max(1, len(whole)/12)
	switch {
	case os.Getenv("RAFTLOCK_EVERY") != "":
		stride = 1
	case testing.Short():
		stride = max(1, len(whole)/2)
	}
	for at := 0; at < len(whole); at += stride {
		made(fmt.Sprint("cut at ", at), whole[:at])
		flipped := slices.Clone(whole)
		flipped[at] ^= 1 << (at % 8)
		made(fmt.Sprint("flipped at ", at), flipped)
	}
	made("longer", append(slices.Clone(whole), 0))
}

// A member whose newest snapshot is damaged starts from the one before it, and
// says so: its table is what it was.
func TestDamagedSnapshotIsPassedOver(t *testing.T) {
	t.Parallel()
	w := wearDir(t)
	newest := w.snapshots[1]
	eachDamage(w.read(t, newest), func(what string, content []byte) {
		dir := w.damaged(t, map[string][]byte{newest: content})
		log := &logBook{}
		m := openMember(t, aloneConfig(dir, log))
		awaitReady(t, "n1", m)
		checkScript(t, m, w.tokens)
		if !log.says("level=ERROR", "trying the one before it", filepath.Join(dir, newest)+": offset ") ||
			!log.says("level=ERROR", "look after this disk") {
			t.Errorf("%s: the log does not say so: %s", what, log)
		}
		if err := m.Close(); err != nil {
			t.Errorf("%s: close: %v", what, err)
		}
		if t.Failed() {
			t.Fatal(what)
		}
	})
	dir := w.damaged(t, nil)
	if err := os.Remove(filepath.Join(dir, newest)); err != nil {
		t.Fatal(err)
	}
	m := openMember(t, aloneConfig(dir, &logBook{}))
	awaitReady(t, "n1", m)
	checkScript(t, m, w.tokens)
}

// With both snapshots damaged there is nothing to start from. The member is
// refused, with the file, the offset and what can be done, and nothing is changed.
func TestTwoDamagedSnapshotsAreRefused(t *testing.T) {
	t.Parallel()
	w := wearDir(t)
	older, newest := w.snapshots[0], w.snapshots[1]
	broken := w.read(t, newest)
	broken[len(broken)/2] ^= 1
	eachDamage(w.read(t, older), func(what string, content []byte) {
		dir := w.damaged(t, map[string][]byte{older: content, newest: broken})
		config := func() embed.Config { return aloneConfig(dir, &logBook{}) }
		refusesOpen(t, config, raftlock.ErrCorrupt, filepath.Join(dir, newest)+": offset ", "nothing was changed", "put back exactly what was lost")
		for name, want := range map[string][]byte{older: content, newest: broken} {
			if left, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !slices.Equal(left, want) {
				t.Fatalf("%s: the file was changed: %v", what, err)
			}
		}
	})
}

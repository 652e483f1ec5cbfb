package walstore

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/internal/storagetest"
)

// A copy of the directory at every step of Bootstrap loads as before the call or
// as after it, and goes on from there.
func TestBootstrapCrashesAnywhere(t *testing.T) {
	before, after := loadedBare(), loadedStarted(t)
	for _, leftovers := range []bool{false, true} {
		dir, copies := t.TempDir(), t.TempDir()
		if leftovers {
			must(t, os.CopyFS(dir, os.DirFS(unfinished(t))))
		}
		var steps []string
		record := func(step string) {
			copyDir(t, dir, filepath.Join(copies, fmt.Sprint(len(steps))))
			steps = append(steps, step)
		}
		s := open(t, dir)
		_, err := s.Load()
		must(t, err)
		if !leftovers {
			must(t, s.SaveIdentity(storagetest.Bare()))
		}
		record("began")
		s.trace = record
		must(t, s.Bootstrap(storagetest.ID()))
		record("returned")
		must(t, s.Close())

		decided := false
		for i, step := range steps {
			dir := filepath.Join(copies, fmt.Sprint(i))
			found, err := tryLoad(t, dir)
			if err != nil {
				t.Fatalf("crash after %q: %v", step, err)
			}
			decided = decided || step == "renamed "+identityName
			want := before
			if decided {
				want = after
			}
			if got := storagetest.Text(found); got != want {
				t.Fatalf("crash after %q: loaded\n%s\nwant\n%s", step, got, want)
			}
			goesOn(t, dir, decided)
		}
		if !decided || len(steps) < 9 {
			t.Errorf("steps %q", steps)
		}
	}
}

// goesOn bootstraps if need be, appends, and loads.
func goesOn(t *testing.T, dir string, started bool) {
	t.Helper()
	s, _ := storagetest.Load(t, diskAt(dir))
	if !started {
		must(t, s.Bootstrap(storagetest.ID()))
	}
	must(t, s.Append(storagetest.Hard(2, 7, 1), storagetest.Entries(2, 2, "a")))
	must(t, s.Close())
	found, err := tryLoad(t, dir)
	if err != nil || len(found.Entries) != 1 {
		t.Fatalf("loaded\n%s, %v", storagetest.Text(found), err)
	}
	for name := range readDir(t, dir) {
		if strings.HasPrefix(name, newWALName) {
			t.Errorf("%s was left behind", name)
		}
	}
}

// unfinished is a directory whose identity has no members, beside a log, half a
// log, and a log of a node that Bootstrap had given another id.
func unfinished(t *testing.T) (dir string) {
	t.Helper()
	w := &logWriter{}
	w.raw(4, 0, nil)
	other := testHeader()
	other.nodeID++
	w.record(1, other.encode())
	beginAfterHeader(w, testConf())
	dir = writeDir(t, map[string][]byte{firstSegment: w.buf, "0000000000000007-0000000000000009.wal": w.buf[:40], "0.tmp": {1}})
	file, err := encodeIdentity(storagetest.Bare())
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, identityName), file, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, identityName+tmpSuffix), file[:20], 0o600))
	for _, name := range []string{newWALName, newWALName + tmpSuffix} {
		must(t, os.Mkdir(filepath.Join(dir, name), 0o700))
		must(t, os.WriteFile(filepath.Join(dir, name, firstSegment), w.buf[:100], 0o600))
	}
	return dir
}

func loadedBare() string {
	bare := storagetest.Bare()
	return storagetest.Text(raftlock.Recovered{Identity: &bare})
}

func loadedStarted(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	must(t, storagetest.Started(t, diskAt(dir)).Close())
	found, err := tryLoad(t, dir)
	must(t, err)
	return storagetest.Text(found)
}

// A crash within SaveIdentity leaves the earlier identity or the later one.
func TestSaveIdentityCrashesAnywhere(t *testing.T) {
	dir, copies := t.TempDir(), t.TempDir()
	s := open(t, dir)
	_, err := s.Load()
	must(t, err)
	must(t, s.SaveIdentity(storagetest.Bare()))
	proposed := storagetest.Bare()
	proposed.ClusterID = 5
	var steps []string
	s.trace = func(step string) {
		copyDir(t, dir, filepath.Join(copies, fmt.Sprint(len(steps))))
		steps = append(steps, step)
	}
	must(t, s.SaveIdentity(proposed))
	for i, want := range []uint64{0, 5} {
		found, err := tryLoad(t, filepath.Join(copies, fmt.Sprint(i)))
		if err != nil || found.Identity.ClusterID != want {
			t.Errorf("crash after %q: %+v, %v, want cluster id %d", steps[i], found.Identity, err, want)
		}
	}
}

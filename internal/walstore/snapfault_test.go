package walstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The disk as it is at each step of snapshots, their naming and what is let go
// of: it loads as before the operation or as after it.
func TestSnapshotsCrashAnywhere(t *testing.T) {
	c := newScenario(t, 60)
	dir, copies := t.TempDir(), t.TempDir()
	s := open(t, dir)
	_, err := s.Load()
	must(t, err)
	done, steps := 0, []string{}
	s.trace = func(step string) {
		if done < 2 {
			return // TestBootstrapCrashesAnywhere
		}
		to := filepath.Join(copies, fmt.Sprint(len(steps)))
		copyDir(t, dir, to)
		c.check(t, to, done)
		must(t, os.RemoveAll(to))
		steps = append(steps, strings.Fields(step)[0])
	}
	for _, op := range c.ops {
		must(t, op.do(s))
		done++
	}
	must(t, s.Close())
	c.check(t, dir, done)
	slices.Sort(steps)
	if kinds := slices.Compact(slices.Clone(steps)); !slices.Equal(kinds, []string{"create", "make", "name", "remove", "rename", "save", "sync", "write"}) {
		t.Errorf("kinds of steps: %q", kinds)
	}
	if len(steps) < 40 {
		t.Errorf("%d steps", len(steps))
	}
}

// Each step fails once. What was written aside is gone, and everything else goes
// on; any other failure is final, and what was acknowledged is found again.
func TestSnapshotsWhenAStepFails(t *testing.T) {
	c := newScenario(t, 60)
	injected := errors.New("injected")
	aside, final := 0, 0
	stride := 1
	if testing.Short() {
		stride = 4
	}
	for nth := 1; ; nth += stride {
		dir := t.TempDir()
		s := open(t, dir)
		_, err := s.Load()
		must(t, err)
		steps, failed := 0, ""
		s.fault = func(step string) error {
			if steps++; steps == nth {
				failed = step
				return injected
			}
			return nil
		}
		done := 0
		for _, op := range c.ops {
			err := op.do(s)
			if errors.Is(err, errAside) {
				leavesNothing(t, s, failed)
				err = op.do(s) // the caller tries again
				aside++
			}
			if err != nil && !errors.Is(err, injected) {
				t.Fatalf("step %d %q: %s: %v", nth, failed, op.name, err)
			}
			if err != nil {
				final++
				if again := op.do(s); again == nil {
					t.Fatalf("step %d %q: %s works after its error", nth, failed, op.name)
				}
				break
			}
			done++
		}
		must(t, s.Close())
		c.check(t, dir, done)
		if failed == "" {
			break
		}
	}
	if stride == 1 && (aside < 20 || final < 10) || aside == 0 || final == 0 {
		t.Errorf("%d failures aside, %d final", aside, final)
	}
}

// leavesNothing checks that a snapshot that could not be written is gone before
// the next start.
func leavesNothing(t *testing.T, s *Store, step string) {
	t.Helper()
	if strings.HasPrefix(step, "remove") {
		return
	}
	for name := range readDir(t, s.dir) {
		if strings.HasPrefix(name, snapshotsName) && strings.HasSuffix(name, tmpSuffix) {
			t.Errorf("after %q failed: %s was left behind", step, name)
		}
	}
}

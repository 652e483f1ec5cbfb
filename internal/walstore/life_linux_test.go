package walstore

import (
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// lifeAppends is how many appends the scenario has that is broken at every
// system call.
const lifeAppends = 500

// live is a child that goes through the scenario until a call fails, and counts
// in a mapped file what was acknowledged: not a system call, so that it can be
// killed in any of them and makes none of those that are to fail.
func live(s *Store) int {
	file, err := os.OpenFile(os.Getenv(countEnv), os.O_RDWR, 0)
	if err != nil {
		return wrong("count: %v", err)
	}
	count, err := syscall.Mmap(int(file.Fd()), 0, 8, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return wrong("count: %v", err)
	}
	c := &scenario{}
	c.addLife(lifeAppends)
	for i, op := range c.ops {
		if err := op.do(s); err != nil {
			break
		}
		binary.LittleEndian.PutUint64(count, uint64(i)+1)
	}
	_ = s.Close() // may fail too
	return 0
}

// life runs the child in a directory, under strace if args are given, and
// returns how many operations were acknowledged.
func life(t *testing.T, dir string, args ...string) (done int) {
	t.Helper()
	must(t, os.RemoveAll(dir))
	count := filepath.Join(t.TempDir(), "count")
	must(t, os.WriteFile(count, make([]byte, 8), 0o600))
	self, err := os.Executable()
	must(t, err)
	args = append(args, self)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), childEnv+"="+childLives, dirEnv+"="+dir, countEnv+"="+count)
	output, err := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code > 0 && code != childRefused && code != 128+9 && code != 137 {
		t.Fatalf("child: %v\n%s", err, output)
	}
	b, err := os.ReadFile(count)
	must(t, err)
	return int(binary.LittleEndian.Uint64(b))
}

// Every write, fsync, rename and unlink of a member's life fails once, or is
// where the process is killed. What was acknowledged is found again; perhaps
// what was under way, too.
func TestLifeBrokenAtEverySystemCall(t *testing.T) {
	if testing.Short() {
		t.Skip("half a minute; with RAFTLOCK_EVERY=1, which leaves nothing out, some more")
	}
	strace := findStrace(t)
	root, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	dir := filepath.Join(root, "d")
	c := newScenario(t, lifeAppends)
	calls, paths := recordLife(t, strace, dir)
	c.check(t, dir, len(c.ops))
	if calls["unlinkat"] < 5 || calls["write"] < lifeAppends || calls["fsync"] < 20 || calls["renameat"] < 8 {
		t.Fatalf("calls of a life: %v", calls)
	}
	var onPaths []string // or the runtime's own writes would be counted
	for _, path := range paths {
		onPaths = append(onPaths, "-P", path)
	}
	for _, call := range slices.Sorted(maps.Keys(calls)) {
		for _, how := range []string{"error=" + errnoOf(call), "signal=SIGKILL"} {
			t.Run(call+" "+how, func(t *testing.T) {
				stride, broken := max(1, calls[call]/7), 0
				if os.Getenv("RAFTLOCK_EVERY") != "" {
					stride = 1
				}
				for nth := 1; nth <= calls[call]; nth += stride {
					args := append([]string{
						strace, "-f", "-qq", "-o", "/dev/null", "-e", "trace=" + call,
						"-e", fmt.Sprintf("inject=%s:%s:when=%d", call, how, nth),
					}, onPaths...)
					done := life(t, dir, args...)
					if done < len(c.ops) {
						broken++
					}
					c.check(t, dir, done)
				}
				if broken == 0 {
					t.Error("nothing was broken")
				}
			})
		}
	}
}

// recordLife returns how often each system call is made that makes something
// last, and the paths that are written to.
func recordLife(t *testing.T, strace, dir string) (calls map[string]int, paths []string) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "strace")
	if done := life(t, dir, strace, "-f", "-qq", "-y", "-o", out, "-e", "trace=write,fsync,fdatasync,renameat,unlinkat"); done == 0 {
		t.Fatal("nothing was acknowledged")
	}
	trace, err := os.ReadFile(out)
	must(t, err)
	calls = map[string]int{}
	seen := map[string]bool{}
	of := regexp.MustCompile(`^\d+ +(\w+)\((?:\d+<([^>]*)>)?`)
	name := regexp.MustCompile(`"(` + regexp.QuoteMeta(dir) + `[^"]*)"`)
	for line := range strings.Lines(string(trace)) {
		m := of.FindStringSubmatch(line)
		if m == nil || !strings.Contains(line, dir) {
			continue
		}
		calls[m[1]]++
		if strings.HasPrefix(m[2], dir) {
			seen[m[2]] = true
		}
		for _, path := range name.FindAllStringSubmatch(line, -1) {
			seen[path[1]] = true
		}
	}
	return calls, slices.Sorted(maps.Keys(seen))
}

// What is made durable in which order when a snapshot is saved and installed: no
// other test can see an fsync that is missing.
func TestDurableOrderOfSnapshots(t *testing.T) {
	strace := findStrace(t)
	root, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	dir := filepath.Join(root, "d")
	out := filepath.Join(t.TempDir(), "strace")
	life(t, dir, strace, "-f", "-qq", "-y", "-s", "4096", "-o", out, "-e", "trace=fsync,fdatasync,unlinkat,/^rename")
	trace, err := os.ReadFile(out)
	must(t, err)
	call := regexp.MustCompile(`(fsync|fdatasync)\(\d+<([^>]*)>|(rename|unlink)\w*\([^"\n]*"([^"]*)"(?:[^"\n]*"([^"]*)")?`)
	var calls []string
	for _, m := range call.FindAllStringSubmatch(string(trace), -1) {
		if m[3] == "" {
			m[3], m[4] = m[1], m[2]
		}
		text := strings.TrimSpace(m[3] + " " + strings.TrimPrefix(m[4], dir+"/") + " " + strings.TrimPrefix(m[5], dir+"/"))
		if !strings.Contains(text, ".tmp ") || strings.Contains(text, snapshotsName) {
			calls = append(calls, regexp.MustCompile(`[0-9a-f]{16}`).ReplaceAllString(text, "#"))
		}
	}
	all := strings.Join(calls, "\n")
	save := strings.Join([]string{
		"fsync snapshots/#-#.snap.2.tmp", "rename snapshots/#-#.snap.2.tmp snapshots/#-#.snap", "fsync snapshots",
		"fdatasync wal/#-#.wal", // its record
		"unlink wal/#-#.wal", "fsync wal",
	}, "\n")
	install := strings.Join([]string{
		"fsync snapshots/#-#.snap.4.tmp", "rename snapshots/#-#.snap.4.tmp snapshots/#-#.snap", "fsync snapshots",
		"fdatasync wal/#-#.wal", "fdatasync wal/#-#.wal", "fdatasync wal/#-#.wal", // its record, the state, once more for sure
		"unlink wal/#-#.wal", "fsync wal", "unlink wal/#-#.wal", "fsync wal",
	}, "\n")
	files := "unlink wal/#-#.wal\nfsync wal\nunlink snapshots/#-#.snap\nunlink snapshots/#-#.snap\nfsync snapshots"
	for name, want := range map[string]string{"save": save, "install": install, "files": files} {
		if !strings.Contains(all, want) {
			t.Errorf("%s: no\n%s\nin\n%s", name, want, all[strings.Index(all, "fsync snapshots"):])
		}
	}
}

// errnoOf is what a call fails with: a full disk, where it can.
func errnoOf(call string) string {
	if call == "write" {
		return "ENOSPC"
	}
	return "EIO"
}

package embed_test

import (
	"context"
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

	"github.com/raftlock/raftlock/embed"
	"github.com/raftlock/raftlock/internal/walstore"
)

// What fails a system call, or kills at one, does so to a whole process: the test
// runs itself again as a member.
const (
	childDirEnv   = "RAFTLOCK_EMBED_DIR"
	childCountEnv = "RAFTLOCK_EMBED_COUNT" // a file of scriptLength+1 numbers
)

func init() {
	if dir := os.Getenv(childDirEnv); dir != "" {
		os.Exit(live(dir, os.Getenv(childCountEnv)))
	}
}

// live goes through the script until a step fails, and writes what was
// acknowledged to a mapped file: that takes no system call, so that it can be
// killed in any of them and makes none of those that are to fail.
func live(dir, path string) int {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return 3
	}
	count, err := syscall.Mmap(int(file.Fd()), 0, 8*(scriptLength+1), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return 3
	}
	walstore.UseSegmentSize(4 << 10) // one or more for each snapshot
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	m, err := embed.Start(ctx, aloneConfig(dir, &logBook{}))
	if err == nil {
		err = runScript(ctx, m.Client(), func(step int, token int64) {
			binary.LittleEndian.PutUint64(count[8*step+8:], uint64(token))
			binary.LittleEndian.PutUint64(count, uint64(step)+1)
		})
		_ = m.Close() // may fail too
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	if ctx.Err() != nil {
		return 4 // something has hung
	}
	return 0
}

// life is one run of the child in an empty directory.
type life struct {
	dir    string
	tokens []int64 // of the steps that were acknowledged
	said   string
}

func runLife(t *testing.T, dir string, under ...string) life {
	t.Helper()
	count := filepath.Join(t.TempDir(), "count")
	self, err := os.Executable()
	if err == nil {
		err = os.RemoveAll(dir)
	}
	if err == nil {
		err = os.WriteFile(count, make([]byte, 8*(scriptLength+1)), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	args := append(slices.Clone(under), self)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), childDirEnv+"="+dir, childCountEnv+"="+count)
	output, err := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code > 0 && code != 128+9 {
		t.Fatalf("child: %v\n%s", err, output)
	}
	b, err := os.ReadFile(count)
	if err != nil {
		t.Fatal(err)
	}
	l := life{dir: dir, said: string(output), tokens: make([]int64, binary.LittleEndian.Uint64(b))}
	for i := range l.tokens {
		l.tokens[i] = int64(binary.LittleEndian.Uint64(b[8*i+8:]))
	}
	return l
}

// check opens the directory again, on a disk that works: all that was acknowledged
// is there.
func (l life) check(t *testing.T) {
	t.Helper()
	m := openMember(t, aloneConfig(l.dir, &logBook{}))
	awaitReady(t, "n1", m)
	checkScript(t, m, l.tokens)
	if err := m.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

// The life of a member, from its first start over 500 lock operations with
// snapshots and a log that is cut: every write, fsync, rename and unlink fails
// once, or is where the process is killed. The next start finds what was
// acknowledged. A sample by default; all of it with RAFTLOCK_EVERY=1.
func TestMemberBrokenAtEverySystemCall(t *testing.T) {
	if testing.Short() {
		t.Skip("half a minute; with RAFTLOCK_EVERY=1, which leaves nothing out, much more")
	}
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("no strace")
	}
	if err := exec.Command(strace, "-o", "/dev/null", "true").Run(); err != nil {
		t.Skipf("strace does not work here: %v", err)
	}
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, "d")
	calls, paths := recordLife(t, strace, dir)
	for _, call := range slices.Sorted(maps.Keys(calls)) {
		for _, how := range []string{"error=" + errnoOf(call), "signal=SIGKILL"} {
			t.Run(call+" "+how, func(t *testing.T) {
				stride, broken := max(1, calls[call]/3), 0
				if os.Getenv("RAFTLOCK_EVERY") != "" {
					stride = 1
				}
				for nth := 1; nth <= calls[call]; nth += stride {
					args := []string{
						strace, "-f", "-qq", "-o", "/dev/null", "-e", "trace=" + call,
						"-e", fmt.Sprintf("inject=%s:%s:when=%d", call, how, nth),
					}
					if call == "write" { // but not of what the runtime writes
						args = append(args, paths...)
					}
					l := runLife(t, dir, args...)
					if len(l.tokens) < scriptLength {
						broken++
					}
					l.check(t)
				}
				if broken == 0 {
					t.Error("nothing was broken")
				}
			})
		}
	}
}

// recordLife returns how often each system call that makes something last is made
// by the thread that makes it most often, as strace counts for each thread of its
// own; and the options that confine strace to the files that are written to.
func recordLife(t *testing.T, strace, dir string) (calls map[string]int, paths []string) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "strace")
	l := runLife(t, dir, strace, "-f", "-qq", "-y", "-o", out, "-e", "trace=write,fsync,fdatasync,renameat,unlinkat")
	if len(l.tokens) != scriptLength {
		t.Fatalf("%d of %d steps: %s", len(l.tokens), scriptLength, l.said)
	}
	l.check(t)
	trace, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	calls = map[string]int{}
	all, ofThread, seen := map[string]int{}, map[string]int{}, map[string]bool{}
	begin := regexp.MustCompile(`^(\d+) +(\w+)\((?:\d+<([^>]*)>)?`)
	for line := range strings.Lines(string(trace)) {
		m := begin.FindStringSubmatch(line)
		if m == nil || !strings.Contains(line, dir) {
			continue
		}
		thread, call, file := m[1], m[2], m[3]
		all[call]++
		ofThread[thread+call]++
		calls[call] = max(calls[call], ofThread[thread+call])
		if call == "write" && !seen[file] {
			seen[file] = true
			paths = append(paths, "-P", file)
		}
	}
	t.Logf("system calls of a life: %v, at most by one thread: %v", all, calls)
	if all["write"] < scriptLength || all["fdatasync"] < scriptLength || all["renameat"] < 8 || all["unlinkat"] < 5 {
		t.Fatalf("too few system calls: %v", all)
	}
	return calls, paths
}

// errnoOf is what a call fails with: a full disk, where it can.
func errnoOf(call string) string {
	if call == "write" {
		return "ENOSPC"
	}
	return "EIO"
}

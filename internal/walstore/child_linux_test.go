package walstore

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/raftlock/raftlock/internal/storagetest"
)

// A disk that fails must be the kernel's doing to be believed, and what makes it
// fail is the whole process's: so these tests run themselves again, in a process
// whose only answer is its exit code.
const (
	childEnv = "RAFTLOCK_WALSTORE_CHILD" // how the disk is to fail
	dirEnv   = "RAFTLOCK_WALSTORE_DIR"

	countEnv = "RAFTLOCK_WALSTORE_COUNT" // the file of the count of live

	childStarts = "start" // a fault that is none: see start
	childLives  = "live"  // see live

	childNeverFailed = 30  // as many appends returned nil
	childRefused     = 101 // Open or Load did; the text is on stderr
	childWrong       = 102 // the text is on stderr
)

func init() {
	if os.Getenv(childEnv) != "" {
		os.Exit(child())
	}
}

// childData is the entry of an append: so big that the fourth begins a segment.
func childData(i int) string { return strings.Repeat(fmt.Sprintf("entry %d ", i), 2048) }

// child appends to the log in a directory until that fails, and returns how many
// entries were acknowledged.
func child() int {
	UseSegmentSize(testSegmentSize)
	s, err := Open(Config{Dir: os.Getenv(dirEnv)})
	if err == nil {
		s.check = storagetest.CheckSnapshot
		_, err = s.Load()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return childRefused
	}
	if os.Getenv(childEnv) == childStarts {
		return start(s)
	}
	if os.Getenv(childEnv) == childLives {
		return live(s)
	}
	if limit, err := strconv.ParseUint(os.Getenv(childEnv), 10, 64); err == nil {
		signal.Ignore(syscall.SIGXFSZ)
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: limit, Max: limit}); err != nil {
			return wrong("limit: %v", err)
		}
	}
	for i := range childNeverFailed {
		first := s.Append(storagetest.Hard(2, 7, uint64(i)+1), storagetest.Entries(2, uint64(i)+2, childData(i)))
		if first == nil {
			continue
		}
		if err := s.Append(nil, storagetest.Entries(2, uint64(i)+3, "later")); err != first {
			return wrong("Append after %q: %v", first, err)
		}
		if err := s.SaveIdentity(storagetest.ID()); err != first {
			return wrong("SaveIdentity after %q: %v", first, err)
		}
		_ = s.Close() // may fail too
		if again, err := Open(Config{Dir: os.Getenv(dirEnv)}); err != nil {
			return wrong("the directory is still held after Close: %v", err)
		} else if err := again.Close(); err != nil {
			return wrong("close: %v", err)
		}
		if open := openSegments(); open != "" {
			return wrong("still open after Close: %s", open)
		}
		return i
	}
	return childNeverFailed
}

// start is a member's first minutes.
func start(s *Store) int {
	for _, step := range []func() error{
		func() error { return s.SaveIdentity(storagetest.Bare()) },
		func() error { return s.Bootstrap(storagetest.ID()) },
		func() error { return s.Append(storagetest.Hard(2, 7, 1), storagetest.Entries(2, 2, "a")) },
		func() error { return s.Append(storagetest.Hard(2, 7, 2), nil) },
		s.Close,
	} {
		if err := step(); err != nil {
			return wrong("start: %v", err)
		}
	}
	return 0
}

func wrong(format string, args ...any) int {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	return childWrong
}

// openSegments names the files of the log that this process has open.
func openSegments() (open string) {
	const fds = "/proc/self/fd"
	entries, _ := os.ReadDir(fds)
	for _, entry := range entries {
		if path, err := os.Readlink(fds + "/" + entry.Name()); err == nil && strings.Contains(path, "/"+walName) {
			open += path + " "
		}
	}
	return open
}

// runChild runs this test binary as a child on a started directory; args are
// what to run it under. It returns how many appends were acknowledged.
func runChild(t *testing.T, dir, fault string, args ...string) (acknowledged int) {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	args = append(args, self)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), childEnv+"="+fault, dirEnv+"="+dir)
	output, err := cmd.CombinedOutput()
	code := cmd.ProcessState.ExitCode()
	if code < 0 || code >= childWrong {
		t.Fatalf("child: %v\n%s", err, output)
	}
	return code
}

// startedDir is a directory after Bootstrap, with a term begun.
func startedDir(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	s := storagetest.Started(t, diskAt(dir))
	must(t, s.Append(storagetest.Hard(2, 7, 1), nil))
	must(t, s.Close())
	return dir
}

// holdsAcknowledged loads what a child left: all that it was told is durable, in
// order; perhaps the one that failed, too; and it goes on.
func holdsAcknowledged(t *testing.T, dir string, acknowledged int) {
	t.Helper()
	s, found := storagetest.Load(t, diskAt(dir))
	data := dataOf(found)
	if len(data) < acknowledged || len(data) > acknowledged+1 {
		t.Errorf("loaded %d entries, %d were acknowledged", len(data), acknowledged)
	}
	for i, d := range data {
		if d != childData(i) {
			t.Errorf("entry %d is another", i)
		}
	}
	must(t, s.Append(nil, storagetest.Entries(2, uint64(len(data))+2, "afterwards")))
	must(t, s.Close())
}

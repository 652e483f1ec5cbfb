package walstore

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/raftlock/raftlock/internal/storagetest"
)

// A file may not grow beyond a limit, so that a write ends in the middle.
func TestAppendWhenTheDiskIsFull(t *testing.T) {
	for _, limit := range []int{8 << 10, 20 << 10, 44 << 10, 60 << 10} {
		dir := startedDir(t)
		acknowledged := runChild(t, dir, fmt.Sprint(limit))
		if acknowledged > limit/len(childData(0)) {
			t.Errorf("limit %d: %d appends returned nil", limit, acknowledged)
		}
		holdsAcknowledged(t, dir, acknowledged)
	}
}

// Each system call that an append makes fails in turn, once or for good, up to
// and within the making of a new segment.
func TestAppendWhenASystemCallFails(t *testing.T) {
	if testing.Short() {
		t.Skip("some seconds")
	}
	strace := findStrace(t)
	for _, fault := range []struct{ call, errno, again string }{
		{"fdatasync", "EIO", "+"},
		{"fdatasync", "EIO", ""},
		{"write", "ENOSPC", "+"},
		{"fallocate", "ENOSPC", "+"},
		{"ftruncate", "EIO", ""},
		{"renameat", "EIO", ""},
		{"fsync", "EIO", ""},
	} {
		t.Run(fault.call+fault.again, func(t *testing.T) {
			failed := 0
			for nth := 1; nth <= 5; nth++ {
				dir := startedDir(t)
				args := []string{
					strace, "-f", "-qq", "-o", "/dev/null", "-e", "trace=" + fault.call,
					"-e", fmt.Sprintf("inject=%s:error=%s:when=%d%s", fault.call, fault.errno, nth, fault.again),
				}
				if fault.call == "write" { // but not of what the runtime writes
					args = append(args, "-P", filepath.Join(dir, walName, firstSegment))
				}
				acknowledged := runChild(t, dir, "a system call", args...)
				switch acknowledged {
				case childRefused: // it was one of Load's calls
					acknowledged = 0
				case childNeverFailed: // fewer calls than that
				default:
					failed++
				}
				holdsAcknowledged(t, dir, acknowledged)
			}
			if failed == 0 {
				t.Error("no append failed")
			}
		})
	}
}

// What is fsynced, and in which order with the renames: no other test can see
// an fsync that is missing.
func TestDurableOrder(t *testing.T) {
	strace := findStrace(t)
	start := []string{
		"fsync member.json.tmp", "rename member.json.tmp member.json", "fsync .", // SaveIdentity

		"fdatasync wal.new.tmp/segment", "rename wal.new.tmp wal.new", "fsync .", // Bootstrap: etcd's code
		"fdatasync wal.new/segment", "fdatasync wal.new/segment", // snapshot, state
		"fsync wal.new", "fdatasync wal.new/segment", // close
		"rename wal.new wal", "fsync .",
		"fsync member.json.tmp", "rename member.json.tmp member.json", "fsync .",
		"fdatasync wal/segment", "fsync wal", "fsync .", // what was read is durable

		"fdatasync wal/segment", "fdatasync wal/segment", // Append: a new term, its entry
		"fdatasync wal/segment", // Close, but not Append of a commit
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	data := filepath.Join(dir, "new")
	want := append([]string{"fsync .."}, start...) // the directory's own name
	if got := syncCalls(t, strace, data); !slices.Equal(got, want) {
		t.Errorf("calls\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	data = filepath.Join(dir, "named")
	s := open(t, data)
	_, err = s.Load()
	must(t, err)
	must(t, s.SaveIdentity(storagetest.Bare()))
	must(t, s.Close())
	want = append([]string{"fsync ."}, start...) // the identity that was found
	if got := syncCalls(t, strace, data); !slices.Equal(got, want) {
		t.Errorf("calls\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// syncCalls returns what start makes durable in a directory.
func syncCalls(t *testing.T, strace, dir string) (calls []string) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "strace")
	runChild(t, dir, childStarts,
		strace, "-f", "-qq", "-y", "-s", "4096", "-o", out, "-e", "trace=fsync,fdatasync,/^rename")
	trace, err := os.ReadFile(out)
	must(t, err)
	call := regexp.MustCompile(`(fsync|fdatasync)\(\d+<([^>]*)>|rename\w*\([^"]*"([^"]*)"[^"]*"([^"]*)"`)
	names := strings.NewReplacer(dir+"/", "", dir, ".", filepath.Dir(dir), "..", firstSegment, "segment")
	for _, m := range call.FindAllStringSubmatch(string(trace), -1) {
		if m[1] == "" {
			m[1], m[2] = "rename", m[3]+" "+m[4]
		}
		calls = append(calls, names.Replace(m[1]+" "+m[2]))
	}
	return calls
}

func findStrace(t *testing.T) (path string) {
	t.Helper()
	path, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("no strace")
	}
	if err := exec.Command(path, "-o", "/dev/null", "true").Run(); err != nil {
		t.Skipf("strace does not work here: %v", err)
	}
	return path
}

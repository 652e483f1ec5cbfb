package walstore

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"
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
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("no strace")
	}
	if err := exec.Command(strace, "-o", "/dev/null", "true").Run(); err != nil {
		t.Skipf("strace does not work here: %v", err)
	}
	if testing.Short() {
		t.Skip("some seconds")
	}
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

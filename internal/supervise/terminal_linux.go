package supervise

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// terminal is the one that controls this process's session. A nil terminal is
// one that is not there.
type terminal struct {
	fd  int
	own int // this process's group
	was *unix.Termios
}

func openTerminal() *terminal {
	fd, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil // the session has none
	}
	was, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		was = nil // then nothing is restored
	}
	return &terminal{fd: fd, own: unix.Getpgrp(), was: was}
}

// ours reports whether this process is a job of its own on the terminal, with
// nothing beside it that would miss the terminal: not within a script, not in a
// pipeline.
func (t *terminal) ours(in, out *os.File) bool {
	return t != nil && t.own == os.Getpid() && isTerminal(in) && isTerminal(out)
}

func isTerminal(f *os.File) bool {
	if f == nil {
		return false
	}
	conn, err := f.SyscallConn() // Fd would make it block
	if err != nil {
		return false
	}
	is := false
	err = conn.Control(func(fd uintptr) {
		_, err := unix.IoctlGetTermios(int(fd), unix.TCGETS)
		is = err == nil
	})
	return err == nil && is
}

// foreground is the group that has the terminal; 0 when nobody can tell.
func (t *terminal) foreground() int {
	if t == nil {
		return 0
	}
	group, err := unix.IoctlGetInt(t.fd, unix.TIOCGPGRP)
	if err != nil {
		return 0
	}
	return group
}

// give hands the terminal to a group. Who does that from the background is
// stopped by SIGTTOU, unless his thread blocks it.
func (t *terminal) give(group int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var ttou, before unix.Sigset_t
	const bits = 32 << (^uint(0) >> 63) // of a word
	ttou.Val[(int(unix.SIGTTOU)-1)/bits] = 1 << ((int(unix.SIGTTOU) - 1) % bits)
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &ttou, &before); err != nil {
		return fmt.Errorf("block SIGTTOU: %w", err)
	}
	err := unix.IoctlSetPointerInt(t.fd, unix.TIOCSPGRP, group)
	if e := unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("hand over the terminal: %w", err)
	}
	return nil
}

// restore takes back the terminal's settings, from a command that was killed in
// the middle of a screen.
func (t *terminal) restore() {
	if t.was != nil {
		_ = unix.IoctlSetTermios(t.fd, unix.TCSETS, t.was) // a courtesy
	}
}

func (t *terminal) close() {
	if t != nil {
		_ = unix.Close(t.fd) // nothing was written
	}
}

// orphaned reports whether nobody could continue this process's group if it
// stopped: no parent of one of its members is in another group of the session.
func orphaned(table map[int]process) bool {
	self := table[os.Getpid()]
	for _, p := range table {
		parent := table[p.parent]
		if p.group == self.group && parent.session == self.session && parent.group != self.group {
			return false
		}
	}
	return true
}

package supervise

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"

	"golang.org/x/sys/unix"
)

// gate is the supervisor's hand on a process that waits to become the command.
type gate struct {
	end *os.File // of a pair of sockets
}

// refusal is what a gate says when it cannot become the command.
type refusal struct {
	Errno unix.Errno
}

// newGate makes a command that starts as a gate. far is the gate's own end of
// the pair, to be closed when it is started.
//
// The end keeps its number in the child, unlike one of exec.Cmd.ExtraFiles,
// which would take the place of a file that the user has passed on to his
// command. The price is that it is inheritable from here to that close, so
// nothing else may be started meanwhile.
func newGate(path string, args []string) (cmd *exec.Cmd, g *gate, far *os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("make a pair of sockets: %w", err)
	}
	near, far := os.NewFile(uintptr(pair[0]), "gate"), os.NewFile(uintptr(pair[1]), "gate")
	if _, err := unix.FcntlInt(uintptr(pair[1]), unix.F_SETFD, 0); err != nil {
		return nil, nil, nil, errors.Join(fmt.Errorf("pass on a socket: %w", err), near.Close(), far.Close())
	}
	cmd = exec.Command(self, append([]string{gateMode, strconv.Itoa(pair[1]), path}, args...)...)
	return cmd, &gate{near}, far, nil
}

// self is the running program, also when its file was replaced or removed.
const self = "/proc/self/exe"

// open lets the process become the command, and returns why it could not, a
// unix.Errno. A gate that was killed before it could either is no error: that a
// process has ended, and why, is seen elsewhere.
func (g *gate) open() error {
	_, err := g.end.Write([]byte{'\n'})
	if errors.Is(err, unix.EPIPE) {
		return nil
	} else if err != nil {
		return fmt.Errorf("open the gate: %w", err)
	}
	said, err := io.ReadAll(g.end)
	if len(said) == 0 && (err == nil || errors.Is(err, unix.ECONNRESET)) {
		return nil // its end was closed: by exec, or by a death before or after it has read
	}
	if err != nil {
		return fmt.Errorf("hear from the gate: %w", err)
	}
	var r refusal
	if err := json.Unmarshal(said, &r); err != nil {
		return fmt.Errorf("hear from the gate: %w", err)
	}
	return r.Errno
}

func (g *gate) close() { _ = g.end.Close() } // nothing is lost with it

// passGate is the gate itself: args are the number of its socket, a path, and
// the arguments of what is there.
func passGate(args []string, log io.Writer) int {
	fd := -1
	if len(args) >= 3 {
		if n, err := strconv.Atoi(args[0]); err == nil {
			fd = n
		}
	}
	if fd < 0 {
		complain(log, "this mode is for its own use")
		return 1
	}
	unix.CloseOnExec(fd)
	end := os.NewFile(uintptr(fd), "gate")
	var word [1]byte
	if n, err := end.Read(word[:]); n == 0 || err != nil {
		return 1 // the supervisor has gone, or thought better of it
	}
	err := unix.Exec(args[1], args[2:], os.Environ())
	errno, ok := errors.AsType[unix.Errno](err)
	if !ok {
		errno = unix.EINVAL
	}
	if err := json.NewEncoder(end).Encode(refusal{errno}); err != nil {
		complain(log, err.Error())
	}
	return 1
}

package supervise

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// child is the command, first as a gate, as its parent sees it.
type child struct {
	cmd  *exec.Cmd
	gate *gate
	pid  int // and its group

	// events gets the signal each time the child is stopped. It is closed when
	// the child has ended; until reap, its number is not given to another.
	events chan unix.Signal
}

func startChild(spec Spec) (*child, error) {
	cmd, g, far, err := newGate(spec.Path, spec.Args)
	if err != nil {
		return nil, err
	}
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = spec.Env, spec.Stdin, spec.Stdout, spec.Stderr
	// Should both supervisor and watchdog be killed, the command hears that
	// much from the kernel.
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGTERM}
	c := &child{cmd: cmd, gate: g, events: make(chan unix.Signal)}
	started := make(chan error)
	go c.keep(started)
	err = <-started
	if e := far.Close(); err == nil {
		err = e
	}
	if err != nil {
		g.close()
		return nil, fmt.Errorf("start the command: %w", err)
	}
	c.pid = cmd.Process.Pid
	return c, nil
}

// keep starts the child and tells what becomes of it. It has its thread for
// itself: when the thread that forked a child ends, that counts as the parent's
// death.
func (c *child) keep(started chan<- error) {
	runtime.LockOSThread()
	defer close(c.events)
	err := c.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	pid := c.cmd.Process.Pid
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WSTOPPED|unix.WNOWAIT, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || info.Code != cldStopped {
			return
		}
		// Take note of the stop, and of nothing else.
		err = unix.Waitid(unix.P_PID, pid, &info, unix.WSTOPPED|unix.WNOHANG, nil)
		if err == nil && info.Code == cldStopped {
			c.events <- stopSignal(&info)
		}
	}
}

// cldStopped is CLD_STOPPED, which package unix does not have.
const cldStopped = 5

// stopSignal is si_status, which package unix does not show: after a pointer's
// alignment come si_pid, si_uid, si_status.
func stopSignal(info *unix.Siginfo) unix.Signal {
	const header = 3 * unsafe.Sizeof(int32(0))
	const align = unsafe.Sizeof(uintptr(0))
	const status = (header+align-1)/align*align + 2*unsafe.Sizeof(int32(0))
	return unix.Signal(*(*int32)(unsafe.Add(unsafe.Pointer(info), status)))
}

// reap lets go of a child that has ended, and says how.
func (c *child) reap() (*os.ProcessState, error) {
	c.gate.close()
	err := c.cmd.Wait()
	if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
		return nil, fmt.Errorf("wait for the command: %w", err)
	}
	return c.cmd.ProcessState, nil
}

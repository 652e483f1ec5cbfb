package e2e

import "syscall"

// dieWithParent covers what closing its input does not: a child that is stopped,
// or hangs, when the test is killed.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

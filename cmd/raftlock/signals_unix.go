//go:build unix

package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// endings are the signals that end the wait for a lock. Once there is a command
// they are passed on to it.
func endings() []os.Signal {
	return []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM}
}

// passedOn are the other signals that the supervisor of a command takes.
func passedOn() []os.Signal {
	return []os.Signal{
		unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGWINCH,
		unix.SIGTSTP, unix.SIGCONT, unix.SIGCHLD,
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/raftlock/raftlock/client"
)

// The exit codes. From 64 on they are those of sysexits.h and of shells, so that
// they stand apart from what a command run under a lock usually exits with.
const (
	exitDone          = 0
	exitFailed        = 1   // refused, or not found
	exitUsage         = 64  // EX_USAGE: the command line makes no sense
	exitNoCluster     = 69  // EX_UNAVAILABLE: no member answers, or none can serve
	exitOwnFault      = 70  // EX_SOFTWARE: lock could not watch over its command
	exitNotAcquired   = 75  // EX_TEMPFAIL: another has the lock
	exitLost          = 76  // the lock was lost, and the command ended for that
	exitNotExecutable = 126 // as shells say it
	exitNotFound      = 127 // as shells say it
	exitSignal        = 128 // and the signal's number
	exitInterrupted   = exitSignal + 2
)

// exit is an error that knows its exit code. Without an error it is silent: a
// command's own end.
type exit struct {
	code int
	err  error
}

func (e *exit) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exit) Unwrap() error { return e.err }

// misuse is the error of a command line that makes no sense.
func misuse(format string, args ...any) error {
	return &exit{exitUsage, fmt.Errorf(format, args...)}
}

// exactly has a command take these arguments, no fewer and no more.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		line := strings.Join(append([]string{cmd.CommandPath()}, names...), " ")
		switch {
		case len(args) < len(names):
			return fmt.Errorf("%s is missing: %s", names[len(args)], line)
		case len(args) > len(names):
			return fmt.Errorf("%q is too much: %s", args[len(names)], line)
		}
		return nil
	}
}

// report tells the user what went wrong, and returns the exit code. path is the
// command that he used, parsed says that its command line was understood.
func report(ctx context.Context, err error, path string, parsed bool, errOut io.Writer) int {
	e, own := errors.AsType[*exit](err)
	switch {
	case err == nil:
		return exitDone
	case own && e.err == nil:
		return e.code
	case own && e.code != exitUsage:
		fmt.Fprintf(errOut, "raftlock: %v\n", err)
		return e.code
	case ctx.Err() != nil:
		fmt.Fprintln(errOut, "raftlock: interrupted")
		return exitInterrupted
	case own || !parsed:
		fmt.Fprintf(errOut, "raftlock: %v\nTry `%s --help`.\n", err, path)
		return exitUsage
	case errors.Is(err, client.ErrUnavailable), errors.Is(err, client.ErrLeaderUnavailable):
		fmt.Fprintf(errOut, "raftlock: %v\n", err)
		return exitNoCluster
	}
	fmt.Fprintf(errOut, "raftlock: %v\n", err)
	return exitFailed
}

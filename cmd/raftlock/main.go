package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// The exit codes.
const (
	exitDone        = 0
	exitFailed      = 1
	exitInterrupted = 130 // as shells count an interrupt
)

func main() {
	// A reader that has gone (raftlock demo | head) becomes an error of the
	// write, so that the demo can clean up behind itself.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the program without its process.
func run(ctx context.Context, args []string, out, errOut io.Writer) int {
	root := rootCommand()
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return exitDone
	case ctx.Err() != nil:
		fmt.Fprintln(errOut, "raftlock: interrupted")
		return exitInterrupted
	default:
		fmt.Fprintf(errOut, "raftlock: %v\n", err)
		return exitFailed
	}
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "raftlock",
		Short: "Distributed locks with fencing tokens, on raft",
		Long: "raftlock is a lock cluster that a Go service carries in its own process.\n" +
			"This command shows one at work: run `raftlock demo`.",
		Version:           version(),
		SilenceErrors:     true, // run prints the error, once
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.AddCommand(demoCommand(), versionCommand())
	return root
}

package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/raftlock/raftlock/internal/supervise"
)

func main() {
	if mode, ok := supervise.Hidden(os.Args); ok {
		for _, sig := range mode.Ignore {
			signal.Ignore(sig)
		}
		os.Exit(mode.Run(os.Stdin, os.Stdout, os.Stderr))
	}
	// A reader that has gone (raftlock demo | head) becomes an error of the
	// write, so that the demo can clean up behind itself.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), heeded(os.Interrupt, syscall.SIGTERM)...)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// heeded are those of some signals that this process was not started to ignore,
// as nohup and shells do it with SIGHUP and SIGINT: to ask for one would make it
// count again, also for what the process runs. SIGTERM always counts, so that
// something is left: no signals would mean all.
func heeded(signals ...os.Signal) []os.Signal {
	return slices.DeleteFunc(signals, signal.Ignored)
}

// run is the program without its process.
func run(ctx context.Context, args []string, out, errOut io.Writer) int {
	root := rootCommand()
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errOut)
	parsed := false
	root.PersistentPreRun = func(*cobra.Command, []string) { parsed = true }
	cmd, err := root.ExecuteContextC(ctx)
	return report(ctx, err, cmd.CommandPath(), parsed, errOut)
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "raftlock",
		Short: "Distributed locks with fencing tokens, on raft",
		Long: "raftlock is a lock cluster that a Go service carries in its own process.\n" +
			"This command runs members of one for other programs, takes its locks for them,\n" +
			"looks at it, and shows one at work: run `raftlock demo`.",
		Example:           "  raftlock lock nightly-report -- ./report\n  raftlock ls\n  raftlock status",
		Version:           version(),
		SilenceErrors:     true, // run prints the error, once
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.AddCommand(
		lockCommand(), lsCommand(), getCommand(), releaseCommand(), statusCommand(), memberCommand(),
		serveCommand(), demoCommand(), checkCommand(), versionCommand(),
	)
	return root
}

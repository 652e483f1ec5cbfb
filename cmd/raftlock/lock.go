package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/internal/supervise"
)

const (
	// shortestTTL leaves time to end a command between a renewal that fails
	// and the end.
	shortestTTL = time.Second
	// usualGrace is --kill-after unless the TTL is too short for it.
	usualGrace = 5 * time.Second
	// waitingAfter is when somebody at a terminal is told what is waited for.
	waitingAfter = time.Second
)

func lockCommand() *cobra.Command {
	l := &locking{}
	cmd := &cobra.Command{
		Use:   "lock NAME [flags] -- COMMAND [ARG...]",
		Short: "Run a command while holding a lock",
		Long: `Waits for the lock NAME, runs COMMAND while it holds and renews it, and gives it
back when COMMAND has ended. COMMAND finds the name in RAFTLOCK_LOCK and the
fencing token of its grant in RAFTLOCK_TOKEN: it sends the token along with what
it writes, and what it writes to refuses smaller ones than it has seen.

COMMAND never runs longer than its lock. If the lock cannot be renewed, because
no member can be reached, because this process is stopped or hangs, or because it
is killed, a second process, the watchdog, ends COMMAND's process group before
the cluster may grant the lock to another: SIGTERM, and --kill-after later
SIGKILL. What COMMAND leaves running when it ends is ended the same way before
the lock is given back. This needs Linux. docs/command.md has the details, and
what no watchdog can do.

Signals are passed on to COMMAND. Exit codes:

  COMMAND's own, and 128+n if signal n ended it
  64   the command line makes no sense
  69   no member of the cluster can be reached
  70   the command could not be watched over; it has not run, or was ended
  75   another has the lock: with --try, or when --wait was over
  76   the lock was lost, and COMMAND was ended
  126  COMMAND cannot be executed
  127  COMMAND is not there`,
		Example: `  raftlock lock nightly-report --ttl 30s -- ./report --month 2026-11
  raftlock lock deploy --try -- make deploy || echo "somebody else deploys"
  raftlock lock device-7 --wait 1m -- sh -c 'flash --token $RAFTLOCK_TOKEN fw.bin'`,
		Args: l.arguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return l.run(cmd) },
	}
	f := cmd.Flags()
	f.DurationVar(&l.ttl, "ttl", 30*time.Second, "how `long` the lock outlives a holder that has vanished; at least 1s, renewed every third of it")
	f.DurationVar(&l.wait, "wait", 0, "wait at most so `long` for the lock; default: as long as it takes")
	f.BoolVar(&l.try, "try", false, "do not wait if another has the lock")
	f.Int32Var(&l.priority, "priority", 0, "`place` in the queue: higher first, equal ones in order of arrival")
	f.StringToStringVar(&l.metadata, "metadata", nil, "`key=value` for whoever looks at the lock; may be given several times")
	f.StringVar(&l.clientID, "client-id", "", "`name` of the holder; default: made of host, process and a random part")
	f.DurationVar(&l.grace, "kill-after", 0, "time between SIGTERM and SIGKILL, at most a third of --ttl; default: 5s, or a sixth of --ttl if that is less")
	fromEnvironment(cmd, "ttl", "wait", "priority", "client-id", "kill-after")
	l.register(cmd)
	return cmd
}

// locking is the lock command.
type locking struct {
	connection
	name     string
	command  []string
	ttl      time.Duration
	wait     time.Duration
	try      bool
	priority int32
	metadata map[string]string
	clientID string
	grace    time.Duration

	log io.Writer
}

// arguments reads NAME -- COMMAND [ARG...].
func (l *locking) arguments(cmd *cobra.Command, args []string) error {
	dash := cmd.ArgsLenAtDash()
	switch {
	case len(args) == 0 || dash == 0:
		return errors.New("the name of the lock is missing: raftlock lock NAME -- COMMAND")
	case dash < 0:
		return fmt.Errorf("the command is missing, which comes after two dashes: raftlock lock %s -- COMMAND", args[0])
	case dash > 1:
		return fmt.Errorf("one lock at a time: %q is too much before the two dashes", args[1])
	case len(args) == dash:
		return errors.New("there is no command after the two dashes")
	}
	l.name, l.command = args[0], args[1:]
	return nil
}

// check reads the flags that depend on each other.
func (l *locking) check(cmd *cobra.Command) error {
	changed := cmd.Flags().Changed
	switch {
	case l.ttl < shortestTTL:
		return misuse("--ttl %v is too short: below %v there is no time to end a command between a renewal that fails and the end", l.ttl, shortestTTL)
	case l.try && changed("wait"):
		return misuse("--try does not wait, --wait does: give one of them")
	case changed("wait") && l.wait <= 0:
		return misuse("--wait %v is no time to wait: use --try not to wait", l.wait)
	case l.grace < 0:
		return misuse("--kill-after %v must not be negative", l.grace)
	case l.grace > l.ttl/3:
		return misuse("--kill-after %v is more than a third of --ttl %v: make the one shorter or the other longer", l.grace, l.ttl)
	case !changed("kill-after"):
		l.grace = min(usualGrace, l.ttl/6)
	}
	return nil
}

// guard lies between SIGKILL and the end.
func (l *locking) guard() time.Duration { return min(l.ttl/20, time.Second) }

func (l *locking) run(cmd *cobra.Command) (err error) {
	l.log = cmd.ErrOrStderr()
	if !supervise.Supported {
		return &exit{exitOwnFault, supervise.ErrUnsupported}
	}
	if err := l.check(cmd); err != nil {
		return err
	}
	path, err := find(l.command[0])
	if err != nil {
		return err
	}
	locks, err := l.dial()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, locks.Close()) }()
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, heeded(endings()...)...)
	defer signal.Stop(signals)
	w := newWitness(locks, l.ttl)
	ctx, cancel := context.WithCancel(context.Background()) // not of cmd: a signal may be the command's
	defer cancel()
	held, err := l.acquire(ctx, cancel, w, signals)
	if err != nil {
		return err
	}
	signal.Notify(signals, passedOn()...)
	result, err := supervise.Run(l.spec(path, held, w, signals))
	loss := l.release(held, result.Reason == supervise.ByItself)
	switch {
	case err != nil:
		return notRun(err)
	case result.Reason == supervise.ByItself && loss != nil:
		return loss
	}
	return l.ended(cmd.Context(), result, held)
}

// find looks for a program as a shell does.
func find(command string) (string, error) {
	path, err := exec.LookPath(command)
	switch {
	case err == nil:
		return path, nil
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return "", &exit{exitNotFound, fmt.Errorf("there is no command %q", command)}
	}
	if e, ok := errors.AsType[*exec.Error](err); ok {
		err = e.Err
	}
	return "", &exit{exitNotExecutable, fmt.Errorf("%q cannot be executed: %w", command, err)}
}

// acquire waits for the lock, or for a signal, at which it cancels. The end of
// ctx is that of the hold, too.
func (l *locking) acquire(ctx context.Context, cancel func(), w *witness, signals <-chan os.Signal) (*client.Held, error) {
	type outcome struct {
		held *client.Held
		err  error
	}
	done := make(chan outcome, 1)
	go func() {
		held, err := client.Hold(ctx, w, l.name, l.options()...)
		done <- outcome{held, err}
	}()
	told := time.NewTimer(waitingAfter)
	defer told.Stop()
	for {
		select {
		case o := <-done:
			if o.err != nil {
				return nil, l.notAcquired(o.err)
			}
			return o.held, nil
		case sig := <-signals:
			cancel()
			if o := <-done; o.held != nil {
				_ = l.release(o.held, true) // nothing was done under it
			}
			return nil, &exit{exitSignal + number(sig), fmt.Errorf("%v while waiting for the lock %s", sig, l.name)}
		case <-told.C:
			if isTerminal(l.log) {
				go l.tellHolder(ctx, w)
			}
		}
	}
}

func (l *locking) options() []client.HoldOption {
	opts := []client.HoldOption{client.WithTTL(l.ttl), client.WithPriority(l.priority), client.WithMetadata(l.metadata)}
	switch {
	case l.try:
		opts = append(opts, client.NoWait())
	case l.wait > 0:
		opts = append(opts, client.WithWait(l.wait))
	}
	if l.clientID != "" {
		opts = append(opts, client.WithClientID(l.clientID))
	}
	return opts
}

// tellHolder tells who is waited for.
func (l *locking) tellHolder(ctx context.Context, locks client.RaftLockClient) {
	info, err := locks.GetLockInfo(ctx, &client.GetLockInfoRequest{LockID: l.name})
	if err == nil && info.OwnerID != "" {
		l.say("waiting for the lock %s, which %s has", l.name, info.OwnerID)
	}
}

func (l *locking) say(format string, args ...any) {
	fmt.Fprintf(l.log, "raftlock: "+format+"\n", args...)
}

// notAcquired is why there is no lock.
func (l *locking) notAcquired(err error) error {
	e, _ := errors.AsType[*client.ClientError](err)
	switch {
	case errors.Is(err, client.ErrLockHeld):
		holder := "another"
		if e != nil && e.Details["owner_id"] != "" {
			holder = e.Details["owner_id"]
		}
		return &exit{exitNotAcquired, fmt.Errorf("the lock %s is held by %s, and --try does not wait", l.name, holder)}
	case errors.Is(err, client.ErrTimeout) && e != nil && e.Details["outcome"] == "not_acquired":
		return &exit{exitNotAcquired, fmt.Errorf("the lock %s was not free within %v", l.name, l.wait)}
	case errors.Is(err, client.ErrWaitQueueFull):
		return &exit{exitNotAcquired, fmt.Errorf("too many wait for the lock %s already", l.name)}
	case errors.Is(err, client.ErrNotWaiting):
		return &exit{exitNotAcquired, fmt.Errorf("the wait for the lock %s was cancelled", l.name)}
	case errors.Is(err, client.ErrLockLost):
		return &exit{exitLost, fmt.Errorf("the lock %s was granted, and lost before the command could start", l.name)}
	case errors.Is(err, client.ErrInvalidArgument), errors.Is(err, client.ErrInvalidTTL):
		return misuse("the cluster refuses this: %s", reason(err))
	}
	return explain(err)
}

func (l *locking) spec(path string, held *client.Held, w *witness, signals <-chan os.Signal) supervise.Spec {
	token := fmt.Sprint(held.Token())
	return supervise.Spec{
		Path: path, Args: l.command, Env: environment(l.name, token),
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Name: l.name, End: w.first(), Ends: w.ends, Lost: held.Done(),
		Grace: l.grace, Guard: l.guard(), Signals: signals, Adopt: true,
		Notice: func(sentence string) { fmt.Fprintln(l.log); l.say("%s", sentence) }, // ^Z stands in its line
	}
}

// environment is this process's own with the lock's name and token in it.
func environment(name, token string) (env []string) {
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "RAFTLOCK_LOCK=") && !strings.HasPrefix(entry, "RAFTLOCK_TOKEN=") {
			env = append(env, entry)
		}
	}
	return append(env, "RAFTLOCK_LOCK="+name, "RAFTLOCK_TOKEN="+token)
}

// notRun is why a command was not run.
func notRun(err error) error {
	path, ok := errors.AsType[*fs.PathError](err)
	ok = ok && path.Op == "execute" // not one of starting the watchdog
	switch {
	case errors.Is(err, supervise.ErrLate):
		return &exit{exitLost, fmt.Errorf("the lock was lost before the command could start: %w", err)}
	case ok && errors.Is(err, fs.ErrNotExist):
		return &exit{exitNotFound, fmt.Errorf("%s is not there, or its interpreter is not", path.Path)}
	case ok:
		return &exit{exitNotExecutable, fmt.Errorf("%s cannot be executed: %w", path.Path, path.Err)}
	}
	return &exit{exitOwnFault, err}
}

// release gives the lock back. That the cluster cannot be reached for it is no
// reason to change the command's exit code: the lock lapses. That there is none
// to give back is, as somebody has taken it away while the command ran. loud is
// for a user who is told nothing else.
func (l *locking) release(held *client.Held, loud bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), min(l.ttl, 5*time.Second))
	defer cancel()
	err := held.Release(ctx)
	for _, gone := range []error{client.ErrLockLost, client.ErrNotLockOwner, client.ErrVersionMismatch, client.ErrLockNotFound} {
		if errors.Is(err, gone) {
			return &exit{exitLost, fmt.Errorf("the lock %s was lost before the command had ended: another may have had it meanwhile", l.name)}
		}
	}
	if err != nil && loud {
		l.say("the lock %s could not be released: %s; it will be free within %v", l.name, reason(err), l.ttl)
	}
	return nil
}

// ended is how the command has ended.
func (l *locking) ended(ctx context.Context, result supervise.Result, held *client.Held) error {
	switch result.Reason {
	case supervise.OutOfTime:
		return &exit{exitLost, fmt.Errorf("the lock %s could not be renewed in time; the command was ended", l.name)}
	case supervise.LockLost:
		return &exit{exitLost, fmt.Errorf("the lock %s was lost (%s); the command was ended", l.name, reason(held.Err()))}
	case supervise.Unwatched:
		return &exit{exitOwnFault, errors.New("the watchdog was killed; the command was ended, as nobody would have ended it in time")}
	}
	status, ok := result.State.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() {
		return code(result.State.ExitCode())
	}
	if status.Signal() == syscall.SIGINT && ctx.Err() != nil {
		dieOf(syscall.SIGINT)
	}
	return code(exitSignal + int(status.Signal()))
}

func code(n int) error {
	if n == exitDone {
		return nil
	}
	return &exit{code: n}
}

// dieOf ends this process by a signal that both it and its command got, so that
// a shell ends the script that it is in, as it would without us.
func dieOf(sig syscall.Signal) {
	signal.Reset(sig)
	if self, err := os.FindProcess(os.Getpid()); err == nil {
		_ = self.Signal(sig) // where it cannot, there is the exit code
	}
}

func number(sig os.Signal) int {
	if n, ok := sig.(syscall.Signal); ok {
		return int(n)
	}
	return 0
}

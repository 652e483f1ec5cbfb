package supervise

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// jobEnv holds a job; who finds it is a supervisor.
const jobEnv = "RAFTLOCK_SUPERVISE_JOB"

func TestMain(m *testing.M) {
	if mode, ok := Hidden(os.Args); ok {
		for _, sig := range mode.Ignore {
			signal.Ignore(sig)
		}
		os.Exit(mode.Run(os.Stdin, os.Stdout, os.Stderr))
	}
	if text := os.Getenv(jobEnv); text != "" {
		if err := work(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	// The tests wait for processes; they need no processor to themselves.
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// job is what a supervisor's process is to do.
type job struct {
	Script       string // of a shell
	Path         string // instead of the shell
	TTL          time.Duration
	Renew        bool // for ever, every quarter of TTL
	LoseAfter    time.Duration
	Grace, Guard time.Duration
}

// outcome is the last line that it says; each line before it is an end that it
// has set.
type outcome struct {
	End    Instant
	Done   bool
	Code   int // exit code, or minus a signal
	Reason Reason
	Error  string
	Late   bool
	At     Instant
}

func work(text string) error {
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1,
		unix.SIGUSR2, unix.SIGWINCH, unix.SIGCHLD, unix.SIGCONT, unix.SIGTSTP)
	ends, lost := make(chan Instant), make(chan struct{})
	spec := Spec{
		Path: "/bin/sh", Args: []string{"sh", "-c", j.Script}, Env: append(os.Environ(), jobEnv+"="),
		Stdin: os.Stdin, Stdout: os.Stderr, Stderr: os.Stderr,
		Name: "jobs", End: Now().Add(j.TTL), Ends: ends, Lost: lost,
		Grace: j.Grace, Guard: j.Guard, Signals: signals, Adopt: true,
	}
	if j.Path != "" {
		spec.Path = j.Path
	}
	if err := out.Encode(outcome{End: spec.End}); err != nil {
		return err
	}
	if j.Renew {
		go func() {
			for range time.Tick(j.TTL / 4) {
				end := Now().Add(j.TTL)
				_ = out.Encode(outcome{End: end}) // before it counts
				ends <- end
			}
		}()
	}
	if j.LoseAfter > 0 {
		time.AfterFunc(j.LoseAfter, func() { close(lost) })
	}
	result, err := Run(spec)
	o := outcome{Done: true, Reason: result.Reason, Late: errors.Is(err, ErrLate), At: Now()}
	if err != nil {
		o.Error = err.Error()
	} else if status := result.State.Sys().(syscall.WaitStatus); status.Signaled() {
		o.Code = -int(status.Signal())
	} else {
		o.Code = result.State.ExitCode()
	}
	return out.Encode(o)
}

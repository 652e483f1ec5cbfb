package supervise

import (
	"errors"
	"io"
	"os"
	"time"
)

// ErrUnsupported is returned by Run where there is no watchdog: everywhere but
// on Linux. Supported says so beforehand.
var ErrUnsupported = errors.New("running a command under a lock needs Linux")

// ErrLate is returned by Run when the first end is so near that the command
// would have to be ended before it has begun. Nothing was run.
var ErrLate = errors.New("no time is left to run the command in")

// Instant is a point in time on a clock that all processes of this machine share
// and that goes on while the machine is suspended, in nanoseconds.
type Instant int64

// Add is the instant some time later.
func (i Instant) Add(d time.Duration) Instant { return i + Instant(d) }

// Sub is the time that passes from j to i.
func (i Instant) Sub(j Instant) time.Duration { return time.Duration(i - j) }

// Spec says what to run, and how long it may.
type Spec struct {
	// Path is the program, a path that needs no search; Args are its arguments,
	// the first being its own name.
	Path string
	Args []string
	// Env is its environment.
	Env []string
	// Stdin, Stdout and Stderr become the command's own; messages of the
	// watchdog go to Stderr.
	Stdin, Stdout, Stderr *os.File

	// Name is what the watchdog calls the lock when it ends the command.
	Name string
	// End is when the command must have ended, Ends brings later ones. The
	// owner of Ends does not close it before Run has returned, and must not
	// wait for it to be read after that.
	End  Instant
	Ends <-chan Instant
	// Lost, when closed, says that there is no lock any more: the command is
	// ended.
	Lost <-chan struct{}

	// Grace is the time between SIGTERM and SIGKILL, Guard what lies between
	// SIGKILL and the end. Neither is negative.
	Grace, Guard time.Duration

	// Signals are passed on to the command's group; SIGCHLD, SIGTSTP and
	// SIGCONT are what the supervisor's own work needs.
	Signals <-chan os.Signal

	// Adopt makes this process the one that orphans among its descendants
	// fall to (PR_SET_CHILD_SUBREAPER), and counts them to the command. It is
	// for a program that does nothing else; children that it has already are
	// left alone.
	Adopt bool

	// Notice, if not nil, is told in one sentence what the user should know:
	// that the command is stopped, say.
	Notice func(sentence string)
}

// Reason is why a command was ended, if it was.
type Reason int

const (
	// ByItself: the command ended without our doing.
	ByItself Reason = iota
	// OutOfTime: the end was not moved in time.
	OutOfTime
	// LockLost: Spec.Lost was closed.
	LockLost
	// Unwatched: the watchdog had died.
	Unwatched
)

// Result is how a command ended.
type Result struct {
	// State is what the system says of it.
	State *os.ProcessState
	// Reason says whether it had been told to end.
	Reason Reason
}

// Mode is one of the hidden modes of a program that calls Run.
type Mode struct {
	// Ignore are the signals that the process must ignore before anything else.
	Ignore []os.Signal
	// Run is the mode, given the standard streams; it returns an exit code.
	Run func(in, out, log *os.File) int
}

// The first argument of the hidden modes.
const (
	watchdogMode = "supervise:watchdog"
	gateMode     = "supervise:gate"
)

// Hidden tells from a program's arguments, its own name included, whether it was
// started as a watchdog or as a gate. If so it must do that and nothing else.
func Hidden(args []string) (mode Mode, ok bool) {
	if len(args) < 2 {
		return Mode{}, false
	}
	switch args[1] {
	case watchdogMode:
		run := func(in, out, log *os.File) int { return watch(in, out, log) }
		return Mode{Ignore: deaf(), Run: run}, true
	case gateMode:
		return Mode{Run: func(_, _, log *os.File) int { return passGate(args[2:], log) }}, true
	}
	return Mode{}, false
}

// complain writes a line for the user; where nobody reads it, nothing helps.
func complain(log io.Writer, line string) { _, _ = io.WriteString(log, "raftlock: "+line+"\n") }

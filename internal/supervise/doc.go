// Package supervise runs a command that must not outlive a lock.
//
// Three processes take part. The *supervisor* is the program that calls Run: it
// holds the lock and says, again and again, until when. The *command* runs in a
// process group of its own, as a child of the supervisor, so that it can have
// the terminal. The *watchdog*, a process in a session of its own, ends the group
// when the time is over, whatever has become of the supervisor.
//
//	supervisor ── pipe: orders (a new end, quit) ──▶ watchdog
//	    │      ◀── pipe: armed, ending, ended ──────    │
//	    └─ fork ─▶ gate ─ exec ─▶ command  ◀── TERM, KILL ┘
//
// # What it promises
//
// The command starts only after the watchdog has said that it is armed: it is
// forked as a gate, a small mode of the same program that waits for a word
// before it becomes the command, and goes away without one.
//
// An end is an Instant on CLOCK_BOOTTIME, which all processes of a machine share
// and which counts the time that the machine was suspended. Before an end that
// is not moved, every process of the group gets SIGTERM and SIGCONT, and SIGKILL
// after Spec.Grace, no later than Spec.Guard before the end. It makes no
// difference whether the supervisor runs, is stopped, hangs or is dead: the
// watchdog does it, and a supervisor that runs does it too, should its watchdog
// be gone or stopped. A supervisor that dies ends its command at once, in the
// same two steps; and so does the death of the watchdog. Only who ends both at
// the same moment leaves a command behind, which then gets SIGTERM from the
// kernel and nothing more.
//
// Run returns when nothing of the command's family runs any more: its group, and
// its descendants in other groups, such as the jobs of an interactive shell.
// What has made itself a session of its own, as a daemon does, is left alone when
// the command ends by itself, and ended too when the time is over.
//
// # What it cannot do
//
// A machine that is suspended over the end wakes up with the command in it: it is
// ended at once, but not before. A process that has changed its user cannot be
// signalled, and one in an uninterruptible wait dies when that is over; Run waits
// for it. When the supervisor was killed, descendants that have left the group
// and whose parents are gone are not found.
//
// The package has no goroutine that outlives Run, catches no signal (it is given
// them over Spec.Signals) and works on Linux only: elsewhere Run returns
// ErrUnsupported. With Spec.Adopt it changes one attribute of the process.
//
// A program that calls Run must hand its arguments to Hidden before anything
// else, because watchdog and gate are modes of the same program:
//
//	if mode, ok := supervise.Hidden(os.Args); ok {
//		for _, sig := range mode.Ignore { // none for a gate; Ignore() would mean all
//			signal.Ignore(sig)
//		}
//		os.Exit(mode.Run(os.Stdin, os.Stdout, os.Stderr))
//	}
//
// The files: spec.go is what goes in and comes out; run_linux.go the
// supervisor's loop; child_linux.go the command as its parent sees it;
// gate_linux.go the gate; watchdog_linux.go both ends of the watchdog;
// family_linux.go who belongs to a command and how it is ended;
// terminal_linux.go who has the terminal; instant_linux.go the clock.
package supervise

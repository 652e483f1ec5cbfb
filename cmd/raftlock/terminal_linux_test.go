package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal is a pseudo-terminal, and what is written on its screen.
type terminal struct {
	t    *testing.T
	keys *os.File // the side of who sits there
	line *os.File // the side of the programs

	mu     sync.Mutex
	screen bytes.Buffer
	read   sync.WaitGroup
}

func newTerminal(t *testing.T) *terminal {
	t.Helper()
	keys, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no pseudo-terminals here: ", err)
	}
	conn, err := keys.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	number := 0
	var failed error
	err = conn.Control(func(fd uintptr) {
		if failed = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); failed == nil {
			number, failed = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	})
	if err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	line, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, keys: keys, line: line}
	term.read.Go(func() {
		buf := make([]byte, 4096)
		for {
			n, err := keys.Read(buf)
			term.mu.Lock()
			term.screen.Write(buf[:n])
			term.mu.Unlock()
			if err != nil {
				return
			}
		}
	})
	t.Cleanup(func() {
		_, _ = line.Close(), keys.Close()
		term.read.Wait()
		if t.Failed() {
			t.Logf("the screen:\n%s", term.screen.String())
		}
	})
	return term
}

// run starts a process that has the terminal as the first of a session.
func (term *terminal) run(p *program) *program {
	term.t.Helper()
	p.Stdin, p.Stdout, p.Stderr = term.line, term.line, term.line
	p.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	return p.start()
}

func (term *terminal) types(keys string) {
	term.t.Helper()
	if _, err := term.keys.WriteString(keys); err != nil {
		term.t.Fatal(err)
	}
}

// sees waits until something stands on the screen, and wipes all before it.
func (term *terminal) sees(text string) {
	term.t.Helper()
	eventually(term.t, fmt.Sprintf("the screen shows %q", text), func() bool {
		term.mu.Lock()
		defer term.mu.Unlock()
		_, rest, ok := strings.Cut(term.screen.String(), text)
		if ok {
			term.screen.Reset()
			term.screen.WriteString(rest)
		}
		return ok
	})
}

const (
	ctrlC = "\x03"
	ctrlD = "\x04"
	ctrlZ = "\x1a"
)

// A command under a lock is a job like others: it has the terminal, ^C ends it,
// ^Z stops it and fg continues it.
func TestLockIsAJob(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1, nil)
	term := newTerminal(t)
	shell := f.raftlock()
	shell.Env = append(shell.Env, "PS1=prompt> ", "RAFTLOCK="+shell.Path, "ENV=", "RAFTLOCK_TTL=1h")
	shell.Path, shell.Args = "/bin/sh", []string{"sh", "-i"}
	term.run(shell)
	term.sees("prompt> ")

	term.types("$RAFTLOCK lock a -- cat\n")
	eventually(t, "it holds the lock", func() bool { return f.owner("a") != "" })
	term.types("first\n")
	term.sees("first\r\nfirst")
	term.types(ctrlZ)
	term.sees("raftlock: stopped, and renewing nothing")
	term.sees("prompt> ")
	if f.owner("a") == "" {
		t.Error("a stopped command has lost its lock at once")
	}
	term.types("fg\n")
	term.sees("lock a")
	term.types("second\n")
	term.sees("second\r\nsecond")
	term.types(ctrlD)
	term.sees("prompt> ")
	term.types("echo code=$?\n")
	term.sees("code=0")

	// One process: a shell may miss the ^C while it starts another.
	term.types("$RAFTLOCK lock b -- sh -c 'echo run''s; exec sleep 60'\n")
	term.sees("runs")
	term.types(ctrlC)
	term.sees("prompt> ")
	term.types("echo code=$?\n")
	term.sees("code=130")

	term.types("$RAFTLOCK lock c -- cat &\n") // reads from the background
	term.sees("prompt> ")
	eventually(t, "it holds the lock", func() bool { return f.owner("c") != "" })
	term.types("fg\nthird\n")
	term.sees("third") // as typed
	term.sees("third") // as cat has it
	term.types(ctrlD)
	term.sees("prompt> ")
	term.types("exit 3\n")
	if code := shell.end(); code != 3 {
		t.Errorf("the shell exits with %d", code)
	}
}

// Where there is no shell that could continue it, ^Z stops nothing for long.
func TestLockWithoutShell(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1, nil)
	term := newTerminal(t)
	p := term.run(f.raftlock("lock", "a", "--ttl", "1h", "--", "cat"))
	eventually(t, "it holds the lock", func() bool { return f.owner("a") != "" })
	term.types("first\n")
	term.sees("first\r\nfirst")
	term.types(ctrlZ)
	term.sees("^Z")
	term.types("second\n")
	term.sees("second")
	term.sees("second")
	term.types(ctrlD)
	if code := p.end(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// Somebody at a terminal is told what is waited for.
func TestLockTellsHolder(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1, nil)
	term := newTerminal(t)
	first := f.raftlock("lock", "a", "--client-id", "somebody", "--", "sleep", "600").start()
	eventually(t, "it holds the lock", func() bool { return f.owner("a") != "" })
	second := term.run(f.raftlock("lock", "a", "--", "true"))
	term.sees("waiting for the lock a, which somebody has")
	term.types(ctrlC)
	if code := second.end(); code != exitInterrupted {
		t.Errorf("exit code %d", code)
	}
	if err := first.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := first.end(); code != exitSignal+int(unix.SIGTERM) {
		t.Errorf("exit code %d", code)
	}
}

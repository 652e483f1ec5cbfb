package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// buildCommand makes the real command, with the detector if the test has it.
func buildCommand(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "raftlock")
	args := []string{"build", "-o", bin}
	if underRace {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, "github.com/raftlock/raftlock/cmd/raftlock")...).CombinedOutput(); err != nil {
		t.Fatalf("build raftlock: %v\n%s", err, out)
	}
	return bin
}

// server is a member that `raftlock serve` runs, one process after the other.
type server struct {
	tb   testing.TB
	name string
	args []string
	bin  string
	dir  string
	log  scanned

	mu      sync.Mutex
	cmd     *exec.Cmd
	gone    chan struct{} // closed when cmd has ended
	ready   chan struct{} // closed when cmd serves
	failure error         // of cmd, when it has ended
	// may are errors that the process may end with.
	may []string
	// killed says that the process was killed on purpose.
	killed bool
	sick   int // how often it has ended with one of may
}

// start runs the member. Between two processes somebody else may have been given
// the port for a connection: that passes.
func (s *server) start() error {
	cmd := exec.Command(s.bin, s.args...)
	cmd.SysProcAttr, cmd.WaitDelay = dieWithParent(), patience
	var tail tail
	cmd.Stderr = io.MultiWriter(&s.log, &tail)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return err
	}
	gone, ready := make(chan struct{}), make(chan struct{})
	s.mu.Lock()
	s.cmd, s.gone, s.ready, s.killed, s.may, s.failure = cmd, gone, ready, false, nil, nil
	s.mu.Unlock()
	go s.attend(cmd, out, &tail, gone, ready)
	return nil
}

// attend lasts as long as a process.
func (s *server) attend(cmd *exec.Cmd, out io.Reader, tail *tail, gone, ready chan struct{}) {
	lines := bufio.NewScanner(out)
	if lines.Scan() && strings.HasPrefix(lines.Text(), "ready name="+s.name+" ") {
		close(ready)
	}
	_, _ = io.Copy(io.Discard, out) // it says nothing more
	err := cmd.Wait()
	s.mu.Lock()
	s.failure = err
	said := tail.String()
	again := false
	switch {
	case err == nil || s.killed:
	case strings.Contains(said, "address already in use"):
		again = true
	case contains(s.may, said):
		s.sick++
	default:
		s.tb.Errorf("%s ended: %v\n%s", s.name, err, said)
	}
	s.mu.Unlock()
	if again {
		if err := s.start(); err != nil {
			s.tb.Error(err)
		}
	}
	close(gone)
}

func contains(texts []string, in string) bool {
	for _, text := range texts {
		if strings.Contains(in, text) {
			return true
		}
	}
	return false
}

// now is the present process.
func (s *server) now() (cmd *exec.Cmd, gone, ready chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cmd, s.gone, s.ready
}

func (s *server) pid() int {
	cmd, _, _ := s.now()
	return cmd.Process.Pid
}

// mayEnd says what errors the process may end with from now on.
func (s *server) mayEnd(with ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.may = with
}

// kill ends the process as a crash does.
func (s *server) kill() {
	s.mu.Lock()
	s.killed = true
	cmd, gone := s.cmd, s.gone
	s.mu.Unlock()
	_ = cmd.Process.Kill() // it may have ended
	<-gone
}

// signal is for a process that runs.
func (s *server) signal(sig syscall.Signal) {
	cmd, _, _ := s.now()
	_ = cmd.Process.Signal(sig) // it may have ended
}

// awaitEnd reports whether the process ends in time.
func (s *server) awaitEnd(within time.Duration) bool {
	_, gone, _ := s.now()
	return await(gone, within)
}

// awaitReady reports whether the member serves in time.
func (s *server) awaitReady(until time.Time) bool {
	for time.Now().Before(until) {
		_, gone, ready := s.now()
		if await(ready, 0) {
			return true
		}
		select {
		case <-ready:
			return true
		case <-gone:
			if _, now, _ := s.now(); now == gone {
				return false
			}
		case <-time.After(time.Until(until)):
		}
	}
	return false
}

// close ends the member as an operator does.
func (s *server) close() error {
	s.signal(syscall.SIGTERM)
	if !s.awaitEnd(patience) {
		s.kill()
		return errors.New(s.name + " does not end at SIGTERM")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failure
}

// wipe takes its disk away.
func (s *server) wipe() error { return os.RemoveAll(s.dir) }

// await reports whether a channel is closed in time.
func await(closed <-chan struct{}, within time.Duration) bool {
	limit := time.NewTimer(within)
	defer limit.Stop()
	select {
	case <-closed:
		return true
	default:
	}
	select {
	case <-closed:
		return true
	case <-limit.C:
		return false
	}
}

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailSize = 4 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	t.buf = t.buf[max(0, len(t.buf)-tailSize):]
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}

// scanned is a log of which what nobody may ever read in one is kept.
type scanned struct {
	mu   sync.Mutex
	line []byte // its beginning, until it is whole
	left int    // how many lines more are kept
	bad  bytes.Buffer
}

// alarming begins lines that tell of a broken program.
var alarming = []string{"panic:", "fatal error:", "panicked", "WARNING: DATA RACE", "[signal SIG"}

func (s *scanned) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.line = append(s.line, p...)
	for {
		line, rest, whole := bytes.Cut(s.line, []byte("\n"))
		if !whole {
			return len(p), nil
		}
		if contains(alarming, string(line)) && s.bad.Len() < 1<<16 {
			s.left = 60
		}
		if s.left > 0 {
			s.left--
			s.bad.Write(line)
			s.bad.WriteByte('\n')
		}
		s.line = rest
	}
}

func (s *scanned) alarms() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bad.String()
}

package supervise

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a test waits for what must come about.
const patience = 30 * time.Second

// rig is a supervisor's process under test.
type rig struct {
	t   *testing.T
	dir string // the script's working directory
	cmd *exec.Cmd
	log lockedBuffer

	alive *os.File     // reads as ended when nobody has it open for writing
	lines chan outcome // closed when the process has ended
	end   Instant      // the last that it has set
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// long is a TTL for tests in which no end shall come, however slow the machine.
const long = 10 * time.Minute

// start runs a job. Its script can use say WORD, which the test waits for with
// hears, and it holds the file alive open for writing, as do its children: it
// reads as ended when all of them have.
func start(t *testing.T, j job) *rig {
	t.Helper()
	return startLogging(t, j, nil)
}

// startLogging is start with another standard error than the rig's log.
func startLogging(t *testing.T, j job, log *os.File) *rig {
	t.Helper()
	if j.TTL == 0 {
		j.TTL = 4 * time.Second
	}
	if j.Grace == 0 {
		j.Grace = 500 * time.Millisecond
	}
	if j.Guard == 0 {
		j.Guard = 400 * time.Millisecond
	}
	r := &rig{t: t, dir: t.TempDir(), lines: make(chan outcome, 1000)}
	if err := unix.Mkfifo(filepath.Join(r.dir, "alive"), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if r.alive, err = os.OpenFile(filepath.Join(r.dir, "alive"), os.O_RDONLY|unix.O_NONBLOCK, 0); err != nil {
		t.Fatal(err)
	}
	j.Script = "exec 9<>alive\nsay() { echo $1 >$1.tmp && mv $1.tmp $1; }\n" + j.Script
	text, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r.cmd = exec.Command(self)
	r.cmd.Env = append(os.Environ(), jobEnv+"="+string(text))
	r.cmd.Dir, r.cmd.Stderr = r.dir, &r.log
	if log != nil {
		r.cmd.Stderr = log
	}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	r.cmd.WaitDelay = patience
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var o outcome
			if json.Unmarshal(lines.Bytes(), &o) == nil { // half a line: it was killed
				r.lines <- o
			}
		}
		_ = r.cmd.Wait()
		close(r.lines)
	}()
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		for range r.lines {
		}
		_ = r.alive.Close()
		if t.Failed() {
			t.Logf("it said: %s", r.log.String())
		}
	})
	return r
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	for !holds() {
		select {
		case <-ticker.C:
		case <-limit.C:
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// hears waits until the script has said a word.
func (r *rig) hears(word string) {
	r.t.Helper()
	eventually(r.t, "the script says "+word, func() bool { return r.has(word) })
}

func (r *rig) has(word string) bool {
	_, err := os.Stat(filepath.Join(r.dir, word))
	return err == nil
}

// died waits until the script and all its children have ended, and returns when.
func (r *rig) died() Instant {
	r.t.Helper()
	if err := r.alive.SetReadDeadline(time.Now().Add(patience)); err != nil {
		r.t.Fatal(err)
	}
	if _, err := r.alive.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		r.t.Fatalf("it lives: %v", err)
	}
	return Now()
}

// lives reports whether the script or one of its children still runs.
func (r *rig) lives() (lives bool) {
	r.t.Helper()
	conn, err := r.alive.SyscallConn()
	if err != nil {
		r.t.Fatal(err)
	}
	err = conn.Read(func(fd uintptr) bool {
		_, err := unix.Read(int(fd), make([]byte, 1))
		lives = errors.Is(err, unix.EAGAIN)
		return true // do not wait
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return lives
}

// result waits for the end of the supervisor.
func (r *rig) result() outcome {
	r.t.Helper()
	for {
		select {
		case o, ok := <-r.lines:
			if !ok {
				r.t.Fatal("it ended without a result")
			}
			if o.Done {
				return o
			}
			r.end = o.End
		case <-time.After(patience):
			r.t.Fatal("it does not end")
		}
	}
}

// lastEnd reads all that the supervisor has said so far, which must be stopped
// or dead, and returns the last end of it.
func (r *rig) lastEnd() Instant {
	r.t.Helper()
	for {
		select {
		case o, ok := <-r.lines:
			if !ok {
				return r.end
			}
			if o.Done {
				r.t.Fatalf("it is done: %+v", o)
			}
			r.end = o.End
		case <-time.After(50 * time.Millisecond): // the pipe is drained
			return r.end
		}
	}
}

func (r *rig) kill(sig unix.Signal) {
	r.t.Helper()
	if err := unix.Kill(r.cmd.Process.Pid, sig); err != nil {
		r.t.Fatal(err)
	}
	if sig == unix.SIGSTOP {
		eventually(r.t, "it is stopped", func() bool { return r.child(r.cmd.Process.Pid).state == 'T' })
	}
}

func (r *rig) child(pid int) process {
	r.t.Helper()
	table, err := processes()
	if err != nil {
		r.t.Fatal(err)
	}
	return table[pid]
}

// watchdog is the number of the watchdog's process.
func (r *rig) watchdog() (pid int) {
	r.t.Helper()
	eventually(r.t, "there is a watchdog", func() bool {
		table, err := processes()
		if err != nil {
			r.t.Fatal(err)
		}
		for _, p := range table {
			name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", p.pid))
			if err == nil && p.parent == r.cmd.Process.Pid && string(name) == "lock-watchdog\n" {
				pid = p.pid
			}
		}
		return pid != 0
	})
	return pid
}

// before fails unless the first came before the second.
func before(t *testing.T, first, second Instant, what string) {
	t.Helper()
	if first >= second {
		t.Errorf("%s: %v too late", what, first.Sub(second))
	}
}

const forever = "say ready\nwhile :; do sleep 1; done\n"

func TestExitCodes(t *testing.T) {
	t.Parallel()
	for script, want := range map[string]int{
		"exit 0": 0, "exit 1": 1, "exit 77": 77, "exit 255": 255,
		"kill -TERM $$": -15, "kill -KILL $$": -9,
	} {
		o := start(t, job{Script: script, TTL: long}).result()
		if o.Code != want || o.Reason != ByItself || o.Error != "" {
			t.Errorf("%s: %+v, want %d", script, o, want)
		}
	}
}

func TestNotRun(t *testing.T) {
	t.Parallel()
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("no program"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/does/not/exist": "execute /does/not/exist: no such file or directory",
		text:              "execute " + text + ": permission denied",
	} {
		if o := start(t, job{Path: path}).result(); o.Error != want {
			t.Errorf("%s: %+v", path, o)
		}
	}
	r := start(t, job{Script: "say run", TTL: time.Second, Grace: 600 * time.Millisecond})
	if o := r.result(); !o.Late || r.has("run") {
		t.Errorf("without time: %+v, run %t", o, r.has("run"))
	}
}

// Renewed again and again, a command may take longer than one end.
func TestExtended(t *testing.T) {
	t.Parallel()
	r := start(t, job{Script: "sleep 6; say late", Renew: true})
	if o := r.result(); o.Code != 0 || o.Reason != ByItself || !r.has("late") {
		t.Errorf("%+v", o)
	}
}

// The four ways to be told that the time is over, for a command that goes at
// SIGTERM, one that ignores it, one that is stopped, one with children.
func TestEndedInTime(t *testing.T) {
	t.Parallel()
	scripts := map[string]string{
		"willing":  forever,
		"stubborn": "trap '' TERM INT HUP\n" + forever,
		"stopped":  "trap '' TERM\nsay ready\nwhile :; do kill -STOP $$; done\n",
		"family":   "trap '' TERM\n(while :; do sleep 1; done) &\n(trap - TERM; sleep 60) &\n" + forever,
		"jobs":     "set -m\n(trap '' TERM; while :; do sleep 1; done) &\n" + forever,
		"daemon":   "trap '' TERM\n(setsid sh -c 'trap \"\" TERM; say() { echo $1 >$1; }; say daemon; sleep 60' &)\nuntil test -e daemon; do sleep 0.1; done\n" + forever,
	}
	for name, script := range scripts {
		if testing.Short() && name != "family" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			t.Run("expired", func(t *testing.T) {
				t.Parallel()
				r := start(t, job{Script: script})
				r.hears("ready")
				at := r.died()
				o := r.result()
				before(t, at, r.end, "ended before the end")
				if o.Reason != OutOfTime {
					t.Errorf("%+v", o)
				}
			})
			t.Run("stopped", func(t *testing.T) {
				t.Parallel()
				r := start(t, job{Script: script, Renew: true})
				r.hears("ready")
				r.kill(unix.SIGSTOP)
				before(t, r.died(), r.lastEnd(), "ended before the end")
				r.kill(unix.SIGCONT)
				if o := r.result(); o.Reason != OutOfTime {
					t.Errorf("%+v", o)
				}
				if !strings.Contains(r.log.String(), "the lock jobs was not renewed in time") {
					t.Error("the watchdog is silent")
				}
			})
			t.Run("killed", func(t *testing.T) {
				if name == "daemon" {
					t.Skip("not found, as documented")
				}
				t.Parallel()
				r := start(t, job{Script: script, Renew: true})
				r.hears("ready")
				r.kill(unix.SIGKILL)
				before(t, r.died(), r.lastEnd(), "ended before the end")
			})
			t.Run("unwatched", func(t *testing.T) {
				t.Parallel()
				r := start(t, job{Script: script, TTL: long})
				r.hears("ready")
				if err := unix.Kill(r.watchdog(), unix.SIGKILL); err != nil {
					t.Fatal(err)
				}
				if o := r.result(); o.Reason != Unwatched || r.lives() {
					t.Errorf("%+v, lives %t", o, r.lives())
				}
			})
			t.Run("lost", func(t *testing.T) {
				t.Parallel()
				r := start(t, job{Script: script, TTL: long, LoseAfter: 700 * time.Millisecond})
				if o := r.result(); o.Reason != LockLost || r.lives() {
					t.Errorf("%+v, lives %t", o, r.lives())
				}
			})
		})
	}
}

// A watchdog that is stopped does nothing; then the supervisor does it.
func TestStoppedWatchdog(t *testing.T) {
	t.Parallel()
	r := start(t, job{Script: "trap '' TERM\n" + forever})
	r.hears("ready")
	dog := r.watchdog()
	if err := unix.Kill(dog, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	at := r.died()
	if o := r.result(); o.Reason != OutOfTime {
		t.Errorf("%+v", o)
	}
	before(t, at, r.end, "ended before the end")
	if p := r.child(dog); p.pid != 0 && !p.ended() {
		t.Errorf("the watchdog is left behind: %+v", p)
	}
}

// Nobody reads what the watchdog says, as when a pager is stopped: it does its
// work all the same.
func TestUnreadLog(t *testing.T) {
	t.Parallel()
	unread, log, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer unread.Close()
	defer log.Close()
	if err := log.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = log.Write(make([]byte, 4096))
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	r := startLogging(t, job{Script: "trap '' TERM\n" + forever, Renew: true}, log)
	r.hears("ready")
	r.kill(unix.SIGSTOP)
	before(t, r.died(), r.lastEnd(), "ended before the end")
}

// What ends a process, or stops it, passes a watchdog by.
func TestWatchdogIsDeaf(t *testing.T) {
	t.Parallel()
	r := start(t, job{Script: "say ready\nuntil test -e go; do sleep 0.1; done\n", TTL: long})
	r.hears("ready")
	for _, sig := range deaf() {
		if err := unix.Kill(r.watchdog(), sig.(unix.Signal)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(r.dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if o := r.result(); o.Reason != ByItself || o.Code != 0 {
		t.Errorf("%+v", o)
	}
}

// Run does not return while something of the command's group or jobs runs; a
// daemon may.
func TestLeftBehind(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{
		"willing":  "sleep 60 &",
		"stubborn": "(trap '' TERM; say ready; while :; do sleep 1; done) &\nuntil test -e ready; do sleep 0.1; done",
		"job":      "set -m\nsleep 60 &",
		"orphan":   "(sh -c 'sleep 60 & sleep 60 &' &)\nsleep 0.2",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, job{Script: script + "\nexit 3", TTL: long})
			o := r.result()
			if o.Code != 3 || o.Reason != ByItself {
				t.Errorf("%+v", o)
			}
			if r.lives() {
				t.Error("something lives on")
			}
		})
	}
	t.Run("daemon", func(t *testing.T) {
		t.Parallel()
		r := start(t, job{Script: "setsid sh -c 'echo $$ >daemon; until test -e go; do sleep 0.1; done; echo >done' &\nuntil test -s daemon; do sleep 0.1; done", TTL: long})
		if o := r.result(); o.Code != 0 {
			t.Errorf("%+v", o)
		}
		if err := os.WriteFile(filepath.Join(r.dir, "go"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		r.hears("done")
	})
}

func TestSignals(t *testing.T) {
	t.Parallel()
	for _, sig := range []unix.Signal{
		unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH,
	} {
		t.Run(unix.SignalName(sig), func(t *testing.T) {
			t.Parallel()
			script := fmt.Sprintf("trap 'say caught; exit 42' %d\n", int(sig))
			r := start(t, job{Script: script + forever, TTL: long})
			r.hears("ready")
			r.kill(sig)
			if o := r.result(); o.Code != 42 || !r.has("caught") {
				t.Errorf("%+v", o)
			}
		})
	}
}

// Orphans are reaped while the command runs.
func TestOrphansAreReaped(t *testing.T) {
	t.Parallel()
	script := "sh -c 'sh -c \"echo \\$\\$ >orphan; exec sleep 0.3\" &'\n"
	r := start(t, job{Script: script + "say ready\nuntil test -e go; do sleep 0.1; done\n", TTL: long})
	r.hears("ready")
	pid := 0
	eventually(t, "there is an orphan", func() bool {
		text, _ := os.ReadFile(filepath.Join(r.dir, "orphan"))
		n, _ := fmt.Sscan(string(text), &pid)
		return n == 1
	})
	eventually(t, "it is gone", func() bool { return r.child(pid).pid == 0 })
	if err := os.WriteFile(filepath.Join(r.dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if o := r.result(); o.Code != 0 {
		t.Errorf("%+v", o)
	}
}

func TestParseStat(t *testing.T) {
	for stat, want := range map[string]process{
		"7 (sh) S 1 2 3 0 -1":             {7, 1, 2, 3, 'S'},
		"7 (a) Z 9 9 9 (b) T 4 5 6 34816": {7, 4, 5, 6, 'T'},
	} {
		if p, ok := parseStat(7, []byte(stat)); !ok || p != want {
			t.Errorf("%s: %+v %t", stat, p, ok)
		}
	}
	for _, stat := range []string{"", "7 (sh)", "7 (sh) S 1 2", "7 (sh) S x 2 3"} {
		if p, ok := parseStat(7, []byte(stat)); ok {
			t.Errorf("%q: %+v", stat, p)
		}
	}
}

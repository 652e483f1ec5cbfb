package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/raftlock/raftlock/client"
)

// worker is a command that must never run twice at a time. It says so in a file
// if it finds another, notes its token, has a child, and goes on until it is
// killed, or until a file is there.
func worker() int {
	dir := os.Args[1]
	guard, err := os.OpenFile(filepath.Join(dir, "guard"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fail(err)
	}
	flags := unix.LOCK_EX | unix.LOCK_NB // which all who inherit it have, until the last is dead
	if err := unix.Flock(int(guard.Fd()), flags); err != nil {
		touchWorker(filepath.Join(dir, "overlap"))
		return fail(err)
	}
	signal.Ignore(unix.SIGTERM, unix.SIGHUP)
	log, err := os.OpenFile(filepath.Join(dir, "tokens"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fail(err)
	}
	if _, err := fmt.Fprintln(log, os.Getenv("RAFTLOCK_TOKEN")); err != nil {
		return fail(err)
	}
	child := exec.Command("sleep", "120")
	child.ExtraFiles = []*os.File{guard}
	if err := child.Start(); err != nil {
		return fail(err)
	}
	touchWorker(filepath.Join(dir, "ready-"+os.Args[2]))
	err = await(context.Background(), func() bool { return exists(filepath.Join(dir, "go-"+os.Args[2])) })
	if err != nil {
		return fail(err)
	}
	return 0
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "worker:", err)
	return 1
}

func touchWorker(file string) { _ = os.WriteFile(file, nil, 0o600) }

// work is the command line of a worker.
func work(t *testing.T, dir, name string) []string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return []string{"env", asEnv + "=worker", self, dir, name}
}

func TestLockExitCodes(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3, nil)
	text := filepath.Join(t.TempDir(), "text")
	touch(t, text)
	other, err := f.client().Acquire(t.Context(), &client.AcquireRequest{LockID: "taken", ClientID: "other", TTL: time.Hour})
	if err != nil || !other.Acquired {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"lock a -- true", 0, ""},
		{"lock a -- sh -c exit$IFS1", 1, ""},
		{"lock a -- sh -c exit$IFS42", 42, ""},
		{"lock a -- sh -c kill$IFS-TERM$IFS$$", 128 + 15, ""},
		{"lock a -- sh -c kill$IFS-KILL$IFS$$", 128 + 9, ""},
		{"lock a -- sh -c kill$IFS-INT$IFS$$", 128 + 2, ""},
		{"lock", exitUsage, "the name of the lock is missing"},
		{"lock a", exitUsage, "raftlock lock a -- COMMAND"},
		{"lock a b -- true", exitUsage, `"b" is too much`},
		{"lock a --", exitUsage, "no command after"},
		{"lock -- true", exitUsage, "the name of the lock is missing"},
		{"lock a --nonsense -- true", exitUsage, "unknown flag"},
		{"lock a --ttl 500ms -- true", exitUsage, "too short"},
		{"lock a --ttl 3s --kill-after 2s -- true", exitUsage, "a third"},
		{"lock a --kill-after -1s -- true", exitUsage, "negative"},
		{"lock a --try --wait 1s -- true", exitUsage, "give one of them"},
		{"lock a --wait 0s -- true", exitUsage, "use --try"},
		{"lock a --priority 5000 -- true", exitUsage, "the cluster refuses this"},
		{"lock a --endpoints nowhere -- true", exitUsage, "host:port"},
		{"lock a --endpoints 192.0.2.1:7001 -- true", exitUsage, "--insecure"},
		{"lock a --endpoints 127.0.0.1:1 -- true", exitNoCluster, "no member can be reached: 127.0.0.1:1: connection refused; see --endpoints"},
		{"lock taken --try -- true", exitNotAcquired, "held by other"},
		{"lock taken --wait 200ms -- true", exitNotAcquired, "was not free within 200ms"},
		{"lock a -- no-such-command", exitNotFound, `no command "no-such-command"`},
		{"lock a -- /no/such/command", exitNotFound, `no command "/no/such/command"`},
		{"lock a -- " + text, exitNotExecutable, "permission denied"},
	} {
		args := strings.Fields(c.args)
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "$IFS", " ")
		}
		p := f.raftlock(args...)
		if code := p.run(); code != c.code || !strings.Contains(p.err.String(), c.says) || (c.says == "") != (p.err.Len() == 0) {
			t.Errorf("raftlock %s: exit code %d, want %d; it says %q, want %q", c.args, code, c.code, p.err.String(), c.says)
		}
	}
	info, err := f.client().GetLockInfo(t.Context(), &client.GetLockInfoRequest{LockID: "a"})
	if err != nil || info.OwnerID != "" {
		t.Errorf("not released: %+v %v", info, err)
	}
}

// The command's environment names the grant, and the lock shows whose it is.
func TestLockEnvironment(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3, nil)
	dir := t.TempDir()
	script := fmt.Sprintf("echo $RAFTLOCK_LOCK $RAFTLOCK_TOKEN $RAFTLOCK_TTL >%s/env; until test -e %[1]s/go; do sleep 0.05; done", dir)
	p := f.raftlock("lock", "jobs", "--client-id", "me", "--metadata", "purpose=test,by=me", "--", "sh", "-c", script)
	p.Env = append(p.Env, "RAFTLOCK_TTL=7s", "RAFTLOCK_TOKEN=1", "RAFTLOCK_LOCK=stale")
	p.start()
	var said []byte
	eventually(t, "the command runs", func() bool {
		said, _ = os.ReadFile(filepath.Join(dir, "env"))
		return bytes.HasSuffix(said, []byte("\n"))
	})
	info, err := f.client().GetLockInfo(t.Context(), &client.GetLockInfoRequest{LockID: "jobs"})
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("jobs %d 7s\n", info.Version); string(said) != want {
		t.Errorf("it sees %q, want %q", said, want)
	}
	if left := time.Until(info.ExpiresAt); info.OwnerID != "me" || info.Metadata["purpose"] != "test" || info.Metadata["by"] != "me" || left > 7*time.Second {
		t.Errorf("the lock is %+v, and lasts for %v", info, left)
	}
	touch(t, filepath.Join(dir, "go"))
	if code := p.end(); code != 0 {
		t.Errorf("exit code %d: %s", code, p.err.String())
	}
}

// Signals end the wait for a lock, and go to the command once that runs.
func TestLockSignals(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3, nil)
	dir := t.TempDir()
	first := f.raftlock("lock", "a", "--", "sh", "-c", "trap 'exit 9' USR1; touch "+dir+"/ready; while :; do sleep 0.1; done").start()
	eventually(t, "the command runs", func() bool { return exists(filepath.Join(dir, "ready")) })
	for sig, want := range map[unix.Signal]int{unix.SIGINT: 130, unix.SIGTERM: 143, unix.SIGHUP: 129} {
		waits := f.raftlock("lock", "a", "--", "touch", dir+"/wrong").start()
		eventually(t, "it waits", func() bool { return f.waiters("a") == 1 })
		if err := waits.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if code := waits.end(); code != want || !strings.Contains(waits.err.String(), "while waiting for the lock a") {
			t.Errorf("%v: exit code %d: %s", sig, code, waits.err.String())
		}
		eventually(t, "it does not wait any more", func() bool { return f.waiters("a") == 0 })
	}
	if err := first.Process.Signal(unix.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	if code := first.end(); code != 9 {
		t.Errorf("exit code %d: %s", code, first.err.String())
	}
	if exists(filepath.Join(dir, "wrong")) {
		t.Error("a command ran without its lock")
	}
}

// A command and its raftlock that both got SIGINT both die of it, as ^C in a
// shell's script needs.
func TestLockDiesOfInterrupt(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3, nil)
	dir := t.TempDir()
	p := f.raftlock("lock", "a", "--", "sh", "-c", "touch "+dir+"/ready; exec sleep 60").start()
	eventually(t, "the command runs", func() bool { return exists(filepath.Join(dir, "ready")) })
	if err := p.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	p.end()
	if status := p.ProcessState.Sys().(interface{ Signal() unix.Signal }); status.Signal() != unix.SIGINT {
		t.Errorf("it ended with %v: %s", p.ProcessState, p.err.String())
	}
	eventually(t, "the lock is free", func() bool { return f.owner("a") == "" })
}

// What raftlock was started to ignore, as by nohup, its command ignores too.
func TestLockIgnoredSignals(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1, nil)
	p := f.raftlock("lock", "a", "--", "sh", "-c", "kill -HUP $$; kill -INT $$; exit 5")
	p.Args = append([]string{"sh", "-c", `trap "" HUP INT; exec "$0" "$@"`}, p.Args...)
	p.Path = "/bin/sh"
	if code := p.run(); code != 5 {
		t.Errorf("exit code %d: %v %s", code, p.ProcessState, p.err.String())
	}
}

func (f *fleet) waiters(lock string) int {
	f.t.Helper()
	return int(f.info(lock).WaiterCount)
}

func (f *fleet) owner(lock string) string {
	f.t.Helper()
	return f.info(lock).OwnerID
}

func (f *fleet) info(lock string) *client.LockInfo {
	f.t.Helper()
	info, err := f.client().GetLockInfo(f.t.Context(), &client.GetLockInfoRequest{LockID: lock})
	if errors.Is(err, client.ErrLockNotFound) {
		return &client.LockInfo{}
	}
	if err != nil {
		f.t.Fatal(err)
	}
	return info
}

// takeover runs a worker under a lock, has another wait for the lock, lets
// something happen to the first, and holds that the second starts when all of the
// first are dead, and not before. The first's exit code is returned, −1 for a
// signal's.
func takeover(t *testing.T, f *fleet, lock string, m misfortune) (code int, said string) {
	t.Helper()
	dir := t.TempDir()
	args := func(name, ttl string) []string {
		return append([]string{"lock", lock, "--ttl", ttl, "--"}, work(t, dir, name)...)
	}
	endpoints := f.endpoints()
	if f.way != nil {
		endpoints = f.way.endpoints()
	}
	var first *program
	eventually(t, "the first runs", func() bool {
		if first == nil || first.ended() { // so slow is the machine that it has lost the lock already
			first = newProgram(t, endpoints, args("first", m.ttl)).start()
		}
		return exists(filepath.Join(dir, "ready-first"))
	})
	second := f.raftlock(args("second", "10m")...).start()
	eventually(t, "the second waits", func() bool { return f.waiters(lock) == 1 })
	m.happen(first)
	defer func() {
		if t.Failed() {
			t.Logf("first: %s\nsecond: %s\n%+v", first.err.String(), second.err.String(), f.info(lock))
		}
	}()
	eventually(t, "the second runs", func() bool {
		return exists(filepath.Join(dir, "ready-second")) || exists(filepath.Join(dir, "overlap"))
	})
	touch(t, filepath.Join(dir, "go-second"))
	if code := second.end(); code != 0 || exists(filepath.Join(dir, "overlap")) {
		t.Errorf("two at a time; the second exits with %d: %s\nthe first: %s", code, second.err.String(), first.err.String())
	}
	tokens, err := os.ReadFile(filepath.Join(dir, "tokens"))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(tokens))
	if len(fields) < 2 || !slices.IsSorted(fields) { // they have as many digits for centuries
		t.Errorf("tokens %q", fields)
	}
	_ = first.Process.Signal(unix.SIGCONT) // if it is there, and stopped
	return first.end(), first.err.String()
}

// What can happen to a raftlock whose command runs, and how it then exits.
func misfortunes(t *testing.T, f *fleet) []misfortune {
	ttl := "3s" // how long it takes until a lost lock is free
	if raceEnabled {
		ttl = "8s"
	}
	return []misfortune{
		{"stopped", ttl, exitLost, func(first *program) { send(t, first.Process.Pid, unix.SIGSTOP) }},
		{"killed", ttl, -1, func(first *program) { send(t, first.Process.Pid, unix.SIGKILL) }},
		{"unwatched", "10m", exitOwnFault, func(first *program) { send(t, watchdogOf(t, first.Process.Pid), unix.SIGKILL) }},
		{"cut off", ttl, exitLost, func(*program) { f.way.cut() }},
	}
}

type misfortune struct {
	name   string
	ttl    string
	code   int
	happen func(first *program)
}

func send(t *testing.T, pid int, sig unix.Signal) {
	t.Helper()
	if err := unix.Kill(pid, sig); err != nil {
		t.Error(err)
	}
}

// watchdogOf finds the watchdog of a raftlock.
func watchdogOf(t *testing.T, pid int) int {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range stats {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		number, rest, _ := strings.Cut(string(stat), " (lock-watchdog) ")
		if fields := strings.Fields(rest); len(fields) > 1 && fields[1] == strconv.Itoa(pid) {
			n, err := strconv.Atoi(number)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("raftlock %d has no watchdog", pid)
	return 0
}

func TestLockTakeover(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3, nil)
	rounds := 50
	switch {
	case testing.Short():
		rounds = 4
	case raceEnabled: // processes that are ten times as slow
		rounds = 12
	}
	t.Run("group", func(t *testing.T) {
		for i := range rounds {
			kind := i % len(misfortunes(t, f))
			t.Run(fmt.Sprint(i, " ", misfortunes(t, f)[kind].name), func(t *testing.T) {
				t.Parallel()
				own := &fleet{t: t, members: f.members}
				if misfortunes(t, f)[kind].name == "cut off" { // from a cluster of its own
					own = newFleet(t, 1, newProxies(t, 1))
				}
				m := misfortunes(t, own)[kind]
				code, said := takeover(t, own, fmt.Sprint("lock-", i), m)
				if code != m.code {
					t.Errorf("exit code %d, want %d: %s", code, m.code, said)
				}
			})
		}
	})
}

// A lock that an operator takes away ends its command; a command that ends before
// that is noticed has not held it throughout.
func TestLockTakenAway(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3, nil)
	for ttl, says := range map[string]string{
		"10s": "the lock a was lost (", // renewed every third of it, on a busy machine too
		"1h":  "the lock a was lost before the command had ended",
	} {
		dir := t.TempDir()
		p := f.raftlock("lock", "a", "--ttl", ttl, "--", "sh", "-c", "touch "+dir+"/ready; until test -e "+dir+"/go; do sleep 0.05; done").start()
		eventually(t, "the command runs", func() bool { return exists(filepath.Join(dir, "ready")) })
		info := f.info("a")
		_, err := f.client().Release(t.Context(), &client.ReleaseRequest{LockID: "a", ClientID: info.OwnerID, Version: info.Version})
		if err != nil {
			t.Fatal(err)
		}
		if ttl == "1h" {
			touch(t, filepath.Join(dir, "go"))
		}
		if code := p.end(); code != exitLost || !strings.Contains(p.err.String(), says) {
			t.Errorf("exit code %d: %s", code, p.err.String())
		}
	}
}

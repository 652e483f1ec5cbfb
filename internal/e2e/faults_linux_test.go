package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fault is a kind of what may happen. strike makes it happen and returns how it
// ends.
type fault struct {
	name    string
	members int  // how many suffer at least
	disk    bool // what suffers is a disk
	traces  bool // it needs strace
	last    bool // it can end only when the others have
	strike  func(a *arena) (undo func())
}

func faults() []fault {
	return []fault{
		{name: "kill -9 of a member", members: 1, strike: func(a *arena) func() { return a.killMembers(1) }},
		{name: "kill -9 of some members", members: 2, strike: func(a *arena) func() { return a.killMembers(2 + a.d.IntN(len(a.servers)-1)) }},
		{name: "kill -9 of all members", members: 3, strike: func(a *arena) func() { return a.killMembers(len(a.servers)) }},
		{name: "SIGSTOP of a member", members: 1, strike: (*arena).stopMember},
		{name: "SIGSTOP of a program", strike: (*arena).stopCustomer},
		{name: "kill -9 of a program", strike: (*arena).killCustomer},
		{name: "failing disk", members: 1, disk: true, traces: true, strike: (*arena).failDisk},
		{name: "slow disk", members: 1, disk: true, traces: true, strike: (*arena).slowDisk},
		{name: "hung disk", members: 1, disk: true, traces: true, strike: (*arena).hangDisk},
		{name: "full disk", members: 1, disk: true, strike: (*arena).fillDisk},
		{name: "cut off member", members: 1, strike: (*arena).cutMember},
		{name: "member cut off one way", members: 1, strike: (*arena).cutOneWay},
		{name: "slow network between members", members: 1, strike: (*arena).delayMember},
		{name: "programs cut off from a member", strike: (*arena).cutClients},
		{name: "lost disk, member replaced", members: 1, last: true, strike: (*arena).replaceMember},
	}
}

// unclaimed are at most n members to which nothing happens, from now on this.
func (a *arena) unclaimed(n int) (list []*server) {
	for _, i := range a.d.Perm(len(a.servers)) {
		if s := a.servers[i]; !a.claimed[s.name] && len(list) < n {
			a.claimed[s.name] = true
			list = append(list, s)
		}
	}
	return list
}

func (a *arena) killMembers(n int) func() {
	victims := a.unclaimed(n)
	for _, s := range victims {
		s.signal(syscall.SIGSTOP) // so that all stop at once, as nearly as can be
	}
	for _, s := range victims {
		s.kill()
	}
	return func() {
		for _, s := range victims {
			a.start(s)
		}
	}
}

func (a *arena) start(s *server) {
	a.t.Helper()
	if err := s.start(); err != nil {
		a.t.Fatal(err)
	}
}

func (a *arena) stopMember() func() {
	s := a.victim()
	s.signal(syscall.SIGSTOP)
	return func() { s.signal(syscall.SIGCONT) }
}

func (a *arena) stopCustomer() func() {
	g := a.customers[a.d.IntN(len(a.customers))]
	g.signal(syscall.SIGSTOP)
	return func() { g.signal(syscall.SIGCONT) }
}

// killCustomer has another program come in place of one that is killed.
func (a *arena) killCustomer() func() {
	i := a.d.IntN(len(a.customers))
	a.customers[i].kill()
	a.customers[i] = a.customers[len(a.customers)-1]
	a.customers = a.customers[:len(a.customers)-1]
	return func() { a.addCustomer(a.d.IntN(4)) }
}

// failDisk has every write to stable storage fail from some moment on: the member
// ends, and says why.
func (a *arena) failDisk() func() {
	s := a.victim()
	s.mayEnd("input/output error")
	return a.endByDisk(s, a.inject(s, "error=EIO:when="+strconv.Itoa(1+a.d.IntN(10))+"+"))
}

// fillDisk has no file grow any more: the kernel refuses it as it would with a disk or
// a quota that is full, by another name (EFBIG, and not ENOSPC).
func (a *arena) fillDisk() func() {
	s := a.victim()
	s.mayEnd("file too large")
	limit := func(size uint64) {
		err := unix.Prlimit(s.pid(), unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: size, Max: unix.RLIM_INFINITY}, nil)
		if err != nil {
			a.t.Errorf("fill the disk of %s: %v", s.name, err)
		}
	}
	limit(0)
	return a.endByDisk(s, func() {})
}

// endByDisk waits until a member has ended by its disk, and starts it again.
func (a *arena) endByDisk(s *server, detach func()) func() {
	return func() {
		if !s.awaitEnd(recovery) {
			a.t.Errorf("%s does not notice that its disk fails", s.name)
			s.kill()
		}
		detach()
		a.start(s)
	}
}

func (a *arena) slowDisk() func() {
	return a.inject(a.victim(), "delay_enter="+(10*time.Millisecond+time.Duration(a.d.Int64N(int64(150*time.Millisecond)))).String())
}

func (a *arena) hangDisk() func() { return a.inject(a.victim(), "delay_enter=60s") }

// inject does something to each write to stable storage of a member, until undo.
func (a *arena) inject(s *server, what string) (undo func()) {
	cmd := tracer(a.tracer, s.pid(), what)
	detach, err := attach(cmd)
	if err != nil {
		a.t.Errorf("%s: %v", s.name, err)
	}
	a.t.Cleanup(detach)
	return detach
}

func tracer(path string, pid int, inject string) *exec.Cmd {
	cmd := exec.Command(path, "-f", "-o", "/dev/null", "-p", strconv.Itoa(pid),
		"-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:"+inject)
	cmd.SysProcAttr = dieWithParent()
	return cmd
}

// attach starts strace and returns when it has the process.
func attach(cmd *exec.Cmd) (detach func(), err error) {
	says, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return func() {}, err
	}
	lines := bufio.NewScanner(says)
	attached := lines.Scan() && strings.Contains(lines.Text(), "attached")
	said := lines.Text()
	var reading sync.WaitGroup
	reading.Go(func() {
		for lines.Scan() {
			continue // or its pipe would be full one day
		}
	})
	detach = sync.OnceFunc(func() {
		_ = cmd.Process.Kill() // the kernel lets go of whom it traced
		reading.Wait()
		_ = cmd.Wait()
	})
	if !attached {
		detach()
		return detach, &exec.Error{Name: "strace", Err: errNotAttached(said)}
	}
	return detach, nil
}

type errNotAttached string

func (e errNotAttached) Error() string { return "it cannot attach: " + string(e) }

// findTracer is where strace is, or nothing if there is none or it cannot attach to a
// process that it did not start: nobody would miss what it does in a long run, which
// fails then unless it was told to go without.
func findTracer(t *testing.T) string {
	t.Helper()
	if *noTraceFlag {
		return ""
	}
	path, err := tryTracer(t)
	if err == nil {
		return path
	}
	if *tortureFlag >= time.Minute {
		t.Fatalf("no disk can be made slow, hung or failing: %v; -e2e.notrace leaves these faults out", err)
	}
	t.Log(err)
	return ""
}

func tryTracer(t *testing.T) (path string, err error) {
	t.Helper()
	path, err = exec.LookPath("strace")
	if err != nil {
		return "", err
	}
	sleeper := exec.Command("sleep", "60")
	sleeper.SysProcAttr = dieWithParent()
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = sleeper.Process.Kill()
		_ = sleeper.Wait()
	}()
	detach, err := attach(tracer(path, sleeper.Process.Pid, "delay_enter=1ms"))
	detach()
	return path, err
}

// ways are all relays between a member and the others, those that it dials first.
func (a *arena) ways(s *server) (out, in []*relay) {
	for _, other := range a.servers {
		if other != s {
			out, in = append(out, a.peers[s.name][other.name]), append(in, a.peers[other.name][s.name])
		}
	}
	return out, in
}

func mendAll(relays []*relay) func() {
	return func() {
		for _, r := range relays {
			r.mend()
		}
	}
}

func (a *arena) cutMember() func() {
	out, in := a.ways(a.victim())
	all, broken := append(out, in...), a.d.IntN(2) == 0
	for _, r := range all {
		if broken {
			r.sever()
		} else {
			r.forth.set(true, 0)
			r.back.set(true, 0)
		}
	}
	return mendAll(all)
}

// cutOneWay lets a member hear and not be heard, or the other way around.
func (a *arena) cutOneWay() func() {
	out, in := a.ways(a.victim())
	if a.d.IntN(2) == 0 {
		out, in = in, out
	}
	for i := range out {
		out[i].forth.set(true, 0)
		in[i].back.set(true, 0)
	}
	return mendAll(append(out, in...))
}

func (a *arena) delayMember() func() {
	out, in := a.ways(a.victim())
	all, late := append(out, in...), time.Millisecond+time.Duration(a.d.Int64N(int64(60*time.Millisecond)))
	for _, r := range all {
		r.forth.set(false, late)
		r.back.set(false, late)
	}
	return mendAll(all)
}

// cutClients cuts all programs off from one member, in one direction or in both.
func (a *arena) cutClients() func() {
	r := a.clients[a.servers[a.d.IntN(len(a.servers))].name]
	switch a.d.IntN(4) {
	case 0:
		r.sever()
	case 1:
		r.forth.set(true, 0)
	case 2:
		r.back.set(true, 0)
	default:
		r.forth.set(true, 0)
		r.back.set(true, 0)
	}
	return r.mend
}

// replaceMember takes the disk of a member away and gives its place to an empty
// one, as docs/operations.md says.
func (a *arena) replaceMember() func() {
	s := a.victim()
	s.kill()
	if err := s.wipe(); err != nil {
		a.t.Fatal(err)
	}
	return func() {
		a.eventually(s.name+" is replaced", func() error {
			_, err := a.raftlock("member", "replace", s.name, "--timeout", "3s")
			return err
		})
		a.start(s)
		a.eventually(s.name+" votes again", func() error {
			var list []struct {
				Name  string `json:"name"`
				Voter bool   `json:"voter"`
			}
			out, err := a.raftlock("member", "list", "--json", "--timeout", "3s")
			if err == nil {
				err = json.Unmarshal(out, &list)
			}
			for _, m := range list {
				if !m.Voter {
					err = fmt.Errorf("%s is a learner", m.Name)
				}
			}
			return err
		})
	}
}

package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/raftlock/raftlock"
)

const (
	// tick makes an election take a quarter of a second.
	tick = 15 * time.Millisecond
	// patience is how long a test waits for what must come about.
	patience = 40 * time.Second
	// longTTL outlasts every test.
	longTTL = time.Hour
)

// fleet is a cluster of processes. Its methods must be called from the test's
// own goroutine, but for call.
type fleet struct {
	tb    testing.TB
	dir   string
	addrs map[string]string
	ports map[string]string // where members serve others; nil: nowhere
	log   logBook
	// snapshots are those of all members; zero is the default.
	snapshots raftlock.Snapshots

	mu   sync.Mutex
	runs map[string]*process // the newest of each member
}

func newFleet(tb testing.TB, names ...string) *fleet {
	tb.Helper()
	f := &fleet{tb: tb, dir: tb.TempDir(), addrs: map[string]string{}, runs: map[string]*process{}}
	f.choose(names, f.addrs)
	tb.Cleanup(func() {
		for _, p := range f.runs {
			p.end()
		}
		if tb.Failed() {
			tb.Logf("log of the members:\n%s", &f.log)
		}
	})
	return f
}

// choose finds a free port for each of the names.
func (f *fleet) choose(names []string, addrs map[string]string) {
	f.tb.Helper()
	for _, name := range names {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			f.tb.Fatal(err)
		}
		defer l.Close() // not before all are chosen
		addrs[name] = l.Addr().String()
	}
}

func (f *fleet) names() (list []string) {
	for i := range len(f.addrs) {
		list = append(list, fmt.Sprintf("n%d", i+1))
	}
	return list
}

func (f *fleet) config(name string) childConfig {
	return childConfig{
		Name: name, DataDir: filepath.Join(f.dir, name), Cluster: f.addrs, Tick: tick,
		ListenClient: f.ports[name], Snapshots: f.snapshots,
	}
}

// start runs a member; under are what to run it under.
func (f *fleet) start(name string, under ...string) *process {
	f.tb.Helper()
	return f.run(f.config(name), under...)
}

func (f *fleet) run(cfg childConfig, under ...string) *process {
	f.tb.Helper()
	p := newProcess(f.tb, cfg, &f.log, under)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.runs[cfg.Name] = p
	return p
}

// startAll runs all members and waits until they serve.
func (f *fleet) startAll() {
	f.tb.Helper()
	for _, name := range f.names() {
		f.start(name)
	}
	for _, name := range f.names() {
		f.at(name).await(eventReady)
	}
}

// at is the newest process of a member.
func (f *fleet) at(name string) *process {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.runs[name]
}

// leader waits until the members that run agree on a leader that runs, and
// returns its name.
func (f *fleet) leader() (leader string) {
	f.tb.Helper()
	f.eventually("a leader", func() bool {
		votes := map[string]int{}
		for _, name := range f.names() {
			if a, alive := f.at(name).call(request{Op: "status"}); alive && a.Error == "" {
				votes[a.Leader]++
			}
		}
		for name, n := range votes {
			if name != "" && n > len(f.addrs)/2 && f.at(name).alive() {
				leader = name
				return true
			}
		}
		return false
	})
	return leader
}

// other is a member that runs and is not the one named.
func (f *fleet) other(than string) *process {
	f.tb.Helper()
	for _, name := range f.names() {
		if p := f.at(name); name != than && p.alive() {
			return p
		}
	}
	f.tb.Fatalf("nobody runs but %s", than)
	return nil
}

// sameTables waits until the members have the same log, and compares what they
// made of it.
func (f *fleet) sameTables() {
	f.tb.Helper()
	f.eventually("all members have applied the same log", func() bool {
		var at [3]answer
		for i, name := range f.names() {
			at[i] = f.at(name).must(request{Op: "hash"})
		}
		if at[0].Index != at[1].Index || at[1].Index != at[2].Index {
			return false
		}
		if at[0].Hash != at[1].Hash || at[1].Hash != at[2].Hash {
			f.tb.Errorf("the members' tables differ after entry %d: %x, %x, %x", at[0].Index, at[0].Hash, at[1].Hash, at[2].Hash)
		}
		return true
	})
}

func (f *fleet) eventually(what string, holds func() bool) {
	f.tb.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !holds() {
		select {
		case <-ticker.C:
		case <-limit.C:
			f.tb.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// process is a child, seen from the test.
type process struct {
	tb    testing.TB
	name  string
	cmd   *exec.Cmd
	stdin io.WriteCloser
	gone  chan struct{} // closed when the process has ended and all it said is read

	mu      sync.Mutex
	last    int
	pending map[int]chan answer
	events  map[string]answer
	changed chan struct{} // closed at the next event
}

func newProcess(tb testing.TB, cfg childConfig, log io.Writer, under []string) *process {
	tb.Helper()
	text, err := json.Marshal(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	args := append(append([]string(nil), under...), self)
	p := &process{
		tb: tb, name: cfg.Name, cmd: exec.Command(args[0], args[1:]...), gone: make(chan struct{}),
		pending: map[int]chan answer{}, events: map[string]answer{}, changed: make(chan struct{}),
	}
	p.cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	p.cmd.Stderr, p.cmd.SysProcAttr = log, dieWithParent()
	// A tracer dies before what it traces, which keeps its end of the pipes.
	p.cmd.WaitDelay = patience
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		tb.Fatal(err)
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	go p.read(stdout)
	return p
}

func (p *process) read(stdout io.Reader) {
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		var a answer
		if json.Unmarshal(lines.Bytes(), &a) != nil {
			continue // half a line: it was killed
		}
		p.mu.Lock()
		if a.Event != "" {
			p.events[a.Event] = a
			close(p.changed)
			p.changed = make(chan struct{})
		} else if to := p.pending[a.ID]; to != nil {
			delete(p.pending, a.ID)
			to <- a
		}
		p.mu.Unlock()
	}
	_ = p.cmd.Wait() // how it ended, the test knows
	close(p.gone)
}

// call makes a call and waits for its answer; false when the process ended
// without one.
func (p *process) call(req request) (answer, bool) {
	to := make(chan answer, 1)
	p.mu.Lock()
	p.last++
	req.ID = p.last
	p.pending[req.ID] = to
	line, err := json.Marshal(req)
	if err == nil {
		_, err = p.stdin.Write(append(line, '\n'))
	}
	p.mu.Unlock()
	if err != nil {
		return answer{}, false
	}
	select {
	case a := <-to:
		return a, true
	case <-p.gone:
	}
	select {
	case a := <-to: // the last that it said
		return a, true
	default:
		return answer{}, false
	}
}

// must makes a call that has to succeed.
func (p *process) must(req request) answer {
	p.tb.Helper()
	a, alive := p.call(req)
	if !alive || a.Error != "" {
		p.tb.Fatalf("%s: %+v: answer %+v, alive %t", p.name, req, a, alive)
	}
	return a
}

// await waits for an event.
func (p *process) await(event string) answer {
	p.tb.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		a, ok, changed := p.event(event)
		if ok {
			return a
		}
		select {
		case <-changed:
		case <-p.gone:
			if a, ok, _ := p.event(event); ok {
				return a
			}
			p.tb.Fatalf("%s ended before it was %s", p.name, event)
		case <-limit.C:
			p.tb.Fatalf("%s is not %s within %v", p.name, event, patience)
		}
	}
}

func (p *process) event(event string) (a answer, ok bool, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a, ok = p.events[event]
	return a, ok, p.changed
}

func (p *process) has(event string) bool {
	_, ok, _ := p.event(event)
	return ok
}

func (p *process) alive() bool {
	select {
	case <-p.gone:
		return false
	default:
		return true
	}
}

// kill ends the process as a crash does: it gets no chance to say or write
// anything. A process that has ended stays so.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.gone
}

// end closes the process' input, at which it exits, as it does when the test
// dies.
func (p *process) end() {
	_ = p.stdin.Close()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case <-p.gone:
	case <-limit.C:
		p.tb.Errorf("%s lives on without its parent", p.name)
		p.kill()
	}
}

// logBook keeps what the children log.
type logBook struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBook) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// String is the log without what the write-ahead log reports of its files.
func (b *logBook) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var kept strings.Builder
	for line := range strings.Lines(b.buf.String()) {
		if !strings.Contains(line, "level=INFO") || strings.Contains(line, "leader") {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

// forget drops what was logged so far, and says in how many lines the text was.
func (b *logBook) forget(text string) (lines int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	lines = bytes.Count(b.buf.Bytes(), []byte(text))
	b.buf.Reset()
	return lines
}

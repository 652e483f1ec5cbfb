package e2e

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/embed"
	"github.com/raftlock/raftlock/history"
	"github.com/raftlock/raftlock/internal/supervise"
)

// recovery is how long a cluster may take until it serves again when its faults
// are over. It is a bound, not an aim: the machine may be busy.
const recovery = 30 * time.Second

// Members that `raftlock serve` runs and programs that use them, each a process
// of its own, while every fault that a process, a disk and a network have happens
// to them. What all programs saw goes through `raftlock check`, the cluster serves
// again after each round of faults, and in the end the members' tables are equal.
func TestTorture(t *testing.T) {
	if testing.Short() {
		t.Skip("short")
	}
	sizes, long, kinds := []int{3}, 4*time.Second, map[string]int{}
	if *tortureFlag > 0 {
		sizes, long = []int{3, 5}, *tortureFlag/3 // the rest is TestKillAll's
	}
	bin, traced := buildCommand(t), findTracer(t)
	for _, size := range sizes {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			a := newArena(t, bin, traced, size)
			a.run(long)
			for kind, n := range a.struck {
				kinds[kind] += n
			}
		})
	}
	if *tortureFlag < time.Minute || t.Failed() {
		return
	}
	for _, f := range faults() {
		if kinds[f.name] == 0 && (traced != "" || !f.traces) {
			t.Errorf("%v were too short for %q, which never happened", *tortureFlag, f.name)
		}
	}
}

// arena is a cluster of processes, the programs that use it, and who torments
// them. Its methods must be called from the test's own goroutine.
type arena struct {
	t      *testing.T
	d      *rand.Rand
	bin    string
	tracer string // strace, if it works here
	base   supervise.Instant
	dir    string

	servers   []*server
	listen    map[string]string            // by member: where it listens for others
	peers     map[string]map[string]*relay // from, to
	clients   map[string]*relay            // to
	customers []*guest
	born      int // customers so far
	probe     *journal

	struck  map[string]int
	rounds  int
	deck    []fault         // what is still to be drawn
	claimed map[string]bool // members and faults of this round
}

func newArena(t *testing.T, bin, tracer string, size int) *arena {
	a := &arena{
		t: t, d: dice(t), bin: bin, tracer: tracer, base: supervise.Now(), dir: t.TempDir(),
		listen: map[string]string{}, peers: map[string]map[string]*relay{}, clients: map[string]*relay{}, struck: map[string]int{},
	}
	a.connect(size)
	t.Cleanup(a.keep) // when those who write have ended: they are killed by what comes below
	t.Cleanup(func() {
		for _, s := range a.servers {
			s.kill()
		}
	})
	for _, s := range a.servers {
		if err := s.start(); err != nil {
			t.Fatal(err)
		}
	}
	a.awaitAll()
	for range 3 {
		a.addCustomer(a.d.IntN(4))
	}
	locks, err := client.Dial(client.Config{Endpoints: a.endpoints(), RequestTimeout: 3 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if a.probe, err = newJournal(locks, "probe", filepath.Join(a.dir, "probe.journal"), a.base); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = locks.Close() })
	return a
}

// connect chooses ports, and puts a relay on every way.
func (a *arena) connect(size int) {
	serving := map[string]string{}
	var names []string
	for i := range size {
		names = append(names, fmt.Sprintf("n%d", i+1))
	}
	for _, name := range names {
		for _, ports := range []map[string]string{a.listen, serving} {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				a.t.Fatal(err)
			}
			defer l.Close() // not before all are chosen
			ports[name] = l.Addr().String()
		}
	}
	for _, name := range names {
		a.clients[name], a.peers[name] = newRelay(a.t, serving[name]), map[string]*relay{}
		var cluster []string
		for _, other := range names {
			addr := a.listen[other]
			if other != name {
				a.peers[name][other] = newRelay(a.t, addr)
				addr = a.peers[name][other].addr()
			}
			cluster = append(cluster, other+"="+addr)
		}
		s := &server{tb: a.t, name: name, bin: a.bin, dir: filepath.Join(a.dir, name)}
		s.args = []string{
			"serve", "--name", name, "--data-dir", s.dir, "--initial-cluster", strings.Join(cluster, ","),
			"--listen-peer", a.listen[name], "--listen-client", serving[name], "--advertise-client", a.clients[name].addr(),
			"--tick-interval", "20ms", "--allow-member-changes",
		}
		a.servers = append(a.servers, s)
	}
}

// endpoints are where programs reach the members.
func (a *arena) endpoints() (list []string) {
	for _, s := range a.servers {
		list = append(list, a.clients[s.name].addr())
	}
	return list
}

func (a *arena) awaitAll() {
	a.t.Helper()
	until := time.Now().Add(recovery)
	for _, s := range a.servers {
		if !s.awaitReady(until) {
			a.t.Fatalf("%s does not serve within %v", s.name, recovery)
		}
	}
}

// run lets faults happen for a while, and judges.
func (a *arena) run(long time.Duration) {
	for end := time.Now().Add(long); time.Now().Before(end) && !a.t.Failed(); a.rounds++ {
		a.round()
	}
	a.awaitAll()
	a.settle()
	for _, g := range a.customers {
		g.end()
	}
	if err := a.probe.finish(); err != nil {
		a.t.Error(err)
	}
	a.awaitEqual()
	for _, s := range a.servers {
		if err := s.close(); err != nil {
			a.t.Errorf("%s ends at SIGTERM with %v", s.name, err)
		}
		if alarms := s.log.alarms(); alarms != "" {
			a.t.Errorf("log of %s:\n%s", s.name, alarms)
		}
	}
	a.compare()
	a.judge()
}

// round has one fault happen, or some at once, ends them, and waits until the
// cluster has granted a lock again.
func (a *arena) round() {
	a.claimed = map[string]bool{}
	most := len(a.servers) // how many members may suffer
	var undo, last []func()
	for n := 1 + a.d.IntN(3); len(undo)+len(last) < n; {
		f := a.draw(most)
		if f.disk {
			most = (len(a.servers) - 1) / 2
		}
		if end := f.strike(a); f.last {
			last = append(last, end)
		} else {
			undo = append(undo, end)
		}
		a.struck[f.name]++
		pass(400*time.Millisecond, a.d)
	}
	pass(1500*time.Millisecond, a.d)
	a.d.Shuffle(len(undo), func(i, j int) { undo[i], undo[j] = undo[j], undo[i] })
	for _, end := range append(undo, last...) {
		end()
	}
	a.settle()
}

// draw takes a kind of fault that goes together with those that happen already.
// All kinds come before one comes again.
func (a *arena) draw(most int) fault {
	for {
		for i, f := range a.deck {
			if a.fits(f, most) {
				a.deck, a.claimed[f.name] = slices.Delete(a.deck, i, i+1), true
				return f
			}
		}
		fresh := slices.DeleteFunc(faults(), func(f fault) bool { return f.traces && a.tracer == "" })
		a.d.Shuffle(len(fresh), func(i, j int) { fresh[i], fresh[j] = fresh[j], fresh[i] })
		a.deck = append(a.deck, fresh...)
	}
}

// fits reports whether a fault may happen now. Looks need no disk: when the disks
// of a majority are slow, looks are answered and nothing else, and what is late
// then would count as late while the cluster serves. So a sick disk is alone, or
// among a minority that suffers.
func (a *arena) fits(f fault, most int) bool {
	suffer := 0
	for _, s := range a.servers {
		if a.claimed[s.name] {
			suffer++
		}
	}
	switch {
	case f.members == 0:
		return true
	case f.last && a.claimed[f.name]: // two lost disks of three are too many
		return false
	case f.disk:
		most = min(most, (len(a.servers)-1)/2)
	}
	return suffer+f.members <= most
}

// victim is a member to which nothing else happens in this round.
func (a *arena) victim() *server {
	for {
		if s := a.servers[a.d.IntN(len(a.servers))]; !a.claimed[s.name] {
			a.claimed[s.name] = true
			return s
		}
	}
}

// settle waits until a lock is granted and given back.
func (a *arena) settle() {
	a.t.Helper()
	lock, n := fmt.Sprint("probe-", a.rounds), 0
	a.eventually("a lock is granted after the faults", func() error {
		n++
		ctx, cancel := context.WithTimeout(context.Background(), recovery)
		defer cancel()
		req := &client.AcquireRequest{LockID: lock, ClientID: "probe", RequestID: fmt.Sprint(n), Wait: true, TTL: time.Second}
		res, err := a.probe.Acquire(ctx, req)
		if err == nil {
			_, err = a.probe.Release(ctx, &client.ReleaseRequest{LockID: lock, ClientID: "probe", Version: res.Lock.Version})
		}
		return err
	})
}

// eventually makes an attempt again and again, until it succeeds. It draws
// nothing: how often it tries is chance.
func (a *arena) eventually(what string, attempt func() error) {
	a.t.Helper()
	for until := time.Now().Add(recovery); ; <-time.After(50 * time.Millisecond) {
		err := attempt()
		if err == nil {
			return
		}
		if time.Now().After(until) {
			a.t.Fatalf("round %d: not within %v: %s: %v\n%s", a.rounds, recovery, what, err, a.status())
		}
	}
}

// raftlock runs the command.
func (a *arena) raftlock(args ...string) (stdout []byte, err error) {
	cmd := exec.Command(a.bin, args...)
	cmd.Env = append(os.Environ(), "RAFTLOCK_ENDPOINTS="+strings.Join(a.endpoints(), ","))
	var errOut bytes.Buffer
	cmd.Stderr, cmd.SysProcAttr = &errOut, dieWithParent()
	stdout, err = cmd.Output()
	if err != nil {
		err = fmt.Errorf("raftlock %s: %w: %s", args[0], err, errOut.Bytes())
	}
	return stdout, err
}

func (a *arena) status() string {
	out, err := a.raftlock("status", "--timeout", "2s")
	return fmt.Sprintf("%s%v", out, err)
}

// awaitEqual waits until all members serve and have come equally far.
func (a *arena) awaitEqual() {
	a.t.Helper()
	type view struct {
		Serving bool   `json:"serving"`
		Applied uint64 `json:"applied_index"`
		Locks   int    `json:"locks"`
		Waiters int    `json:"waiters"`
		Leader  string `json:"leader"`
	}
	a.eventually("all members serve and have come equally far", func() error {
		var views []view
		out, err := a.raftlock("status", "--json", "--timeout", "5s")
		if err == nil {
			err = json.Unmarshal(out, &views)
		}
		if err == nil && (len(views) != len(a.servers) || len(slices.Compact(views)) != 1 || !views[0].Serving) {
			err = errors.New("they have not")
		}
		return err
	})
}

// compare opens what the members have left on their disks, and compares what they
// make of it.
func (a *arena) compare() {
	a.t.Helper()
	if a.t.Failed() {
		return
	}
	var members []*embed.Member
	defer func() {
		var all sync.WaitGroup
		for _, m := range members {
			all.Go(func() {
				if err := m.Close(); err != nil {
					a.t.Error(err)
				}
			})
		}
		all.Wait()
	}()
	for _, s := range a.servers {
		m, err := embed.Open(embed.Config{Name: s.name, DataDir: s.dir, InitialCluster: a.listen})
		if err != nil {
			a.t.Fatal(err)
		}
		members = append(members, m)
	}
	a.eventually("all members have applied the same entry", func() error {
		indices, hashes := map[uint64]bool{}, map[uint64]bool{}
		for _, m := range members {
			ctx, cancel := context.WithTimeout(context.Background(), recovery)
			index, hash, err := m.Node().StateHash(ctx)
			cancel()
			if err != nil {
				return err
			}
			indices[index], hashes[hash] = true, true
		}
		if len(indices) > 1 {
			return fmt.Errorf("they have applied %d", slices.Collect(maps.Keys(indices)))
		}
		if len(hashes) > 1 {
			a.t.Errorf("the members' tables differ after the same entry: %x", slices.Collect(maps.Keys(hashes)))
		}
		return nil
	})
}

// judge has the real command check what all programs saw.
func (a *arena) judge() {
	a.t.Helper()
	name := filepath.Join(a.dir, "history.jsonl")
	h, err := a.join(name)
	if err != nil {
		a.t.Fatal(err)
	}
	a.report(h)
	begun := time.Now()
	out, err := a.raftlock("check", "--timeout", "2m", name)
	if err != nil {
		a.t.Errorf("%v\n%s", err, out)
	}
	a.t.Logf("after %v: %s", time.Since(begun).Round(time.Millisecond), out)
}

// join writes what all programs have noted to one file.
func (a *arena) join(name string) (*history.History, error) {
	h := &history.History{}
	files, err := filepath.Glob(filepath.Join(a.dir, "*.journal"))
	for _, file := range files {
		err = errors.Join(err, readJournal(file, h))
	}
	slices.SortStableFunc(h.Ops, func(x, y history.Op) int { return cmp.Compare(x.From, y.From) })
	f, createErr := os.Create(name)
	if createErr != nil {
		return h, errors.Join(err, createErr)
	}
	_, writeErr := h.WriteTo(f)
	return h, errors.Join(err, writeErr, f.Close())
}

// keep writes the history where a test that failed is told, at whatever it failed.
func (a *arena) keep() {
	if !a.t.Failed() {
		return
	}
	name := filepath.Join(a.t.ArtifactDir(), "history.jsonl")
	_, err := a.join(name)
	a.t.Logf("its history: %s (%v)", name, err)
}

// report counts, and holds that something has happened.
func (a *arena) report(h *history.History) {
	outcomes, grants := map[history.Outcome]int{}, 0
	for i := range h.Ops {
		o := &h.Ops[i]
		if o.Call != history.Look {
			outcomes[o.Outcome]++
		}
		if o.Call == history.Acquire && o.Outcome == history.OK {
			grants++
		}
	}
	sick := 0
	for _, s := range a.servers {
		sick += s.sick
	}
	var struck []string
	for _, kind := range slices.Sorted(maps.Keys(a.struck)) {
		struck = append(struck, fmt.Sprintf("%d × %s", a.struck[kind], kind))
	}
	without := ""
	if a.tracer == "" {
		without = "; without strace, so that no disk was slow, hung or gave errors"
	}
	a.t.Logf("%d members, %d customers in %d processes, %d rounds: %s; %d members ended by their disks%s", len(a.servers),
		len(a.customers), a.born, a.rounds, strings.Join(struck, ", "), sick, without)
	a.t.Logf("%d operations, of which %d are looks and %d grants: %v", len(h.Ops), len(h.Ops)-sum(outcomes), grants, outcomes)
	if grants < 10*a.rounds {
		a.t.Errorf("%d grants in %d rounds: that was no torture", grants, a.rounds)
	}
}

func sum(counts map[history.Outcome]int) (total int) {
	for _, n := range counts {
		total += n
	}
	return total
}

// guest is the process of a customer.
type guest struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.WriteCloser
	log   scanned
	gone  chan struct{} // closed when it has ended
	err   error         // how, then
}

// addCustomer starts a customer that repeats failed calls that often by itself.
func (a *arena) addCustomer(retries int) {
	a.t.Helper()
	self, err := os.Executable()
	if err != nil {
		a.t.Fatal(err)
	}
	a.born++
	name := fmt.Sprint("c", a.born)
	cfg, err := json.Marshal(customerConfig{
		Name: name, Endpoints: a.endpoints(), Journal: filepath.Join(a.dir, name+".journal"), Base: a.base, Seed: a.d.Uint64(), Retries: retries,
	})
	if err != nil {
		a.t.Fatal(err)
	}
	g := &guest{t: a.t, cmd: exec.Command(self), gone: make(chan struct{})}
	g.cmd.Env = append(os.Environ(), customerEnv+"="+string(cfg))
	g.cmd.Stderr, g.cmd.SysProcAttr = &g.log, dieWithParent()
	if g.stdin, err = g.cmd.StdinPipe(); err == nil {
		err = g.cmd.Start()
	}
	if err != nil {
		a.t.Fatal(err)
	}
	go func() {
		g.err = g.cmd.Wait()
		close(g.gone)
	}()
	a.t.Cleanup(g.kill)
	a.customers = append(a.customers, g)
}

func (g *guest) kill() {
	_ = g.cmd.Process.Kill() // it may have ended
	<-g.gone
}

func (g *guest) signal(sig syscall.Signal) { _ = g.cmd.Process.Signal(sig) } // it may have ended

// end lets a customer end its turns.
func (g *guest) end() {
	_ = g.stdin.Close()
	if !await(g.gone, patience) {
		g.t.Error("a customer does not end")
		g.kill()
	} else if alarms := g.log.alarms(); g.err != nil || alarms != "" {
		g.t.Errorf("a customer ended with %v\n%s", g.err, alarms)
	}
}

package main

import (
	"bytes"
	"context"
	"errors"
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

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/embed"
)

// patience is how long a test waits for what must come about.
const patience = 60 * time.Second

// fleet is a cluster in this process, which commands reach over TCP.
type fleet struct {
	t       *testing.T
	members []*embed.Member
	way     *proxies // stand before the members, which tell clients to use them; nil if there are none
}

func newFleet(t *testing.T, size int, way *proxies) *fleet {
	t.Helper()
	f := &fleet{t: t, way: way}
	peers := map[string]string{}
	var listeners []net.Listener
	for i := range size {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listeners = append(listeners, l)
		peers[fmt.Sprintf("n%d", i+1)] = l.Addr().String()
	}
	dir := t.TempDir()
	for i, l := range listeners {
		name := fmt.Sprintf("n%d", i+1)
		cfg := embed.Config{
			Name: name, DataDir: filepath.Join(dir, name), InitialCluster: peers,
			PeerListener: l, ListenClient: "127.0.0.1:0",
		}
		if way != nil {
			cfg.AdvertiseClient = way.listeners[i].Addr().String()
		}
		m, err := embed.Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if way != nil {
			way.open(i, m.ClientAddr())
		}
		f.members = append(f.members, m)
		t.Cleanup(func() {
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	for _, m := range f.members {
		select {
		case <-m.Ready():
		case <-time.After(patience):
			t.Fatal("the cluster does not come up")
		}
	}
	return f
}

func (f *fleet) endpoints() string {
	var list []string
	for _, m := range f.members {
		list = append(list, m.ClientAddr())
	}
	return strings.Join(list, ",")
}

// client is one in process, for the test itself.
func (f *fleet) client() client.Client { return f.members[0].Client() }

// raftlock makes a process of the program, which is ended with the test.
func (f *fleet) raftlock(args ...string) *program {
	f.t.Helper()
	return newProgram(f.t, f.endpoints(), args)
}

// program is a process of raftlock.
type program struct {
	*exec.Cmd
	t        *testing.T
	out, err bytes.Buffer
	gone     chan struct{} // closed when it has ended
	failure  error         // of waiting for it, then
}

func newProgram(t *testing.T, endpoints string, args []string) *program {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &program{Cmd: exec.Command(self, args...), t: t}
	p.Stdout, p.Stderr = &p.out, &p.err
	p.Env = append(os.Environ(), asEnv+"=raftlock", "RAFTLOCK_ENDPOINTS="+endpoints)
	p.WaitDelay = patience
	return p
}

func (p *program) start() *program {
	p.t.Helper()
	if err := p.Cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.gone = make(chan struct{})
	go func() {
		defer close(p.gone)
		p.failure = p.Cmd.Wait()
	}()
	p.t.Cleanup(func() {
		_ = p.Process.Kill() // it may have ended
		<-p.gone
	})
	return p
}

func (p *program) ended() bool {
	select {
	case <-p.gone:
		return true
	default:
		return false
	}
}

// end waits for the exit code; −1 is a signal's.
func (p *program) end() int {
	p.t.Helper()
	select {
	case <-p.gone:
	case <-time.After(patience):
		_ = p.Process.Kill()
		<-p.gone
		p.t.Fatalf("%v does not end: %s", p.Args, p.err.String())
	}
	if _, ok := errors.AsType[*exec.ExitError](p.failure); p.failure != nil && !ok {
		p.t.Fatalf("%v: %v", p.Args, p.failure)
	}
	return p.ProcessState.ExitCode()
}

// run is start and end.
func (p *program) run() int {
	p.t.Helper()
	return p.start().end()
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := await(ctx, holds); err != nil {
		t.Fatalf("not within %v: %s", patience, what)
	}
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

func touch(t *testing.T, file string) {
	t.Helper()
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// proxies stand before all members, until they are cut.
type proxies struct {
	listeners []net.Listener
	running   sync.WaitGroup

	mu      sync.Mutex
	closers []io.Closer
	isCut   bool
}

func newProxies(t *testing.T, size int) *proxies {
	t.Helper()
	p := &proxies{}
	for range size {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		p.listeners = append(p.listeners, l)
		p.closers = append(p.closers, l)
	}
	t.Cleanup(p.cut)
	return p
}

// open has the i-th proxy lead to an address.
func (p *proxies) open(i int, to string) {
	p.running.Go(func() { p.serve(p.listeners[i], to) })
}

func (p *proxies) serve(l net.Listener, to string) {
	for {
		near, err := l.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", to)
		if err != nil {
			_ = near.Close()
			continue
		}
		if !p.keep(near, far) {
			return
		}
		for _, pair := range [][2]net.Conn{{near, far}, {far, near}} {
			p.running.Go(func() {
				_, _ = io.Copy(pair[0], pair[1]) // until it is cut, or one side ends
				_ = pair[0].Close()
			})
		}
	}
}

// keep notes what must be closed; after a cut it closes at once.
func (p *proxies) keep(conns ...io.Closer) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.isCut {
		for _, c := range conns {
			_ = c.Close()
		}
		return false
	}
	p.closers = append(p.closers, conns...)
	return true
}

// cut breaks all connections and refuses new ones, as if all members had died.
func (p *proxies) cut() {
	p.mu.Lock()
	p.isCut = true
	for _, c := range p.closers {
		_ = c.Close() // some have ended by themselves
	}
	p.closers = nil
	p.mu.Unlock()
	p.running.Wait()
}

func (p *proxies) endpoints() string {
	var list []string
	for _, l := range p.listeners {
		list = append(list, l.Addr().String())
	}
	return strings.Join(list, ",")
}

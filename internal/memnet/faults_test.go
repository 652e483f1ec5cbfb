package memnet_test

import (
	"context"
	"errors"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/internal/memnet"
)

// place is a network of three members, a, b and c, that publish what they
// accept and keep it until it ends.
type place struct {
	*memnet.Network
	members  map[string]*memnet.Transport
	accepted map[string]chan raftlock.PeerStream
	stop     map[string]chan struct{} // closed by crash: lets accept return
}

// inBubble runs a test on a place, in virtual time.
func inBubble(t *testing.T, test func(t *testing.T, p *place)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := &place{memnet.New(), map[string]*memnet.Transport{}, map[string]chan raftlock.PeerStream{}, map[string]chan struct{}{}}
		for _, name := range []string{"a", "b", "c"} {
			p.start(t, name)
		}
		test(t, p)
		for name := range p.members {
			p.crash(t, name)
		}
	})
}

// crash ends a member, which may be closed already.
func (p *place) crash(t *testing.T, name string) {
	t.Helper()
	close(p.stop[name])
	if err := p.members[name].Close(); err != nil {
		t.Error(err)
	}
}

// start starts a member, again if it was closed.
func (p *place) start(t *testing.T, name string) {
	t.Helper()
	streams, stop := make(chan raftlock.PeerStream, 16), make(chan struct{})
	p.members[name], p.accepted[name], p.stop[name] = p.Transport(name), streams, stop
	err := p.members[name].Serve(func(s raftlock.PeerStream) {
		streams <- s
		<-stop
	})
	if err != nil {
		t.Fatal(err)
	}
}

// connect returns both ends of a fresh stream.
func (p *place) connect(t *testing.T, from, to string) (dialled, accepted raftlock.PeerStream) {
	t.Helper()
	dialled, err := p.members[from].Dial(t.Context(), to)
	if err != nil {
		t.Fatal(err)
	}
	return dialled, <-p.accepted[to]
}

// dials reports whether a fresh stream can be opened within a second.
func (p *place) dials(t *testing.T, from, to string) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	s, err := p.members[from].Dial(ctx, to)
	switch {
	case err == nil:
		_ = s.Close()
		<-p.accepted[to]
		return true
	case !errors.Is(err, context.DeadlineExceeded):
		t.Fatalf("dial %s from %s: %v, want the context's end", to, from, err)
	}
	return false
}

// send sends frames that must all be taken.
func send(t *testing.T, s raftlock.PeerStream, frames ...string) {
	t.Helper()
	for _, frame := range frames {
		if err := s.Send([]byte(frame)); err != nil {
			t.Fatalf("send %q: %v", frame, err)
		}
	}
}

// receive receives frames that must all be there.
func receive(t *testing.T, s raftlock.PeerStream, frames ...string) {
	t.Helper()
	for _, want := range frames {
		if frame, err := s.Recv(); err != nil || string(frame) != want {
			t.Fatalf("received %q, %v, want %q", frame, err, want)
		}
	}
}

// ends waits for Recv's error and returns how long that took.
func ends(t *testing.T, s raftlock.PeerStream) (time.Duration, error) {
	t.Helper()
	since := time.Now()
	frame, err := s.Recv()
	if err == nil {
		t.Fatalf("received %q, want the stream's end", frame)
	}
	if err := s.Send([]byte("x")); err == nil {
		t.Error("Send succeeds after the end")
	}
	return time.Since(since), err
}

func TestCutStallsThenBreaks(t *testing.T) {
	inBubble(t, func(t *testing.T, p *place) {
		a, b := p.connect(t, "a", "b")
		send(t, a, "before")
		p.Cut("a", "b")
		send(t, a, "lost", "lost too")
		receive(t, b, "before")
		send(t, b, "the other way")
		receive(t, a, "the other way")

		took, err := ends(t, b)
		if took != memnet.DefaultStallTimeout || !errors.Is(err, syscall.ETIMEDOUT) {
			t.Errorf("b learns after %v: %v", took, err)
		}
		if took, err := ends(t, a); took != 0 || !errors.Is(err, syscall.ETIMEDOUT) {
			t.Errorf("a learns %v later: %v", took, err)
		}
	})
}

func TestMendBreaks(t *testing.T) {
	inBubble(t, func(t *testing.T, p *place) {
		a, b := p.connect(t, "a", "b")
		p.Cut("b", "a")
		send(t, b, "lost")
		time.AfterFunc(time.Second, func() { p.Mend("b", "a") })
		if took, err := ends(t, a); took != time.Second {
			t.Errorf("a learns after %v: %v", took, err)
		}
		if took, err := ends(t, b); took != 0 {
			t.Errorf("b learns %v later: %v", took, err)
		}
		if !p.dials(t, "a", "b") {
			t.Error("the mended link does not carry")
		}
	})
}

func TestStallTimeoutIsSettable(t *testing.T) {
	inBubble(t, func(t *testing.T, p *place) {
		p.StallTimeout = time.Minute
		a, _ := p.connect(t, "a", "b")
		p.Isolate("b")
		if took, _ := ends(t, a); took != time.Minute {
			t.Errorf("a learns after %v", took)
		}
	})
}

// Cutting more links does not prolong a stall.
func TestSecondCutKeepsTheClock(t *testing.T) {
	inBubble(t, func(t *testing.T, p *place) {
		a, _ := p.connect(t, "a", "b")
		p.Cut("a", "b")
		time.AfterFunc(2*time.Second, func() { p.Isolate("a") })
		if took, _ := ends(t, a); took != memnet.DefaultStallTimeout {
			t.Errorf("a learns after %v", took)
		}
	})
}

func TestDialHangsUntilMended(t *testing.T) {
	inBubble(t, func(t *testing.T, p *place) {
		for _, cut := range [][2]string{{"a", "b"}, {"b", "a"}} {
			p.Cut(cut[0], cut[1])
			if p.dials(t, "a", "b") {
				t.Errorf("dialled over the cut from %s to %s", cut[0], cut[1])
			}
			time.AfterFunc(time.Hour, func() { p.Mend(cut[0], cut[1]) })
			since := time.Now()
			_, _ = p.connect(t, "a", "b")
			if took := time.Since(since); took != time.Hour {
				t.Errorf("dialled after %v", took)
			}
		}
	})
}

func TestDialHangsUntilClosed(t *testing.T) {
	inBubble(t, func(t *testing.T, p *place) {
		p.Isolate("a")
		time.AfterFunc(time.Hour, func() { _ = p.members["a"].Close() })
		if s, err := p.members["a"].Dial(context.Background(), "b"); err == nil {
			t.Errorf("dialled %v", s)
		}
	})
}

// Behind a cut nobody can tell whether someone listens.
func TestDialAbsent(t *testing.T) {
	inBubble(t, func(t *testing.T, p *place) {
		if _, err := p.members["a"].Dial(t.Context(), "nobody"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%v, want ECONNREFUSED", err)
		}
		p.Isolate("nobody")
		if p.dials(t, "a", "nobody") {
			t.Error("dialled nobody")
		}
	})
}

// reach returns which ordered pairs can connect, as "ab ac …".
func (p *place) reach(t *testing.T) string {
	t.Helper()
	var pairs string
	for _, from := range []string{"a", "b", "c"} {
		for _, to := range []string{"a", "b", "c"} {
			if from != to && p.dials(t, from, to) {
				pairs += from + to + " "
			}
		}
	}
	return pairs
}

func TestTopology(t *testing.T) {
	const everyone = "ab ac ba bc ca cb "
	for _, c := range []struct {
		name  string
		steps func(p *place)
		want  string
	}{
		{"whole", func(*place) {}, everyone},
		{"cut one way", func(p *place) { p.Cut("a", "b") }, "ac bc ca cb "},
		{"mended", func(p *place) { p.Cut("a", "b"); p.Mend("a", "b") }, everyone},
		{"mended the wrong way", func(p *place) { p.Cut("a", "b"); p.Mend("b", "a") }, "ac bc ca cb "},
		{"isolated", func(p *place) { p.Isolate("a") }, "bc cb "},
		{"rejoined", func(p *place) { p.Isolate("a"); p.Rejoin("a") }, everyone},
		{"isolated and mended", func(p *place) { p.Isolate("a"); p.Mend("a", "b") }, "bc cb "},
		{"two groups", func(p *place) { p.Partition([]string{"a"}, []string{"b", "c"}) }, "bc cb "},
		{"in no group", func(p *place) { p.Partition([]string{"a"}, []string{"b"}) }, "ac bc ca cb "},
		{"a bridge", func(p *place) { p.Partition([]string{"a", "b"}, []string{"b", "c"}) }, "ab ba bc cb "},
		{"repartitioned", func(p *place) {
			p.Partition([]string{"a"}, []string{"b", "c"})
			p.Partition([]string{"c"}, []string{"a", "b"})
		}, "ab ba "},
		{"partition ended", func(p *place) { p.Partition([]string{"a"}, []string{"b", "c"}); p.Partition() }, everyone},
		{"healed", func(p *place) {
			p.Cut("a", "b")
			p.Isolate("c")
			p.Partition([]string{"a"}, []string{"b", "c"})
			p.Heal()
		}, everyone},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, p *place) {
				c.steps(p)
				if got := p.reach(t); got != c.want {
					t.Errorf("can connect: %q, want %q", got, c.want)
				}
			})
		})
	}
}

// No partition separates a machine from itself.
func TestIsolatedReachesItself(t *testing.T) {
	inBubble(t, func(t *testing.T, p *place) {
		p.Isolate("a")
		p.Partition([]string{"a"}, []string{"b"})
		if !p.dials(t, "a", "a") {
			t.Error("a does not reach itself")
		}
	})
}

// Links that a change leaves alone carry on without a hitch.
func TestOthersAreUntouched(t *testing.T) {
	inBubble(t, func(t *testing.T, p *place) {
		b, c := p.connect(t, "b", "c")
		a, _ := p.connect(t, "a", "c")
		p.Isolate("a")
		send(t, b, "one")
		if took, _ := ends(t, a); took != memnet.DefaultStallTimeout {
			t.Errorf("a learns after %v", took)
		}
		p.Heal()
		send(t, b, "two")
		receive(t, c, "one", "two")
	})
}

// The news of a Close does not cross a cut either.
func TestCloseAcrossACut(t *testing.T) {
	inBubble(t, func(t *testing.T, p *place) {
		a, b := p.connect(t, "a", "b")
		p.Cut("a", "b")
		_ = a.Close()
		send(t, b, "into the void")
		if took, err := ends(t, b); took != memnet.DefaultStallTimeout {
			t.Errorf("b learns after %v: %v", took, err)
		}

		c, d := p.connect(t, "c", "b")
		p.Cut("b", "c")
		_ = c.Close() // this way is whole
		if took, err := ends(t, d); took != 0 {
			t.Errorf("b learns after %v: %v", took, err)
		}
	})
}

// A machine that loses its power says nothing, and comes back as another.
func TestPowerLossAndRestart(t *testing.T) {
	inBubble(t, func(t *testing.T, p *place) {
		fromA, _ := p.connect(t, "a", "b")
		toA, _ := p.connect(t, "b", "a")
		p.Isolate("b")
		p.crash(t, "b")
		p.start(t, "b")
		since := time.Now()
		p.Rejoin("b")
		_, _ = ends(t, fromA)
		_, _ = ends(t, toA)
		if took := time.Since(since); took != 0 {
			t.Errorf("the streams of the old b end after %v", took)
		}
		a, b := p.connect(t, "a", "b")
		send(t, a, "hello")
		receive(t, b, "hello")
	})
}

func TestOneListenerPerAddress(t *testing.T) {
	inBubble(t, func(t *testing.T, p *place) {
		second := p.Transport("a")
		if err := second.Serve(func(raftlock.PeerStream) {}); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("%v, want EADDRINUSE", err)
		}
		if err := second.Close(); err != nil { // and does not take a's address along
			t.Fatal(err)
		}
		if !p.dials(t, "b", "a") {
			t.Error("a does not listen any more")
		}
	})
}

// A sender whom nobody reads is held back at exactly the bound, and comes free
// when a frame is received, and when the link is cut: then it sends into the
// void.
func TestBackPressure(t *testing.T) {
	for _, c := range []struct {
		name       string
		frame, fit int
	}{{"frames", 1, 256}, {"bytes", 16 << 20, 4}} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, p *place) { heldBack(t, p, c.frame, c.fit) })
		})
	}
}

func heldBack(t *testing.T, p *place, size, fit int) {
	a, b := p.connect(t, "a", "b")
	var sent atomic.Int64
	go func() {
		frame := make([]byte, size)
		for range fit + 5 {
			if err := a.Send(frame); err != nil {
				t.Error(err)
			}
			sent.Add(1)
		}
	}()
	synctest.Wait()
	if got := sent.Load(); got != int64(fit) {
		t.Errorf("%d frames of %d bytes are taken, want %d", got, size, fit)
	}
	_, _ = b.Recv()
	synctest.Wait()
	if got := sent.Load(); got != int64(fit)+1 {
		t.Errorf("%d frames are taken after one was received, want %d", got, fit+1)
	}
	p.Cut("a", "b")
	synctest.Wait()
	if got := sent.Load(); got != int64(fit)+5 {
		t.Errorf("%d frames are taken after the cut, want all %d", got, fit+5)
	}
	for range fit { // what had arrived is still there, and nothing else
		if frame, err := b.Recv(); err != nil || len(frame) != size {
			t.Fatalf("received %d bytes, %v", len(frame), err)
		}
	}
	_, _ = ends(t, b)
}

package e2e

import (
	"bufio"
	"flag"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

var seedFlag = flag.Uint64("e2e.seed", 0, "what the moments of the crashes are drawn from; 0 = a new one")

// dice prints what it takes to draw the same again: also how long it goes on, since a
// short run has fewer tests, and ends before most is drawn.
func dice(t *testing.T) *rand.Rand {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	length := ""
	if *tortureFlag > 0 {
		length = fmt.Sprintf(" -timeout 0 -e2e.torture=%v", *tortureFlag)
	}
	if *noTraceFlag {
		length += " -e2e.notrace"
	}
	t.Logf("to draw the same: go test ./internal/e2e -run '^%s$' -v -count=1%s -e2e.seed=%d", t.Name(), length, seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// pass lets a random time go by.
func pass(atMost time.Duration, d *rand.Rand) {
	<-time.After(time.Duration(d.Int64N(int64(atMost))))
}

// Members are killed while they make themselves a cluster, and come back. In the
// end they are one cluster.
func TestKillWhileForming(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short")
	}
	d := dice(t)
	for range 4 {
		f := newFleet(t, "n1", "n2", "n3")
		for _, i := range d.Perm(3) {
			f.start(f.names()[i])
		}
		for range 3 {
			pass(150*time.Millisecond, d)
			for _, i := range d.Perm(3)[:1+d.IntN(3)] {
				f.at(f.names()[i]).kill()
				f.start(f.names()[i])
			}
		}
		isOneCluster(f)
	}
}

// isOneCluster waits until all members serve, and looks whether each sees what
// each does.
func isOneCluster(f *fleet) {
	f.tb.Helper()
	for _, name := range f.names() {
		f.at(name).await(eventReady)
		f.at(name).must(request{Op: "acquire", Lock: "own-" + name, Client: name, TTL: longTTL})
	}
	for _, name := range f.names() {
		for _, other := range f.names() {
			if a := f.at(name).must(request{Op: "info", Lock: "own-" + other}); a.Owner != other {
				f.tb.Errorf("%s says %+v of the lock of %s", name, a, other)
			}
		}
	}
	for _, name := range f.names() {
		f.at(name).kill()
	}
}

// strace returns how to run a process in which system calls fail, or skips.
func strace(t *testing.T, inject string) []string {
	t.Helper()
	path, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("no strace")
	}
	if err := exec.Command(path, "-o", "/dev/null", "true").Run(); err != nil {
		t.Skipf("strace does not work here: %v", err)
	}
	return []string{path, "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync,renameat", "-e", "inject=" + inject}
}

// One member is killed at each of the system calls by which it makes itself
// durable, in turn, and comes back.
func TestKillAtEachStepOfForming(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short")
	}
	for _, victim := range []string{"n1", "n2"} { // who makes the cluster, who takes it
		for _, step := range []struct {
			call string
			when int
		}{{"renameat", 1}, {"renameat", 2}, {"renameat", 3}, {"fsync", 4}, {"fdatasync", 2}} {
			t.Run(fmt.Sprint(victim, step), func(t *testing.T) {
				t.Parallel()
				under := strace(t, fmt.Sprintf("%s:signal=SIGKILL:when=%d", step.call, step.when))
				f := newFleet(t, "n1", "n2", "n3")
				for _, name := range f.names() {
					if name != victim {
						f.start(name)
					}
				}
				p := f.start(victim, under...)
				f.eventually("the victim is dead, or serves", func() bool { return !p.alive() || p.has(eventReady) })
				t.Logf("killed: %t", !p.alive()) // strace counts for each thread of its own
				p.end()
				f.start(victim)
				isOneCluster(f)
			})
		}
	}
}

// The disk of one member fails: the member ends and says so, its process lives
// on, and the others do not mind.
func TestFailingDisk(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short")
	}
	under := strace(t, "fdatasync:error=EIO:when=20+") // a thread's twentieth
	f := newFleet(t, "n1", "n2", "n3")
	f.start("n1")
	f.start("n2")
	sick := f.start("n3", under...)
	for _, name := range f.names() {
		f.at(name).await(eventReady)
	}
	last := int64(0)
	acquire := func() {
		for _, name := range []string{"n1", "n2"} {
			a := f.at(name).must(request{Op: "acquire", Lock: fmt.Sprint("after-", last), Client: "c", Request: "r", TTL: longTTL})
			if a.Version <= last {
				t.Errorf("token %d after %d", a.Version, last)
			}
			last = a.Version
		}
	}
	f.eventually("the disk has failed", func() bool {
		acquire()
		return sick.has(eventDone)
	})
	if a := sick.await(eventDone); !a.is("EIO") {
		t.Errorf("the member ended with %+v", a)
	}
	for _, op := range []string{"acquire", "info", "status"} {
		if a, alive := sick.call(request{Op: op, Lock: "a", Client: "c"}); !alive || !a.is("unavailable") {
			t.Errorf("%s at the member that has ended: %+v, alive %t", op, a, alive)
		}
	}
	acquire()
	sick.must(request{Op: "close"})
	sick.end()
	f.start("n3").await(eventReady) // with a disk that works again
	if a := f.at("n3").must(request{Op: "info", Lock: "after-0"}); a.Owner != "c" {
		t.Errorf("after its return n3 says %+v", a)
	}
}

// The leader's disk hangs, as one that retries for a minute does. Others serve
// meanwhile, also callers at the member itself; when the disk answers, the member
// goes on as if it had been slow. testcluster tests how soon.
func TestHangingDisk(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short")
	}
	path := strace(t, "fdatasync:delay_enter=1")[0]
	f := three(t)
	hung := f.leader()
	kept := f.at(hung).must(request{Op: "acquire", Lock: "kept", Client: "c", TTL: longTTL})
	mend := hangDisk(t, path, f.at(hung).cmd.Process.Pid)
	first := f.other(hung).must(request{Op: "acquire", Lock: "first", Client: "c", Request: "r", TTL: longTTL})
	if first.Version <= kept.Version {
		t.Errorf("token %d after %d", first.Version, kept.Version)
	}
	if now := f.leader(); now == hung {
		t.Error("the member with the hanging disk leads on")
	}
	here := f.at(hung).must(request{Op: "acquire", Lock: "here", Client: "c", Request: "r", TTL: longTTL})
	if here.Version <= first.Version {
		t.Errorf("token %d after %d", here.Version, first.Version)
	}
	mend()
	f.eventually("the member's disk has answered", func() bool {
		a, alive := f.at(hung).call(request{Op: "info", Lock: "kept"})
		return alive && a.Owner == "c" && a.Version == kept.Version
	})
	if f.at(hung).has(eventDone) {
		t.Error("the member has ended")
	}
}

// hangDisk lets every fdatasync of a process hang, for as long as the test does
// not mend it.
func hangDisk(t *testing.T, strace string, pid int) (mend func()) {
	t.Helper()
	cmd := exec.Command(strace, "-f", "-o", "/dev/null", "-p", fmt.Sprint(pid),
		"-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_enter=60s")
	cmd.SysProcAttr = dieWithParent()
	says, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	mend = sync.OnceFunc(func() {
		_ = cmd.Process.Kill() // the kernel lets go of whom it traced
		_ = cmd.Wait()
	})
	t.Cleanup(mend)
	lines := bufio.NewScanner(says)
	if !lines.Scan() || !strings.Contains(lines.Text(), "attached") {
		t.Skipf("strace cannot attach: %s", lines.Text())
	}
	go func() {
		for lines.Scan() {
			continue // or its pipe would be full one day
		}
	}()
	return mend
}

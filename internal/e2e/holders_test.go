package e2e

import (
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/raftlock/raftlock/client"
)

// resource is what a lock protects: it takes no write with a token smaller than
// one it has seen.
type resource struct {
	mu   sync.Mutex
	last int64
}

func (r *resource) write(token int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if token < r.last {
		return false
	}
	r.last = token
	return true
}

// A holder's process is stopped for longer than its TTL. When it goes on it sees
// at its first look that the lock is lost, and nothing that it still does with it
// succeeds.
func TestStoppedHolderIsTold(t *testing.T) {
	t.Parallel()
	f := serving(t, 3)
	c := dial(t, f.endpoints())
	holder := f.program("holder")
	const ttl = time.Second
	held := holder.must(request{Op: "hold", Lock: "a", TTL: ttl})
	holder.must(request{Op: "look"})
	var r resource
	if !r.write(held.Version) {
		t.Fatal("the holder's write is refused")
	}
	if err := holder.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	next, err := c.Acquire(within(t), &client.AcquireRequest{
		LockID: "a", ClientID: "next", RequestID: "r", Wait: true, TTL: longTTL, WaitTimeout: longTTL,
	})
	if err != nil {
		t.Fatal(err)
	}
	if !r.write(next.Lock.Version) {
		t.Errorf("the write of the next holder, token %d, is refused after token %d", next.Lock.Version, held.Version)
	}
	looked := make(chan answer, 1)
	go func() {
		a, _ := holder.call(request{Op: "look"})
		looked <- a
	}()
	if err := holder.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if a := <-looked; !a.is("lost") {
		t.Errorf("the first look of who was stopped: %+v", a)
	}
	if a := holder.await(eventLost); !a.is("lost") {
		t.Errorf("the hold ended with %+v", a)
	}
	for _, op := range []string{"renew", "release"} {
		a, alive := holder.call(request{Op: op, Lock: "a", Client: held.Owner, Version: held.Version, TTL: ttl})
		if !alive || !a.is("not owner") {
			t.Errorf("%s with the old token: %+v", op, a)
		}
	}
	if r.write(held.Version) {
		t.Error("the resource took the write of who was stopped")
	}
	if got := info(t, c, "a"); got.OwnerID != "next" || got.Version != next.Lock.Version {
		t.Errorf("in the end %+v", got)
	}
}

// Holders are cut off from the cluster. Of each the context has ended before the
// next has its lock.
func TestCutOffHoldersEndFirst(t *testing.T) {
	t.Parallel()
	f := serving(t, 3)
	c := dial(t, f.endpoints())
	const holders = 50
	var w wires
	cut := dial(t, f.endpoints(), w.option())
	helds := make([]*client.Held, holders)
	ended := make([]chan time.Time, holders)
	granted := make([]chan time.Time, holders)
	for i := range holders {
		lock := fmt.Sprint("lock-", i)
		held, err := client.Hold(within(t), cut, lock, client.WithTTL(10*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		helds[i] = held
		ended[i], granted[i] = make(chan time.Time, 1), make(chan time.Time, 1)
		go func() {
			<-held.Context().Done()
			ended[i] <- time.Now()
			if err := held.Err(); !errors.Is(err, client.ErrLockLost) {
				t.Errorf("the hold of %s ended with %v", lock, err)
			}
		}()
		go func() {
			got, err := c.Acquire(within(t), &client.AcquireRequest{
				LockID: lock, ClientID: "next", RequestID: "r", Wait: true, TTL: longTTL, WaitTimeout: longTTL,
			})
			at := time.Now()
			if err != nil || got.Lock.Version <= held.Token() {
				t.Errorf("the next of %s: %+v, %v", lock, got.Lock, err)
			}
			granted[i] <- at
		}()
	}
	for i := range holders {
		f.eventually("the next wait", func() bool { return info(t, c, fmt.Sprint("lock-", i)).WaiterCount == 1 })
	}
	for i, held := range helds {
		if err := held.Err(); err != nil {
			t.Errorf("hold %d, before it is cut off: %v", i, err)
		}
	}
	w.mute.Store(true)
	w.deaf.Store(true)
	least := time.Hour
	for i := range holders {
		before := (<-granted[i]).Sub(<-ended[i])
		least = min(least, before)
		if before <= 0 {
			t.Errorf("lock %d is granted %v before its holder's end", i, -before)
		}
	}
	t.Logf("the least between an end and the next grant is %v", least)
}

package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/raftlock/raftlock/client"
)

// A program is killed while five hundred of its calls wait. A moment later
// nobody waits for it, and who stood behind it has the locks.
func TestKilledProgramLeavesNoWaiters(t *testing.T) {
	t.Parallel()
	f := serving(t, 3)
	c := dial(t, f.endpoints())
	locks := []string{"a"}
	for i := range 10 {
		locks = append(locks, fmt.Sprint("b", i))
	}
	tokens := map[string]int64{}
	for _, lock := range locks {
		tokens[lock] = f.at("n1").must(request{Op: "acquire", Lock: lock, Client: "holder", TTL: longTTL}).Version
	}
	doomed := f.program("doomed")
	wants := map[string]int{}
	for i := range 500 {
		lock := "a"
		if i >= 400 {
			lock = locks[1+i%10]
		}
		wants[lock]++
		go doomed.call(request{Op: "wait", Lock: lock, Client: "doomed", Request: fmt.Sprint("r", i), TTL: time.Second})
	}
	waiting := func(lock string, n int) func() bool {
		return func() bool { return int(info(t, c, lock).WaiterCount) == n }
	}
	granted := make(chan *client.Lock, len(locks))
	for _, lock := range locks {
		f.eventually("the program waits", waiting(lock, wants[lock]))
		go func() {
			got, err := c.Acquire(within(t), &client.AcquireRequest{
				LockID: lock, ClientID: "live", RequestID: "r", Wait: true, TTL: longTTL, WaitTimeout: longTTL,
			})
			if err != nil {
				t.Errorf("the live waiter of %s: %v", lock, err)
				got.Lock = &client.Lock{}
			}
			granted <- got.Lock
		}()
		f.eventually("the live one waits", waiting(lock, wants[lock]+1))
	}

	doomed.kill()
	release := func(lock string) {
		f.at("n2").must(request{Op: "release", Lock: lock, Client: "holder", Version: tokens[lock]})
	}
	// On these the turn of the dead comes at once. Who is granted before the
	// member knows of the death has the lock for its TTL.
	for _, lock := range locks[1:] {
		release(lock)
	}
	f.eventually("the dead have left the queue", waiting("a", 1))
	if got := info(t, c, "a"); got.OwnerID != "holder" || got.WaitersInfo[0].ClientID != "live" {
		t.Errorf("in the end %s has the lock, and %s waits", got.OwnerID, got.WaitersInfo[0].ClientID)
	}
	release("a")
	if got := info(t, c, "a"); got.OwnerID != "live" {
		t.Errorf("after the release %q has the lock", got.OwnerID)
	}
	for range locks {
		<-granted
	}
	for _, lock := range locks {
		if got := info(t, c, lock); got.OwnerID != "live" || got.WaiterCount != 0 {
			t.Errorf("in the end %q has %s, and %d wait", got.OwnerID, lock, got.WaiterCount)
		}
	}
}

// Members are restarted one after the other under two hundred waiters, while
// their turns come: each gets the lock in the order in which they asked.
func TestRestartsUnderWaiters(t *testing.T) {
	t.Parallel()
	f := serving(t, 3)
	c := dial(t, f.endpoints())
	const waiters = 200
	type grant struct {
		id      string
		version int64
		err     error
	}
	first, err := c.Acquire(within(t), &client.AcquireRequest{LockID: "a", ClientID: "holder", TTL: longTTL})
	if err != nil {
		t.Fatal(err)
	}
	grants := make(chan grant, waiters)
	for i := range waiters {
		id := fmt.Sprint("w", i)
		go func() {
			got, err := c.Acquire(within(t), &client.AcquireRequest{
				LockID: "a", ClientID: id, RequestID: "r", Wait: true, TTL: longTTL, WaitTimeout: longTTL,
			})
			if err != nil {
				grants <- grant{id: id, err: err}
				return
			}
			grants <- grant{id, got.Lock.Version, nil}
		}()
		f.eventually(id+" waits", func() bool { return int(info(t, c, "a").WaiterCount) == i+1 })
	}

	last, next := grant{id: "holder", version: first.Lock.Version}, 0
	hand := func(times int) {
		for range times {
			if _, err := c.Release(within(t), &client.ReleaseRequest{LockID: "a", ClientID: last.id, Version: last.version}); err != nil {
				t.Errorf("the release of %s: %v", last.id, err)
				return
			}
			got := <-grants
			if got.err != nil || got.id != fmt.Sprint("w", next) || got.version <= last.version {
				t.Errorf("turn %d after token %d: %+v", next, last.version, got)
				return
			}
			last, next = got, next+1
		}
	}
	for _, name := range f.names() {
		handed := make(chan struct{})
		go func() {
			defer close(handed)
			hand(50)
		}()
		f.at(name).must(request{Op: "close"})
		f.at(name).end()
		f.start(name).await(eventReady)
		<-handed
		if t.Failed() {
			return
		}
	}
	hand(waiters - next)
}

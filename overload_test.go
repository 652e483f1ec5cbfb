package raftlock

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/raftlock/raftlock/internal/input"
	"github.com/raftlock/raftlock/pb"
)

// Renewals and releases come before the acquires that were there already, and
// have places of their own.
func TestUrgentCallsGoFirst(t *testing.T) {
	l := newLab(t, 3)
	n := l.nodes[0]
	n.limits.Pending = 20
	l.elect(n)
	kept := l.acquire(n, "kept", "me", time.Minute).result.lock.version
	n.diskHung, l.nodes[1].diskHung, l.nodes[2].diskHung = true, true, true
	l.submit(n, command{kind: cmdAcquire, lock: "first", client: "me", attempt: 1}) // an entry in flight: the rest gathers
	l.settle()
	var acquires []*call
	for i := range 40 {
		acquires = append(acquires, l.submit(n, command{kind: cmdAcquire, lock: fmt.Sprint(i), client: "me", attempt: 1}))
	}
	renewal := l.submit(n, command{kind: cmdRenew, lock: "kept", client: "me", version: kept, ttl: span(time.Minute)})
	refused := 0
	for _, c := range acquires {
		if rep, ok := repliedTo(c); ok {
			if rep.failure != overloaded {
				t.Errorf("an acquire: %+v", rep.failure)
			}
			refused++
		}
	}
	if refused != 21 {
		t.Errorf("%d acquires are refused, want those beyond 20 with the one in flight", refused)
	}
	b := n.r.proposals.newBatch(n.r.term)
	n.r.fill(b)
	if len(b.calls) != 20 || b.calls[0] != renewal {
		t.Error("the renewal does not come first")
	}
	n.r.putBack(b)
	for _, m := range l.nodes {
		m.diskHung = false
	}
	l.pass(labTick)
	if rep, ok := repliedTo(renewal); !ok || rep.result.code != pb.ErrorCode_OK {
		t.Errorf("the renewal: %+v", rep)
	}
	if left := n.r.load; left != ([lanes]load{}) {
		t.Errorf("the load is %+v when all is done", left)
	}
	l.acquire(n, "after", "me", time.Minute)
}

// No entry takes more calls or bytes than others can wait for.
func TestBatchesAreBounded(t *testing.T) {
	l := newLab(t, 1)
	n := l.leader()
	n.limits.Pending = 10 * maxBatchCommands
	filled := func(waiting int, data metadata) (calls, bytes int) {
		n.r.begin(l.now)
		for i := range waiting {
			n.r.submit(&call{
				cmd:  command{kind: cmdAcquire, lock: fmt.Sprint(i), client: "me", attempt: 1, metadata: data},
				lane: laneNormal, arrived: l.now, since: l.now, patience: time.Minute, done: make(chan struct{}, 1),
			})
		}
		b := n.r.proposals.newBatch(n.r.term)
		n.r.fill(b)
		calls, bytes = len(b.calls), len(n.r.formats.writes.appendEntry(nil, &b.entry))
		n.r.putBack(b)
		l.pass(labTick)
		if left := n.r.proposals.waiting(); left != 0 {
			t.Errorf("%d calls wait still", left)
		}
		return calls, bytes
	}
	if calls, _ := filled(maxBatchCommands+1, nil); calls != maxBatchCommands {
		t.Errorf("a batch of %d calls", calls)
	}
	large := metadata{{key: "k", value: strings.Repeat("v", 8<<10)}}
	if calls, bytes := filled(64, large); calls == 0 || calls == 64 || bytes > maxBatchBytes {
		t.Errorf("a batch of %d large calls, %d bytes", calls, bytes)
	}
}

// Commands that are under way are bounded in bytes, too.
func TestPendingBytes(t *testing.T) {
	l := newLab(t, 1)
	n := l.leader()
	n.diskHung = true
	var heavy metadata
	for i := range input.MaxEntries {
		heavy = append(heavy, pair{fmt.Sprintf("%064d", i), strings.Repeat("v", input.MaxValue)})
	}
	var calls []*call
	for i := range maxPendingBytes/10_000 + 2_000 {
		calls = append(calls, l.submit(n, command{kind: cmdAcquire, lock: fmt.Sprint(i), client: "me", attempt: 1, metadata: heavy}))
	}
	refused := 0
	for _, c := range calls {
		if rep, ok := repliedTo(c); ok && rep.failure == overloaded {
			refused++
		}
	}
	if under := len(calls) - refused; refused == 0 || under*10_000 > maxPendingBytes*11/10 || under*11_000 < maxPendingBytes {
		t.Errorf("%d of %d are refused", refused, len(calls))
	}
}

// An outbox that is full breaks its stream, and does not let one come up over
// which answers are missing.
func TestOutboxOverflow(t *testing.T) {
	heavy := forward{kind: forwardResult, result: result{lock: lockView{metadata: metadata{{"k", strings.Repeat("v", 1<<20)}}}}}
	for _, greeting := range []bool{false, true} {
		o := &outbox{wake: make(chan struct{}, 1)}
		o.mu.up, o.mu.greeting = !greeting, greeting
		broken := make(chan struct{})
		o.mu.broken = broken
		for range maxOutboxBytes>>20 - 1 {
			o.send(nil, []forward{heavy})
		}
		select {
		case <-broken:
			t.Fatal("broken too early")
		default:
		}
		if o.mu.spoilt {
			t.Fatal("spoilt too early")
		}
		unsent := o.send(nil, []forward{heavy, {kind: forwardCall, id: 7}})
		if len(unsent) == 0 || unsent[len(unsent)-1] != 7 {
			t.Errorf("unsent are %v", unsent)
		}
		if !o.mu.spoilt {
			t.Error("not spoilt")
		}
		select {
		case <-broken:
		default:
			t.Error("not broken")
		}
		if o.empty(true); o.mu.spoilt || o.mu.room != 0 {
			t.Error("the next stream begins spoilt")
		}
	}
}

// Withdrawals behind callers' backs are bounded as calls are.
func TestWithdrawalsAreBounded(t *testing.T) {
	n, err := Open(Config{Name: "n1", Storage: NewMemoryStorage(), Limits: Limits{Pending: 3}})
	if err != nil {
		t.Fatal(err)
	}
	<-n.Ready()
	entered, leave := make(chan struct{}), make(chan struct{})
	n.inbox.request(func(*replica) { close(entered); <-leave }) // the loop is busy
	<-entered
	for i := range 10 {
		n.withdraw(&command{lock: "a", client: "me", request: fmt.Sprint(i)})
	}
	n.mu.Lock()
	under := n.mu.withdrawals
	n.mu.Unlock()
	close(leave)
	if under != 3 {
		t.Errorf("%d are under way", under)
	}
	for under > 0 {
		if _, _, err := n.StateHash(context.Background()); err != nil {
			t.Fatal(err)
		}
		n.mu.Lock()
		under = n.mu.withdrawals
		n.mu.Unlock()
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

// Answers that came over a stream count, though it has ended in the same turn.
func TestAnswersBeforeTheEndOfTheirStream(t *testing.T) {
	n := &Node{inbox: newInbox()}
	var order []string
	note := func(what string) func(*replica) { return func(*replica) { order = append(order, what) } }
	n.inbox.receive(received{do: note("answer")}) // stands for a frame
	n.inbox.inOrder(note("end"))
	n.inbox.request(note("rare"))
	in, _ := n.inbox.take(arrivals{})
	if err := n.handIn(nil, &in); err != nil || strings.Join(order, " ") != "rare answer end" {
		t.Errorf("the order is %v, %v", order, err)
	}
}

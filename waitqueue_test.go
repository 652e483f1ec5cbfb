package raftlock

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/raftlock/raftlock/pb"
)

// queueUp lets n clients wait for L, which A holds.
func queueUp(tb testing.TB, n int) *table {
	tb.Helper()
	tab := newTable()
	e := &entry{stamp: 1, bounds: bounds{lockWaiters: 1 << 20, locks: 1 << 20, waiters: 1 << 20}}
	e.commands = append(e.commands, command{kind: cmdAcquire, lock: "L", client: "A", ttl: 1 << 60})
	for i := range n {
		e.commands = append(e.commands, command{
			kind: cmdAcquire, lock: "L", client: "B", request: fmt.Sprint(i), wait: true, ttl: 1 << 60, timeout: 1 << 60,
		})
	}
	out := tab.apply(e)
	for i, r := range out.results[1:] {
		if !r.queued || int(r.position) != i {
			tb.Fatalf("waiter %d: %+v", i, r)
		}
	}
	return tab
}

// etcd's in-process client locks up when some hundred waits are cancelled at
// once. Here it is ten thousand, each found by its identity.
func TestTenThousandWithdrawals(t *testing.T) {
	const n = 10_000
	tab := queueUp(t, n)
	e := &entry{stamp: 2}
	for i := range n {
		e.commands = append(e.commands, command{kind: cmdWithdraw, lock: "L", client: "B", request: fmt.Sprint(i * 7919 % n)})
	}
	out := tab.apply(e)
	if len(out.events) != n || tab.waiterCount() != 0 || tab.contestedCount() != 0 || tab.memory.len() != n {
		t.Fatalf("%d events, %d wait, %d remembered", len(out.events), tab.waiterCount(), tab.memory.len())
	}
	requireSound(t, tab, "after the withdrawals")
}

// The lock goes through ten thousand hands in the order of arrival.
func TestHandOverInOrder(t *testing.T) {
	const n = 10_000
	tab := queueUp(t, n)
	owner, version := "A", int64(1)
	for i := range n {
		out := tab.apply(&entry{stamp: 2, commands: []command{{kind: cmdRelease, lock: "L", client: owner, version: version}}})
		r := out.results[0]
		if r.code != pb.ErrorCode_OK || !r.promoted || r.lock.request != fmt.Sprint(i) || r.lock.version != version+1 {
			t.Fatalf("hand-over %d: %+v", i, r)
		}
		if len(out.events) != 1 || out.events[0].lock.version != r.lock.version {
			t.Fatalf("hand-over %d: %+v", i, out.events)
		}
		owner, version = r.lock.owner, r.lock.version
	}
	requireSound(t, tab, "at the end")
}

// A clone does not see what happens to the queues afterwards.
func TestQueueCloneStandsStill(t *testing.T) {
	const n = 500
	tab := queueUp(t, n)
	view := tab.clone()
	before := printState(restore(view))
	e := &entry{stamp: 3, first: true, bounds: bounds{lockWaiters: 1000, waiters: 1000}}
	for i := range n / 2 {
		e.commands = append(e.commands,
			command{kind: cmdAcquire, lock: "L", client: "B", request: fmt.Sprint(i), wait: true, attempt: 2},
			command{kind: cmdWithdraw, lock: "L", client: "B", request: fmt.Sprint(n/2 + i)})
	}
	e.commands = append(e.commands, command{kind: cmdRelease, lock: "L", client: "A", version: 1})
	tab.apply(e)
	if after := printState(restore(view)); after != before {
		t.Fatalf("the clone changed:\n%s\n%s", before, after)
	}
	if len(view.queue.views("L")) != n || tab.waiterCount() != n/2-1 {
		t.Fatalf("clone %d, table %d", len(view.queue.views("L")), tab.waiterCount())
	}
}

// Positions in long queues come from a derived line; they are those of a count.
func TestPositionsInLongQueues(t *testing.T) {
	rng := rand.New(rand.NewPCG(12, 13))
	q, length, number := newWaitQueue(), 0, uint64(0)
	for step := range 2000 {
		grow := step < 1000 == (rng.IntN(4) > 0)
		if grow || length == 0 {
			number++
			q.put(&waiter{lock: "L", client: fmt.Sprint(number), number: number, priority: int32(rng.IntN(3))})
			length++
		} else if w, ok := q.find("L", identity{client: fmt.Sprint(1 + rng.Uint64N(number))}); ok {
			if rng.IntN(4) == 0 {
				w, _ = q.first("L")
			}
			q.remove(&w)
			length--
		}
		if step%100 != 0 {
			continue
		}
		n := 0
		q.tree.of("L", func(w waiter) bool {
			if got, behind := q.position(&w, length), q.behind(&w); got != n || behind != length-1-n {
				t.Fatalf("step %d: waiter %d is at %d of %d, not %d; %d behind", step, w.number, n, length, got, behind)
			}
			n++
			return true
		})
	}
	for q.len() > 0 {
		w, _ := q.first("L")
		q.remove(&w)
	}
	if len(q.lines) != 0 || len(q.index) != 0 || q.sum != 0 {
		t.Fatalf("left: %d lines, %d in the index", len(q.lines), len(q.index))
	}
}

// Ids are ranges of one tree: a lock's queue must not run into its neighbour's.
func TestQueuesDoNotMix(t *testing.T) {
	q := newWaitQueue()
	for i, lock := range []string{"a", "a\x00", "aa", "b", ""} {
		q.put(&waiter{lock: lock, client: "C", number: uint64(i + 1), priority: int32(i - 2)})
	}
	for i, lock := range []string{"a", "a\x00", "aa", "b", ""} {
		w, ok := q.first(lock)
		if !ok || w.number != uint64(i+1) || q.position(&w, 1) != 0 || q.behind(&w) != 0 {
			t.Errorf("first of %q is %d", lock, w.number)
		}
	}
	if _, ok := q.first("ab"); ok {
		t.Error("found a waiter of a lock that has none")
	}
}

func BenchmarkWithdrawals(b *testing.B) {
	const n = 10_000
	for range b.N {
		b.StopTimer()
		tab := queueUp(b, n)
		b.StartTimer()
		for i := range n {
			tab.apply(&entry{stamp: 2, commands: []command{{kind: cmdWithdraw, lock: "L", client: "B", request: fmt.Sprint(i)}}})
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/withdrawal")
}

// BenchmarkClaims has all of a long queue claimed, as after a failover.
func BenchmarkClaims(b *testing.B) {
	const n = 10_000
	for range b.N {
		b.StopTimer()
		tab := queueUp(b, n)
		b.StartTimer()
		for i := range n {
			tab.apply(&entry{stamp: 2, commands: []command{{
				kind: cmdAcquire, lock: "L", client: "B", request: fmt.Sprint(i), wait: true,
			}}})
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/claim")
}

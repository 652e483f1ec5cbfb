package raftlock

import (
	"cmp"
	"slices"

	"github.com/google/btree"
)

type waiterFlags uint8

const (
	waiterEnqueued waiterFlags = 1 << iota // EnqueueWaiter made it: no call is attached, so none can be lost
	waiterRetried                          // an attempt > 1 of its request was seen
	waiterDetached                         // no call is attached; detachEnd is set
)

// waiter is one place in one queue. It is stored by value and never changed in
// place: a clone of the tree may share its node.
type waiter struct {
	lock            string
	client, request string

	number    uint64  // its place in log order
	claim     uint64  // the last command that attached a call to it
	version   int64   // what EnqueueWaiter said
	ttl       span    // of the grant to come
	timeout   logTime // the end of the wait itself
	detachEnd logTime // the end of the window to claim it, if detached
	joined    int64   // wall clock, µs
	metadata  *metadata

	key     logTime // derived: the earliest deadline that stands for it, 0 if none
	keyKind endKind // derived: of that deadline

	priority int32
	flags    waiterFlags
}

func (w *waiter) identity() identity { return identity{w.client, w.request} }

// detach starts the window in which a call must claim the wait.
func (w *waiter) detach(end logTime) {
	w.detachEnd = end
	w.flags |= waiterDetached
}

// end is when the wait is over if nothing happens, and by what.
func (w *waiter) end() (logTime, endKind) {
	if w.flags&waiterDetached != 0 && w.detachEnd < w.timeout {
		return w.detachEnd, endDetach
	}
	return w.timeout, endWait
}

// ending is the event of the wait that its end brings about.
func (w *waiter) ending() eventKind {
	if _, kind := w.end(); kind == endDetach {
		return eventLapsed
	}
	return eventTimedOut
}

func (w *waiter) hash() uint64 {
	h := mixString(hashSeed+2, w.lock)
	h = mixString(h, w.client)
	h = mixString(h, w.request)
	h = mixWord(h, w.number)
	h = mixWord(h, w.claim)
	h = mixWord(h, uint64(w.version))
	h = mixWord(h, uint64(w.ttl))
	h = mixWord(h, uint64(w.timeout))
	if w.flags&waiterDetached != 0 {
		h = mixWord(h, uint64(w.detachEnd))
	}
	h = mixWord(h, uint64(w.joined))
	h = mixWord(h, uint64(uint32(w.priority))<<8|uint64(w.flags))
	return endHash(mixMetadata(h, w.metadata))
}

// waiterLess orders the waiters of all locks: by lock, then as the queue goes.
func waiterLess(a, b waiter) bool {
	if a.lock != b.lock {
		return a.lock < b.lock
	}
	if a.priority != b.priority {
		return a.priority > b.priority
	}
	return a.number < b.number
}

// head and tail are keys before and behind every waiter of a lock.
func head(lock string) waiter { return waiter{lock: lock, priority: 1<<31 - 1} }
func tail(lock string) waiter { return waiter{lock: lock, priority: -1 << 31, number: 1<<64 - 1} }

// waiterTree holds the waiters of all locks; the queue of one lock is a range
// of it. One tree, because one clone then covers every queue.
type waiterTree struct{ *btree.BTreeG[waiter] }

func newWaiterTree() waiterTree { return waiterTree{btree.NewG(32, waiterLess)} }

func (t waiterTree) clone() waiterTree { return waiterTree{t.Clone()} }

// of calls fn for the waiters of a lock in queue order, until it returns false.
func (t waiterTree) of(lock string, fn func(w waiter) bool) {
	t.AscendGreaterOrEqual(head(lock), func(w waiter) bool {
		return w.lock == lock && fn(w)
	})
}

// seat is what the index finds a waiter by.
type seat struct {
	lock string
	id   identity
}

// queuePlace is the rest of a waiter's key in the tree.
type queuePlace struct {
	number   uint64
	priority int32
}

func (w *waiter) place() queuePlace { return queuePlace{w.number, w.priority} }

// comparePlaces orders the places of one queue.
func comparePlaces(a, b queuePlace) int {
	return cmp.Or(cmp.Compare(b.priority, a.priority), cmp.Compare(a.number, b.number))
}

// waitQueue is the waiters of the table, and by whom they wait.
type waitQueue struct {
	tree waiterTree
	sum  uint64
	// index is derived. Without it, a claim or a cancel would walk the queue,
	// and a thousand callers that go away together cost a million steps.
	index map[seat]queuePlace
	// lines is derived. It has the order of those long queues of which a
	// position in the middle was asked for: after a failover ten thousand
	// waiters may claim their places, and each is told how many stand before.
	lines map[string][]queuePlace
}

// longQueue is where a line is kept instead of counting.
const longQueue = 64

func newWaitQueue() waitQueue {
	return waitQueue{tree: newWaiterTree(), index: map[seat]queuePlace{}, lines: map[string][]queuePlace{}}
}

func (q *waitQueue) len() int { return q.tree.Len() }

// put writes a waiter, a new one or one whose key is as before.
func (q *waitQueue) put(w *waiter) {
	old, had := q.tree.ReplaceOrInsert(*w)
	if had {
		q.sum -= old.hash()
	} else {
		q.index[seat{w.lock, w.identity()}] = w.place()
		if line, kept := q.lines[w.lock]; kept {
			i, _ := slices.BinarySearchFunc(line, w.place(), comparePlaces)
			q.lines[w.lock] = slices.Insert(line, i, w.place())
		}
	}
	q.sum += w.hash()
}

func (q *waitQueue) remove(w *waiter) {
	old, had := q.tree.Delete(*w)
	if !had {
		return
	}
	q.sum -= old.hash()
	delete(q.index, seat{w.lock, w.identity()})
	line, kept := q.lines[w.lock]
	switch i, _ := slices.BinarySearchFunc(line, w.place(), comparePlaces); {
	case !kept:
	case len(line) <= longQueue/2:
		delete(q.lines, w.lock)
	case i == 0: // the next one's turn: nothing moves
		q.lines[w.lock] = line[1:]
	default:
		q.lines[w.lock] = slices.Delete(line, i, i+1)
	}
}

// find returns an identity's waiter at a lock.
func (q *waitQueue) find(lock string, id identity) (waiter, bool) {
	p, ok := q.index[seat{lock, id}]
	if !ok {
		return waiter{}, false
	}
	return q.at(lock, p)
}

func (q *waitQueue) at(lock string, p queuePlace) (waiter, bool) {
	return q.tree.Get(waiter{lock: lock, priority: p.priority, number: p.number})
}

// first is the waiter whose turn is next.
func (q *waitQueue) first(lock string) (first waiter, ok bool) {
	q.tree.of(lock, func(w waiter) bool {
		first, ok = w, true
		return false
	})
	return first, ok
}

// position is how many stand before w in its queue, which has length waiters.
func (q *waitQueue) position(w *waiter, length int) (n int) {
	if length >= longQueue {
		n, _ = slices.BinarySearchFunc(q.line(w.lock, length), w.place(), comparePlaces)
		return n
	}
	q.tree.of(w.lock, func(other waiter) bool {
		if other.number == w.number {
			return false
		}
		n++
		return true
	})
	return n
}

// line returns a queue's order, which is kept from then on.
func (q *waitQueue) line(lock string, length int) []queuePlace {
	line, kept := q.lines[lock]
	if !kept {
		line = make([]queuePlace, 0, length)
		q.tree.of(lock, func(w waiter) bool {
			line = append(line, w.place())
			return true
		})
		q.lines[lock] = line
	}
	return line
}

// behind is how many stand after w in its queue: for a waiter that has just
// joined, the few of a lower priority.
func (q *waitQueue) behind(w *waiter) (n int) {
	q.tree.DescendLessOrEqual(tail(w.lock), func(other waiter) bool {
		if other.number == w.number {
			return false
		}
		n++
		return true
	})
	return n
}

// attached returns the waiters that a new term detaches: copies, as the tree
// must not change while it is walked.
func (q *waitQueue) attached() (ws []waiter) {
	q.tree.Ascend(func(w waiter) bool {
		if w.flags&(waiterEnqueued|waiterDetached) == 0 {
			ws = append(ws, w)
		}
		return true
	})
	return ws
}

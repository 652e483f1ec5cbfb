package raftlock

import (
	"cmp"
	"slices"
)

// endKind says what ends. The order of the values is the order in which ends at
// one instant come about.
type endKind uint8

const (
	endHeld   endKind = iota // a grant
	endWait                  // a wait, by its own time-out
	endDetach                // a wait that nobody claimed
)

// deadline is a key of the heap: at this time, look at that item. It never
// decides anything: what the item itself says does.
type deadline struct {
	end      logTime
	lock     string
	number   uint64 // of the waiter; 0 for a lock
	priority int32  // of the waiter: the rest of its key in the queue
	kind     endKind
}

func (d *deadline) before(o *deadline) bool {
	if d.end != o.end {
		return d.end < o.end
	}
	if d.kind != o.kind {
		return d.kind < o.kind
	}
	if d.lock != o.lock {
		return d.lock < o.lock
	}
	return d.number < o.number
}

// deadlines is a binary heap of when to look at held locks and waiters. It is
// corrected lazily: a renewal or a new grant whose end is later than the key
// that stands for the lock already writes the lock alone, and the key, when its
// time comes, is moved to the real end. A member that was loaded a moment ago
// has other keys than one that runs for a year, and both act on the same ends
// in the same order, because a key acts only if it is its item's real end.
//
// Each item's record keeps the earliest key that stands for it. Only an end
// before that one pushes; so a lock that is taken and released all the time has
// one key, not one per grant.
type deadlines struct{ heap []deadline }

func (h *deadlines) len() int { return len(h.heap) }

func (h *deadlines) push(d deadline) {
	h.heap = append(h.heap, d)
	h.up(len(h.heap) - 1)
}

func (h *deadlines) pop() {
	last := len(h.heap) - 1
	h.heap[0] = h.heap[last]
	h.heap[last] = deadline{} // lets go of the lock's id
	h.heap = h.heap[:last]
	h.down(0)
	if cap(h.heap) > 4*last+4096 { // what a million locks needed is given back
		h.heap = append(make([]deadline, 0, 2*last), h.heap...)
	}
}

// append adds a key without order; order must follow.
func (h *deadlines) append(d deadline) { h.heap = append(h.heap, d) }

// order makes a heap of keys that were appended anyhow.
func (h *deadlines) order() {
	for i := len(h.heap)/2 - 1; i >= 0; i-- {
		h.down(i)
	}
}

func (h *deadlines) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !h.heap[i].before(&h.heap[parent]) {
			return
		}
		h.heap[i], h.heap[parent] = h.heap[parent], h.heap[i]
		i = parent
	}
}

func (h *deadlines) down(i int) {
	for {
		least := i
		for c := 2*i + 1; c <= 2*i+2 && c < len(h.heap); c++ {
			if h.heap[c].before(&h.heap[least]) {
				least = c
			}
		}
		if least == i {
			return
		}
		h.heap[i], h.heap[least] = h.heap[least], h.heap[i]
		i = least
	}
}

// standLock sees to it that a key stands at or before a held lock's end.
func (t *table) standLock(l *lockRecord) {
	if !l.held() || l.key != 0 && l.key <= l.end {
		return
	}
	l.key = l.end
	t.stand(deadline{end: l.end, kind: endHeld, lock: l.id})
}

// standWaiter does the same for a waiter, by the whole order of its end: a
// time-out comes before a detachment of the same instant.
func (t *table) standWaiter(w *waiter) {
	end, kind := w.end()
	if w.key != 0 && (w.key < end || w.key == end && w.keyKind <= kind) {
		return
	}
	w.key, w.keyKind = end, kind
	t.stand(deadline{end: end, kind: kind, lock: w.lock, number: w.number, priority: w.priority})
}

// stand pushes a key. When the keys that stand for nothing any more (of locks
// that were dropped, waiters that left, ends that were replaced by earlier
// ones) outnumber the others, they are thrown away: a pass over the table for
// at least as many pushes.
func (t *table) stand(d deadline) {
	const slack = 1024
	if t.ends.len() >= 2*(t.locks.len()+t.queue.len())+slack {
		t.compactEnds()
	}
	t.ends.push(d)
}

// compactEnds leaves the one key that each record knows of.
func (t *table) compactEnds() {
	clear(t.ends.heap)
	keys := t.ends.heap[:0]
	t.locks.from("", func(l *lockRecord) bool {
		if l.key != 0 {
			keys = append(keys, deadline{end: l.key, kind: endHeld, lock: l.id})
		}
		return true
	})
	t.queue.tree.Ascend(func(w waiter) bool {
		keys = append(keys, deadline{end: w.key, kind: w.keyKind, lock: w.lock, number: w.number, priority: w.priority})
		return true
	})
	t.ends.heap = keys
	t.ends.order()
}

// nextEnd is the earliest end of a held lock, a wait or a detachment; freed
// locks and remembered requests wait for another entry.
func (t *table) nextEnd() (logTime, bool) {
	d, ok := t.nextDeadline(never)
	return d.end, ok
}

// noEndBefore is a lower bound of nextEnd that costs nothing.
func (t *table) noEndBefore() (logTime, bool) {
	if t.ends.len() == 0 {
		return 0, false
	}
	return t.ends.heap[0].end, true
}

// nextDeadline returns the first key that is its item's real end, if it is at
// or before limit. Keys before it are moved to where they belong, or dropped.
func (t *table) nextDeadline(limit logTime) (deadline, bool) {
	for t.ends.len() > 0 && t.ends.heap[0].end <= limit {
		d := t.ends.heap[0]
		if t.isReal(&d) {
			return d, true
		}
		t.ends.pop()
		t.correct(&d)
	}
	return deadline{}, false
}

func (t *table) isReal(d *deadline) bool {
	if d.kind == endHeld {
		l, ok := t.locks.get(d.lock)
		return ok && l.held() && l.end == d.end
	}
	w, ok := t.queue.at(d.lock, queuePlace{d.number, d.priority})
	if !ok {
		return false
	}
	end, kind := w.end()
	return end == d.end && kind == d.kind
}

// correct deals with a key that was popped and is not its item's real end. If
// it is the one that the record knows of, the item gets another; else one
// stands already, or the item is gone.
func (t *table) correct(d *deadline) {
	if d.kind == endHeld {
		if l, ok := t.locks.get(d.lock); ok && l.key == d.end {
			l.key = 0
			t.standLock(&l)
			t.locks.put(&l)
		}
		return
	}
	w, ok := t.queue.at(d.lock, queuePlace{d.number, d.priority})
	if ok && w.key == d.end && w.keyKind == d.kind {
		w.key = 0
		t.saveWaiter(&w)
	}
}

// sweep brings about what is due after the last command, in the order of the
// ends, and reports whether it left something because of the cap.
func (t *table) sweep() (more bool) {
	limit := t.at
	for n := 0; ; n++ {
		d, ok := t.nextDeadline(t.at)
		if !ok {
			break
		}
		if n == sweepCap {
			// Free locks and requests go only as far as they come before the
			// end that was left; at its instant they come after it.
			limit, more = d.end-1, true
			break
		}
		t.ends.pop()
		t.bring(&d)
	}
	for t.freed.len() > 0 && t.freed.first().end <= limit {
		t.dropFreed()
	}
	t.memory.forget(limit)
	return more
}

// bring brings one end about.
func (t *table) bring(d *deadline) {
	const nobody = logTime(-1 << 63) // overdue ends came before this one
	l := t.open(d.lock)
	l.dirty = true
	if d.kind == endHeld {
		l.key = 0
		t.expired++
		t.free(l, nobody)
	} else if w, ok := t.queue.at(d.lock, queuePlace{d.number, d.priority}); ok {
		t.leave(l, &w, w.ending())
	}
	t.close(l)
}

// freedLocks are the free locks in the order in which they were freed, so that
// the oldest can be dropped. It is a queue of places, which grow; a lock that is
// taken again leaves a gap, and gaps are squeezed out when they outnumber the
// locks.
type freedLocks struct {
	queue []freedLock // by place
	head  int         // the first that is no gap
	gaps  int         // those before head included
}

type freedLock struct {
	id    string // "" is a gap
	place uint64
	end   logTime
}

func (f *freedLocks) len() int { return len(f.queue) - f.gaps }

// first is the lock that was freed first; there must be one.
func (f *freedLocks) first() *freedLock { return &f.queue[f.head] }

func (f *freedLocks) add(l freedLock) {
	const slack = 1024
	if f.gaps > f.len()+slack {
		f.queue = slices.DeleteFunc(f.queue, func(l freedLock) bool { return l.id == "" })
		f.head, f.gaps = 0, 0
	}
	f.queue = append(f.queue, l)
}

func (f *freedLocks) remove(place uint64) {
	i, ok := slices.BinarySearchFunc(f.queue, place, func(l freedLock, place uint64) int {
		return cmp.Compare(l.place, place)
	})
	if !ok || f.queue[i].id == "" {
		return
	}
	f.queue[i].id = ""
	f.gaps++
	for f.head < len(f.queue) && f.queue[f.head].id == "" {
		f.head++
	}
}

// dropFreed forgets the lock that was freed first.
func (t *table) dropFreed() {
	first := *t.freed.first()
	t.freed.remove(first.place)
	t.locks.drop(first.id)
}

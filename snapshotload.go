package raftlock

import (
	"cmp"
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// The items of the table in a snapshot, and the making of a table from them.

func (l *lockRecord) appendTo(dst []byte) []byte {
	dst = putText(dst, 1, l.id)
	dst = putText(dst, 2, l.owner)
	dst = putText(dst, 3, l.request)
	dst = putUint(dst, 4, uint64(l.version))
	dst = putUint(dst, 5, uint64(l.end))
	dst = putUint(dst, 6, uint64(l.since))
	dst = putUint(dst, 7, uint64(l.modified))
	dst = putUint(dst, 8, uint64(l.flags))
	return putKept(dst, 9, l.metadata)
}

func (w *waiter) appendTo(dst []byte) []byte {
	dst = putText(dst, 1, w.lock)
	dst = putText(dst, 2, w.client)
	dst = putText(dst, 3, w.request)
	dst = putUint(dst, 4, w.number)
	dst = putUint(dst, 5, w.claim)
	dst = putUint(dst, 6, uint64(w.version))
	dst = putUint(dst, 7, uint64(w.ttl))
	dst = putUint(dst, 8, uint64(w.timeout))
	if w.flags&waiterDetached != 0 { // else it is what is left of an earlier detachment
		dst = putUint(dst, 9, uint64(w.detachEnd))
	}
	dst = putUint(dst, 10, uint64(w.joined))
	dst = putUint(dst, 11, protowire.EncodeZigZag(int64(w.priority)))
	dst = putUint(dst, 12, uint64(w.flags))
	return putKept(dst, 13, w.metadata)
}

func (r *request) appendTo(dst []byte) []byte {
	dst = putUint(dst, 1, uint64(r.end))
	dst = putText(dst, 2, r.lock)
	dst = putText(dst, 3, r.id.client)
	return putText(dst, 4, r.id.request)
}

func putKept(dst []byte, num protowire.Number, m *metadata) []byte {
	if m == nil {
		return dst
	}
	return putPairs(dst, num, *m)
}

// tableLoader makes a table from the records of a snapshot as they come: each
// once, in the order of its tree.
type tableLoader struct {
	table *table
	names recentNames

	lastLock    string
	lastWaiter  waiter
	lastRequest request
}

func newTableLoader() *tableLoader { return &tableLoader{table: newTable()} }

// begin takes over what the header says.
func (l *tableLoader) begin(h *snapshotHeader) {
	t := l.table
	t.at, t.token, t.seq, t.freeings = h.at, h.token, h.seq, h.freeings
}

// take takes the next item.
func (l *tableLoader) take(num recordNumber, b []byte) error {
	switch num {
	case recordLock:
		return l.lock(b)
	case recordWaiter:
		return l.waiter(b)
	case recordRequest:
		return l.request(b)
	}
	return nil
}

func (l *tableLoader) lock(b []byte) error {
	var r lockRecord
	var pairs metadata
	f := fields{b: b, of: "lock in a snapshot", repeated: 9}
	for f.next() {
		switch f.num {
		case 1:
			r.id = string(f.text())
		case 2:
			r.owner = l.names.client(f.text())
		case 3:
			r.request = string(f.text())
		case 4:
			r.version = int64(f.uint())
		case 5:
			r.end = f.time()
		case 6:
			r.since = int64(f.uint())
		case 7:
			r.modified = int64(f.uint())
		case 8:
			r.flags = lockFlags(f.flags(uint64(lockUnclaimed | lockRetried)))
		case 9:
			pairs = f.pair(pairs)
		default:
			f.unknown()
		}
	}
	r.metadata = keepMetadata(pairs)
	switch {
	case f.err != nil:
	case r.id <= l.lastLock:
		f.malformed("locks out of order")
	case !r.held() && (r.request != "" || r.metadata != nil || r.flags != 0):
		f.malformed("a free lock with a holder")
	}
	if f.err != nil {
		return f.err
	}
	l.lastLock = r.id
	l.table.loadLock(r)
	return nil
}

func (l *tableLoader) waiter(b []byte) error {
	w := waiter{}
	var pairs metadata
	f := fields{b: b, of: "waiter in a snapshot", repeated: 13}
	for f.next() {
		switch f.num {
		case 1:
			w.lock = l.names.lock(f.text())
		case 2:
			w.client = l.names.client(f.text())
		case 3:
			w.request = string(f.text())
		case 4:
			w.number = f.uint()
		case 5:
			w.claim = f.uint()
		case 6:
			w.version = int64(f.uint())
		case 7:
			w.ttl = span(f.uint())
		case 8:
			w.timeout = f.time()
		case 9:
			w.detachEnd = f.time()
		case 10:
			w.joined = int64(f.uint())
		case 11:
			w.priority = f.zigzag32()
		case 12:
			w.flags = waiterFlags(f.flags(uint64(waiterEnqueued | waiterRetried | waiterDetached)))
		case 13:
			pairs = f.pair(pairs)
		default:
			f.unknown()
		}
	}
	w.metadata = keepMetadata(pairs)
	lock, _ := l.table.locks.get(w.lock)
	_, twice := l.table.queue.index[seat{w.lock, w.identity()}]
	switch {
	case f.err != nil:
	case l.lastWaiter.lock != "" && !waiterLess(l.lastWaiter, w):
		f.malformed("waiters out of order")
	case !lock.held() || w.client == "" || w.number == 0 || twice || w.flags&waiterDetached == 0 && w.detachEnd != 0:
		f.malformed("a waiter that cannot be")
	}
	if f.err != nil {
		return f.err
	}
	l.lastWaiter = w
	l.table.loadWaiter(w)
	return nil
}

func (l *tableLoader) request(b []byte) error {
	var r request
	f := fields{b: b, of: "request in a snapshot"}
	for f.next() {
		switch f.num {
		case 1:
			r.end = f.time()
		case 2:
			r.lock = l.names.lock(f.text())
		case 3:
			r.id.client = l.names.client(f.text())
		case 4:
			r.id.request = string(f.text())
		default:
			f.unknown()
		}
	}
	switch {
	case f.err != nil:
	case l.lastRequest.lock != "" && !requestLess(l.lastRequest, r):
		f.malformed("requests out of order")
	case r.lock == "" || l.table.memory.has(r.lock, r.id):
		f.malformed("a request that cannot be")
	}
	if f.err != nil {
		return f.err
	}
	l.lastRequest = r
	l.table.memory.add(r.lock, r.id, r.end)
	return nil
}

// finish returns the table when all records are taken; hash is what the end says.
func (l *tableLoader) finish(hash uint64) (*table, error) {
	l.table.finishLoad()
	if got := l.table.hash(); got != hash {
		return nil, fmt.Errorf("%w: the table of a snapshot has hash %016x, which says %016x", errMalformed, got, hash)
	}
	return l.table, nil
}

// flags reads bits of which only those in known have a meaning.
func (f *fields) flags(known uint64) uint64 {
	v := f.uint()
	if v&^known != 0 {
		f.unknown()
		return 0
	}
	return v
}

// loadLock puts a lock into a table that is being loaded. Locks come in the order
// of their ids, and before their waiters.
func (t *table) loadLock(l lockRecord) {
	l.key, l.waiters = 0, 0
	if l.held() {
		t.held++
		l.key = l.end
		t.ends.append(deadline{end: l.end, kind: endHeld, lock: l.id})
	} else {
		t.freed.queue = append(t.freed.queue, freedLock{id: l.id, place: uint64(l.since), end: l.end})
	}
	t.locks.load(&l)
}

// loadWaiter puts a waiter into a table that is being loaded.
func (t *table) loadWaiter(w waiter) {
	l := t.open(w.lock)
	w.lock = l.id // one copy of the id for the lock and its queue
	w.key, w.keyKind = w.end()
	t.ends.append(deadline{end: w.key, kind: w.keyKind, lock: w.lock, number: w.number, priority: w.priority})
	t.queue.put(&w)
	t.countWaiter(l, 1)
	t.close(l)
}

// finishLoad puts in order what was loaded anyhow.
func (t *table) finishLoad() {
	t.ends.order()
	slices.SortFunc(t.freed.queue, func(a, b freedLock) int { return cmp.Compare(a.place, b.place) })
}

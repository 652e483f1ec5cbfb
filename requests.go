package raftlock

import "github.com/google/btree"

// request is a call that has been answered for good: a late attempt of it must
// not take the lock for nobody.
type request struct {
	end  logTime
	lock string
	id   identity
}

func (r *request) hash() uint64 {
	h := mixString(hashSeed+3, r.lock)
	h = mixString(h, r.id.client)
	h = mixString(h, r.id.request)
	return endHash(mixWord(h, uint64(r.end)))
}

// requestLess orders requests as they are forgotten.
func requestLess(a, b request) bool {
	if a.end != b.end {
		return a.end < b.end
	}
	if a.lock != b.lock {
		return a.lock < b.lock
	}
	if a.id.client != b.id.client {
		return a.id.client < b.id.client
	}
	return a.id.request < b.id.request
}

// requestTree holds the remembered requests, the next to be forgotten first.
type requestTree struct{ *btree.BTreeG[request] }

func newRequestTree() requestTree { return requestTree{btree.NewG(32, requestLess)} }

func (t requestTree) clone() requestTree { return requestTree{t.Clone()} }

// requestMemory is the requests that the table remembers.
type requestMemory struct {
	tree requestTree
	sum  uint64
	// index is derived. Every Acquire with a request id asks it.
	index map[seat]logTime
}

func newRequestMemory() requestMemory {
	return requestMemory{tree: newRequestTree(), index: map[seat]logTime{}}
}

func (m *requestMemory) len() int { return len(m.index) }

func (m *requestMemory) has(lock string, id identity) bool {
	if len(m.index) == 0 {
		return false
	}
	_, ok := m.index[seat{lock, id}]
	return ok
}

// add remembers a request until end, and forgets the one whose end comes first
// if there are too many.
func (m *requestMemory) add(lock string, id identity, end logTime) {
	if old, ok := m.index[seat{lock, id}]; ok {
		m.remove(request{end: old, lock: lock, id: id})
	}
	r := request{end: end, lock: lock, id: id}
	m.tree.ReplaceOrInsert(r)
	m.index[seat{lock, id}] = end
	m.sum += r.hash()
	for m.len() > maxRemembered {
		first, _ := m.tree.Min()
		m.remove(first)
	}
}

func (m *requestMemory) remove(r request) {
	if _, had := m.tree.Delete(r); had {
		m.sum -= r.hash()
		delete(m.index, seat{r.lock, r.id})
	}
}

// forget drops what ends at or before limit.
func (m *requestMemory) forget(limit logTime) {
	for {
		first, ok := m.tree.Min()
		if !ok || first.end > limit {
			return
		}
		m.remove(first)
	}
}

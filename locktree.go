package raftlock

import (
	"github.com/google/btree"

	"github.com/raftlock/raftlock/pb"
)

type lockFlags uint8

const (
	lockUnclaimed lockFlags = 1 << iota // granted to a detached wait: a call must claim it before its end
	lockRetried                         // an attempt > 1 of the holder's request was seen
)

// lockRecord is what the table knows about one lock, held or free.
type lockRecord struct {
	id string
	lockState
}

// lockState is the part that changes. There may be millions of them, so that
// its size is watched: with its generation it fills a 96-byte cell.
type lockState struct {
	owner   string // "" when free
	request string
	version int64 // the token of the grant, or of the last one

	end logTime // held: of the grant; free: when the lock is no longer listed
	// since is the wall clock of the grant, µs; of a free lock its place in
	// the order of freeing.
	since    int64
	modified int64     // wall clock of the last change, µs
	metadata *metadata // nil when there is none: most grants have none

	key     logTime // derived: the earliest deadline that stands for it, 0 if none
	waiters int32   // derived: the length of its queue
	flags   lockFlags
	usual   holdTime // derived: how long it was held lately
}

func (l *lockRecord) held() bool { return l.owner != "" }

func (l *lockRecord) heldBy(id identity) bool {
	return l.owner == id.client && l.request == id.request
}

func (l *lockRecord) view() lockView {
	v := lockView{
		id: l.id, owner: l.owner, request: l.request,
		version: l.version, modified: l.modified, waiters: l.waiters,
	}
	if l.held() {
		v.end, v.acquired = l.end, l.since
		if l.metadata != nil {
			v.metadata = *l.metadata
		}
	}
	return v
}

func (l *lockRecord) hash() uint64 {
	h := mixString(hashSeed+1, l.id)
	h = mixString(h, l.owner)
	h = mixString(h, l.request)
	h = mixWord(h, uint64(l.version))
	h = mixWord(h, uint64(l.end))
	h = mixWord(h, uint64(l.since))
	h = mixWord(h, uint64(l.modified))
	h = mixWord(h, uint64(l.flags))
	return endHash(mixMetadata(h, l.metadata))
}

// keepMetadata returns what a record keeps of a command's metadata. The copy of
// the slice header lets go of the command, and of the entry around it.
func keepMetadata(m metadata) *metadata {
	if len(m) == 0 {
		return nil
	}
	kept := m
	return &kept
}

// lockTree holds the locks by id, by value: what get returned does not change
// when put writes the same lock, nor does what a clone holds.
//
// Inside, the items of the tree are small and point to cells. A cell that was
// made after the last clone belongs to this tree alone and is written in place;
// any other is shared with a clone, and a write puts a new cell beside it. With
// whole records as items each write would walk the tree twice, comparing by
// copies of them, and half-full nodes (as a load in order leaves them) would
// cost a third more memory than the budget.
type lockTree struct {
	tree *btree.BTreeG[lockItem]
	sum  uint64
	// gen counts the clones. A cell may be written in place iff it has it.
	gen uint64
	// recent is a cache of items, by the hash of the id. Names that are locked
	// all the time are found here, in a table of any size. nil in a table that
	// is too small to need it, and in a clone, which many may read at once.
	recent []lockItem
}

type lockItem struct {
	id   string
	cell *lockCell
}

type lockCell struct {
	lockState
	gen uint64
}

const (
	recentLocks = 1 << 12 // slots of the cache
	smallTree   = 64      // locks that are found without one as fast
)

func newLockTree() lockTree {
	less := func(a, b lockItem) bool { return a.id < b.id }
	return lockTree{tree: btree.NewG(32, less)}
}

func (t *lockTree) len() int { return t.tree.Len() }

func (t *lockTree) get(id string) (lockRecord, bool) {
	item, ok := t.find(id)
	if !ok {
		return lockRecord{}, false
	}
	return lockRecord{item.id, item.cell.lockState}, true
}

func (t *lockTree) put(l *lockRecord) {
	t.sum += l.hash()
	item, known := t.find(l.id)
	if known {
		old := lockRecord{item.id, item.cell.lockState}
		t.sum -= old.hash()
		if item.cell.gen == t.gen {
			item.cell.lockState = l.lockState
			return
		}
	} else {
		item.id = l.id
	}
	item.cell = &lockCell{l.lockState, t.gen}
	t.tree.ReplaceOrInsert(item)
	if t.recent == nil && t.len() > smallTree {
		t.recent = make([]lockItem, recentLocks)
	}
	if t.recent != nil {
		pair := t.pair(item.id)
		if pair[1].id == item.id {
			pair[1] = item
		} else {
			remember(pair, item)
		}
	}
}

// load puts a lock into a tree that is being loaded, behind all that are there.
func (t *lockTree) load(l *lockRecord) {
	t.sum += l.hash()
	t.tree.ReplaceOrInsert(lockItem{l.id, &lockCell{l.lockState, t.gen}})
	if t.recent == nil && t.len() > smallTree {
		t.recent = make([]lockItem, recentLocks)
	}
}

func (t *lockTree) drop(id string) {
	old, had := t.tree.Delete(lockItem{id: id})
	if !had {
		return
	}
	l := lockRecord{old.id, old.cell.lockState}
	t.sum -= l.hash()
	if t.recent != nil {
		for i, slot := range t.pair(id) {
			if slot.id == id {
				t.pair(id)[i] = lockItem{}
			}
		}
	}
}

func (t *lockTree) find(id string) (lockItem, bool) {
	if t.recent == nil {
		return t.tree.Get(lockItem{id: id})
	}
	pair := t.pair(id)
	for i := range pair {
		if slot := &pair[i]; slot.cell != nil && slot.id == id {
			return *slot, true
		}
	}
	item, ok := t.tree.Get(lockItem{id: id})
	if ok {
		remember(pair, item)
	}
	return item, ok
}

// pair is the two slots of the cache in which an id may lie.
func (t *lockTree) pair(id string) []lockItem {
	first := endHash(mixString(hashSeed, id)) % (recentLocks / 2) * 2
	return t.recent[first : first+2 : first+2]
}

// remember puts an item where it lies already, or in the place of the older.
func remember(pair []lockItem, item lockItem) {
	if pair[0].id != item.id {
		pair[1] = pair[0]
	}
	pair[0] = item
}

// clone returns the locks as they are now, to be read only.
func (t *lockTree) clone() lockTree {
	t.gen++ // from now on every cell there is is shared
	return lockTree{tree: t.tree.Clone(), sum: t.sum}
}

// from calls fn for the locks from id on, in order, until it returns false.
func (t *lockTree) from(id string, fn func(l *lockRecord) bool) {
	var l lockRecord
	t.tree.AscendGreaterOrEqual(lockItem{id: id}, func(item lockItem) bool {
		l = lockRecord{item.id, item.cell.lockState}
		return fn(&l)
	})
}

// openLock is a lock that a command or an end is working on: a copy of its
// record, written back by close. A lock that is not in the table (not known)
// gets there only by a grant.
type openLock struct {
	lockRecord
	known bool
	dirty bool
}

func (t *table) open(id string) *openLock {
	l := &t.work
	l.lockRecord, l.known = t.locks.get(id)
	l.dirty = false
	if !l.known {
		l.id = id
	}
	return l
}

func (t *table) close(l *openLock) {
	if l.dirty {
		t.standLock(&l.lockRecord)
		t.locks.put(&l.lockRecord)
	}
}

// refusal is why a holder's command may not touch the lock, or OK.
func (l *openLock) refusal(c *command) pb.ErrorCode {
	switch {
	case !l.known:
		return pb.ErrorCode_LOCK_NOT_FOUND
	case !l.held():
		return pb.ErrorCode_LOCK_NOT_HELD
	case l.owner != c.client:
		return pb.ErrorCode_NOT_LOCK_OWNER
	case l.version != c.version:
		return pb.ErrorCode_VERSION_MISMATCH
	}
	return pb.ErrorCode_OK
}

// The state hash is a sum of item hashes, so that a change costs the hash of
// what was and of what is. An item's hash takes a word at a time and is not
// meant to withstand an adversary: it finds members that have diverged.
const (
	hashSeed  = 0x5af1_0c6b_9d27_e3a5
	hashPrime = 0x9fb2_1c65_1e98_df25
)

// mixWord is reversible for each h, hence loses nothing of it.
func mixWord(h, v uint64) uint64 {
	h = (h ^ v) * hashPrime
	return h ^ h>>32
}

func mixString(h uint64, s string) uint64 {
	h = mixWord(h, uint64(len(s)))
	for len(s) >= 8 {
		h = mixWord(h, word(s))
		s = s[8:]
	}
	if len(s) == 0 {
		return h
	}
	var last uint64
	for i := range len(s) {
		last |= uint64(s[i]) << (8 * i)
	}
	return mixWord(h, last)
}

// word reads eight bytes; the compiler makes one load of it.
func word(s string) uint64 {
	_ = s[7]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

func mixMetadata(h uint64, m *metadata) uint64 {
	if m == nil {
		return h
	}
	for _, p := range *m {
		h = mixString(mixString(h, p.key), p.value)
	}
	return mixWord(h, uint64(len(*m)))
}

// endHash spreads the last words over all bits: sums need that.
func endHash(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51_afd7_ed55_8ccd
	h ^= h >> 33
	h *= 0xc4ce_b9fe_1a85_ec53
	return h ^ h>>33
}

package raftlock

import (
	"strings"
	"unicode/utf8"
)

const (
	pageLocks = 1_000   // locks that one page holds at most
	pageBytes = 3 << 20 // bytes of a page, below the 4 MiB of a message
)

// tableView is the state of a table at one entry: all that is replicated and
// nothing else. A clone of a table may be read by another goroutine than the
// one that goes on to change the table.
type tableView struct {
	at       logTime
	token    int64
	seq      uint64
	freeings uint64
	locks    lockTree
	queue    waiterTree
	memory   requestTree
}

// waiterView is a copy of what a waiter's record says.
type waiterView struct {
	client, request string
	number, claim   uint64
	version         int64
	joined          int64   // wall clock, µs
	timeout         logTime // the end of the wait itself
	priority        int32
	position        int32 // how many stand before it
	enqueued        bool
	detached        bool
}

// info is what a linearizable read of one lock answers; of a lock that the table
// does not know, the id alone.
func (t *table) info(id string) (lockView, bool) {
	l, ok := t.locks.get(id)
	l.id = id
	return l.readView(t.at), ok
}

// waiters lists a lock's queue in its order.
func (t *table) waiters(id string) []waiterView { return t.queue.tree.views(id) }

// readView is view, except that a grant whose end has come is read as ended,
// though the entry that ends it is still to be applied.
func (l *lockRecord) readView(at logTime) lockView {
	v := l.view()
	if l.held() && l.end <= at {
		v.owner, v.request, v.metadata = "", "", nil
		v.end, v.acquired = 0, 0
	}
	return v
}

func (t waiterTree) views(lock string) (vs []waiterView) {
	t.of(lock, func(w waiter) bool {
		vs = append(vs, waiterView{
			client: w.client, request: w.request, number: w.number, claim: w.claim,
			version: w.version, joined: w.joined, timeout: w.timeout,
			priority: w.priority, position: int32(len(vs)),
			enqueued: w.flags&waiterEnqueued != 0, detached: w.flags&waiterDetached != 0,
		})
		return true
	})
	return vs
}

// lockFilter says which locks are listed: those that meet all of it. The zero
// value is met by every lock.
type lockFilter struct {
	id            string // pattern; "" is any
	owner         string // pattern; "" is any
	onlyHeld      bool
	onlyContested bool
	// Bounds of the end, inclusive. A free lock has no end and meets neither.
	before, after       logTime
	hasBefore, hasAfter bool
	metadata            metadata // pairs that the grant must have, sorted by key
}

// all reports whether every lock meets the filter.
func (f *lockFilter) all() bool {
	return (f.id == "" || f.id == "*") && (f.owner == "" || f.owner == "*") &&
		!f.onlyHeld && !f.onlyContested && !f.hasBefore && !f.hasAfter && len(f.metadata) == 0
}

func (f *lockFilter) matches(l *lockView) bool {
	held := l.held()
	switch {
	case f.onlyHeld && !held,
		f.onlyContested && l.waiters == 0,
		f.hasBefore && (!held || l.end > f.before),
		f.hasAfter && (!held || l.end < f.after),
		f.id != "" && !match(f.id, l.id),
		f.owner != "" && !match(f.owner, l.owner):
		return false
	}
	return l.metadata.has(f.metadata)
}

// has reports whether all pairs of want, sorted by key, are in m.
func (m metadata) has(want metadata) bool {
	for _, w := range want {
		for len(m) > 0 && m[0].key < w.key {
			m = m[1:]
		}
		if len(m) == 0 || m[0] != w {
			return false
		}
	}
	return true
}

// lockQuery is one call of GetLocks.
type lockQuery struct {
	filter     lockFilter
	startAfter string // the page begins behind this id; "" is the beginning
	offset     int    // matches to skip from there
	limit      int    // locks on the page; 0 is as many as a page holds
	maxBytes   int    // bytes of the page, estimated; 0 is pageBytes
	waiters    bool   // list the queues too
	uncounted  bool   // total is not asked for: the scan ends with the page
}

// listedLock is one lock of a page.
type listedLock struct {
	lockView
	queue []waiterView
}

// lockPage is what a listing answers.
type lockPage struct {
	locks []listedLock // by id
	total int          // all that meet the filter, on this page or not
	more  bool         // the page ended before the matches did
}

// list scans the view. A page holds at least one lock if there is one behind
// its start, however large.
func (v *tableView) list(q *lockQuery) lockPage {
	s := scan{v: v, q: q, filter: q.filter, limit: pageLocks, room: pageBytes, skip: q.offset, counted: q.uncounted}
	s.filter.id, s.filter.owner = squeeze(q.filter.id), squeeze(q.filter.owner)
	if q.limit > 0 {
		s.limit = min(q.limit, s.limit)
	}
	if q.maxBytes > 0 {
		s.room = min(q.maxBytes, s.room)
	}
	if s.filter.all() {
		// Nothing to count: a listing of a million locks page by page must
		// not walk the million for each page.
		s.counted = true
		s.page.total = v.locks.len()
		v.locks.from(q.startAfter, s.visit)
		return s.page
	}
	prefix := literalPrefix(s.filter.id)
	from := prefix
	if s.counted {
		from = max(from, q.startAfter)
	}
	v.locks.from(from, func(l *lockRecord) bool {
		return strings.HasPrefix(l.id, prefix) && s.visit(l)
	})
	return s.page
}

// scan is a listing at work.
type scan struct {
	v       *tableView
	q       *lockQuery
	filter  lockFilter // with its patterns squeezed
	limit   int
	room    int // bytes left on the page
	skip    int // matches left to skip
	counted bool
	page    lockPage
}

// visit takes one lock, in the order of ids, and reports whether to go on.
func (s *scan) visit(l *lockRecord) bool {
	view := l.readView(s.v.at)
	if !s.filter.matches(&view) {
		return true
	}
	if !s.counted {
		s.page.total++
	}
	switch {
	case s.page.more, s.q.startAfter != "" && l.id <= s.q.startAfter:
	case s.skip > 0:
		s.skip--
	default:
		s.take(view)
	}
	return !s.counted || !s.page.more
}

// take puts a lock on the page, or ends the page before it.
func (s *scan) take(view lockView) {
	if len(s.page.locks) == s.limit {
		s.page.more = true
		return
	}
	l := listedLock{lockView: view}
	if s.q.waiters && view.waiters > 0 {
		l.queue = s.v.queue.views(view.id)
	}
	s.room -= l.size()
	if s.room < 0 && len(s.page.locks) > 0 {
		s.page.more = true
		return
	}
	s.page.locks = append(s.page.locks, l)
}

// size is an upper bound of a lock's bytes in an answer.
func (l *listedLock) size() int {
	const (
		perLock   = 128 // times, numbers, tags and lengths
		perWaiter = 64
		perPair   = 12
	)
	n := perLock + len(l.id) + len(l.owner)
	for _, p := range l.metadata {
		n += perPair + len(p.key) + len(p.value)
	}
	for i := range l.queue {
		n += perWaiter + len(l.queue[i].client)
	}
	return n
}

// literalPrefix is what every id that matches the pattern begins with.
func literalPrefix(pattern string) string {
	if i := strings.IndexAny(pattern, "*?"); i >= 0 {
		return pattern[:i]
	}
	return pattern
}

// squeeze makes one * of several in a row, so that match never steps through
// more of a pattern than there are characters to match.
func squeeze(pattern string) string {
	if !strings.Contains(pattern, "**") {
		return pattern
	}
	var b strings.Builder
	for i := range len(pattern) {
		if i == 0 || pattern[i] != '*' || pattern[i-1] != '*' {
			b.WriteByte(pattern[i])
		}
	}
	return b.String()
}

// match reports whether the whole of s matches the pattern: * is any run of
// characters, ? is one character, all else is itself; nothing escapes.
//
// It goes back to the last * only, which is enough: what an earlier * would
// have to give up, the later one can take as well. So it compares at most
// len(s) characters for each start, whatever the pattern, and s is an id of at
// most 256 bytes.
func match(pattern, s string) bool {
	var (
		p, i       int
		star, from = -1, 0 // behind the last *, and where its run ends for now
	)
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			p++
			star, from = p, i
		case p < len(pattern) && pattern[p] == '?':
			p++
			i += runeLen(s[i:])
		case p < len(pattern) && pattern[p] == s[i]:
			p++
			i++
		case star >= 0:
			from += runeLen(s[from:])
			p, i = star, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// runeLen is the length of the first character; a byte that is no UTF-8 is a
// character of its own.
func runeLen(s string) int {
	_, n := utf8.DecodeRuneInString(s)
	return n
}

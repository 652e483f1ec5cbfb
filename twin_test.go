package raftlock

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/raftlock/raftlock/pb"
)

// The numbers of docs/locktable.md, written here once more on purpose: a slip
// in the table's constants must show.
const (
	twinSecond        = span(1_000_000_000)
	twinDetachWindow  = 2 * twinSecond
	twinNewTermWindow = 10 * twinSecond
	twinKeepFreed     = 60 * twinSecond
	twinKeepRequest   = 60 * twinSecond
	twinMaxFreed      = 100_000
	twinMaxRequests   = 100_000
	twinSweepCap      = 1000
	twinMaxFloor      = int64(1) << 52
)

// twin is the lock table written a second time, from docs/locktable.md, with
// no thought for speed: slices that are searched from end to end, a sort
// wherever an order matters, nothing that is kept up to date in two places.
// It is what the real table is compared with, so it must be right at a glance.
type twin struct {
	time     logTime
	token    int64
	seq      uint64
	freed    int // how many locks have become free so far
	locks    []*twinLock
	waits    []*twinWait
	requests []twinRequest

	// of the entry at work
	wall   int64
	bounds bounds
	out    outcome

	// seen counts the situations that came up, by name, so that a test can
	// tell whether its random logs reach the rare ones.
	seen map[string]int
}

type twinLock struct {
	id       string
	owner    string // "" when free
	request  string
	version  int64
	end      logTime
	acquired int64
	modified int64
	metadata metadata
	// unclaimed: granted to a detached waiter that nobody has come back for.
	unclaimed bool
	// retried: a later attempt of the holder's request was seen.
	retried bool

	place   int     // free: which freeing this was, counted over all locks
	freedAt logTime // free: when
}

type twinWait struct {
	lock      string
	id        identity
	number    uint64
	claim     uint64
	priority  int32
	ttl       span
	version   int64
	timeout   logTime
	joined    int64
	detached  bool
	detachEnd logTime
	metadata  metadata
	enqueued  bool
	retried   bool
}

type twinRequest struct {
	lock string
	id   identity
	end  logTime
}

func newTwin() *twin { return &twin{seen: map[string]int{}} }

func (m *twin) apply(e *entry) outcome {
	prev := m.time
	m.time = max(m.time, e.stamp)
	m.wall, m.bounds, m.out = e.wall, e.bounds, outcome{}
	m.noteIf(e.stamp < prev, "entry: stamp older than the table")
	m.noteIf(e.stamp == prev, "entry: stamp repeated")
	if e.first {
		m.newTerm(e.floor)
	}
	for i := range e.commands {
		c := &e.commands[i]
		if c.lock == "" || c.client == "" {
			m.out.results = append(m.out.results, result{code: pb.ErrorCode_INVALID_ARGUMENT, lock: lockView{id: c.lock}})
			continue
		}
		due := max(min(c.arrival, m.time), prev)
		m.settle(c.lock, due)
		r := m.run(c, due)
		r.lock = m.view(c.lock)
		m.out.results = append(m.out.results, r)
	}
	m.sweep()
	return m.out
}

func (m *twin) newTerm(floor int64) {
	if floor >= 0 && floor <= twinMaxFloor {
		m.noteIf(floor > m.token, "first: floor raises the token")
		m.noteIf(floor <= m.token, "first: floor below the token")
		m.token = max(m.token, floor)
	} else {
		m.note("first: floor ignored")
	}
	for _, w := range m.waits {
		m.noteIf(w.enqueued, "first: an enqueued wait stays attached")
		m.noteIf(w.detached, "first: a detached wait keeps its end")
		if !w.enqueued && !w.detached {
			m.note("first: a wait is detached")
			w.detached, w.detachEnd = true, m.time.plus(twinNewTermWindow)
		}
	}
}

// settle brings the lock that a command names up to the instant due.
func (m *twin) settle(id string, due logTime) {
	for l := m.lock(id); l != nil && l.owner != "" && l.end <= due; {
		m.noteIf(l.end == due, "settle: end exactly due")
		m.noteIf(l.end < due, "settle: end before due")
		m.expire(l, due)
	}
}

func (m *twin) run(c *command, due logTime) result {
	switch c.kind {
	case cmdAcquire:
		return m.acquire(c)
	case cmdRelease:
		return m.release(c, due)
	case cmdRenew:
		return m.renew(c)
	case cmdEnqueue:
		return m.enqueue(c)
	case cmdCancel:
		return m.cancel(c)
	case cmdWithdraw:
		return m.withdraw(c, due)
	case cmdAbandon:
		return m.abandon(c)
	case cmdDetach:
		return m.detach(c)
	}
	panic("the logs of the tests hold no such command")
}

func (m *twin) acquire(c *command) result {
	id, l, w := c.identity(), m.lock(c.lock), m.waiter(c.lock, c.identity())
	retry := c.request != "" && c.attempt > 1
	if c.request != "" && m.remembers(c.lock, id) {
		m.note("acquire: refused as remembered")
		return result{code: pb.ErrorCode_NOT_WAITING}
	}
	if l == nil || l.owner == "" {
		return m.take(c, l, retry)
	}
	if l.owner == c.client && l.request == c.request {
		m.reacquire(c, l, retry)
		return result{code: pb.ErrorCode_OK}
	}
	if w != nil && c.wait {
		return m.claim(c, w, retry)
	}
	if w != nil {
		m.note("acquire: held, no wait, the identity waits already")
		return result{code: pb.ErrorCode_LOCK_HELD}
	}
	if !c.wait {
		m.note("acquire: held")
		return m.refuse(c, result{code: pb.ErrorCode_LOCK_HELD}, retry)
	}
	if r, full := m.full(c); full {
		return m.refuse(c, r, retry)
	}
	return m.join(&twinWait{
		lock: c.lock, id: id, priority: c.priority, ttl: c.ttl,
		timeout: m.time.plus(c.timeout), metadata: c.metadata, retried: retry,
	})
}

// reacquire is Acquire by the identity that holds the lock.
func (m *twin) reacquire(c *command, l *twinLock, retry bool) {
	before, fresh := l.end, m.time.plus(c.ttl)
	switch {
	case l.unclaimed:
		m.note("acquire: claims a detached grant")
		m.noteIf(fresh < before, "acquire: the claim of a detached grant shortens it")
		l.end, l.unclaimed = fresh, false
	case c.request == "":
		m.noteIf(fresh > before, "acquire: the holder extends")
		m.noteIf(fresh < before, "acquire: the holder would shorten")
		l.end = max(l.end, fresh)
	default:
		m.note("acquire: the holder's request again")
	}
	m.noteIf(retry && !l.retried, "acquire: the holder's request is retried")
	l.retried = l.retried || retry
	if l.end != before {
		l.modified = m.wall
	}
}

// claim is a waiting Acquire by an identity that waits already.
func (m *twin) claim(c *command, w *twinWait, retry bool) result {
	m.noteIf(w.detached, "claim: of a detached wait")
	m.noteIf(w.enqueued, "claim: of an enqueued wait")
	m.noteIf(retry && !w.retried, "claim: marks the wait as retried")
	m.seq++
	w.claim, w.detached, w.detachEnd = m.seq, false, 0
	w.retried = w.retried || retry
	if c.request == "" && c.attempt <= 1 {
		m.noteIf(m.time.plus(c.timeout) > w.timeout, "claim: a plain call prolongs the wait")
		m.noteIf(m.time.plus(c.timeout) < w.timeout, "claim: a plain call would shorten the wait")
		w.timeout = max(w.timeout, m.time.plus(c.timeout))
	}
	return m.queued(w)
}

// take grants a lock that is free or unknown (then l is nil).
func (m *twin) take(c *command, l *twinLock, retry bool) result {
	if l == nil && int64(len(m.locks)) >= m.bounds.locks {
		m.note("refused: too many locks")
		return m.refuse(c, result{code: pb.ErrorCode_RATE_LIMITED, limit: m.bounds.locks}, retry)
	}
	m.noteIf(l != nil, "granted: a freed lock")
	m.noteIf(l == nil, "granted: an unknown lock")
	if l == nil {
		l = &twinLock{id: c.lock}
		m.locks = append(m.locks, l)
	}
	m.grant(l, c.identity(), m.time.plus(c.ttl), c.metadata)
	l.retried = retry
	return result{code: pb.ErrorCode_OK}
}

// refuse remembers the request of a refused call of which a repetition is known.
func (m *twin) refuse(c *command, r result, retry bool) result {
	if retry {
		m.note("remembered: a refused attempt")
		m.remember(c.lock, c.identity())
	}
	return r
}

func (m *twin) full(c *command) (result, bool) {
	if int64(len(m.queue(c.lock))) >= m.bounds.lockWaiters {
		m.note("refused: the queue is full")
		return result{code: pb.ErrorCode_WAIT_QUEUE_FULL, limit: m.bounds.lockWaiters}, true
	}
	if int64(len(m.waits)) >= m.bounds.waiters {
		m.note("refused: too many waiters")
		return result{code: pb.ErrorCode_RATE_LIMITED, limit: m.bounds.waiters}, true
	}
	return result{}, false
}

func (m *twin) join(w *twinWait) result {
	m.seq++
	w.number, w.claim, w.joined = m.seq, m.seq, m.wall
	m.waits = append(m.waits, w)
	r := m.queued(w)
	m.noteIf(int(r.position) < len(m.queue(w.lock))-1, "join: overtakes by priority")
	return r
}

func (m *twin) queued(w *twinWait) result {
	position := slices.Index(m.queue(w.lock), w)
	m.noteIf(position >= 64, "queued: far behind")
	return result{
		code: pb.ErrorCode_OK, queued: true, waiter: w.number, claim: w.claim, position: int32(position),
	}
}

// owned makes the checks that Release and Renew share.
func (m *twin) owned(c *command) (*twinLock, pb.ErrorCode) {
	l := m.lock(c.lock)
	switch {
	case l == nil:
		return nil, pb.ErrorCode_LOCK_NOT_FOUND
	case l.owner == "":
		return nil, pb.ErrorCode_LOCK_NOT_HELD
	case l.owner != c.client:
		return nil, pb.ErrorCode_NOT_LOCK_OWNER
	case l.version != c.version:
		return nil, pb.ErrorCode_VERSION_MISMATCH
	}
	return l, pb.ErrorCode_OK
}

func (m *twin) release(c *command, due logTime) result {
	l, code := m.owned(c)
	m.note("release: " + code.String())
	if l == nil {
		return result{code: code}
	}
	promoted := m.free(l, due)
	m.noteIf(promoted, "release: promotes")
	return result{code: code, promoted: promoted}
}

func (m *twin) renew(c *command) result {
	l, code := m.owned(c)
	m.note("renew: " + code.String())
	if l == nil {
		return result{code: code}
	}
	fresh := m.time.plus(c.ttl)
	m.noteIf(fresh > l.end, "renew: extends")
	m.noteIf(fresh < l.end, "renew: would shorten")
	m.noteIf(l.unclaimed, "renew: of a detached grant")
	l.end, l.unclaimed, l.modified = max(l.end, fresh), false, m.wall
	return result{code: code}
}

func (m *twin) enqueue(c *command) result {
	id, l := identity{c.client, ""}, m.lock(c.lock)
	if l == nil || l.owner == "" {
		return m.take(c, l, false)
	}
	if l.owner == c.client && l.request == "" {
		m.note("enqueue: by the holder")
		return result{code: pb.ErrorCode_LOCK_HELD}
	}
	m.noteIf(l.owner == c.client, "enqueue: the client holds by a request")
	if w := m.waiter(c.lock, id); w != nil {
		return m.enqueueAgain(c, w)
	}
	if r, full := m.full(c); full {
		return r
	}
	return m.join(&twinWait{
		lock: c.lock, id: id, priority: c.priority, ttl: c.ttl,
		version: c.version, timeout: m.time.plus(c.timeout), enqueued: true,
	})
}

func (m *twin) enqueueAgain(c *command, w *twinWait) result {
	m.noteIf(w.priority != c.priority, "enqueue: again, changes the priority")
	m.noteIf(m.time.plus(c.timeout) < w.timeout, "enqueue: again, shortens the wait")
	m.noteIf(!w.enqueued, "enqueue: takes over an Acquire's wait")
	m.noteIf(w.detached, "enqueue: again, of a detached wait")
	m.seq++
	w.priority, w.timeout, w.version = c.priority, m.time.plus(c.timeout), c.version
	w.enqueued, w.detached, w.detachEnd, w.claim = true, false, 0, m.seq
	return m.queued(w)
}

func (m *twin) cancel(c *command) result {
	w := m.waiter(c.lock, identity{c.client, ""})
	if w == nil {
		m.note("cancel: not waiting")
		return result{code: pb.ErrorCode_NOT_WAITING}
	}
	if c.version != 0 && c.version != w.version {
		m.note("cancel: other version")
		return result{code: pb.ErrorCode_VERSION_MISMATCH}
	}
	m.noteIf(c.version != 0, "cancel: by version")
	m.noteIf(c.version == 0, "cancel: any")
	m.leave(w, eventCancelled)
	return result{code: pb.ErrorCode_OK}
}

func (m *twin) withdraw(c *command, due logTime) result {
	r := result{code: pb.ErrorCode_OK}
	if w := m.waiter(c.lock, c.identity()); w != nil {
		m.note("withdraw: a wait")
		m.leave(w, eventCancelled)
	}
	if l := m.lock(c.lock); l != nil && l.owner == c.client && l.request == c.request {
		m.note("withdraw: a grant")
		r.promoted = m.free(l, due)
		m.noteIf(r.promoted, "withdraw: promotes")
	}
	m.noteIf(m.remembers(c.lock, c.identity()), "withdraw: a remembered request")
	m.remember(c.lock, c.identity())
	return r
}

func (m *twin) abandon(c *command) result {
	w := m.waiter(c.lock, identity{c.client, ""})
	m.noteIf(w != nil && w.claim != c.claim, "abandon: another claim stands")
	m.noteIf(w != nil && w.claim == c.claim && w.enqueued, "abandon: of an enqueued wait")
	if w != nil && w.claim == c.claim && !w.enqueued {
		m.note("abandon: ends the wait")
		m.leave(w, eventCancelled)
	}
	return result{code: pb.ErrorCode_OK}
}

func (m *twin) detach(c *command) result {
	w := m.waiter(c.lock, c.identity())
	m.noteIf(w != nil && w.claim != c.claim, "detach: another claim stands")
	m.noteIf(w != nil && w.claim == c.claim && w.enqueued, "detach: of an enqueued wait")
	m.noteIf(w != nil && w.claim == c.claim && w.detached, "detach: again")
	if w != nil && w.claim == c.claim && !w.enqueued && !w.detached {
		m.note("detach: detaches")
		w.detached, w.detachEnd = true, m.time.plus(twinDetachWindow)
	}
	return result{code: pb.ErrorCode_OK}
}

// expire ends a grant whose time has passed.
func (m *twin) expire(l *twinLock, due logTime) {
	m.noteIf(l.unclaimed, "expired: a detached grant")
	m.out.expired++
	m.free(l, due)
}

// free ends a grant: the next in the queue has the lock from here on, or nobody.
// Waiters whose own time is up by due are not considered.
func (m *twin) free(l *twinLock, due logTime) (promoted bool) {
	if l.request != "" && l.retried {
		m.note("remembered: the request of an ended grant")
		m.remember(l.id, identity{l.owner, l.request})
	}
	m.freed++
	*l = twinLock{id: l.id, version: l.version, modified: m.wall, place: m.freed, freedAt: m.time}
	// A free lock has no waiters, so no event shows it like that: all of them
	// show what comes out in the end.
	events := len(m.out.events)
	for _, w := range m.queue(l.id) {
		end, how := w.ending()
		if end > due {
			m.promote(l, w)
			promoted = true
			break
		}
		m.note("promotion: passes over a wait that is overdue")
		m.leave(w, how)
	}
	for i := events; i < len(m.out.events); i++ {
		m.out.events[i].lock = m.view(l.id)
	}
	if free := m.freeLocks(); len(free) > twinMaxFreed {
		m.note("freed locks: one too many")
		m.drop(free[0].id)
	}
	return promoted
}

func (m *twin) promote(l *twinLock, w *twinWait) {
	end := m.time.plus(w.ttl)
	if w.detached {
		end = w.detachEnd
	}
	m.noteIf(w.detached, "promotion: of a detached wait")
	m.noteIf(end <= m.time, "promotion: the new end is due already")
	m.noteIf(w.enqueued, "promotion: of an enqueued wait")
	m.noteIf(w.retried, "promotion: of a retried request")
	m.grant(l, w.id, end, w.metadata)
	l.unclaimed, l.retried = w.detached, w.retried
	m.leave(w, eventGranted)
}

// grant makes id the holder, with a new token.
func (m *twin) grant(l *twinLock, id identity, end logTime, md metadata) {
	m.token++
	*l = twinLock{
		id: l.id, owner: id.client, request: id.request, version: m.token, end: end,
		acquired: m.wall, modified: m.wall, metadata: md,
	}
}

// leave takes a waiter out of its queue and says why.
func (m *twin) leave(w *twinWait, why eventKind) {
	m.waits = slices.DeleteFunc(m.waits, func(o *twinWait) bool { return o == w })
	if why == eventTimedOut && w.retried {
		m.note("remembered: the request of a wait that timed out")
		m.remember(w.lock, w.id)
	}
	m.out.events = append(m.out.events, event{kind: why, waiter: w.number, id: w.id, lock: m.view(w.lock)})
}

func (m *twin) remember(lock string, id identity) {
	m.forget(lock, id)
	m.requests = append(m.requests, twinRequest{lock, id, m.time.plus(twinKeepRequest)})
	if len(m.requests) > twinMaxRequests {
		m.note("remembered requests: one too many")
		first := slices.MinFunc(m.requests, func(a, b twinRequest) int {
			return cmp.Or(cmp.Compare(a.end, b.end), cmp.Compare(a.lock, b.lock),
				cmp.Compare(a.id.client, b.id.client), cmp.Compare(a.id.request, b.id.request))
		})
		m.forget(first.lock, first.id)
	}
}

func (m *twin) forget(lock string, id identity) {
	m.requests = slices.DeleteFunc(m.requests, func(r twinRequest) bool { return r.lock == lock && r.id == id })
}

func (m *twin) remembers(lock string, id identity) bool {
	return slices.ContainsFunc(m.requests, func(r twinRequest) bool { return r.lock == lock && r.id == id })
}

// twinEnd is something that ends by time. The fields stand in the order in
// which ends are told apart.
type twinEnd struct {
	end    logTime
	kind   int
	lock   string
	number uint64
	id     identity
}

// The kinds of ends, in the order of the sweep.
const (
	twinEndHeld = iota
	twinEndTimeout
	twinEndDetach
	twinEndFreed
	twinEndRequest
)

// counted: what the sweep's cap counts, and what an entry must come for.
func (e *twinEnd) counted() bool { return e.kind <= twinEndDetach }

func compareTwinEnds(a, b twinEnd) int {
	if a.end != b.end {
		return cmp.Compare(a.end, b.end)
	}
	return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.lock, b.lock),
		cmp.Compare(a.number, b.number), cmp.Compare(a.id.client, b.id.client), cmp.Compare(a.id.request, b.id.request))
}

// ending is when and how a wait ends by itself.
func (w *twinWait) ending() (logTime, eventKind) {
	if w.detached && w.detachEnd < w.timeout {
		return w.detachEnd, eventLapsed
	}
	return w.timeout, eventTimedOut
}

// ends goes over all ends in no order.
func (m *twin) ends(visit func(twinEnd) bool) {
	for _, l := range m.locks {
		e := twinEnd{end: l.end, kind: twinEndHeld, lock: l.id}
		if l.owner == "" {
			e.end, e.kind = l.freedAt.plus(twinKeepFreed), twinEndFreed
		}
		if !visit(e) {
			return
		}
	}
	for _, w := range m.waits {
		e := twinEnd{kind: twinEndTimeout, lock: w.lock, number: w.number}
		var how eventKind
		if e.end, how = w.ending(); how == eventLapsed {
			e.kind = twinEndDetach
		}
		if !visit(e) {
			return
		}
	}
	for _, r := range m.requests {
		if !visit(twinEnd{end: r.end, kind: twinEndRequest, lock: r.lock, id: r.id}) {
			return
		}
	}
}

// firstEnd is the next in the order of the sweep.
func (m *twin) firstEnd() (first twinEnd, any bool) {
	for e := range m.ends {
		if !any || compareTwinEnds(e, first) < 0 {
			first, any = e, true
		}
	}
	return first, any
}

// sweep ends, after the last command, what is due by the stamp. It stops where
// it would go beyond its cap.
func (m *twin) sweep() {
	for counted := 0; ; {
		first, any := m.firstEnd()
		if !any || first.end > m.time {
			return
		}
		if first.counted() {
			counted++
		}
		if counted > twinSweepCap {
			m.note("sweep: stops at its cap")
			m.out.more = true
			return
		}
		m.finish(first)
	}
}

func (m *twin) finish(e twinEnd) {
	switch e.kind {
	case twinEndHeld:
		m.note("sweep: a held lock")
		m.noteIf(e.end == m.time, "sweep: end exactly at the stamp")
		// In the order of the sweep no waiter is overdue when its lock ends.
		m.expire(m.lock(e.lock), math.MinInt64)
	case twinEndTimeout, twinEndDetach:
		w := m.waits[slices.IndexFunc(m.waits, func(w *twinWait) bool { return w.number == e.number })]
		_, how := w.ending()
		m.noteIf(how == eventTimedOut && w.detached && w.detachEnd == w.timeout, "sweep: time-out and detachment end together")
		m.noteIf(how == eventTimedOut, "sweep: a wait times out")
		m.noteIf(how == eventLapsed, "sweep: a detached wait lapses")
		m.leave(w, how)
	case twinEndFreed:
		m.note("sweep: a freed lock is forgotten")
		m.drop(e.lock)
	case twinEndRequest:
		m.note("sweep: a request is forgotten")
		m.forget(e.lock, e.id)
	}
}

// nextEnd is the end that an entry must come for: forgetting can wait.
func (m *twin) nextEnd() (logTime, bool) {
	next, any := never, false
	for e := range m.ends {
		if e.counted() {
			next, any = min(next, e.end), true
		}
	}
	return next, any
}

func (m *twin) lock(id string) *twinLock {
	for _, l := range m.locks {
		if l.id == id {
			return l
		}
	}
	return nil
}

func (m *twin) drop(id string) {
	m.locks = slices.DeleteFunc(m.locks, func(l *twinLock) bool { return l.id == id })
}

// freeLocks lists the free locks, the one freed first in front.
func (m *twin) freeLocks() []*twinLock {
	var free []*twinLock
	for _, l := range m.locks {
		if l.owner == "" {
			free = append(free, l)
		}
	}
	slices.SortFunc(free, func(a, b *twinLock) int { return cmp.Compare(a.place, b.place) })
	return free
}

// queue lists the waiters of a lock, the next one in front.
func (m *twin) queue(lock string) []*twinWait {
	var q []*twinWait
	for _, w := range m.waits {
		if w.lock == lock {
			q = append(q, w)
		}
	}
	slices.SortFunc(q, func(a, b *twinWait) int {
		return cmp.Or(cmp.Compare(b.priority, a.priority), cmp.Compare(a.number, b.number))
	})
	return q
}

func (m *twin) waiter(lock string, id identity) *twinWait {
	for _, w := range m.waits {
		if w.lock == lock && w.id == id {
			return w
		}
	}
	return nil
}

func (m *twin) view(id string) lockView {
	l := m.lock(id)
	if l == nil {
		return lockView{id: id}
	}
	return lockView{
		id: id, owner: l.owner, request: l.request, version: l.version, end: l.end,
		acquired: l.acquired, modified: l.modified, waiters: int32(len(m.queue(id))), metadata: l.metadata,
	}
}

// read is view as a read answers it: a grant whose end has come counts as ended,
// also before the entry that ends it.
func (m *twin) read(id string) lockView {
	v := m.view(id)
	if v.owner != "" && v.end <= m.time {
		m.note("read: a grant whose end has come")
		return lockView{id: id, version: v.version, modified: v.modified, waiters: v.waiters}
	}
	return v
}

// waiters lists a queue as a read answers it.
func (m *twin) waiters(id string) (views []waiterView) {
	for i, w := range m.queue(id) {
		views = append(views, waiterView{
			client: w.id.client, request: w.id.request, number: w.number, claim: w.claim,
			version: w.version, joined: w.joined, timeout: w.timeout, priority: w.priority,
			position: int32(i), enqueued: w.enqueued, detached: w.detached,
		})
	}
	return views
}

func (m *twin) heldCount() (n int) {
	for _, l := range m.locks {
		if l.owner != "" {
			n++
		}
	}
	return n
}

// contestedCount counts the locks that somebody waits for.
func (m *twin) contestedCount() (n int) {
	for _, l := range m.locks {
		if len(m.queue(l.id)) > 0 {
			n++
		}
	}
	return n
}

// text is the whole state. Of the places of freed locks only their order counts.
func (m *twin) text() string {
	var b strings.Builder
	fmt.Fprintln(&b, m.time, m.token, m.seq)
	free := m.freeLocks()
	for _, l := range slices.SortedFunc(slices.Values(m.locks), func(a, b *twinLock) int { return cmp.Compare(a.id, b.id) }) {
		shown := *l
		shown.place = slices.Index(free, l)
		fmt.Fprintf(&b, "%+v\n", shown)
	}
	for _, w := range m.waits { // in the order of their numbers
		fmt.Fprintf(&b, "%+v\n", *w)
	}
	for _, r := range slices.SortedFunc(slices.Values(m.requests), func(a, b twinRequest) int {
		return cmp.Compare(fmt.Sprint(a), fmt.Sprint(b))
	}) {
		fmt.Fprintf(&b, "%+v\n", r)
	}
	return b.String()
}

func (m *twin) note(situation string) { m.seen[situation]++ }

func (m *twin) noteIf(yes bool, situation string) {
	if yes {
		m.note(situation)
	}
}

package raftlock

import "github.com/raftlock/raftlock/pb"

// Lengths and caps that are rules of the table (docs/locktable.md), not
// settings: members that disagreed about one would diverge.
const (
	listedFor     = span(60_000_000_000) // a freed lock stays listed
	rememberedFor = span(60_000_000_000) // a request id must not come back
	termWindow    = span(10_000_000_000) // to claim a wait after a new term
	detachWindow  = span(2_000_000_000)  // to claim a wait after a lost connection

	maxFreed      = 100_000 // free locks that stay listed
	maxRemembered = 100_000 // requests that are remembered
	sweepCap      = 1_000   // ends that one entry may bring about

	// maxFloor bounds the token floor of a first entry: a leader whose wall
	// clock is absurd must not use the tokens up.
	maxFloor = int64(1) << 52
)

// table is the lock table: a function from the log to a state. It obeys the
// entry and nothing else, so that every member that applied the same log has
// the same locks, the same queues and the same hash. docs/locktable.md has its
// rules. It is not safe for concurrent use; what clone returns may be read by
// another goroutine.
//
// What is below "derived" can be made from what is above it: it is neither
// hashed nor cloned, restore makes it anew, and members may differ in it.
type table struct {
	at       logTime // stamp of the last entry; never falls
	token    int64   // the last one given
	seq      uint64  // the last waiter or claim number given
	freeings uint64  // the last place given in the order of freeing

	locks  lockTree
	queue  waitQueue
	memory requestMemory

	// derived
	ends      deadlines
	freed     freedLocks
	held      int
	contested int

	// Of the entry that is being applied. The slices are handed out in the
	// outcome and used again by the next apply.
	wall    int64
	bounds  bounds
	expired int
	granted int
	ended   int
	heldFor int64 // µs
	results []result
	events  []event
	work    openLock // the lock of the command or end at hand
}

func newTable() *table {
	return &table{locks: newLockTree(), queue: newWaitQueue(), memory: newRequestMemory()}
}

// now is the time of the last stamp.
func (t *table) now() logTime { return t.at }

// hash is equal on members that applied the same log. It costs a few
// nanoseconds: every change of an item keeps the sums up to date.
func (t *table) hash() uint64 {
	h := mixWord(hashSeed, uint64(t.at))
	h = mixWord(h, uint64(t.token))
	h = mixWord(h, t.seq)
	h = mixWord(h, t.freeings)
	return endHash(h) + t.locks.sum + t.queue.sum + t.memory.sum
}

// heldCount is how many locks somebody holds, as of the last entry.
func (t *table) heldCount() int { return t.held }

// waiterCount is how many waiters stand in all queues together.
func (t *table) waiterCount() int { return t.queue.len() }

// contestedCount is how many locks have waiters.
func (t *table) contestedCount() int { return t.contested }

// apply does what an entry says and returns what came of it. The slices of the
// outcome belong to the table: they are valid until the next apply. Strings and
// metadata in them may be kept. e is not changed and not kept, its strings and
// metadata are.
func (t *table) apply(e *entry) outcome { return t.applyEach(e, nil) }

// applyEach is apply, and gives each command's result to each as soon as it is
// known, if each is not nil. The events and ends of the entry come after all of
// them.
func (t *table) applyEach(e *entry, each func(i int, r *result)) outcome {
	prev := t.at
	t.at = max(t.at, e.stamp)
	t.begin(e)
	if e.first {
		t.newTerm(e.floor)
	}
	for i := range e.commands {
		t.results = append(t.results, result{code: pb.ErrorCode_OK})
		t.run(&e.commands[i], prev, &t.results[i])
		if each != nil {
			each(i, &t.results[i])
		}
	}
	more := t.sweep()
	return outcome{
		results: t.results, events: t.events, more: more, expired: t.expired,
		granted: t.granted, ended: t.ended, heldFor: t.heldFor,
	}
}

// begin makes the scratch ready for an entry. A burst (a sweep of a thousand
// ends, a batch of cancels) must not keep its memory for ever, and a slice that
// is not reused must not keep the strings of an old entry alive.
func (t *table) begin(e *entry) {
	const keep = 4096
	t.wall, t.bounds = e.wall, e.bounds
	t.expired, t.granted, t.ended, t.heldFor = 0, 0, 0, 0
	if cap(t.results) > keep {
		t.results = nil
	}
	if cap(t.events) > keep {
		t.events = nil
	}
	clear(t.events)
	t.results, t.events = t.results[:0], t.events[:0]
}

// newTerm lifts the token above everything that an earlier cluster or leader
// can have given, and detaches the waits whose calls were attached to another
// leader.
func (t *table) newTerm(floor int64) {
	if floor <= maxFloor {
		t.token = max(t.token, floor)
	}
	end := t.at.plus(termWindow)
	for _, w := range t.queue.attached() {
		w.detach(end)
		t.saveWaiter(&w)
	}
}

// run obeys one command. The lock that it names is opened once, settled,
// changed and written back once.
func (t *table) run(c *command, prev logTime, r *result) {
	if c.lock == "" || c.client == "" {
		// No leader lets this into the log. But what is in the log must not
		// break the table, where an empty owner means a free lock.
		r.code = pb.ErrorCode_INVALID_ARGUMENT
		r.lock.id = c.lock
		return
	}
	l := t.open(c.lock)
	due := max(min(c.arrival, t.at), prev)
	t.settle(l, due)
	switch c.kind {
	case cmdAcquire:
		t.acquire(l, c, r)
	case cmdRelease:
		t.release(l, c, due, r)
	case cmdRenew:
		t.renew(l, c, r)
	case cmdEnqueue:
		t.enqueue(l, c, r)
	case cmdCancel:
		t.cancel(l, c, r)
	case cmdWithdraw:
		t.withdraw(l, c, due, r)
	case cmdAbandon:
		t.abandon(l, c)
	case cmdDetach:
		t.detach(l, c)
	}
	t.close(l)
	r.lock = l.view()
}

// settle ends the grant if its end has passed when the command arrived, or
// before this entry. So a command meets the lock as it was at its arrival,
// however long the entry took to come through.
func (t *table) settle(l *openLock, due logTime) {
	for l.held() && l.end <= due {
		t.expired++
		t.free(l, due)
	}
}

func (t *table) acquire(l *openLock, c *command, r *result) {
	id := c.identity()
	switch {
	case id.request != "" && t.memory.has(l.id, id):
		r.code = pb.ErrorCode_NOT_WAITING
	case !l.held():
		t.take(l, c, id, r)
	case l.heldBy(id):
		t.reenter(l, c)
	default:
		t.contend(l, c, id, r)
	}
}

// repeated reports whether a command is known to be a later attempt of its
// call: an earlier one may still be on its way, and must not take the lock
// after the call has been answered.
func repeated(c *command) bool { return c.attempt > 1 && c.request != "" }

// take grants a lock that nobody holds.
func (t *table) take(l *openLock, c *command, id identity, r *result) {
	if !l.known && int64(t.locks.len()) >= t.bounds.locks {
		t.refuse(l, c, r, pb.ErrorCode_RATE_LIMITED)
		r.limit = t.bounds.locks
		return
	}
	g := grant{id: id, end: t.at.plus(c.ttl), metadata: keepMetadata(c.metadata)}
	if repeated(c) {
		g.flags = lockRetried
	}
	t.give(l, g)
}

// refuse answers with a refusal that ends the call: a late attempt of it must
// not come through afterwards.
func (t *table) refuse(l *openLock, c *command, r *result, code pb.ErrorCode) {
	r.code = code
	if repeated(c) {
		t.remember(l.id, c.identity())
	}
}

// reenter answers the holder's own Acquire: the same grant, which a claim
// restores to its full length and a plain call may extend.
func (t *table) reenter(l *openLock, c *command) {
	end, flags := l.end, l.flags&^lockUnclaimed
	switch {
	case flags != l.flags:
		end = t.at.plus(c.ttl)
	case c.request == "":
		end = max(end, t.at.plus(c.ttl))
	}
	if repeated(c) {
		flags |= lockRetried
	}
	l.dirty = end != l.end || flags != l.flags || l.dirty
	if end != l.end {
		l.end, l.modified = end, t.wall
	}
	l.flags = flags
}

// contend is an Acquire of a lock that another holds.
func (t *table) contend(l *openLock, c *command, id identity, r *result) {
	w, waits := t.waiterOf(l, id)
	switch {
	case waits && c.wait:
		t.claim(l, &w, c, r)
	case waits:
		r.code = pb.ErrorCode_LOCK_HELD
	case !c.wait:
		t.refuse(l, c, r, pb.ErrorCode_LOCK_HELD)
	default:
		t.join(l, c, id, 0, r)
	}
}

// refuses reports whether an Acquire would be refused with LOCK_HELD at a time,
// and nothing else came of it: then it needs no entry.
func (t *table) refuses(c *command, at logTime) (lockView, bool) {
	if c.kind != cmdAcquire || c.wait || repeated(c) {
		return lockView{}, false
	}
	l, _ := t.locks.get(c.lock)
	if !l.held() || l.end <= at || l.heldBy(c.identity()) || c.request != "" && t.memory.has(c.lock, c.identity()) {
		return lockView{}, false
	}
	return l.view(), true
}

// claim attaches a call to the wait that its identity has already.
func (t *table) claim(l *openLock, w *waiter, c *command, r *result) {
	t.seq++
	w.claim = t.seq
	w.flags &^= waiterDetached
	if repeated(c) {
		w.flags |= waiterRetried
	}
	if c.request == "" && c.attempt <= 1 {
		w.timeout = max(w.timeout, t.at.plus(c.timeout))
	}
	t.saveWaiter(w)
	t.queued(w, t.queue.position(w, int(l.waiters)), r)
}

// join puts a new waiter into the queue, if the bounds allow.
func (t *table) join(l *openLock, c *command, id identity, flags waiterFlags, r *result) {
	if int64(l.waiters) >= t.bounds.lockWaiters {
		t.refuse(l, c, r, pb.ErrorCode_WAIT_QUEUE_FULL)
		r.limit = t.bounds.lockWaiters
		return
	}
	if int64(t.queue.len()) >= t.bounds.waiters {
		t.refuse(l, c, r, pb.ErrorCode_RATE_LIMITED)
		r.limit = t.bounds.waiters
		return
	}
	if repeated(c) {
		flags |= waiterRetried
	}
	t.seq++
	w := waiter{
		lock: l.id, client: id.client, request: id.request,
		number: t.seq, claim: t.seq,
		ttl: c.ttl, timeout: t.at.plus(c.timeout), joined: t.wall,
		metadata: keepMetadata(c.metadata), priority: c.priority, flags: flags,
	}
	if flags&waiterEnqueued != 0 {
		w.version = c.version
	}
	t.saveWaiter(&w)
	t.countWaiter(l, 1)
	t.queued(&w, int(l.waiters)-1-t.queue.behind(&w), r)
}

// queued fills in the answer of a call that waits from now on.
func (t *table) queued(w *waiter, position int, r *result) {
	r.queued, r.waiter, r.claim, r.position = true, w.number, w.claim, int32(position)
}

func (t *table) release(l *openLock, c *command, due logTime, r *result) {
	if r.code = l.refusal(c); r.code == pb.ErrorCode_OK {
		r.promoted = t.free(l, due)
	}
}

func (t *table) renew(l *openLock, c *command, r *result) {
	if r.code = l.refusal(c); r.code != pb.ErrorCode_OK {
		return
	}
	l.end = max(l.end, t.at.plus(c.ttl))
	l.flags &^= lockUnclaimed
	l.modified = t.wall
	l.dirty = true
}

func (t *table) enqueue(l *openLock, c *command, r *result) {
	id := identity{client: c.client}
	plain := *c // whatever else it carries means nothing here
	plain.request, plain.metadata = "", nil
	c = &plain
	if !l.held() {
		t.take(l, c, id, r)
		return
	}
	if l.heldBy(id) {
		r.code = pb.ErrorCode_LOCK_HELD
		return
	}
	w, waits := t.waiterOf(l, id)
	if !waits {
		t.join(l, c, id, waiterEnqueued, r)
		return
	}
	t.seq++
	w.claim = t.seq
	w.version = c.version
	w.timeout = t.at.plus(c.timeout)
	w.flags = w.flags&^waiterDetached | waiterEnqueued
	if w.priority != c.priority {
		t.queue.remove(&w) // its key changes; its heap key names the old one
		w.priority, w.key = c.priority, 0
	}
	t.saveWaiter(&w)
	t.queued(&w, t.queue.position(&w, int(l.waiters)), r)
}

func (t *table) cancel(l *openLock, c *command, r *result) {
	w, waits := t.waiterOf(l, identity{client: c.client})
	switch {
	case !waits:
		r.code = pb.ErrorCode_NOT_WAITING
	case c.version != 0 && c.version != w.version:
		r.code = pb.ErrorCode_VERSION_MISMATCH
	default:
		t.leave(l, &w, eventCancelled)
	}
}

func (t *table) withdraw(l *openLock, c *command, due logTime, r *result) {
	id := c.identity()
	if w, waits := t.waiterOf(l, id); waits {
		t.leave(l, &w, eventCancelled)
	}
	if l.held() && l.heldBy(id) {
		r.promoted = t.free(l, due)
	}
	if id.request != "" {
		t.remember(l.id, id)
	}
}

func (t *table) abandon(l *openLock, c *command) {
	w, waits := t.waiterOf(l, identity{client: c.client})
	if waits && w.claim == c.claim && w.flags&waiterEnqueued == 0 {
		t.leave(l, &w, eventCancelled)
	}
}

func (t *table) detach(l *openLock, c *command) {
	w, waits := t.waiterOf(l, c.identity())
	if waits && w.claim == c.claim && w.flags&(waiterEnqueued|waiterDetached) == 0 {
		w.detach(t.at.plus(detachWindow))
		t.saveWaiter(&w)
	}
}

// free ends a grant and hands the lock to the first waiter whose own end is
// later than due; the ones before it that are overdue leave. It reports whether
// a waiter got the lock. The events show the lock as it is when all of this is
// done: in between it would be free and have waiters, which never is.
func (t *table) free(l *openLock, due logTime) (promoted bool) {
	held := max(0, t.wall-l.since) // by two leaders' wall clocks, perhaps: it is for people
	t.ended++
	t.heldFor += held
	l.usual = l.usual.after(held)
	if l.flags&lockRetried != 0 {
		t.remember(l.id, identity{l.owner, l.request})
	}
	from := len(t.events)
	for l.waiters > 0 && !promoted {
		w, _ := t.queue.first(l.id)
		if end, _ := w.end(); end <= due {
			t.leave(l, &w, w.ending())
			continue
		}
		t.promote(l, &w)
		promoted = true
	}
	if !promoted {
		t.setFree(l)
	}
	view := l.view()
	for i := from; i < len(t.events); i++ {
		t.events[i].lock = view
	}
	return promoted
}

// promote makes a waiter the holder.
func (t *table) promote(l *openLock, w *waiter) {
	g := grant{id: w.identity(), end: t.at.plus(w.ttl), metadata: w.metadata}
	if w.flags&waiterRetried != 0 {
		g.flags = lockRetried
	}
	if w.flags&waiterDetached != 0 {
		g.end = w.detachEnd
		g.flags |= lockUnclaimed
	}
	t.leave(l, w, eventGranted)
	t.give(l, g)
}

// grant is what a lock gets with its new holder, besides a token.
type grant struct {
	id       identity
	end      logTime
	metadata *metadata
	flags    lockFlags
}

func (t *table) give(l *openLock, g grant) {
	if l.known && !l.held() {
		t.freed.remove(uint64(l.since))
	}
	if !l.held() {
		t.held++
	}
	t.token++
	t.granted++
	l.owner, l.request = g.id.client, g.id.request
	l.version, l.end = t.token, g.end
	l.since, l.modified = t.wall, t.wall
	l.metadata, l.flags = g.metadata, g.flags
	l.known, l.dirty = true, true
}

// setFree leaves the lock without a holder, listed for a while.
func (t *table) setFree(l *openLock) {
	t.held--
	t.freeings++
	l.owner, l.request, l.metadata, l.flags = "", "", nil, 0
	l.since, l.end, l.modified = int64(t.freeings), t.at.plus(listedFor), t.wall
	l.dirty = true
	t.freed.add(freedLock{id: l.id, place: t.freeings, end: l.end})
	for t.freed.len() > maxFreed {
		t.dropFreed()
	}
}

// leave takes a waiter out of the queue and tells how its wait ended.
func (t *table) leave(l *openLock, w *waiter, kind eventKind) {
	t.queue.remove(w)
	t.countWaiter(l, -1)
	if kind == eventTimedOut && w.flags&waiterRetried != 0 {
		t.remember(l.id, w.identity())
	}
	t.events = append(t.events, event{kind: kind, waiter: w.number, id: w.identity(), lock: l.view()})
}

func (t *table) countWaiter(l *openLock, by int32) {
	was := l.waiters
	l.waiters += by
	l.dirty = true
	switch {
	case was == 0:
		t.contested++
	case l.waiters == 0:
		t.contested--
	}
}

func (t *table) remember(lock string, id identity) {
	t.memory.add(lock, id, t.at.plus(rememberedFor))
}

// waiterOf finds an identity's wait for an open lock.
func (t *table) waiterOf(l *openLock, id identity) (waiter, bool) {
	if l.waiters == 0 {
		return waiter{}, false
	}
	return t.queue.find(l.id, id)
}

// saveWaiter writes a waiter and sees to it that its end is met.
func (t *table) saveWaiter(w *waiter) {
	t.standWaiter(w)
	t.queue.put(w)
}

// clone returns the state as it is now. It costs microseconds, whatever the
// size; the pages that either side changes afterwards are copied as needed.
func (t *table) clone() *tableView {
	return &tableView{
		at: t.at, token: t.token, seq: t.seq, freeings: t.freeings,
		locks: t.locks.clone(), queue: t.queue.tree.clone(), memory: t.memory.tree.clone(),
	}
}

package raftlock

import (
	"cmp"
	"flag"
	"fmt"
	"github.com/raftlock/raftlock/pb"
	"math"
	"math/rand/v2"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"
)

// logMaker makes random logs. Everything comes out of one seed. It applies
// what it makes to a twin and looks at it, because only who knows the state
// can hit an end to the nanosecond, or name a claim that stands.
type logMaker struct {
	rng  *rand.Rand
	twin *twin
	log  []entry

	// The spaces of names and lengths are small, so that things collide.
	locks, clients, requests []string
	spans                    []span
	bounds                   bounds
}

// makeLog returns the log of a seed.
func makeLog(seed uint64) []entry {
	m := newLogMaker(seed)
	for range 20 + m.rng.IntN(60) {
		m.add(m.entry())
	}
	return m.log
}

// makeCrowdedLog returns the log of a seed in which more ends fall due
// at once than a sweep may end.
func makeCrowdedLog(seed uint64) []entry {
	m := newLogMaker(seed)
	m.crowd()
	for range 5 {
		m.add(m.entry())
	}
	return m.log
}

// makeLongQueueLog returns the log of a seed in which about a hundred wait for
// one lock.
func makeLongQueueLog(seed uint64) []entry {
	m := newLogMaker(seed)
	m.locks, m.clients, m.requests = []string{"a", "b"}, nil, []string{"", "r", "s", "t"}
	for i := range 40 {
		m.clients = append(m.clients, fmt.Sprint("C", i))
	}
	m.spans = []span{10 * twinSecond, 30 * twinSecond, 60 * twinSecond}
	m.bounds = bounds{lockWaiters: 100, locks: 100, waiters: 1000}
	e := entry{stamp: m.twin.time, bounds: m.bounds}
	for range 200 {
		c := m.acquire()
		c.wait, c.lock, c.timeout = true, "a", pickFrom(m, m.spans)
		e.commands = append(e.commands, c)
	}
	m.add(e)
	for range 60 {
		e := m.entry()
		e.stamp = min(e.stamp, m.twin.time.plus(twinSecond))
		m.add(e)
	}
	return m.log
}

func newLogMaker(seed uint64) *logMaker { return drawLogs(rand.New(rand.NewPCG(seed, 1))) }

func drawLogs(rng *rand.Rand) *logMaker {
	m := &logMaker{rng: rng, twin: newTwin()}
	m.locks = []string{"a", "b", "c", "d"}[:1+m.rng.IntN(4)]
	m.clients = []string{"A", "B", "C", "D", "E"}[:2+m.rng.IntN(4)]
	m.requests = []string{"", "", "r", "s"}[:2+m.rng.IntN(3)]
	if m.oneIn(4) { // long names; they differ in the first byte, or in the last
		for i := range m.locks {
			m.locks[i] += "/a/name/of/ordinary/length"
		}
		for i := range m.clients {
			m.clients[i] = "host-17." + m.clients[i]
		}
	}
	m.spans = []span{1, 1_000_000, 100_000_000, twinSecond, twinDetachWindow, 5 * twinSecond, twinNewTermWindow}
	if m.oneIn(2) {
		m.spans = append(m.spans, 30*twinSecond, 60*twinSecond, 24*3600*twinSecond, math.MaxInt64)
	}
	m.bounds = bounds{lockWaiters: 100, locks: 100, waiters: 100}
	if m.oneIn(3) {
		m.bounds = bounds{lockWaiters: m.rng.Int64N(4), locks: 1 + m.rng.Int64N(4), waiters: m.rng.Int64N(6)}
	}
	return m
}

func (m *logMaker) add(e entry) {
	m.log = append(m.log, e)
	m.twin.apply(&m.log[len(m.log)-1])
}

func (m *logMaker) oneIn(n int) bool { return m.rng.IntN(n) == 0 }

func pickFrom[T any](m *logMaker, from []T) T { return from[m.rng.IntN(len(from))] }

// crowd fills the table with grants and waits that end within two nanoseconds
// of each other, and lets time pass over all of them, in an entry or in a few.
func (m *logMaker) crowd() {
	size := 300 + m.rng.IntN(200)
	m.locks = nil
	for i := range size {
		m.locks = append(m.locks, fmt.Sprintf("l%03d", i))
	}
	m.clients, m.requests = []string{"A", "B", "C", "D", "E"}, []string{"", "r", "s"}
	m.spans = []span{twinSecond, twinSecond, twinSecond + 1, twinDetachWindow}
	m.bounds = bounds{lockWaiters: 100, locks: 10_000, waiters: 10_000}
	e := entry{stamp: m.twin.time, wall: 1, bounds: m.bounds}
	for range 6 * size {
		c := m.acquire()
		c.wait, c.lock, c.ttl, c.timeout = true, pickFrom(m, m.locks), pickFrom(m, m.spans), pickFrom(m, m.spans)
		e.commands = append(e.commands, c)
	}
	m.add(e)
	m.add(entry{stamp: m.twin.time.plus(twinSecond - 1), wall: 2, first: m.oneIn(2)})
	m.add(entry{stamp: m.twin.time.plus(pickFrom(m, []span{2, twinSecond, twinNewTermWindow})), wall: 3})
	for range 3 {
		e := m.entry()
		e.stamp = m.twin.time + logTime(m.rng.IntN(2))
		m.add(e)
	}
}

func (m *logMaker) entry() entry {
	e := entry{stamp: m.stamp(), wall: m.rng.Int64N(1_000_000)}
	if m.oneIn(15) {
		e.first, e.floor = true, m.floor()
	}
	if m.oneIn(8) {
		return e
	}
	for range 1 + m.rng.IntN(5) {
		c := m.command()
		c.arrival = m.arrival(e.stamp, c.lock)
		e.commands = append(e.commands, c)
		if c.kind == cmdAcquire || c.kind == cmdEnqueue {
			e.bounds = m.bounds
		}
	}
	return e
}

// stamp is the next entry's: often an end to the nanosecond, or beside it.
func (m *logMaker) stamp() logTime {
	now := m.twin.time
	switch m.rng.IntN(15) {
	case 0, 1:
		return now
	case 11:
		// What is detached or begun here may end together with something else.
		return max(now, m.someEnd("")-logTime(pickFrom(m, m.spans)))
	case 2:
		return now.plus(1)
	case 3:
		return max(0, now-logTime(m.rng.Int64N(int64(twinSecond))))
	case 4, 5:
		return now.plus(pickFrom(m, m.spans[:min(len(m.spans), 7)]))
	case 6:
		if m.oneIn(40) {
			return never - 1 - logTime(m.rng.Int64N(int64(3*twinSecond)))
		}
		return now.plus(span(m.rng.Int64N(int64(70 * twinSecond))))
	case 7, 8, 9:
		if next, ok := m.twin.nextEnd(); ok && next < never-1 {
			return next + logTime(m.rng.IntN(3)-1)
		}
	case 10:
		if end := m.someEnd(""); end > now && end < never-1 {
			return end + logTime(m.rng.IntN(3)-1)
		}
	}
	return now.plus(span(m.rng.Int64N(300_000_000)))
}

// someEnd is one of the ends in the table, of one lock if it is named.
func (m *logMaker) someEnd(lock string) logTime {
	var all []twinEnd
	for e := range m.twin.ends {
		if lock == "" || e.lock == lock {
			all = append(all, e)
		}
	}
	if len(all) == 0 {
		return m.twin.time
	}
	return pickFrom(m, all).end
}

// arrival is a command's: before, at or after an end of the lock it names.
func (m *logMaker) arrival(stamp logTime, lock string) logTime {
	at := stamp
	switch m.rng.IntN(6) {
	case 0:
		at = m.twin.time
	case 1:
		at = stamp - logTime(m.rng.Int64N(int64(3*twinSecond)))
	case 2, 3:
		if end := m.someEnd(lock); end < never-1 {
			at = end + logTime(m.rng.IntN(3)-1)
		}
	}
	return max(0, min(at, stamp))
}

func (m *logMaker) floor() int64 {
	switch m.rng.IntN(8) {
	case 0:
		return -1 - m.rng.Int64N(1000)
	case 1:
		return twinMaxFloor + 1 + m.rng.Int64N(2)*(math.MaxInt64-twinMaxFloor-1)
	case 2:
		if m.oneIn(5) {
			return twinMaxFloor
		}
	case 3, 4:
		return max(0, m.twin.token-m.rng.Int64N(3))
	}
	return m.twin.token/1000*1000 + m.rng.Int64N(5000)
}

func (m *logMaker) command() command {
	switch n := m.rng.IntN(100); {
	case n < 45:
		return m.acquire()
	case n < 56:
		return m.byHolder(command{kind: cmdRelease})
	case n < 64:
		return m.byHolder(command{kind: cmdRenew, ttl: pickFrom(m, m.spans)})
	case n < 72:
		return m.enqueue()
	case n < 77:
		return m.cancel()
	case n < 83:
		return m.withdraw()
	case n < 89:
		c := m.byWaiter(command{kind: cmdAbandon})
		c.request = ""
		return c
	}
	return m.byWaiter(command{kind: cmdDetach})
}

func (m *logMaker) acquire() command {
	c := command{
		kind: cmdAcquire, wait: !m.oneIn(4), lock: pickFrom(m, m.locks), client: pickFrom(m, m.clients),
		request: pickFrom(m, m.requests), priority: int32(m.rng.IntN(3) - 1), ttl: pickFrom(m, m.spans),
		attempt: int32(pickFrom(m, []int{0, 1, 1, 2, 2, 3})),
	}
	if c.wait {
		c.timeout = pickFrom(m, m.spans)
	}
	if m.oneIn(4) {
		c.metadata = metadata{{"k", fmt.Sprint(m.rng.IntN(3))}, {"l", strings.Repeat("v", m.rng.IntN(200))}}
	}
	if m.oneIn(4) {
		m.asWaiter(&c)
	} else if m.oneIn(4) {
		m.asHolder(&c)
	}
	return c
}

func (m *logMaker) enqueue() command {
	c := command{
		kind: cmdEnqueue, lock: pickFrom(m, m.locks), client: pickFrom(m, m.clients), priority: int32(m.rng.IntN(3) - 1),
		ttl: pickFrom(m, m.spans), timeout: pickFrom(m, m.spans), version: m.rng.Int64N(3),
	}
	if m.oneIn(3) {
		m.asWaiter(&c)
		c.request, c.claim = "", 0
	}
	return c
}

func (m *logMaker) cancel() command {
	c := m.byWaiter(command{kind: cmdCancel, version: m.rng.Int64N(3)})
	if w := m.twin.waiter(c.lock, c.identity()); w != nil && m.oneIn(2) {
		c.version = w.version
	}
	c.request, c.claim = "", 0
	return c
}

func (m *logMaker) withdraw() command {
	c := command{kind: cmdWithdraw, lock: pickFrom(m, m.locks), client: pickFrom(m, m.clients), request: pickFrom(m, []string{"r", "s"})}
	if m.oneIn(2) {
		m.asWaiter(&c)
	} else if m.oneIn(2) {
		m.asHolder(&c)
	}
	if c.request == "" {
		c.request = "r"
	}
	c.claim = 0
	return c
}

// byHolder completes a Release or Renew; mostly the true holder's.
func (m *logMaker) byHolder(c command) command {
	c.lock, c.client = pickFrom(m, m.locks), pickFrom(m, m.clients)
	if !m.oneIn(5) {
		m.asHolder(&c)
	}
	if l := m.twin.lock(c.lock); l != nil {
		c.version = l.version
	}
	if m.oneIn(6) {
		c.version += m.rng.Int64N(3) - 1
	}
	c.request = ""
	return c
}

// byWaiter completes a Detach or Abandon with a claim that stands, mostly, or
// with one that is past or still to come.
func (m *logMaker) byWaiter(c command) command {
	c.lock, c.client, c.request = pickFrom(m, m.locks), pickFrom(m, m.clients), pickFrom(m, m.requests)
	if !m.oneIn(8) {
		m.asWaiter(&c)
	}
	if w := m.twin.waiter(c.lock, c.identity()); w != nil {
		c.claim = w.claim
	}
	if m.oneIn(4) {
		c.claim = m.rng.Uint64N(m.twin.seq + 4)
	}
	return c
}

func (m *logMaker) asWaiter(c *command) {
	if len(m.twin.waits) > 0 {
		w := pickFrom(m, m.twin.waits)
		c.lock, c.client, c.request = w.lock, w.id.client, w.id.request
	}
}

func (m *logMaker) asHolder(c *command) {
	if l := m.twin.lock(c.lock); l != nil && l.owner != "" {
		c.client, c.request = l.owner, l.request
	}
}

// logText writes a log so that a person can read it.
func logText(log []entry) string {
	var b strings.Builder
	names := map[commandKind]string{
		cmdAcquire: "acquire", cmdRelease: "release", cmdRenew: "renew", cmdEnqueue: "enqueue",
		cmdCancel: "cancel", cmdWithdraw: "withdraw", cmdAbandon: "abandon", cmdDetach: "detach",
	}
	for _, e := range log {
		fmt.Fprintf(&b, "entry stamp=%d wall=%d", e.stamp, e.wall)
		if e.first {
			fmt.Fprintf(&b, " first floor=%d", e.floor)
		}
		fmt.Fprintf(&b, " bounds=%v\n", e.bounds)
		for _, c := range e.commands {
			fmt.Fprintf(&b, "   %s %s %s/%q arrival=%d", names[c.kind], c.lock, c.client, c.request, c.arrival)
			fmt.Fprintf(&b, " wait=%v attempt=%d priority=%d", c.wait, c.attempt, c.priority)
			fmt.Fprintf(&b, " version=%d ttl=%d timeout=%d claim=%d %v\n", c.version, c.ttl, c.timeout, c.claim, c.metadata)
		}
	}
	return b.String()
}

// shrinkLog leaves out entries and commands as long as the log still fails.
func shrinkLog(log []entry, fails func([]entry) bool) []entry {
	log = slices.Clone(shrinkList(log, fails))
	for i := range log {
		log[i].commands = shrinkList(log[i].commands, func(commands []command) bool {
			try := slices.Clone(log)
			try[i].commands = commands
			return fails(try)
		})
	}
	return log
}

// shrinkList leaves out runs of items: long ones first, in the end single ones.
func shrinkList[T any](items []T, fails func([]T) bool) []T {
	for size := max(1, len(items)/2); ; size = max(1, size/2) {
		before := len(items)
		for at := 0; at+size <= len(items); {
			if try := slices.Concat(items[:at], items[at+size:]); fails(try) {
				items = try
			} else {
				at += size
			}
		}
		if size == 1 && len(items) == before {
			return items
		}
	}
}

var logTimes = flag.Uint64("logs", 1, "how many times the usual number of random logs to try")

// logCount is how many random logs a property looks at.
func logCount(full, short uint64) uint64 {
	if testing.Short() {
		return short * *logTimes
	}
	return full * *logTimes
}

// forLogs checks a property on one log of each seed. check says what is wrong, or
// nothing; a panic is wrong too. The first log that fails is made small and
// printed, the seed with it.
func forLogs(t *testing.T, logs uint64, makeLog func(uint64) []entry, check func([]entry) string) {
	t.Helper()
	fault := func(log []entry) (fault string) {
		defer func() {
			if p := recover(); p != nil {
				fault = fmt.Sprintf("panic: %v\n%s", p, debug.Stack())
			}
		}()
		return check(log)
	}
	for seed := uint64(1); seed <= logs; seed++ {
		log := makeLog(seed)
		if fault(log) == "" {
			continue
		}
		enough := time.Now().Add(10 * time.Second)
		log = shrinkLog(log, func(log []entry) bool { return time.Now().Before(enough) && fault(log) != "" })
		t.Fatalf("seed %d: %s\nthe smallest log that fails:\n%s", seed, fault(log), logText(log))
	}
}

func TestTableAgreesWithTwin(t *testing.T) {
	seen := map[string]int{}
	check := func(log []entry) string { return disagreement(log, seen) }
	forLogs(t, logCount(1500, 400), makeLog, check)
	forLogs(t, logCount(10, 3), makeLongQueueLog, check)
	forLogs(t, logCount(2, 1), makeCrowdedLog, check)
	for _, situation := range mustOccur {
		if seen[situation] == 0 {
			t.Errorf("no log reached: %s", situation)
		}
	}
}

// disagreement applies a log to a table and to a twin, and tells where they
// first differ.
func disagreement(log []entry, seen map[string]int) string {
	m, table := newTwin(), newTable()
	m.seen = seen
	for i := range log {
		want, got := m.apply(&log[i]), table.apply(&log[i])
		diff := outcomeDiff(want, got)
		if diff == "" {
			diff = stateDiff(m, table, &log[i], len(m.locks) < 20 || want.more || i == len(log)-1)
		}
		if diff != "" {
			return fmt.Sprintf("entry %d: %s", i, diff)
		}
	}
	return ""
}

func outcomeDiff(want, got outcome) string {
	for i := range max(len(want.results), len(got.results)) {
		if d := itemDiff(i, want.results, got.results); d != "" {
			return "result " + d
		}
	}
	for i := range max(len(want.events), len(got.events)) {
		if d := itemDiff(i, want.events, got.events); d != "" {
			return "event " + d
		}
	}
	if want.more != got.more || want.expired != got.expired {
		return fmt.Sprintf("more, expired:\n twin  %v %d\n table %v %d", want.more, want.expired, got.more, got.expired)
	}
	return ""
}

func itemDiff[T any](i int, want, got []T) string {
	switch {
	case i >= len(want):
		return fmt.Sprintf("%d: only the table has %+v", i, got[i])
	case i >= len(got):
		return fmt.Sprintf("%d: only the twin has %+v", i, want[i])
	case !reflect.DeepEqual(want[i], got[i]):
		return fmt.Sprintf("%d:\n twin  %+v\n table %+v", i, want[i], got[i])
	}
	return ""
}

// stateDiff compares what can be asked of the table after an entry: for all
// locks, or for those that the entry named.
func stateDiff(m *twin, table *table, e *entry, all bool) string {
	for _, c := range []struct {
		what      string
		twin, got any
	}{
		{"now", m.time, table.now()},
		{"locks", len(m.locks), table.locks.len()},
		{"remembered requests", len(m.requests), table.memory.len()},
		{"held locks", m.heldCount(), table.heldCount()},
		{"waiters", len(m.waits), table.waiterCount()},
		{"contested locks", m.contestedCount(), table.contestedCount()},
	} {
		if fmt.Sprint(c.twin) != fmt.Sprint(c.got) {
			return fmt.Sprintf("%s:\n twin  %v\n table %v", c.what, c.twin, c.got)
		}
	}
	wantEnd, want := m.nextEnd()
	if gotEnd, got := table.nextEnd(); want != got || want && wantEnd != gotEnd {
		return fmt.Sprintf("next end:\n twin  %d %v\n table %d %v", wantEnd, want, gotEnd, got)
	}
	ids := []string{"unknown"}
	for i := range e.commands {
		ids = append(ids, e.commands[i].lock)
	}
	if all {
		for _, l := range m.locks {
			ids = append(ids, l.id)
		}
	}
	for _, id := range ids {
		if d := lockDiff(m, table, id); d != "" {
			return d
		}
	}
	return ""
}

func lockDiff(m *twin, table *table, id string) string {
	known, want := m.lock(id) != nil, m.read(id)
	if got, ok := table.info(id); known != ok || !reflect.DeepEqual(want, got) {
		return fmt.Sprintf("info of %s:\n twin  %v %+v\n table %v %+v", id, known, want, ok, got)
	}
	if want, got := m.waiters(id), table.waiters(id); !slices.Equal(want, got) {
		return fmt.Sprintf("waiters of %s:\n twin  %+v\n table %+v", id, want, got)
	}
	return ""
}

// TestRestoredTableGoesOn: a table made of a clone goes on as the one did that
// was cloned, whatever happened to that one since, other clones included. A log
// applied twice does the same twice: that is the clone of an empty table.
func TestRestoredTableGoesOn(t *testing.T) {
	check := func(log []entry) string {
		rng := rand.New(rand.NewPCG(uint64(len(log)), 2))
		cuts := []int{0, rng.IntN(len(log) + 1), rng.IntN(len(log) + 1)}
		table, views := newTable(), map[int]*tableView{}
		var first []recorded
		for i := range log {
			if slices.Contains(cuts, i) {
				views[i] = table.clone()
			}
			first = append(first, recordLog(table, log[i:i+1])...)
		}
		for cut, view := range views {
			for i, again := range recordLog(restore(view), log[cut:]) {
				if d := recordedDiff(first[cut+i], again); d != "" {
					return fmt.Sprintf("restored after %d entries, entry %d: %s", cut, cut+i, d)
				}
			}
		}
		return ""
	}
	forLogs(t, logCount(1000, 150), makeLog, check)
	forLogs(t, logCount(6, 2), makeLongQueueLog, check)
	forLogs(t, logCount(1, 0), makeCrowdedLog, check)
}

// recorded is all that shows of an entry.
type recorded struct {
	out  outcome
	hash uint64
	next logTime
	any  bool
}

func recordLog(table *table, log []entry) (all []recorded) {
	for i := range log {
		r := recorded{out: table.apply(&log[i])}
		r.out.results, r.out.events = slices.Clone(r.out.results), slices.Clone(r.out.events)
		r.hash = table.hash()
		r.next, r.any = table.nextEnd()
		all = append(all, r)
	}
	return all
}

// recordedDiff calls the first twin and the second table where outcomes differ.
func recordedDiff(was, is recorded) string {
	if d := outcomeDiff(was.out, is.out); d != "" {
		return d
	}
	if was.hash != is.hash || was.next != is.next || was.any != is.any {
		return fmt.Sprintf("\n was %+v\n is  %+v", was, is)
	}
	return ""
}

// TestHashTellsStatesApart: equal hashes come from equal states only. The logs
// are variations of each other, so that states differ in little.
func TestHashTellsStatesApart(t *testing.T) {
	states := map[uint64]string{}
	check := func(log []entry) string {
		log = log[:min(len(log), 15)]
		rng := rand.New(rand.NewPCG(uint64(len(log)), 3))
		variation := log
		for range 12 {
			m, table := newTwin(), newTable()
			for _, e := range variation {
				m.apply(&e)
				table.apply(&e)
				state := m.text()
				if other, ok := states[table.hash()]; ok && other != state {
					return fmt.Sprintf("one hash for two states:\n%s\nand\n%s", other, state)
				}
				states[table.hash()] = state
			}
			variation = vary(log, rng)
		}
		return ""
	}
	forLogs(t, logCount(300, 50), makeLog, check)
}

// vary returns a log in which one command is left out, is another client's,
// comes before the others of its entry, or comes an entry later.
func vary(log []entry, rng *rand.Rand) []entry {
	log = slices.Clone(log)
	if len(log) < 2 {
		return log
	}
	i := rng.IntN(len(log) - 1)
	e, next := &log[i], &log[i+1]
	if len(e.commands) == 0 {
		return log
	}
	at := rng.IntN(len(e.commands))
	c := e.commands[at]
	e.commands = slices.Delete(slices.Clone(e.commands), at, at+1)
	switch rng.IntN(4) {
	case 0:
		c.client = c.client[:len(c.client)-1] + "Z"
		fallthrough
	case 1:
		e.commands = slices.Insert(e.commands, 0, c)
	case 2:
		next.commands = slices.Concat([]command{c}, next.commands)
		next.bounds = e.bounds
	}
	return log
}

// TestCodecKeepsWhatLogsHold: entries, commands and results come back from their
// bytes as they were.
func TestCodecKeepsWhatLogsHold(t *testing.T) {
	check := func(log []entry) string {
		table := newTable()
		for i := range log {
			e, err := newestFormat.decodeEntry(newestFormat.appendEntry(nil, &log[i]))
			if d := codecDiff(log[i], e, err); d != "" {
				return d
			}
			for _, c := range log[i].commands {
				c.arrival = 0 // is not set on the way to the leader
				back, err := newestFormat.decodeCommand(newestFormat.appendCommand(nil, &c))
				if d := codecDiff(c, back, err); d != "" {
					return d
				}
			}
			for _, r := range table.apply(&log[i]).results {
				back, err := newestFormat.decodeResult(newestFormat.appendResult(nil, &r))
				if d := codecDiff(r, back, err); d != "" {
					return d
				}
			}
		}
		return ""
	}
	forLogs(t, logCount(500, 50), makeLog, check)
}

func codecDiff[T any](was, is T, err error) string {
	if err != nil || !reflect.DeepEqual(was, is) {
		return fmt.Sprintf("error %v\n was %+v\n is  %+v", err, was, is)
	}
	return ""
}

func TestInvariants(t *testing.T) {
	forLogs(t, logCount(1500, 300), makeLog, auditLog)
	forLogs(t, logCount(1, 0), makeCrowdedLog, auditLog)
}

// auditor watches a table from outside. It knows what the table promises and
// none of the rules by which it keeps it.
type auditor struct {
	table *table
	locks map[string]bool     // all that a command has named
	holds map[string]lockView // by lock, after the last entry
	waits map[uint64]*auditedWait
	last  uint64              // the newest waiter's number
	token int64               // the newest token
	given map[int64][2]string // token → lock and holder
}

type auditedWait struct {
	lock     string
	id       identity
	priority int32
	old      bool // waited before this entry, which did not touch it
	ended    bool
}

// before is the order of a queue.
func (w *auditedWait) before(number uint64, o *auditedWait, other uint64) bool {
	return w.priority > o.priority || w.priority == o.priority && number < other
}

func auditLog(log []entry) string {
	a := &auditor{
		table: newTable(), locks: map[string]bool{}, holds: map[string]lockView{},
		waits: map[uint64]*auditedWait{}, given: map[int64][2]string{},
	}
	for i := range log {
		if fault := a.step(&log[i]); fault != "" {
			return fmt.Sprintf("entry %d: %s", i, fault)
		}
	}
	return ""
}

func (a *auditor) step(e *entry) string {
	for _, w := range a.waits {
		w.old = true
	}
	out := a.table.apply(e)
	for i := range e.commands {
		a.locks[e.commands[i].lock] = true
	}
	return cmp.Or(a.tokens(e, &out), a.joins(e, &out), a.leavings(&out), a.queues(out.more), a.losses(e, &out))
}

// tokens: each grant has a new one, above all earlier ones.
func (a *auditor) tokens(e *entry, out *outcome) string {
	newest := a.token
	grow := func(grants []lockView) string {
		last := a.token
		for _, v := range grants {
			holder := [2]string{v.id, v.owner + "/" + v.request}
			if known, ok := a.given[v.version]; ok && known == holder {
				continue // the same grant, acquired once more
			}
			if v.version <= last {
				return fmt.Sprintf("token %d was granted after %d: %+v", v.version, last, v)
			}
			a.given[v.version], last = holder, v.version
		}
		newest = max(newest, last)
		return ""
	}
	var byCommand, byEvent []lockView
	for i, r := range out.results {
		k := e.commands[i].kind
		if (k == cmdAcquire || k == cmdEnqueue) && r.code == pb.ErrorCode_OK && !r.queued {
			byCommand = append(byCommand, r.lock)
		}
	}
	for _, ev := range out.events {
		if ev.kind == eventGranted {
			byEvent = append(byEvent, ev.lock)
		}
	}
	fault := cmp.Or(grow(byEvent), grow(byCommand))
	a.token = newest
	return fault
}

// joins: a waiter's number is new and stays with its lock and identity.
func (a *auditor) joins(e *entry, out *outcome) string {
	for i, r := range out.results {
		if !r.queued {
			continue
		}
		c := &e.commands[i]
		w := a.waits[r.waiter]
		switch {
		case w == nil && r.waiter <= a.last:
			return fmt.Sprintf("waiter %d joined after %d", r.waiter, a.last)
		case w == nil:
			w = &auditedWait{lock: c.lock, id: c.identity(), priority: c.priority}
			a.waits[r.waiter], a.last = w, r.waiter
		case w.ended || w.lock != c.lock || w.id != c.identity():
			return fmt.Sprintf("command %d is attached to waiter %d, %+v", i, r.waiter, w)
		case c.kind == cmdEnqueue:
			w.priority, w.old = c.priority, false
		}
	}
	return ""
}

// leavings: a wait ends once, and a grant by turn goes to the first.
func (a *auditor) leavings(out *outcome) string {
	granted := map[string][]uint64{}
	for _, ev := range out.events {
		w := a.waits[ev.waiter]
		if w == nil || w.ended || w.id != ev.id || w.lock != ev.lock.id {
			return fmt.Sprintf("an end of %+v: %+v", w, ev)
		}
		w.ended = true
		if ev.kind != eventGranted {
			continue
		}
		if ev.lock.owner != w.id.client || ev.lock.request != w.id.request {
			return fmt.Sprintf("granted to another: %+v", ev)
		}
		if w.old {
			granted[w.lock] = append(granted[w.lock], ev.waiter)
		}
	}
	for number, o := range a.waits {
		for _, g := range granted[o.lock] {
			if o.old && !o.ended && o.before(number, a.waits[g], g) {
				return fmt.Sprintf("%s went to waiter %d while %d stood before it", o.lock, g, number)
			}
		}
	}
	for lock, turns := range granted {
		for i := 1; i < len(turns); i++ {
			if a.waits[turns[i]].before(turns[i], a.waits[turns[i-1]], turns[i-1]) {
				return fmt.Sprintf("%s went to waiter %d before %d", lock, turns[i-1], turns[i])
			}
		}
	}
	return ""
}

// queues: who has joined and not left waits, in order, and for a held lock. A
// sweep that stopped leaves locks that a read takes for free already.
func (a *auditor) queues(more bool) string {
	want := map[string][]uint64{}
	for number, w := range a.waits {
		if w.ended {
			delete(a.waits, number)
		} else {
			want[w.lock] = append(want[w.lock], number)
		}
	}
	for lock := range a.locks {
		q := want[lock]
		slices.SortFunc(q, func(x, y uint64) int {
			if a.waits[x].before(x, a.waits[y], y) {
				return -1
			}
			return 1
		})
		view, _ := a.table.info(lock)
		var got []uint64
		for _, w := range a.table.waiters(lock) {
			got = append(got, w.number)
		}
		if !slices.Equal(q, got) || int(view.waiters) != len(q) {
			return fmt.Sprintf("waiters of %s: %v, %d in the view, should be %v", lock, got, view.waiters, q)
		}
		if len(q) > 0 && !view.held() && !more {
			return fmt.Sprintf("%s is free and has waiters: %v", lock, q)
		}
	}
	return ""
}

// losses: a grant ends by Release, by Withdraw, or when its end has come.
func (a *auditor) losses(e *entry, out *outcome) string {
	grants := map[int64]lockView{}
	see := func(v lockView) {
		if v.held() && v.end >= grants[v.version].end {
			grants[v.version] = v
		}
	}
	for _, v := range a.holds {
		see(v)
	}
	for _, r := range out.results {
		see(r.lock)
	}
	for _, ev := range out.events {
		see(ev.lock)
	}
	clear(a.holds)
	for lock := range a.locks {
		if v, _ := a.table.info(lock); v.held() {
			a.holds[lock] = v
			delete(grants, v.version)
		}
	}
	for _, v := range grants {
		if v.end > a.table.now() && !givenBack(e, out, v) {
			return fmt.Sprintf("lost before its end, now %d: %+v", a.table.now(), v)
		}
	}
	return ""
}

func givenBack(e *entry, out *outcome, v lockView) bool {
	for i := range e.commands {
		c := &e.commands[i]
		released := c.kind == cmdRelease && c.client == v.owner && c.version == v.version && out.results[i].code == pb.ErrorCode_OK
		withdrawn := c.kind == cmdWithdraw && c.client == v.owner && c.request == v.request
		if c.lock == v.id && (released || withdrawn) {
			return true
		}
	}
	return false
}

// TestTableAtTheEdges compares table and twin where random logs seldom go.
func TestTableAtTheEdges(t *testing.T) {
	limits := bounds{lockWaiters: 100, locks: 5000, waiters: 5000}
	at := func(stamp logTime, commands ...command) entry {
		return entry{stamp: stamp, wall: int64(stamp), bounds: limits, commands: commands}
	}
	second := logTime(twinSecond)
	forgotten := []command{
		takeFor("y", "A", twinSecond, 0),
		{kind: cmdRelease, lock: "y", client: "A", version: 1},
		{kind: cmdWithdraw, lock: "y", client: "A", request: "r"},
	}
	late := command{kind: cmdAcquire, lock: "y", client: "A", request: "r", attempt: 1, ttl: twinSecond}
	for name, log := range map[string][]entry{
		"a thousand ends at once": {at(0, takeMany(1000)...), at(second)},
		"a thousand and one":      {at(0, takeMany(1001)...), at(second), at(second)},
		// The first free lock ends before the stop, the second at its instant.
		"forgetting beside a stop": {
			at(0, forgotten...), at(1, takeFor("z", "A", 0, 0)), at(59*second+1, takeMany(1001)...),
			at(60*second + 1), at(60*second+1, late), at(60*second+1, late),
		},
		"forgetting behind a stop": {
			at(0, forgotten...), at(second, takeMany(1001)...), at(70 * second), at(70*second, late),
			at(70*second, late),
		},
		// A key that stood for a lapse stands for a time-out of that instant.
		"a lapse becomes a time-out": {
			at(0, takeFor("a", "A", 9*twinSecond, 0), takeFor("a", "B", twinSecond, 9*twinSecond),
				takeFor("a", "C", twinSecond, 2*twinSecond), command{kind: cmdDetach, lock: "a", client: "B", claim: 1}),
			at(second, command{kind: cmdEnqueue, lock: "a", client: "B", ttl: twinSecond, timeout: twinSecond}),
			at(2 * second),
		},
		"no end but never": {
			at(0, takeFor("a", "A", math.MaxInt64, 0), takeFor("a", "B", math.MaxInt64, math.MaxInt64)),
			at(never - 1),
			at(never-1, command{kind: cmdRelease, lock: "a", client: "A", version: 1, arrival: never - 1}),
		},
		"an arrival beyond the stamp": {
			at(0, takeFor("a", "A", twinSecond, 0)),
			at(second-1, command{kind: cmdRelease, lock: "a", client: "A", version: 1, arrival: never}),
		},
		"lengths of nothing": {
			at(0, takeFor("a", "A", 0, 0), takeFor("a", "B", 0, 0), takeFor("a", "C", 0, twinSecond)),
			at(1, takeFor("a", "D", 0, 0), takeFor("a", "D", -1, -1)),
		},
		"no name": {
			at(0, takeFor("a", "A", twinSecond, 0), takeFor("", "A", twinSecond, 0), takeFor("b", "", twinSecond, 0)),
			at(second-1, command{kind: cmdRelease, client: "A", version: 1, arrival: second}, command{kind: cmdCancel, lock: "b"}),
		},
		"promoted and lapsed in one entry": {
			at(0, takeFor("a", "A", twinSecond, 0), takeFor("a", "B", twinSecond, 9*twinSecond), takeFor("a", "C", twinSecond, 9*twinSecond),
				command{kind: cmdDetach, lock: "a", client: "B", claim: 1}),
			at(3*second, command{kind: cmdRenew, lock: "a", client: "A", version: 1, ttl: 1, arrival: second}),
		},
		"much that is over already": churnLog(at),
	} {
		if d := disagreement(log, map[string]int{}); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

func takeFor(lock string, client string, ttl, timeout span) command {
	return command{kind: cmdAcquire, lock: lock, client: client, wait: true, ttl: ttl, timeout: timeout}
}

// takeMany takes n locks for a second, the last by name first.
func takeMany(n int) (commands []command) {
	for i := range n {
		commands = append(commands, takeFor(fmt.Sprintf("l%04d", n-i), "A", twinSecond, 0))
	}
	return commands
}

// churnLog joins and leaves, takes and frees so often that what is over outweighs
// what stands, and then lets what stands end.
func churnLog(at func(logTime, ...command) entry) []entry {
	setup := []command{takeFor("z", "A", twinSecond, 0), {kind: cmdRelease, lock: "z", client: "A", version: 1}}
	token := int64(1)
	for i := range 20 {
		token++
		lock, length := fmt.Sprint("l", i), span(40+i*7%20)*twinSecond
		setup = append(setup, takeFor(lock, "A", length, 0), takeFor(lock, "C", twinSecond, length-twinSecond),
			command{kind: cmdRenew, lock: lock, client: "A", version: token, ttl: length + twinSecond})
	}
	log := []entry{at(0, setup...)}
	for stamp := range logTime(5) {
		e := at(stamp)
		if stamp == 3 { // until now z was the one freed first
			token++
			e.commands = append(e.commands, takeFor("z", "A", twinSecond, 0),
				command{kind: cmdRelease, lock: "z", client: "A", version: token})
		}
		for range 1000 {
			token++
			e.commands = append(e.commands, takeFor("b", "A", twinSecond, 0),
				command{kind: cmdRelease, lock: "b", client: "A", version: token},
				command{kind: cmdEnqueue, lock: "l7", client: "B", ttl: twinSecond, timeout: 60 * twinSecond},
				command{kind: cmdCancel, lock: "l7", client: "B"})
		}
		log = append(log, e)
	}
	for i := range logTime(130) {
		log = append(log, at(i*logTime(twinSecond)))
	}
	return log
}

// TestFreedLocksAreBounded fills the list of freed locks; the twin would take
// minutes for it.
func TestFreedLocksAreBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("a hundred thousand items")
	}
	table := newTable()
	token := int64(0)
	use := func(first, count int) {
		e := entry{stamp: 5, bounds: bounds{locks: math.MaxInt64}}
		for i := range count {
			token++
			// The order of freeing is not the order of names.
			c := command{kind: cmdAcquire, lock: fmt.Sprintf("%06d", 900_000-first-i), client: "A", ttl: twinSecond}
			e.commands = append(e.commands, c, command{kind: cmdRelease, lock: c.lock, client: "A", version: token})
		}
		table.apply(&e)
	}
	known := func(i int) bool { _, ok := table.info(fmt.Sprintf("%06d", 900_000-i)); return ok }
	for first := 0; first < twinMaxFreed; first += 1000 {
		use(first, 1000)
	}
	use(0, 1) // freed anew: now the last in line
	if !known(0) || !known(1) {
		t.Fatal("dropped although there are not too many")
	}
	use(twinMaxFreed, 1)
	if known(1) || !known(0) || !known(2) || !known(twinMaxFreed) {
		t.Errorf("one too many; known are: first %v, last but freed anew %v, next %v, new %v",
			known(1), known(0), known(2), known(twinMaxFreed))
	}
}

// TestRememberedRequestsAreBounded fills the memory of withdrawn requests.
func TestRememberedRequestsAreBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("a hundred thousand items")
	}
	table := newTable()
	withdraw := func(stamp logTime, clients ...string) {
		e := entry{stamp: stamp}
		for _, c := range clients {
			e.commands = append(e.commands, command{kind: cmdWithdraw, lock: "a", client: c, request: "r"})
		}
		table.apply(&e)
	}
	refused := func(client string) bool {
		ask := command{kind: cmdAcquire, lock: "a", client: client, request: "r", attempt: 1, ttl: twinSecond}
		out := table.apply(&entry{commands: []command{ask}, bounds: bounds{locks: 1}})
		return out.results[0].code == pb.ErrorCode_NOT_WAITING
	}
	for first := 0; first < twinMaxRequests; first += 1000 {
		var clients []string
		for i := range 1000 {
			clients = append(clients, fmt.Sprintf("%06d", first+i))
		}
		withdraw(5, clients...)
	}
	if !refused("000000") {
		t.Fatal("forgotten although there are not too many")
	}
	withdraw(5, " ") // sorts before all, so that it goes itself
	if refused(" ") || !refused("000000") {
		t.Error("at equal ends it is not the smallest identity that goes")
	}
	withdraw(6, "!", "000001")
	if !refused("!") || refused("000000") || !refused("000001") || !refused("000002") {
		t.Error("it is not the one that ends first that goes")
	}
}

// TestNoEndIsLost lets many more ends come than one sweep may end, at an instant
// each and in no order.
func TestNoEndIsLost(t *testing.T) {
	const many = 9_973 // a prime: i*4999%many is each number once
	table := newTable()
	limits := bounds{lockWaiters: many, locks: many, waiters: many}
	e := entry{bounds: limits, commands: []command{takeFor("a", "A", math.MaxInt64, 0)}}
	for i := range many {
		e.commands = append(e.commands, takeFor("a", fmt.Sprint("W", i), twinSecond, span(1+i*4999%many)))
	}
	table.apply(&e)
	order := map[uint64]int{}
	for i := range many {
		order[uint64(i+1)] = i * 4999 % many
	}
	for ended := 0; ended < many; {
		out := table.apply(&entry{stamp: many})
		for _, ev := range out.events {
			if order[ev.waiter] != ended || ev.kind != eventTimedOut {
				t.Fatalf("end %d is the one of number %d", ended, order[ev.waiter])
			}
			ended++
		}
		if left := many - ended; len(out.events) != min(1000, left+len(out.events)) || out.more != (left > 0) {
			t.Fatalf("%d ended, %d are left, more is %v", len(out.events), left, out.more)
		}
	}
}

// mustOccur are the situations that the random logs have to reach: all that the
// twin names, but the two bounds of 100 000, which have tests of their own.
var mustOccur = []string{
	"abandon: another claim stands",
	"abandon: ends the wait",
	"abandon: of an enqueued wait",
	"acquire: claims a detached grant",
	"acquire: held",
	"acquire: held, no wait, the identity waits already",
	"acquire: refused as remembered",
	"acquire: the claim of a detached grant shortens it",
	"acquire: the holder extends",
	"acquire: the holder would shorten",
	"acquire: the holder's request again",
	"acquire: the holder's request is retried",
	"cancel: any",
	"cancel: by version",
	"cancel: not waiting",
	"cancel: other version",
	"claim: a plain call prolongs the wait",
	"claim: a plain call would shorten the wait",
	"claim: marks the wait as retried",
	"claim: of a detached wait",
	"claim: of an enqueued wait",
	"detach: again",
	"detach: another claim stands",
	"detach: detaches",
	"detach: of an enqueued wait",
	"enqueue: again, changes the priority",
	"enqueue: again, of a detached wait",
	"enqueue: again, shortens the wait",
	"enqueue: by the holder",
	"enqueue: takes over an Acquire's wait",
	"enqueue: the client holds by a request",
	"entry: stamp older than the table",
	"entry: stamp repeated",
	"expired: a detached grant",
	"first: a detached wait keeps its end",
	"first: a wait is detached",
	"first: an enqueued wait stays attached",
	"first: floor below the token",
	"first: floor ignored",
	"first: floor raises the token",
	"granted: a freed lock",
	"granted: an unknown lock",
	"join: overtakes by priority",
	"promotion: of a detached wait",
	"promotion: of a retried request",
	"promotion: of an enqueued wait",
	"promotion: passes over a wait that is overdue",
	"promotion: the new end is due already",
	"refused: the queue is full",
	"refused: too many locks",
	"refused: too many waiters",
	"release: LOCK_NOT_FOUND",
	"release: LOCK_NOT_HELD",
	"release: NOT_LOCK_OWNER",
	"release: OK",
	"release: VERSION_MISMATCH",
	"release: promotes",
	"remembered: a refused attempt",
	"remembered: the request of a wait that timed out",
	"remembered: the request of an ended grant",
	"renew: LOCK_NOT_FOUND",
	"renew: LOCK_NOT_HELD",
	"renew: NOT_LOCK_OWNER",
	"renew: OK",
	"renew: VERSION_MISMATCH",
	"renew: extends",
	"renew: of a detached grant",
	"renew: would shorten",
	"settle: end before due",
	"settle: end exactly due",
	"sweep: a detached wait lapses",
	"sweep: a freed lock is forgotten",
	"sweep: a held lock",
	"sweep: a request is forgotten",
	"sweep: a wait times out",
	"queued: far behind",
	"read: a grant whose end has come",
	"sweep: end exactly at the stamp",
	"sweep: stops at its cap",
	"sweep: time-out and detachment end together",
	"withdraw: a grant",
	"withdraw: a remembered request",
	"withdraw: a wait",
	"withdraw: promotes",
}

package raftlock

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/raftlock/raftlock/pb"
)

// TestTableConversations reads testdata/table: what the lock table says to one
// command after another. Each step also runs on a table that was restored from
// a clone a moment before, which must answer alike, and is followed by check.
//
//	entry stamp=10s [wall=µs] [first] [floor=n] [bounds=(lock,locks,waiters)]
//	  one command a line:
//	  KIND LOCK CLIENT[/REQUEST] [ttl=] [wait=|timeout=] [prio=] [attempt=] [v=] [claim=] [at=] [meta=k:v,…]
//	fill stamp=1s n=3 ttl=5s [clients…]   takes n locks named f0000…, an entry for each thousand
//	state                                 prints all that is replicated
//	next                                  prints the next end
//
// A command arrives (at=) when its entry is stamped unless it says otherwise.
func TestTableConversations(t *testing.T) {
	datadriven.Walk(t, "testdata/table", func(t *testing.T, path string) {
		c := &conversation{t: t, table: newTable()}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			defer func() { requireSound(t, c.table, d.Pos) }()
			switch d.Cmd {
			case "entry":
				return c.entry(d)
			case "fill":
				return c.fill(d)
			case "state":
				return printState(c.table)
			case "next":
				end, ok := c.table.nextEnd()
				return fmt.Sprintln(printTime(end), ok)
			}
			d.Fatalf(t, "unknown directive %q", d.Cmd)
			return ""
		})
	})
}

type conversation struct {
	t     *testing.T
	table *table
}

// apply runs an entry on the table and on a copy that was loaded just now.
func (c *conversation) apply(pos string, e *entry) outcome {
	loaded := restore(c.table.clone())
	want := printOutcome(e, loaded.apply(e))
	out := c.table.apply(e)
	if got := printOutcome(e, out); got != want {
		c.t.Fatalf("%s: a loaded table answers\n%s\na running one\n%s", pos, want, got)
	}
	if c.table.hash() != loaded.hash() {
		c.t.Fatalf("%s: a loaded table has another hash", pos)
	}
	return out
}

func (c *conversation) entry(d *datadriven.TestData) string {
	e := c.header(d)
	for _, line := range strings.Split(d.Input, "\n") {
		if line = strings.TrimSpace(line); line != "" {
			e.commands = append(e.commands, c.command(d, line, e.stamp))
		}
	}
	return printOutcome(e, c.apply(d.Pos, e))
}

func (c *conversation) header(d *datadriven.TestData) *entry {
	e := &entry{stamp: c.table.now(), bounds: bounds{lockWaiters: 100, locks: 100_000, waiters: 1000}}
	for _, a := range d.CmdArgs {
		switch a.Key {
		case "stamp":
			e.stamp = parseTime(c.t, d.Pos, a.Vals[0])
		case "wall":
			e.wall = parseInt(c.t, d.Pos, a.Vals[0])
		case "first":
			e.first = true
		case "floor":
			e.floor = parseInt(c.t, d.Pos, a.Vals[0])
		case "bounds":
			e.bounds.lockWaiters = parseInt(c.t, d.Pos, a.Vals[0])
			e.bounds.locks = parseInt(c.t, d.Pos, a.Vals[1])
			e.bounds.waiters = parseInt(c.t, d.Pos, a.Vals[2])
		}
	}
	if e.wall == 0 {
		e.wall = int64(e.stamp) / 1000 // readable: the wall clock is cluster time
	}
	return e
}

var kindNames = map[string]commandKind{
	"acquire": cmdAcquire, "release": cmdRelease, "renew": cmdRenew, "enqueue": cmdEnqueue,
	"cancel": cmdCancel, "withdraw": cmdWithdraw, "abandon": cmdAbandon, "detach": cmdDetach,
}

func (c *conversation) command(d *datadriven.TestData, line string, stamp logTime) command {
	words := strings.Fields(line)
	if len(words) < 3 || kindNames[words[0]] == 0 {
		d.Fatalf(c.t, "no command: %q", line)
	}
	cmd := command{kind: kindNames[words[0]], lock: words[1], arrival: stamp}
	cmd.client, cmd.request, _ = strings.Cut(words[2], "/")
	for _, w := range words[3:] {
		key, val, _ := strings.Cut(w, "=")
		switch key {
		case "ttl":
			cmd.ttl = span(parseTime(c.t, d.Pos, val))
		case "wait", "timeout":
			cmd.wait, cmd.timeout = key == "wait", span(parseTime(c.t, d.Pos, val))
		case "prio":
			cmd.priority = int32(parseInt(c.t, d.Pos, val))
		case "attempt":
			cmd.attempt = int32(parseInt(c.t, d.Pos, val))
		case "v":
			cmd.version = parseInt(c.t, d.Pos, val)
		case "claim":
			cmd.claim = uint64(parseInt(c.t, d.Pos, val))
		case "at":
			cmd.arrival = parseTime(c.t, d.Pos, val)
		case "meta":
			for _, kv := range strings.Split(val, ",") {
				k, v, _ := strings.Cut(kv, ":")
				cmd.metadata = append(cmd.metadata, pair{k, v})
			}
		default:
			d.Fatalf(c.t, "unknown word %q", w)
		}
	}
	return cmd
}

func (c *conversation) fill(d *datadriven.TestData) string {
	e := c.header(d)
	var n int
	ttl, release := "1h", false
	for _, a := range d.CmdArgs {
		switch a.Key {
		case "n":
			n = int(parseInt(c.t, d.Pos, a.Vals[0]))
		case "ttl":
			ttl = a.Vals[0]
		case "release":
			release = true
		}
	}
	e.bounds.locks = 1 << 40
	for i := range n {
		id := fmt.Sprintf("f%06d", i)
		cmd := command{kind: cmdAcquire, lock: id, client: "filler", ttl: span(parseTime(c.t, d.Pos, ttl)), arrival: e.stamp}
		if l, ok := c.table.info(id); release && ok {
			cmd = command{kind: cmdRelease, lock: id, client: "filler", version: l.version, arrival: e.stamp}
		}
		e.commands = append(e.commands, cmd)
		if len(e.commands) == 1000 || i == n-1 {
			c.table.apply(e)
			e.commands = nil
		}
	}
	return summary(c.table)
}

func summary(t *table) string {
	return fmt.Sprintf("%d locks, %d held, %d contested, %d waiters, %d remembered\n",
		t.locks.len(), t.heldCount(), t.contestedCount(), t.waiterCount(), t.memory.len())
}

func parseTime(t *testing.T, pos, s string) logTime {
	switch s {
	case "never":
		return never
	case "never-1s":
		return never - logTime(time.Second)
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatalf("%s: %v", pos, err)
	}
	return logTime(d)
}

func parseInt(t *testing.T, pos, s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", pos, err)
	}
	return n
}

func printTime(t logTime) string {
	if t == never {
		return "never"
	}
	return time.Duration(t).String()
}

func printIdentity(client, request string) string {
	if request == "" {
		return client
	}
	return client + "/" + request
}

func printLock(l *lockView) string {
	var b strings.Builder
	b.WriteString(l.id)
	switch {
	case l.held():
		fmt.Fprintf(&b, " held by %s v=%d end=%s acquired=%d", printIdentity(l.owner, l.request), l.version, printTime(l.end), l.acquired)
	case l.version == 0 && l.modified == 0:
		return b.String() + " unknown"
	default:
		fmt.Fprintf(&b, " free v=%d", l.version)
	}
	fmt.Fprintf(&b, " modified=%d waiters=%d", l.modified, l.waiters)
	for _, p := range l.metadata {
		fmt.Fprintf(&b, " %s:%s", p.key, p.value)
	}
	return b.String()
}

var codeNames = pb.ErrorCode_name

func printOutcome(e *entry, out outcome) string {
	var b strings.Builder
	for i, r := range out.results {
		fmt.Fprintf(&b, "%s:", codeNames[int32(r.code)])
		if r.queued {
			fmt.Fprintf(&b, " queued waiter=%d claim=%d position=%d", r.waiter, r.claim, r.position)
		}
		if r.promoted {
			b.WriteString(" promoted")
		}
		if r.limit != 0 {
			fmt.Fprintf(&b, " limit=%d", r.limit)
		}
		if len(out.results) > 1 {
			fmt.Fprintf(&b, " (%s)", printIdentity(e.commands[i].client, e.commands[i].request))
		}
		fmt.Fprintf(&b, "  %s\n", printLock(&r.lock))
	}
	const most = 12
	for i, ev := range out.events {
		if i == most {
			fmt.Fprintf(&b, "… %d more events\n", len(out.events)-most)
			break
		}
		kind := map[eventKind]string{
			eventGranted: "granted", eventTimedOut: "timed out", eventCancelled: "cancelled", eventLapsed: "lapsed",
		}[ev.kind]
		fmt.Fprintf(&b, "event: waiter %d (%s) %s  %s\n", ev.waiter, printIdentity(ev.id.client, ev.id.request), kind, printLock(&ev.lock))
	}
	if out.expired > 0 {
		fmt.Fprintf(&b, "expired: %d\n", out.expired)
	}
	if out.more {
		b.WriteString("more\n")
	}
	if b.Len() == 0 {
		return "nothing\n"
	}
	return b.String()
}

// printState prints everything that is replicated, in the order of the trees.
func printState(t *table) string {
	var b strings.Builder
	fmt.Fprintf(&b, "time=%s token=%d seq=%d freeings=%d\n", printTime(t.at), t.token, t.seq, t.freeings)
	b.WriteString(summary(t))
	t.locks.from("", func(l *lockRecord) bool {
		view := l.view()
		b.WriteString(printLock(&view))
		if !l.held() {
			fmt.Fprintf(&b, " place=%d listed-until=%s", l.since, printTime(l.end))
		}
		if l.flags&lockUnclaimed != 0 {
			b.WriteString(" unclaimed")
		}
		if l.flags&lockRetried != 0 {
			b.WriteString(" retried")
		}
		b.WriteByte('\n')
		t.queue.tree.of(l.id, func(w waiter) bool {
			b.WriteString("  " + printWaiter(&w) + "\n")
			return true
		})
		return true
	})
	t.memory.tree.Ascend(func(r request) bool {
		fmt.Fprintf(&b, "remembers %s of %s until %s\n", printIdentity(r.id.client, r.id.request), r.lock, printTime(r.end))
		return true
	})
	return b.String()
}

func printWaiter(w *waiter) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %s claim=%d prio=%d v=%d ttl=%s timeout=%s joined=%d", w.number, printIdentity(w.client, w.request),
		w.claim, w.priority, w.version, printTime(logTime(w.ttl)), printTime(w.timeout), w.joined)
	if w.metadata != nil {
		for _, p := range *w.metadata {
			fmt.Fprintf(&b, " %s:%s", p.key, p.value)
		}
	}
	if w.flags&waiterDetached != 0 {
		fmt.Fprintf(&b, " detached-until=%s", printTime(w.detachEnd))
	}
	if w.flags&waiterEnqueued != 0 {
		b.WriteString(" enqueued")
	}
	if w.flags&waiterRetried != 0 {
		b.WriteString(" retried")
	}
	return b.String()
}

func requireSound(t *testing.T, tab *table, where string) {
	t.Helper()
	if err := check(tab); err != nil {
		t.Fatalf("%s: %v\n%s", where, err, printState(tab))
	}
}

// check compares a table with its own invariants, and all that is derived with
// what it is derived from. It costs a walk of everything.
func check(t *table) error {
	c := checker{
		t: t, keys: map[deadline]bool{}, numbers: map[uint64]bool{}, tokens: map[int64]string{},
		queued: map[string]int32{}, freed: map[freedLock]bool{},
	}
	for _, f := range t.freed.queue[t.freed.head:] {
		c.freed[f] = true
	}
	for i := range t.ends.heap {
		c.keys[t.ends.heap[i]] = true
		if i > 0 && t.ends.heap[i].before(&t.ends.heap[(i-1)/2]) {
			c.failf("heap out of order at %d", i)
		}
	}
	t.queue.tree.Ascend(c.waiter)
	t.locks.from("", c.lock)
	t.memory.tree.Ascend(c.request)
	c.totals()
	return c.err
}

type checker struct {
	t                *table
	err              error
	keys             map[deadline]bool
	numbers          map[uint64]bool
	tokens           map[int64]string
	queued           map[string]int32
	locks, queue     uint64 // sums
	memory           uint64
	held, contested  int
	free, remembered int
	freed            map[freedLock]bool
}

func (c *checker) failf(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf(format, args...)
	}
}

func (c *checker) waiter(w waiter) bool {
	c.queue += w.hash()
	c.queued[w.lock]++
	end, kind := w.end()
	if w.key == 0 && end != 0 || w.key > end || w.key == end && w.keyKind > kind {
		c.failf("waiter %d ends at %d, its key is %d", w.number, end, w.key)
	}
	if !c.keys[deadline{end: w.key, kind: w.keyKind, lock: w.lock, number: w.number, priority: w.priority}] {
		c.failf("waiter %d has no key at %d", w.number, w.key)
	}
	if c.numbers[w.number] || w.number > w.claim || w.claim > c.t.seq {
		c.failf("waiter %d, claim %d, seq %d", w.number, w.claim, c.t.seq)
	}
	c.numbers[w.number] = true
	if got, ok := c.t.queue.find(w.lock, w.identity()); !ok || got.number != w.number {
		c.failf("waiter %d is not in the index", w.number)
	}
	if w.flags&waiterRetried != 0 && w.request == "" || w.flags&waiterEnqueued != 0 && w.flags&waiterDetached != 0 {
		c.failf("waiter %d has flags %b", w.number, w.flags)
	}
	return true
}

func (c *checker) lock(l *lockRecord) bool {
	c.locks += l.hash()
	if l.waiters != c.queued[l.id] {
		c.failf("%s counts %d waiters, has %d", l.id, l.waiters, c.queued[l.id])
	}
	delete(c.queued, l.id)
	if l.waiters > 0 {
		c.contested++
	}
	if l.version > c.t.token || c.tokens[l.version] != "" {
		c.failf("%s has token %d, so has %q; the last is %d", l.id, l.version, c.tokens[l.version], c.t.token)
	}
	c.tokens[l.version] = l.id
	cached, _ := c.t.locks.find(l.id)
	if item, _ := c.t.locks.tree.Get(lockItem{id: l.id}); item.cell != cached.cell {
		c.failf("%s is stale in the cache", l.id)
	}
	if l.held() {
		c.heldLock(l)
	} else {
		c.freeLock(l)
	}
	return true
}

func (c *checker) heldLock(l *lockRecord) {
	c.held++
	if l.key == 0 && l.end != 0 || l.key > l.end {
		c.failf("%s ends at %d, its key is %d", l.id, l.end, l.key)
	}
	if !c.keys[deadline{end: l.key, kind: endHeld, lock: l.id}] {
		c.failf("%s has no key at %d", l.id, l.key)
	}
	if l.flags&lockRetried != 0 && l.request == "" {
		c.failf("%s is retried without a request", l.id)
	}
}

func (c *checker) freeLock(l *lockRecord) {
	c.free++
	if l.waiters != 0 || l.request != "" || l.metadata != nil || l.flags != 0 {
		c.failf("%s is free and has a holder's data or waiters", l.id)
	}
	if !c.freed[freedLock{id: l.id, place: uint64(l.since), end: l.end}] || uint64(l.since) > c.t.freeings {
		c.failf("%s is not in the order of freeing at %d", l.id, l.since)
	}
}

func (c *checker) request(r request) bool {
	c.memory += r.hash()
	c.remembered++
	if end, ok := c.t.memory.index[seat{r.lock, r.id}]; !ok || end != r.end {
		c.failf("%v is not in the index", r)
	}
	return true
}

func (c *checker) totals() {
	t := c.t
	for lock := range c.queued {
		c.failf("%s has waiters and is not there", lock)
	}
	if c.held != t.heldCount() || c.contested != t.contestedCount() || len(c.numbers) != t.waiterCount() {
		c.failf("counted %d held, %d contested, %d waiters", c.held, c.contested, len(c.numbers))
	}
	if c.free != t.freed.len() || c.free > maxFreed || c.remembered != t.memory.len() || c.remembered > maxRemembered {
		c.failf("counted %d free, %d remembered", c.free, c.remembered)
	}
	if len(t.queue.index) != len(c.numbers) {
		c.failf("%d in the index of the queues", len(t.queue.index))
	}
	if c.locks != t.locks.sum || c.queue != t.queue.sum || c.memory != t.memory.sum {
		c.failf("the sums of the hashes do not add up")
	}
	if loaded := restore(t.clone()); loaded.hash() != t.hash() {
		c.failf("a loaded copy has another hash")
	}
}

// TestGoldenHash pins the state hash: members of neighbouring builds compare
// theirs, so that a change of it needs a new format in the handshake.
func TestGoldenHash(t *testing.T) {
	tab := newTable()
	hashes := []string{fmt.Sprintf("%016x", tab.hash())}
	s := script{randomScript(42, 3000)}
	for n := 0; len(s.rest) > 0; n++ {
		e := s.entry(tab.now())
		for i := range e.commands {
			aim(tab, &e.commands[i])
		}
		tab.apply(e)
		if n%20 == 0 {
			hashes = append(hashes, fmt.Sprintf("%016x", tab.hash()))
		}
	}
	got := strings.Join(hashes, "\n") + "\n"
	const path = "testdata/statehash.txt"
	if *rewriteCodec {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || got != string(want) {
		t.Fatalf("%v: the hashes are\n%s\nnot\n%s", err, got, want)
	}
}

// Every replicated field counts in the hash, no derived one does.
func TestHashSeesEveryField(t *testing.T) {
	l := lockRecord{"L", lockState{owner: "A", request: "r", version: 1, end: 2, since: 3, modified: 4}}
	w := waiter{lock: "L", client: "A", request: "r", number: 1, claim: 2, version: 3, ttl: 4, timeout: 5, joined: 6, priority: 7}
	m := metadata{{"k", "v"}}
	hashes := map[uint64]string{l.hash(): "lock"}
	see := func(name string, h uint64) {
		if was, ok := hashes[h]; ok {
			t.Errorf("%s hashes like %s", name, was)
		}
		hashes[h] = name
	}
	for name, change := range map[string]func(l *lockRecord){
		"id": func(l *lockRecord) { l.id = "M" }, "owner": func(l *lockRecord) { l.owner = "B" },
		"request": func(l *lockRecord) { l.request = "s" }, "version": func(l *lockRecord) { l.version++ },
		"end": func(l *lockRecord) { l.end++ }, "since": func(l *lockRecord) { l.since++ },
		"modified": func(l *lockRecord) { l.modified++ }, "metadata": func(l *lockRecord) { l.metadata = &m },
		"flags": func(l *lockRecord) { l.flags = lockRetried }, "moved": func(l *lockRecord) { l.owner, l.request = "Ar", "" },
	} {
		c := l
		change(&c)
		see("lock with another "+name, c.hash())
	}
	see("waiter", w.hash())
	for name, change := range map[string]func(w *waiter){
		"lock": func(w *waiter) { w.lock = "M" }, "client": func(w *waiter) { w.client = "B" },
		"request": func(w *waiter) { w.request = "s" }, "number": func(w *waiter) { w.number++ },
		"claim": func(w *waiter) { w.claim++ }, "version": func(w *waiter) { w.version++ }, "ttl": func(w *waiter) { w.ttl++ },
		"timeout": func(w *waiter) { w.timeout++ }, "detached": func(w *waiter) { w.detach(9) }, "detached later": func(w *waiter) { w.detach(10) },
		"joined": func(w *waiter) { w.joined++ }, "priority": func(w *waiter) { w.priority = -w.priority },
		"metadata": func(w *waiter) { w.metadata = &m }, "enqueued": func(w *waiter) { w.flags = waiterEnqueued },
	} {
		c := w
		change(&c)
		see("waiter with another "+name, c.hash())
	}
	c, d := l, w
	c.key, c.waiters, d.key, d.keyKind = 9, 9, 9, endDetach
	if c.hash() != l.hash() || d.hash() != w.hash() {
		t.Error("what is derived counts in the hash")
	}
}

// The outcome's slices are the table's; what is in them stays valid.
func TestOutcomeIsReused(t *testing.T) {
	tab := queueUp(t, 3)
	release := func(owner string, version int64) outcome {
		return tab.apply(&entry{stamp: 5, commands: []command{{kind: cmdRelease, lock: "L", client: owner, version: version}}})
	}
	first := release("A", 1)
	kept := first.events[0]
	release("B", 2)
	if kept.lock.version != 2 || kept.id.request != "0" {
		t.Errorf("%+v", kept)
	}
	if n := testing.AllocsPerRun(100, func() { release("nobody", 1) }); n > 0 {
		t.Errorf("%v allocations for a refusal", n)
	}
}

// restore makes a table of a view, as a member does of the items of a snapshot. It
// behaves as the one that the view is of, in every answer.
func restore(v *tableView) *table {
	t := newTable()
	t.at, t.token, t.seq, t.freeings = v.at, v.token, v.seq, v.freeings
	v.locks.from("", func(l *lockRecord) bool {
		t.loadLock(*l)
		return true
	})
	v.queue.Ascend(func(w waiter) bool {
		t.loadWaiter(w)
		return true
	})
	v.memory.Ascend(func(r request) bool {
		t.memory.add(r.lock, r.id, r.end)
		return true
	})
	t.finishLoad()
	return t
}

package raftlock

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

// script makes a log of bytes: few locks, clients and times, so that everything
// meets everything.
type script struct{ rest []byte }

func (s *script) byte() int {
	if len(s.rest) == 0 {
		return 0
	}
	b := s.rest[0]
	s.rest = s.rest[1:]
	return int(b)
}

const second = 1_000_000_000

// entry makes the next entry; the last one of the script is short.
func (s *script) entry(now logTime) *entry {
	e := &entry{
		stamp: now + logTime(s.byte()%24)*second/4, wall: int64(s.byte()),
		bounds: bounds{lockWaiters: 4, locks: 7, waiters: 9},
	}
	if s.byte()%16 == 0 {
		e.first, e.floor = true, int64(s.byte()*10-100)
	}
	if s.byte()%32 == 0 {
		e.stamp += 50 * second
	}
	for n := s.byte() % 8; n > 0; n-- {
		e.commands = append(e.commands, s.command(e.stamp))
	}
	return e
}

func (s *script) command(stamp logTime) command {
	kinds := []commandKind{
		cmdAcquire, cmdAcquire, cmdAcquire, cmdAcquire, cmdRelease, cmdRelease, cmdRenew,
		cmdEnqueue, cmdCancel, cmdWithdraw, cmdAbandon, cmdDetach, cmdDetach,
	}
	c := command{kind: kinds[s.byte()%len(kinds)]}
	who := s.byte()
	c.lock = string(rune('a' + who%8))
	c.client = string(rune('A' + who/8%4))
	if req := who / 32 % 4; req > 0 && c.kind != cmdEnqueue && c.kind != cmdCancel && c.kind != cmdAbandon {
		c.request = fmt.Sprint("r", req)
	}
	if c.kind == cmdWithdraw && c.request == "" {
		c.request = "r1"
	}
	what := s.byte()
	c.wait = what%2 == 0
	c.attempt = int32(what / 2 % 3)
	c.priority = int32(what/8%3 - 1)
	c.version = int64(s.byte())
	c.claim = uint64(s.byte())
	c.ttl = span(1+s.byte()%16) * second / 4
	c.timeout = span(1+s.byte()%32) * second / 4
	c.arrival = stamp - logTime(s.byte()%8)*second/4
	if what/32%4 == 0 {
		c.metadata = metadata{{"k", fmt.Sprint(what)}}
	}
	return c
}

// aim gives a command the token or claim that it needs to have an effect: a
// random one nearly never is right.
func aim(t *table, c *command) {
	l, ok := t.info(c.lock)
	if !ok {
		return
	}
	switch c.kind {
	case cmdRelease, cmdRenew:
		if c.version%4 != 0 {
			c.client, c.version = l.owner, l.version
		}
	case cmdCancel:
		c.version %= 2
	case cmdDetach, cmdAbandon:
		for _, w := range t.waiters(c.lock) {
			if c.claim%4 != 0 && (w.request == "" || c.kind == cmdDetach) {
				c.client, c.request, c.claim = w.client, w.request, w.claim
				return
			}
		}
	}
}

// replay runs a script on three tables: one that runs throughout, one that is
// loaded anew before an entry now and then, one that reads each entry from its
// bytes. They must answer alike and be alike, and keep what is promised.
func replay(tb testing.TB, data []byte) {
	s := script{data}
	running, loaded, reading := newTable(), newTable(), newTable()
	watch := watcher{waiting: map[uint64]identity{}}
	for n := 0; len(s.rest) > 0; n++ {
		e := s.entry(running.now())
		for i := range e.commands {
			aim(running, &e.commands[i])
		}
		if s.byte()%4 == 0 {
			loaded = restore(loaded.clone())
		}
		if s.byte()%4 == 0 {
			running.nextEnd() // moves keys about on one of them
		}
		raw := newestFormat.appendEntry(nil, e)
		decoded, err := newestFormat.decodeEntry(raw)
		if err != nil {
			tb.Fatalf("entry %d: %v", n, err)
		}
		out := running.apply(e)
		watch.see(tb, e, &out)
		if other := loaded.apply(e); !sameOutcome(&out, &other) {
			tb.Fatalf("entry %d: a loaded table answers\n%s\nnot\n%s", n, printOutcome(e, other), printOutcome(e, out))
		}
		if other := reading.apply(&decoded); !sameOutcome(&out, &other) {
			tb.Fatalf("entry %d: read from its bytes it is\n%s\nnot\n%s", n, printOutcome(e, other), printOutcome(e, out))
		}
		if running.hash() != loaded.hash() || running.hash() != reading.hash() || printState(running) != printState(loaded) {
			tb.Fatalf("entry %d: the states differ:\n%s\n%s", n, printState(running), printState(loaded))
		}
		for _, t := range []*table{running, loaded} {
			if err := check(t); err != nil {
				tb.Fatalf("entry %d: %v\n%s", n, err, printState(t))
			}
		}
		requireNextEnd(tb, running)
	}
	if len(watch.waiting) != running.waiterCount() {
		tb.Fatalf("%d waits have no event yet, %d wait", len(watch.waiting), running.waiterCount())
	}
}

func sameOutcome(a, b *outcome) bool {
	return slices.EqualFunc(a.results, b.results, func(a, b result) bool { return reflect.DeepEqual(a, b) }) &&
		slices.EqualFunc(a.events, b.events, func(a, b event) bool { return reflect.DeepEqual(a, b) }) &&
		a.more == b.more && a.expired == b.expired
}

// watcher holds the outcomes against the promises: tokens grow, each wait has
// one event.
type watcher struct {
	token   int64
	waiting map[uint64]identity
}

func (w *watcher) see(tb testing.TB, e *entry, out *outcome) {
	tb.Helper()
	var tokens []int64
	for i, r := range out.results {
		c := &e.commands[i]
		if r.queued {
			w.waiting[r.waiter] = identity{c.client, c.request}
		}
		tokens = append(tokens, r.lock.version)
		if !r.lock.held() && r.lock.waiters > 0 {
			tb.Fatalf("a free lock has waiters: %s", printLock(&r.lock))
		}
	}
	for _, ev := range out.events {
		if id, ok := w.waiting[ev.waiter]; !ok || id != ev.id {
			tb.Fatalf("waiter %d (%v) has an event, but does not wait", ev.waiter, ev.id)
		}
		delete(w.waiting, ev.waiter)
		if ev.kind == eventGranted {
			if ev.lock.version <= w.token && slices.Max(append(tokens, 0)) <= w.token {
				tb.Fatalf("waiter %d was granted with token %d after %d", ev.waiter, ev.lock.version, w.token)
			}
			tokens = append(tokens, ev.lock.version)
		}
		if !ev.lock.held() && ev.lock.waiters > 0 {
			tb.Fatalf("an event shows a free lock with waiters: %s", printLock(&ev.lock))
		}
	}
	w.token = max(w.token, slices.Max(append(tokens, 0)))
}

// requireNextEnd compares nextEnd with a look at everything.
func requireNextEnd(tb testing.TB, t *table) {
	tb.Helper()
	want, some := never, false
	see := func(end logTime) { want, some = min(want, end), true }
	t.locks.from("", func(l *lockRecord) bool {
		if l.held() {
			see(l.end)
		}
		return true
	})
	t.queue.tree.Ascend(func(w waiter) bool {
		end, _ := w.end()
		see(end)
		return true
	})
	got, ok := t.nextEnd()
	if ok != some || ok && got != want {
		tb.Fatalf("next end %d %v, want %d %v", got, ok, want, some)
	}
}

func randomScript(seed uint64, n int) []byte {
	rng := rand.New(rand.NewPCG(seed, 0))
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	return data
}

func TestSameLogSameState(t *testing.T) {
	seeds := uint64(60)
	if testing.Short() {
		seeds = 15
	}
	for seed := range seeds {
		replay(t, randomScript(seed, 6000))
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func FuzzTable(f *testing.F) {
	for seed := range uint64(4) {
		f.Add(randomScript(seed, 400))
	}
	f.Fuzz(func(t *testing.T, data []byte) { replay(t, data[:min(len(data), 4000)]) })
}

// A lock that is taken and released all the time has one key in the heap and
// one place among the freed, not one for each grant.
func TestChurnLeavesNothingBehind(t *testing.T) {
	tab := newTable()
	const names, rounds = 10, 20_000
	for round := range rounds {
		e := &entry{stamp: tab.now() + second/1000, bounds: bounds{locks: names}}
		// Ever shorter grants: the worst there is, each end is earlier than
		// the last and needs a key.
		ttl := span(1+rounds-round) * second
		for i := range names {
			id := fmt.Sprint("lock", i)
			e.commands = append(e.commands,
				command{kind: cmdAcquire, lock: id, client: "A", ttl: ttl, arrival: e.stamp},
				command{kind: cmdRelease, lock: id, client: "A", version: int64(round*names + i + 1), arrival: e.stamp})
		}
		for _, r := range tab.apply(e).results {
			if r.code != 1 {
				t.Fatalf("round %d: %v", round, r)
			}
		}
		if n := tab.ends.len(); n > 2*names+1024 {
			t.Fatalf("round %d: %d keys for %d locks", round, n, names)
		}
		if n := len(tab.freed.queue); n > 2*names+1024+2 {
			t.Fatalf("round %d: %d places for %d locks", round, n, names)
		}
	}
	requireSound(t, tab, "at the end")
}

// Keys that were left behind by earlier ends go when their time comes; they do
// not bring forth others.
func TestStaleKeysDoNotMultiply(t *testing.T) {
	tab := newTable()
	e := &entry{stamp: 1, bounds: bounds{locks: 1}}
	for i := range 100 {
		ttl := span(200 - i)
		if i == 99 {
			ttl = 1000
		}
		e.commands = append(e.commands,
			command{kind: cmdRelease, lock: "L", client: "A", version: int64(i)},
			command{kind: cmdAcquire, lock: "L", client: "A", ttl: ttl})
	}
	tab.apply(e)
	if tab.ends.len() != 99 {
		t.Fatalf("%d keys for ends that came ever earlier", tab.ends.len())
	}
	tab.apply(&entry{stamp: 300})
	if end, ok := tab.nextEnd(); tab.ends.len() != 1 || !ok || end != 1001 {
		t.Fatalf("%d keys, the next at %d", tab.ends.len(), end)
	}
	requireSound(t, tab, "after the stale keys")
}

// A renewal writes the lock alone.
func TestRenewalPushesNoKey(t *testing.T) {
	tab := newTable()
	tab.apply(&entry{stamp: 1, bounds: bounds{locks: 1}, commands: []command{{kind: cmdAcquire, lock: "L", client: "A", ttl: 10}}})
	for range 1000 {
		now := tab.now() + 5
		tab.apply(&entry{stamp: now, commands: []command{{kind: cmdRenew, lock: "L", client: "A", version: 1, ttl: 10, arrival: now}}})
		if tab.ends.len() != 1 {
			t.Fatalf("%d keys", tab.ends.len())
		}
	}
	if end, _ := tab.nextEnd(); end != tab.now()+10 {
		t.Fatalf("next end %d at %d", end, tab.now())
	}
}

// What a million locks needed is given back when they have gone.
func TestHeapShrinks(t *testing.T) {
	var h deadlines
	for i := range 100_000 {
		h.push(deadline{end: logTime(i * 7919 % 100_003)})
	}
	last := logTime(-1)
	for h.len() > 0 {
		if h.heap[0].end < last {
			t.Fatal("out of order")
		}
		last = h.heap[0].end
		h.pop()
	}
	if cap(h.heap) > 10_000 {
		t.Fatalf("room for %d keys is left", cap(h.heap))
	}
}

// Keys of one instant come in the order of kind, lock and number, however they
// were pushed.
func TestKeysOfOneInstant(t *testing.T) {
	want := []deadline{
		{end: 1, kind: endDetach, lock: "z", number: 9},
		{end: 2, kind: endHeld, lock: "a"},
		{end: 2, kind: endHeld, lock: "b"},
		{end: 2, kind: endWait, lock: "a", number: 7},
		{end: 2, kind: endWait, lock: "a", number: 8},
		{end: 2, kind: endWait, lock: "b", number: 1},
		{end: 2, kind: endDetach, lock: "a", number: 2},
	}
	rng := rand.New(rand.NewPCG(3, 4))
	for range 100 {
		var h deadlines
		for _, i := range rng.Perm(len(want)) {
			h.push(want[i])
		}
		for _, w := range want {
			if h.heap[0] != w {
				t.Fatalf("got %v, want %v", h.heap[0], w)
			}
			h.pop()
		}
	}
}

// A burst of a thousand deaths at one instant is the same from a log that is
// applied as it came and from one that begins with a loaded table, byte by byte.
func TestSweepOfLoadedTable(t *testing.T) {
	build := func() *table {
		tab := newTable()
		fillTable(t, tab, benchIDs(3000), 10*second)
		e := &entry{stamp: tab.now() + second}
		for i, id := range benchIDs(3000) {
			if i%3 == 0 { // a third was renewed: their keys are too early
				e.commands = append(e.commands, command{
					kind: cmdRenew, lock: id, client: fmt.Sprintf("client-%09d", i), version: int64(i + 1),
					ttl: 10 * second, arrival: e.stamp,
				})
			}
		}
		tab.apply(e)
		return tab
	}
	running := build()
	loaded := restore(build().clone())
	for more := true; more; {
		e := &entry{stamp: 12 * second}
		a, b := running.apply(e), loaded.apply(e)
		if a.expired != b.expired || a.more != b.more || !bytes.Equal([]byte(printState(running)), []byte(printState(loaded))) {
			t.Fatalf("running %d %v, loaded %d %v", a.expired, a.more, b.expired, b.more)
		}
		more = a.more
	}
}

package raftlock

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true}, {"", "a", false}, {"*", "", true}, {"*", "a/b", true}, {"**", "a", true},
		{"?", "", false}, {"?", "a", true}, {"?", "é", true}, {"??", "é", false}, {"?", "ab", false},
		{"a", "a", true}, {"a", "b", false}, {"a", "ab", false}, {"ab", "a", false},
		{"a*", "a", true}, {"a*", "abc", true}, {"a*", "ba", false}, {"*a", "ba", true}, {"*a", "ab", false},
		{"a*c", "abc", true}, {"a*c", "ac", true}, {"a*c", "abcb", false}, {"a*b*c", "aXbYbZc", true},
		{"*ab*ab", "ab", false}, {"*ab*ab", "abab", true}, {"*ab*ab", "aabxab", true},
		{"a?c*", "abcd", true}, {"a?c*", "acd", false}, {"*?", "", false}, {"*?", "é", true}, {"?*?", "a", false}, {"?*?", "aé", true},
		{"ö*", "öl", true}, {"*ß", "aß", true}, {"a*é?z", "a—éxz", true},
		{"[a]", "a", false}, {"[a]", "[a]", true}, {`\*`, `\x`, true}, {"a.c", "abc", false}, {"*", "\xff", true}, {"?", "\xff", true},
		{"*", "*", true}, {"?*", "*?", true}, {"a\n*", "a\nb", true},
	} {
		if got := match(c.pattern, c.s); got != c.want {
			t.Errorf("match(%q, %q) = %v", c.pattern, c.s, got)
		}
		if got := match(squeeze(c.pattern), c.s); got != c.want {
			t.Errorf("match(squeeze(%q), %q) = %v", c.pattern, c.s, got)
		}
	}
}

// The matcher agrees with package regexp.
func TestMatchAgrees(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	pick := func(alphabet string, n int) string {
		runes := []rune(alphabet)
		out := make([]rune, rng.IntN(n))
		for i := range out {
			out[i] = runes[rng.IntN(len(runes))]
		}
		return string(out)
	}
	for range 20_000 {
		pattern, s := pick("aé*?*", 8), pick("aéb", 9)
		re := regexp.QuoteMeta(pattern)
		re = strings.NewReplacer(`\*`, `(?s:.*)`, `\?`, `(?s:.)`).Replace(re)
		if want := regexp.MustCompile("^(?:" + re + ")$").MatchString(s); match(squeeze(pattern), s) != want {
			t.Fatalf("match(%q, %q) = %v", pattern, s, !want)
		}
	}
}

// What makes a naive matcher run for ever costs nothing here. The bound is some
// thousand times what it takes.
func TestMatchDoesNotBlowUp(t *testing.T) {
	s := strings.Repeat("a", 256)
	start := time.Now()
	for range 100 {
		for _, pattern := range []string{
			strings.Repeat("a*", 128) + "b", strings.Repeat("*a", 200) + "b", strings.Repeat("*?", 250) + "b",
			squeeze(strings.Repeat("*", 1<<16)) + "b", "*" + strings.Repeat("a", 128) + "b",
		} {
			if match(pattern, s) {
				t.Fatalf("%q matches", pattern)
			}
		}
	}
	if d := time.Since(start); d > time.Minute {
		t.Fatalf("took %v", d)
	}
}

// listing is a table of ten locks: a1…a5 held by A, with an end at 10 s, 20 s, …;
// b1…b3 free; c1, c2 held by "B" with waiters.
func listing(t *testing.T) *table {
	tab := newTable()
	e := &entry{stamp: 1, wall: 7, bounds: bounds{locks: 100, waiters: 100, lockWaiters: 100}}
	add := func(c command) { c.arrival = 1; e.commands = append(e.commands, c) }
	for i := range 5 {
		add(command{
			kind: cmdAcquire, lock: fmt.Sprint("a", i+1), client: "A", ttl: span(i+1)*10*second - 1,
			metadata: metadata{{"odd", fmt.Sprint(i%2 == 0)}, {"zone", "x"}},
		})
	}
	for i := range 3 {
		add(command{kind: cmdAcquire, lock: fmt.Sprint("b", i+1), client: "A", ttl: second})
		add(command{kind: cmdRelease, lock: fmt.Sprint("b", i+1), client: "A", version: int64(6 + i)})
	}
	for i := range 2 {
		lock := fmt.Sprint("c", i+1)
		add(command{kind: cmdAcquire, lock: lock, client: "B", request: "r", ttl: 100 * second})
		for j := range 3 {
			add(command{kind: cmdAcquire, lock: lock, client: fmt.Sprint("W", j), wait: true, timeout: 50 * second, priority: int32(j)})
		}
	}
	for i, r := range tab.apply(e).results {
		if r.code != 1 {
			t.Fatalf("command %d: %v", i, r.code)
		}
	}
	return tab
}

func ids(p *lockPage) string {
	var b strings.Builder
	for i, l := range p.locks {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(l.id)
	}
	return b.String()
}

func TestList(t *testing.T) {
	view := listing(t).clone()
	for _, c := range []struct {
		name  string
		q     lockQuery
		want  string
		total int
		more  bool
	}{
		{"all", lockQuery{}, "a1 a2 a3 a4 a5 b1 b2 b3 c1 c2", 10, false},
		{"a star is all", lockQuery{filter: lockFilter{id: "**", owner: "*"}}, "a1 a2 a3 a4 a5 b1 b2 b3 c1 c2", 10, false},
		{"prefix", lockQuery{filter: lockFilter{id: "a*"}}, "a1 a2 a3 a4 a5", 5, false},
		{"whole id", lockQuery{filter: lockFilter{id: "a"}}, "", 0, false},
		{"no wildcard", lockQuery{filter: lockFilter{id: "b2"}}, "b2", 1, false},
		{"question mark", lockQuery{filter: lockFilter{id: "?1"}}, "a1 b1 c1", 3, false},
		{"owner", lockQuery{filter: lockFilter{owner: "B"}}, "c1 c2", 2, false},
		{"owner pattern needs an owner", lockQuery{filter: lockFilter{owner: "?"}}, "a1 a2 a3 a4 a5 c1 c2", 7, false},
		{"held", lockQuery{filter: lockFilter{onlyHeld: true}}, "a1 a2 a3 a4 a5 c1 c2", 7, false},
		{"contested", lockQuery{filter: lockFilter{onlyContested: true}}, "c1 c2", 2, false},
		{"before, inclusive", lockQuery{filter: lockFilter{before: 20 * second, hasBefore: true}}, "a1 a2", 2, false},
		{"after, inclusive", lockQuery{filter: lockFilter{after: 50 * second, hasAfter: true}}, "a5 c1 c2", 3, false},
		{"before and after", lockQuery{filter: lockFilter{before: 40 * second, hasBefore: true, after: 20 * second, hasAfter: true}}, "a2 a3 a4", 3, false},
		{"a bound of 0 is a bound", lockQuery{filter: lockFilter{hasBefore: true}}, "", 0, false},
		{"metadata", lockQuery{filter: lockFilter{metadata: metadata{{"odd", "true"}}}}, "a1 a3 a5", 3, false},
		{"two pairs", lockQuery{filter: lockFilter{metadata: metadata{{"odd", "true"}, {"zone", "x"}}}}, "a1 a3 a5", 3, false},
		{"a pair that is nowhere", lockQuery{filter: lockFilter{metadata: metadata{{"a", "x"}}}}, "", 0, false},
		{"another value", lockQuery{filter: lockFilter{metadata: metadata{{"zone", "y"}}}}, "", 0, false},
		{"all filters", lockQuery{filter: lockFilter{id: "*", owner: "A", onlyHeld: true, metadata: metadata{{"odd", "false"}}, after: 30 * second, hasAfter: true}}, "a4", 1, false},
		{"limit", lockQuery{limit: 3}, "a1 a2 a3", 10, true},
		{"limit of all", lockQuery{limit: 10}, "a1 a2 a3 a4 a5 b1 b2 b3 c1 c2", 10, false},
		{"offset", lockQuery{offset: 8}, "c1 c2", 10, false},
		{"offset behind the end", lockQuery{offset: 11, limit: 1}, "", 10, false},
		{"offset and limit in a filter", lockQuery{filter: lockFilter{onlyHeld: true}, offset: 2, limit: 2}, "a3 a4", 7, true},
		{"start after", lockQuery{startAfter: "b1", limit: 2}, "b2 b3", 10, true},
		{"start after what is gone", lockQuery{startAfter: "a9"}, "b1 b2 b3 c1 c2", 10, false},
		{"start after, filtered: the total is of all", lockQuery{filter: lockFilter{onlyHeld: true}, startAfter: "a4", limit: 2}, "a5 c1", 7, true},
		{"start after, in a prefix", lockQuery{filter: lockFilter{id: "a*"}, startAfter: "a4"}, "a5", 5, false},
		{"start after and offset", lockQuery{startAfter: "a4", offset: 2, limit: 1}, "b2", 10, true},
		{"bytes", lockQuery{maxBytes: 510}, "a1 a2 a3", 10, true},
		{"one lock is too large", lockQuery{maxBytes: 1, startAfter: "a1"}, "a2", 10, true},
		{"the last lock is too large", lockQuery{maxBytes: 1, startAfter: "c1"}, "c2", 10, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := view.list(&c.q)
			if got := ids(&p); got != c.want || p.total != c.total || p.more != c.more {
				t.Errorf("got %q of %d, more %v; want %q of %d, more %v", got, p.total, p.more, c.want, c.total, c.more)
			}
		})
	}
}

func TestListPageEnds(t *testing.T) {
	tab := newTable()
	fillTable(t, tab, benchIDs(2500), 1<<60)
	view := tab.clone()
	var got []string
	q := lockQuery{filter: lockFilter{onlyHeld: true}}
	for pages := 1; ; pages++ {
		p := view.list(&q)
		if p.total != 2500 || len(p.locks) > pageLocks || p.more != (pages < 3) {
			t.Fatalf("page %d: %d of %d, more %v", pages, len(p.locks), p.total, p.more)
		}
		for _, l := range p.locks {
			got = append(got, l.id)
		}
		if !p.more {
			break
		}
		q.startAfter = got[len(got)-1]
	}
	if len(got) != 2500 || !slices.IsSorted(got) {
		t.Fatalf("%d locks", len(got))
	}
	// Ten thousand names of waiters make a page of their own.
	long := queueUp(t, 10_000)
	p := long.clone().list(&lockQuery{waiters: true})
	if len(p.locks) != 1 || len(p.locks[0].queue) != 10_000 || p.more {
		t.Fatalf("%d locks", len(p.locks))
	}
}

func TestInfo(t *testing.T) {
	tab := listing(t)
	if l, ok := tab.info("nothing"); ok || l.held() || l.id != "nothing" || l.version != 0 {
		t.Errorf("found %v", l)
	}
	if l, ok := tab.info("b1"); !ok || l.held() || l.version != 6 || l.end != 0 || l.acquired != 0 || l.modified != 7 {
		t.Errorf("free: %+v", l)
	}
	if l, ok := tab.info("c1"); !ok || l.owner != "B" || l.request != "r" || l.end != 1+100*second || l.waiters != 3 || l.acquired != 7 {
		t.Errorf("held: %+v", l)
	}
	var queue []string
	for i, w := range tab.waiters("c1") {
		if int(w.position) != i || w.joined != 7 || w.timeout != 1+50*second {
			t.Errorf("%+v", w)
		}
		queue = append(queue, w.client)
	}
	if strings.Join(queue, " ") != "W2 W1 W0" {
		t.Errorf("queue %v", queue)
	}
	if tab.waiters("a1") != nil || tab.waiters("nothing") != nil {
		t.Error("waiters of a lock that has none")
	}
}

// What the sweep has not come to yet is read as free, and stays as it is.
func TestReadOfOverdueLock(t *testing.T) {
	tab := newTable()
	fillTable(t, tab, benchIDs(1020), second)
	if !tab.apply(&entry{stamp: 1 + second}).more { // the instant of all their ends
		t.Fatal("the sweep left nothing")
	}
	hash := tab.hash()
	for i, id := range benchIDs(1020) {
		l, ok := tab.info(id)
		if !ok || l.held() || l.request != "" || l.end != 0 || l.acquired != 0 || l.metadata != nil || l.version != int64(i+1) {
			t.Fatalf("%+v", l)
		}
	}
	view := tab.clone()
	if p := view.list(&lockQuery{filter: lockFilter{onlyHeld: true}}); p.total != 0 {
		t.Fatalf("%d held", p.total)
	}
	if p := view.list(&lockQuery{filter: lockFilter{before: never, hasBefore: true}}); p.total != 0 {
		t.Fatalf("%d have an end", p.total)
	}
	if tab.hash() != hash || tab.heldCount() != 20 {
		t.Fatal("a read changed the table")
	}
}

// Views are scanned while the table goes on: run with -race. Each must stay as
// it was when it was made.
func TestCloneStandsStill(t *testing.T) {
	tab := newTable()
	var wg sync.WaitGroup
	s := script{randomScript(11, 20_000)}
	for n := 0; len(s.rest) > 0; n++ {
		e := s.entry(tab.now())
		for i := range e.commands {
			aim(tab, &e.commands[i])
		}
		tab.apply(e)
		if n%8 == 0 {
			view, want := tab.clone(), printState(tab)
			wg.Go(func() {
				for range 3 {
					view.list(&lockQuery{waiters: true})
					if got := printState(restore(view)); got != want {
						t.Errorf("the clone changed:\n%s\nwas\n%s", got, want)
					}
				}
			})
		}
	}
	wg.Wait()
	requireSound(t, tab, "at the end")
}

// The cache of recent locks never answers with what is gone, replaced or shared.
func TestLockTreeAgreesWithAMap(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	tree, twin := newLockTree(), map[string]int64{}
	var views []lockTree
	var wants []map[string]int64
	for n := range 60_000 {
		id := fmt.Sprint(rng.IntN(8000)) // more than the cache has room for
		switch rng.IntN(4) {
		case 0:
			tree.drop(id)
			delete(twin, id)
		case 1, 2:
			l, _ := tree.get(id)
			l.id, l.version = id, int64(n)
			tree.put(&l)
			twin[id] = int64(n)
		default:
			l, ok := tree.get(id)
			if v, known := twin[id]; ok != known || l.version != v {
				t.Fatalf("%s reads %d %v, want %d %v", id, l.version, ok, v, known)
			}
		}
		if n%20_000 == 5 {
			want := map[string]int64{}
			for k, v := range twin {
				want[k] = v
			}
			views, wants = append(views, tree.clone()), append(wants, want)
		}
	}
	for i := range views {
		n := 0
		views[i].from("", func(l *lockRecord) bool {
			if wants[i][l.id] != l.version {
				t.Fatalf("clone %d: %s reads %d, want %d", i, l.id, l.version, wants[i][l.id])
			}
			n++
			return true
		})
		if n != len(wants[i]) {
			t.Fatalf("clone %d has %d locks", i, n)
		}
	}
}

func FuzzMatch(f *testing.F) {
	f.Add("a*b?", "axxby")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		if match(pattern, s) != match(squeeze(pattern), s) {
			t.Errorf("%q and %q differ on %q", pattern, squeeze(pattern), s)
		}
		if !match("*"+pattern+"*", "x"+s) && match(pattern, s) {
			t.Errorf("%q matches %q, but not with stars around it", pattern, s)
		}
	})
}

// BenchmarkList scans a million locks, beside the loop.
func BenchmarkList(b *testing.B) {
	tab := newTable()
	fillTable(b, tab, benchIDs(1_000_000), 1<<60)
	view := tab.clone()
	for _, c := range []struct {
		name string
		q    lockQuery
	}{
		{"page of all", lockQuery{startAfter: "bench/8"}},
		{"owner pattern", lockQuery{filter: lockFilter{owner: "*-00000042?"}}},
		{"prefix", lockQuery{filter: lockFilter{id: "bench/00*"}}},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				view.list(&c.q)
			}
		})
	}
	b.Run("clone", func(b *testing.B) {
		for b.Loop() {
			tab.clone()
		}
	})
}

// A page whose matches are not counted holds the same locks.
func TestUncountedPages(t *testing.T) {
	tbl := newTable()
	var commands []command
	for i := range 500 {
		commands = append(commands, command{kind: cmdAcquire, lock: fmt.Sprintf("a%03d", i), client: fmt.Sprint("c", i%3), attempt: 1, ttl: 1e9})
	}
	tbl.apply(&entry{stamp: 1, commands: commands, bounds: bounds{10, 1000, 10}})
	v := tbl.clone()
	for _, f := range []lockFilter{{}, {owner: "c1"}, {id: "a*7"}, {id: "a1*", owner: "c?"}, {id: "b*"}, {id: "*9*"}} {
		for _, after := range []string{"", "Z", "a", "a099", "a1", "a250", "a499", "b"} {
			counted := v.list(&lockQuery{filter: f, startAfter: after, limit: 10})
			uncounted := v.list(&lockQuery{filter: f, startAfter: after, limit: 10, uncounted: true})
			if !reflect.DeepEqual(counted.locks, uncounted.locks) || counted.more != uncounted.more {
				t.Errorf("%+v after %q: %d locks, %t; uncounted %d, %t", f, after, len(counted.locks), counted.more, len(uncounted.locks), uncounted.more)
			}
		}
	}
}

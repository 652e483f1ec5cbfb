package raftlock

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
)

// benchIDs returns n lock ids of 25 bytes, in no order: what a service that
// locks orders or tenants by a random id has.
func benchIDs(n int) []string {
	rng := rand.New(rand.NewPCG(1, 2))
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("bench/%016x%03d", rng.Uint64(), i%1000)
	}
	return ids
}

// fillTable takes each lock once, with an owner and a request of 16 bytes.
func fillTable(tb testing.TB, t *table, ids []string, ttl span) {
	tb.Helper()
	e := entry{stamp: t.now() + 1, wall: 1_700_000_000_000_000, bounds: bounds{locks: 1 << 40}}
	for i, id := range ids {
		e.commands = append(e.commands, command{
			kind: cmdAcquire, attempt: 1, lock: id,
			client: fmt.Sprintf("client-%09d", i), request: fmt.Sprintf("request-%08d", i),
			ttl: ttl, arrival: e.stamp,
		})
		if len(e.commands) == 1024 || i == len(ids)-1 {
			t.apply(&e)
			e.stamp += 1000
			e.commands = nil // like decoded entries: nothing is shared
		}
	}
}

// BenchmarkAcquireRelease is the hot path: one pair per iteration, 512 pairs an
// entry, on the given number of names.
func BenchmarkAcquireRelease(b *testing.B) {
	for _, c := range []struct{ names, held int }{{1_000, 0}, {1_000, 1_000_000}, {1_000_000, 0}} {
		b.Run(fmt.Sprintf("names=%d/held=%d", c.names, c.held), func(b *testing.B) {
			ids := benchIDs(c.names + c.held)
			t := newTable()
			fillTable(b, t, ids[c.names:], 1<<60)
			benchPairs(b, t, ids[:c.names])
		})
	}
}

func benchPairs(b *testing.B, t *table, ids []string) {
	const batch = 512
	take := entry{bounds: bounds{locks: 1 << 40}, commands: make([]command, batch)}
	back := entry{commands: make([]command, batch)}
	b.ReportAllocs()
	runtime.GC()
	b.ResetTimer()
	next := 0
	for n := 0; n < b.N; n += batch {
		stamp := t.now() + 1_000_000
		take.stamp, back.stamp = stamp, stamp+500_000
		for i := range batch {
			id := ids[(next+i)%len(ids)]
			take.commands[i] = command{
				kind: cmdAcquire, attempt: 1, lock: id, arrival: stamp,
				client: "client-of-bench1", request: "request-of-bench", ttl: 30_000_000_000,
			}
		}
		out := t.apply(&take)
		for i := range batch {
			c := &take.commands[i]
			back.commands[i] = command{
				kind: cmdRelease, lock: c.lock, client: c.client, arrival: stamp,
				version: out.results[i].lock.version,
			}
		}
		t.apply(&back)
		next += batch
	}
}

// BenchmarkHeldMemory reports the bytes that one held lock takes, at a million,
// with everything that stands for it.
func BenchmarkHeldMemory(b *testing.B) {
	const n = 1_000_000
	for range b.N {
		before := heapBytes()
		t := newTable()
		func() { fillTable(b, t, benchIDs(n), 1<<60) }()
		b.ReportMetric(float64(heapBytes()-before)/n, "B/lock")
		r := restore(t.clone())
		t = nil
		b.ReportMetric(float64(heapBytes()-before)/n, "restored-B/lock")
		runtime.KeepAlive(r)
	}
}

func heapBytes() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkSweep brings about 10 000 ends that are due at once: ten entries.
func BenchmarkSweep(b *testing.B) {
	ids := benchIDs(10_000)
	b.ReportAllocs()
	for range b.N {
		b.StopTimer()
		t := newTable()
		fillTable(b, t, ids, 1_000_000_000)
		b.StartTimer()
		for more := true; more; {
			more = t.apply(&entry{stamp: 100_000_000_000}).more
		}
	}
}

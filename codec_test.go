package raftlock

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/raftlock/raftlock/pb"
)

// Once a build is released, the files of testdata/codec change only by added
// lines: bytes that stand on somebody's disk must read as they did.
var rewriteCodec = flag.Bool("rewrite-codec", false, "write the golden bytes of the codec anew")

var fullCommand = command{
	kind: cmdAcquire, wait: true, attempt: 2, priority: -3, lock: "orders/42", client: "web-1", request: "req-7",
	version: 1_700_000_000_000_001, ttl: 30_000_000_000, timeout: 60_000_000_000, claim: 9, metadata: metadata{{"app", "web"}, {"empty", ""}},
}

func goldenEntries() map[string]entry {
	arrived := fullCommand
	arrived.arrival = 4_999_000_000
	es := map[string]entry{
		"empty": {},
		"alarm": {stamp: 5_000_000_000, wall: 1_700_000_000_000_000},
		"first": {stamp: 5_000_000_000, wall: 1_700_000_000_000_000, first: true, floor: 1_700_000_000_000_000},
		"batch": {
			stamp: 5_000_000_000, wall: -1, bounds: bounds{lockWaiters: 10_000, locks: 4_000_000, waiters: 1_000_000},
			commands: []command{
				arrived,
				{kind: cmdRelease, lock: "orders/42", client: "web-1", version: -1, arrival: 5_000_000_000},
			},
		},
		"extremes": {
			stamp: never, wall: math.MinInt64, floor: math.MinInt64,
			bounds: bounds{lockWaiters: math.MaxInt64, locks: math.MinInt64, waiters: -1},
			commands: []command{{
				kind: cmdDetach, attempt: math.MinInt32, priority: math.MinInt32, version: math.MinInt64,
				ttl: math.MaxInt64, timeout: math.MinInt64, claim: math.MaxUint64,
				metadata: metadata{{"", ""}, {strings.Repeat("k", 200), "v"}},
			}},
		},
	}
	for kind := cmdAcquire; kind <= cmdDetach; kind++ {
		es[fmt.Sprintf("kind-%d", kind)] = entry{stamp: 1, commands: []command{{kind: kind, lock: "L", client: "C", arrival: 1}}}
	}
	return es
}

func goldenResults() map[string]result {
	return map[string]result{
		"empty":   {},
		"granted": {code: pb.ErrorCode_OK, lock: lockView{id: "L", owner: "A", request: "r", version: 7, end: 9, acquired: 5, modified: 6, metadata: metadata{{"a", "b"}}}},
		"queued":  {code: pb.ErrorCode_OK, queued: true, waiter: 3, claim: 4, position: 2, lock: lockView{id: "L", owner: "A", version: 7, end: never, waiters: 3}},
		"full":    {code: pb.ErrorCode_WAIT_QUEUE_FULL, limit: 10_000, lock: lockView{id: "L", owner: "A", version: 7, waiters: 10_000}},
		"freed":   {code: pb.ErrorCode_OK, promoted: true, lock: lockView{id: "L", version: 7}},
		"extremes": {code: math.MinInt32, position: math.MinInt32, limit: math.MinInt64, waiter: math.MaxUint64,
			lock: lockView{id: strings.Repeat("x", 256), version: math.MinInt64, acquired: -1, modified: -2, waiters: -1}},
	}
}

func TestGoldenBytes(t *testing.T) {
	var entries, commands, results []goldenCase
	for name, e := range goldenEntries() {
		entries = append(entries, goldenCase{name, newestFormat.appendEntry(nil, &e), func(b []byte) (any, error) { return newestFormat.decodeEntry(b) }, e})
	}
	commands = append(commands,
		goldenCase{"full", newestFormat.appendCommand(nil, &fullCommand), func(b []byte) (any, error) { return newestFormat.decodeCommand(b) }, fullCommand},
		goldenCase{"least", newestFormat.appendCommand(nil, &command{kind: cmdCancel}), func(b []byte) (any, error) { return newestFormat.decodeCommand(b) }, command{kind: cmdCancel}})
	for name, r := range goldenResults() {
		results = append(results, goldenCase{name, newestFormat.appendResult(nil, &r), func(b []byte) (any, error) { return newestFormat.decodeResult(b) }, r})
	}
	compareGolden(t, "entries.hex", entries)
	compareGolden(t, "commands.hex", commands)
	compareGolden(t, "results.hex", results)
}

type goldenCase struct {
	name   string
	bytes  []byte
	decode func([]byte) (any, error)
	want   any
}

// compareGolden holds the bytes that are written against a file of lines
// "name hex", and what is read from the file against the values.
func compareGolden(t *testing.T, file string, cases []goldenCase) {
	t.Helper()
	path := filepath.Join("testdata", "codec", file)
	if *rewriteCodec {
		writeGolden(t, path, cases)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	golden := map[string][]byte{}
	for line := range strings.Lines(string(text)) {
		name, digits, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		if golden[name], err = hex.DecodeString(digits); err != nil {
			t.Fatalf("%s: %s: %v", path, name, err)
		}
	}
	if len(golden) != len(cases) {
		t.Errorf("%s has %d cases, want %d", path, len(golden), len(cases))
	}
	for _, c := range cases {
		if !bytes.Equal(c.bytes, golden[c.name]) {
			t.Errorf("%s: %s is written as %x, was %x", path, c.name, c.bytes, golden[c.name])
		}
		if got, err := c.decode(golden[c.name]); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %s reads as %+v (%v), want %+v", path, c.name, got, err, c.want)
		}
	}
}

func writeGolden(t *testing.T, path string, cases []goldenCase) {
	t.Helper()
	lines := make([]string, 0, len(cases))
	for _, c := range cases {
		lines = append(lines, fmt.Sprintf("%s %x\n", c.name, c.bytes))
	}
	// Sorted, so that a diff shows what changed and nothing else.
	for i := range lines {
		for j := i; j > 0 && lines[j] < lines[j-1]; j-- {
			lines[j], lines[j-1] = lines[j-1], lines[j]
		}
	}
	text := "# name, bytes: see codec.go for the fields and codec_test.go for the values\n" + strings.Join(lines, "")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// What no build writes is malformed; what a newer one may write is unknown, so
// that a member stops and says why instead of diverging.
func TestDecodersRefuse(t *testing.T) {
	entries := func(b []byte) error { _, err := newestFormat.decodeEntry(b); return err }
	commands := func(b []byte) error { _, err := newestFormat.decodeCommand(b); return err }
	results := func(b []byte) error { _, err := newestFormat.decodeResult(b); return err }
	inCommand := func(b ...byte) []byte { return append([]byte{1, 0x08, 1}, b...) }
	for _, c := range []struct {
		name   string
		decode func([]byte) error
		bytes  []byte
		want   error
	}{
		{"no bytes", entries, nil, errMalformed},
		{"format 0", entries, []byte{0}, errMalformed},
		{"format 2", entries, []byte{2}, errUnknownFormat},
		{"format 2 of a command", commands, []byte{2, 0xff}, errUnknownFormat},
		{"format 2 of a result", results, []byte{2}, errUnknownFormat},
		{"field 9 of an entry", entries, []byte{1, 0x48, 1}, errUnknownFormat},
		{"field 9 of a result", results, []byte{1, 0x48, 1}, errUnknownFormat},
		{"field 10 of a lock", results, []byte{1, 0x42, 2, 0x50, 1}, errUnknownFormat},
		{"field 14 of a command", commands, inCommand(0x70, 1), errUnknownFormat},
		{"field 3 of a pair", commands, inCommand(0x6a, 2, 0x18, 1), errUnknownFormat},
		{"kind 9", commands, []byte{1, 0x08, 9}, errUnknownFormat},
		{"kind 9 in an entry", entries, []byte{1, 0x42, 2, 0x08, 9}, errUnknownFormat},
		{"kind above a byte", commands, []byte{1, 0x08, 0x81, 0x02}, errUnknownFormat},
		{"no kind", commands, []byte{1}, errMalformed},
		{"empty command in an entry", entries, []byte{1, 0x42, 0}, errMalformed},
		{"wrong wire type: text as number", commands, inCommand(0x28, 1), errMalformed},
		{"wrong wire type: number as text", entries, []byte{1, 0x0a, 1, 1}, errMalformed},
		{"wrong wire type: fixed", entries, []byte{1, 0x09, 1, 0, 0, 0, 0, 0, 0, 0}, errMalformed},
		{"wrong wire type: group", entries, []byte{1, 0x0b, 0x0c}, errMalformed},
		{"field 0", entries, []byte{1, 0x00, 1}, errMalformed},
		{"tag alone", entries, []byte{1, 0x08}, errMalformed},
		{"varint without end", entries, []byte{1, 0x08, 0x80}, errMalformed},
		{"varint too long", entries, []byte{1, 0x08, 0x81, 0x00}, errMalformed},
		{"varint above 64 bits", entries, append([]byte{1, 0x10}, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f), errMalformed},
		{"stamp below 0", entries, protowire.AppendVarint([]byte{1, 0x08}, 1<<63), errMalformed},
		{"arrival below 0", entries, []byte{1, 0x08, 5, 0x42, 4, 0x08, 1, 0x60, 6}, errMalformed},
		{"arrival on the wire", commands, inCommand(0x60, 1), errMalformed},
		{"end below 0", results, append([]byte{1, 0x42, 11}, protowire.AppendVarint([]byte{0x28}, 1<<63)...), errMalformed},
		{"attempt above 32 bits", commands, inCommand(protowire.AppendVarint([]byte{0x18}, 1<<31)...), errMalformed},
		{"priority above 32 bits", commands, inCommand(protowire.AppendVarint([]byte{0x20}, 1<<32)...), errMalformed},
		{"wait 2", commands, inCommand(0x10, 2), errMalformed},
		{"zero written out", entries, []byte{1, 0x08, 0}, errMalformed},
		{"empty text written out", commands, inCommand(0x2a, 0), errMalformed},
		{"out of order", entries, []byte{1, 0x10, 1, 0x08, 1}, errMalformed},
		{"twice", entries, []byte{1, 0x08, 1, 0x08, 1}, errMalformed},
		{"text longer than the rest", commands, inCommand(0x2a, 2, 'x'), errMalformed},
		{"text of a length near 2^64", commands, inCommand(protowire.AppendVarint([]byte{0x2a}, math.MaxUint64)...), errMalformed},
		{"bytes behind the end", commands, inCommand(0x2a, 1, 'x', 0x80), errMalformed},
		{"empty lock written out", results, []byte{1, 0x42, 0}, errMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.decode(c.bytes)
			if !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if c.want == errUnknownFormat && !strings.Contains(err.Error(), "format 1") {
				t.Errorf("does not say what this build knows: %v", err)
			}
		})
	}
}

// Every prefix of an entry is refused, or is an entry of its own with fewer
// commands; never taken for the whole.
func TestTruncatedEntry(t *testing.T) {
	e := goldenEntries()["batch"]
	whole := newestFormat.appendEntry(nil, &e)
	for n := range whole {
		got, err := newestFormat.decodeEntry(whole[:n])
		if err == nil && len(got.commands) == len(e.commands) {
			t.Errorf("%d of %d bytes pass for the whole", n, len(whole))
		}
		if err == nil && !bytes.Equal(newestFormat.appendEntry(nil, &got), whole[:n]) {
			t.Errorf("%d bytes read as other bytes", n)
		}
	}
}

// Arrivals that no leader writes are moved to the nearest that one does, so that
// no entry can be written that stops a member.
func TestArrivalIsClamped(t *testing.T) {
	for _, c := range []struct{ stamp, arrival, want logTime }{
		{10, 10, 10}, {10, 0, 0}, {10, -5, 0}, {10, 11, 10}, {10, never, 10}, {-5, 3, 0}, {never, 7, 7},
	} {
		e := entry{stamp: c.stamp, commands: []command{{kind: cmdRenew, arrival: c.arrival}}}
		got, err := newestFormat.decodeEntry(newestFormat.appendEntry(nil, &e))
		if err != nil || got.commands[0].arrival != c.want || got.stamp != max(c.stamp, 0) {
			t.Errorf("%+v: stamp %d, arrival %d, %v", c, got.stamp, got.commands[0].arrival, err)
		}
	}
}

// The length of a command may take more than the byte that is kept free for it.
func TestLongCommands(t *testing.T) {
	for n := range 300 {
		e := entry{commands: []command{{kind: cmdRelease, lock: strings.Repeat("x", n)}, {kind: cmdRenew}}}
		if got, err := newestFormat.decodeEntry(newestFormat.appendEntry([]byte("kept")[:4], &e)[4:]); err != nil || !reflect.DeepEqual(got, e) {
			t.Fatalf("%d: %v", n, err)
		}
	}
	big := entry{commands: []command{{kind: cmdRelease, lock: strings.Repeat("x", 70_000)}}}
	if got, err := newestFormat.decodeEntry(newestFormat.appendEntry(nil, &big)); err != nil || !reflect.DeepEqual(got, big) {
		t.Fatal(err)
	}
}

// One lock id out of a large entry must not keep the entry alive.
func TestDecodedStringsAreCopies(t *testing.T) {
	e := entry{}
	for i := range 1000 {
		e.commands = append(e.commands, command{
			kind: cmdAcquire, lock: fmt.Sprintf("lock-%020d", i), client: "one client", request: fmt.Sprintf("request-%d", i),
			metadata: metadata{{"key", fmt.Sprintf("value %d", i)}},
		})
	}
	raw := newestFormat.appendEntry(nil, &e)
	got, err := newestFormat.decodeEntry(raw)
	if err != nil {
		t.Fatal(err)
	}
	clear(raw)
	if !reflect.DeepEqual(got, e) {
		t.Fatal("the entry changed with its bytes")
	}
}

// A few bytes must not make a large allocation, whatever lengths they claim.
func TestSmallInputSmallMemory(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, raw := range [][]byte{
		protowire.AppendVarint([]byte{1, 0x42}, 1<<40),
		append(bytes.Repeat([]byte{1, 0x42, 0}, 10), 0x42),
		append([]byte{1, 0x08, 1, 0x6a}, 0xff, 0xff, 0xff, 0xff, 0x0f),
	} {
		if _, err := newestFormat.decodeEntry(raw); err == nil {
			t.Errorf("%x was accepted", raw)
		}
		if _, err := newestFormat.decodeCommand(raw); err == nil {
			t.Errorf("%x was accepted", raw)
		}
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<16 {
		t.Errorf("%d bytes allocated", n)
	}
}

func FuzzDecodeEntry(f *testing.F) {
	for _, e := range goldenEntries() {
		f.Add(newestFormat.appendEntry(nil, &e))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, err := newestFormat.decodeEntry(raw)
		if err != nil {
			requireKnownError(t, err)
			return
		}
		if again := newestFormat.appendEntry(nil, &e); !bytes.Equal(again, raw) {
			t.Fatalf("%x is written as %x", raw, again)
		}
		// Whatever can stand in the log can be applied, twice.
		tab := newTable()
		tab.apply(&e)
		tab.apply(&e)
		if err := check(tab); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzDecodeCommand(f *testing.F) {
	f.Add(newestFormat.appendCommand(nil, &fullCommand))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := newestFormat.decodeCommand(raw)
		if err != nil {
			requireKnownError(t, err)
		} else if again := newestFormat.appendCommand(nil, &c); !bytes.Equal(again, raw) {
			t.Fatalf("%x is written as %x", raw, again)
		}
	})
}

func FuzzDecodeResult(f *testing.F) {
	for _, r := range goldenResults() {
		f.Add(newestFormat.appendResult(nil, &r))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := newestFormat.decodeResult(raw)
		if err != nil {
			requireKnownError(t, err)
		} else if again := newestFormat.appendResult(nil, &r); !bytes.Equal(again, raw) {
			t.Fatalf("%x is written as %x", raw, again)
		}
	})
}

func requireKnownError(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, errMalformed) == errors.Is(err, errUnknownFormat) {
		t.Fatalf("neither malformed nor unknown: %v", err)
	}
}

// Whatever a command says, its bytes are accepted and say the same: an entry
// that was written and cannot be read would stop every member for ever.
func TestWhatIsWrittenIsRead(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	number := func() int64 { return int64(rng.Uint64()>>rng.UintN(64)) * (1 - 2*rng.Int64N(2)) }
	text := func() string { return strings.Repeat("\xffé\x00", rng.IntN(50)) }
	for range 3000 {
		e := entry{
			stamp: logTime(number() & math.MaxInt64), wall: number(), first: rng.IntN(2) == 0, floor: number(),
			bounds: bounds{number(), number(), number()},
		}
		for range rng.IntN(5) {
			c := command{
				kind: commandKind(1 + rng.IntN(8)), wait: rng.IntN(2) == 0, attempt: int32(number()), priority: int32(number()),
				lock: text(), client: text(), request: text(), version: number(), ttl: span(number()), timeout: span(number()),
				claim: uint64(number()),
			}
			c.arrival = e.stamp - logTime(rng.Int64N(int64(min(e.stamp, math.MaxInt64-1))+1))
			for range rng.IntN(3) {
				c.metadata = append(c.metadata, pair{text(), text()})
			}
			e.commands = append(e.commands, c)
		}
		if got, err := newestFormat.decodeEntry(newestFormat.appendEntry(nil, &e)); err != nil || !reflect.DeepEqual(got, e) {
			t.Fatalf("%+v: %v", e, err)
		}
	}
}

func benchEntry() entry {
	e := entry{stamp: 1 << 50, wall: 1 << 50}
	for i := range 512 {
		e.commands = append(e.commands, command{
			kind: cmdAcquire, attempt: 1, lock: fmt.Sprintf("bench/%019d", i), client: "client-of-bench1",
			request: fmt.Sprintf("request-%08d", i), ttl: 30_000_000_000, arrival: e.stamp - 100_000,
		})
	}
	return e
}

func BenchmarkAppendEntry(b *testing.B) {
	e := benchEntry()
	buf := newestFormat.appendEntry(nil, &e)
	b.ReportAllocs()
	for b.Loop() {
		buf = newestFormat.appendEntry(buf[:0], &e)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/512, "ns/command")
	b.ReportMetric(float64(len(buf))/512, "B/command")
}

func BenchmarkDecodeEntry(b *testing.B) {
	e := benchEntry()
	buf := newestFormat.appendEntry(nil, &e)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := newestFormat.decodeEntry(buf); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/512, "ns/command")
}

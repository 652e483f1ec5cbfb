package walstore

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/internal/storagetest"
)

// The test's own writer and etcd's agree, or the tests below show nothing.
func TestLogWriterWritesWhatTheStoreWrites(t *testing.T) {
	dir := t.TempDir()
	s := storagetest.Started(t, diskAt(dir))
	must(t, s.Append(storagetest.Hard(2, 7, 1), storagetest.Entries(2, 2, "", "b")))
	must(t, s.Close())
	w := &logWriter{}
	w.begin()
	w.state(2, 7, 1)
	w.entry(0, 2, 2, "")
	w.entry(0, 2, 3, "b")
	w.state(2, 7, 1)
	buf, err := os.ReadFile(filepath.Join(dir, walName, firstSegment))
	must(t, err)
	if got := string(buf[:endOf(t, filepath.Join(dir, walName, firstSegment))]); got != string(w.buf) {
		t.Errorf("the store wrote\n%x\nthe test\n%x", got, w.buf)
	}
}

// Whole records with right checksums that no log can hold: what a bug wrote, or
// a flipped bit of a record's type. raft would panic on most, etcd's reader on
// others.
func TestLoadRefusesImpossibleRecords(t *testing.T) {
	type step func(w *logWriter) (off int)
	entry := func(kind, term, index uint64) step {
		return func(w *logWriter) int { return w.entry(kind, term, index, "data") }
	}
	state := func(term, vote, commit uint64) step {
		return func(w *logWriter) int { return w.state(term, vote, commit) }
	}
	record := func(kind uint64, parts ...any) step {
		return func(w *logWriter) int { return w.record(kind, payload(parts...)) }
	}
	for name, steps := range map[string][]step{
		"a gap":                            {entry(0, 2, 5)},
		"a committed entry once more":      {state(2, 7, 3), entry(0, 2, 3)},
		"the snapshot's index":             {entry(0, 2, 1)},
		"index 0":                          {entry(0, 2, 0)},
		"a term that falls":                {state(3, 7, 2), entry(0, 3, 4), entry(0, 2, 5)},
		"a term above the state's":         {entry(0, 3, 4)},
		"term 0":                           {entry(0, 0, 4)},
		"an entry of no known type":        {entry(9, 2, 4)},
		"an entry of a type beyond int32":  {entry(1<<40, 2, 4)},
		"a state whose term falls":         {state(1, 7, 2)},
		"a state of term 0":                {state(0, 7, 2)},
		"a commit that falls":              {state(2, 7, 3), state(2, 7, 2)},
		"a commit beyond the end":          {state(2, 7, 4)},
		"an entry as a state":              {record(3, 0x08, uint64(0), 0x10, uint64(2), 0x18, uint64(4), 0x22, "data")},
		"an entry as a snapshot":           {record(5, 0x08, uint64(0), 0x10, uint64(2), 0x18, uint64(4), 0x22, "data")},
		"an entry as a header":             {record(1, 0x08, uint64(0), 0x10, uint64(2), 0x18, uint64(4), 0x22, "data")},
		"a state as an entry":              {record(2, 0x08, uint64(0), 0x10, uint64(2), 0x18, uint64(4))},
		"an entry with a field too many":   {record(2, 0x08, uint64(0), 0x10, uint64(2), 0x18, uint64(4), 0x22, "data", 0x28, uint64(1))},
		"an entry that is not one":         {record(2, 0xff, 0xff)},
		"an entry whose data is too short": {record(2, 0x08, uint64(0), 0x10, uint64(2), 0x18, uint64(4), 0x22, uint64(100))},
		"a number in a longer form":        {record(2, 0x08, 0x80, 0x00, 0x10, uint64(2), 0x18, uint64(4), 0x22, "data")},
		"an empty state":                   {record(3)},
		"a snapshot of another term":       {record(5, 0x08, uint64(2), 0x10, uint64(1), 0x1a, testConf())},
		"a snapshot of term 0":             {record(5, 0x08, uint64(2), 0x10, uint64(0), 0x1a, testConf())},
		"the first snapshot again":         {record(5, 0x08, uint64(1), 0x10, uint64(1), 0x1a, testConf())},
		"a snapshot behind another":        {state(2, 7, 3), record(5, 0x08, uint64(3), 0x10, uint64(2), 0x1a, testConf()), record(5, 0x08, uint64(2), 0x10, uint64(2), 0x1a, testConf())},
		"a snapshot without members":       {record(5, 0x08, uint64(2), 0x10, uint64(2))},
		"a snapshot with other members":    {record(5, 0x08, uint64(2), 0x10, uint64(2), 0x1a, "\xff\xff")},
		"more committed than installed":    {record(5, 0x08, uint64(9), 0x10, uint64(2), 0x1a, testConf()), state(2, 7, 10)},
		"installed of a later term":        {record(5, 0x08, uint64(9), 0x10, uint64(3), 0x1a, testConf()), state(2, 7, 9)},
		"an entry behind one given up":     {record(5, 0x08, uint64(9), 0x10, uint64(2), 0x1a, testConf()), entry(0, 2, 10)},
		"the snapshot 0 again":             {record(5, 0x08, uint64(0), 0x10, uint64(0))},
		"a second header":                  {func(w *logWriter) int { return w.record(1, testHeader().encode()) }},
		"a checksum within a segment":      {func(w *logWriter) int { return w.raw(4, w.crc, nil) }},
		"a record of type 0":               {record(0, 0x08)},
		"a record of type 6":               {record(6, 0x08)},
	} {
		t.Run(name, func(t *testing.T) {
			w := &logWriter{}
			w.begin()
			w.state(2, 7, 1)
			w.entry(0, 2, 2, "a")
			w.entry(0, 2, 3, "b")
			w.state(2, 7, 2)
			off := 0
			for _, step := range steps {
				off = step(w)
			}
			w.state(2, 7, 3) // not the end, where it could be torn
			dir := writeDir(t, map[string][]byte{firstSegment: w.buf})
			refusesUnchanged(t, dir, fmt.Sprintf("%s: offset %d: ", firstSegment, off))
		})
	}
}

func TestLoadRefusesAnotherBeginning(t *testing.T) {
	conf := func(ids ...uint64) string {
		b, err := proto.Marshal(&raftpb.ConfState{Voters: ids})
		must(t, err)
		return string(b)
	}
	other := testHeader()
	other.nodeID++
	one := &logWriter{}
	one.state(1, 0, 1)
	stateSize := len(one.buf)
	for name, begin := range map[string]func(w *logWriter){
		"nothing":     func(w *logWriter) {},
		"only zeros":  func(w *logWriter) { w.buf = make([]byte, 4096) },
		"no checksum": func(w *logWriter) { w.record(1, testHeader().encode()) },
		"a checksum that follows on another": func(w *logWriter) {
			w.crc = 77
			w.raw(4, 77, nil)
			w.record(1, testHeader().encode())
		},
		"no header":          func(w *logWriter) { w.raw(4, 0, nil); w.state(1, 0, 1) },
		"etcd's header":      func(w *logWriter) { w.raw(4, 0, nil); w.record(1, []byte("etcd")) },
		"a header too short": func(w *logWriter) { w.raw(4, 0, nil); w.record(1, testHeader().encode()[:20]) },
		"only a header":      func(w *logWriter) { w.raw(4, 0, nil); w.record(1, testHeader().encode()) },
		"no state":           func(w *logWriter) { w.begin(); w.buf = w.buf[:len(w.buf)-stateSize] },
		"no snapshot":        func(w *logWriter) { w.raw(4, 0, nil); w.record(1, testHeader().encode()); w.state(1, 0, 1) },
		"another node's log": func(w *logWriter) { w.raw(4, 0, nil); w.record(1, other.encode()); beginAfterHeader(w, testConf()) },
		"other voters": func(w *logWriter) {
			w.raw(4, 0, nil)
			w.record(1, testHeader().encode())
			beginAfterHeader(w, conf(7, 8, 9))
		},
		"a voter twice": func(w *logWriter) {
			w.raw(4, 0, nil)
			w.record(1, testHeader().encode())
			beginAfterHeader(w, conf(7, 7))
		},
		"no voters": func(w *logWriter) { w.raw(4, 0, nil); w.record(1, testHeader().encode()); beginAfterHeader(w, conf()) },
		"voters that are not": func(w *logWriter) {
			w.raw(4, 0, nil)
			w.record(1, testHeader().encode())
			beginAfterHeader(w, "\xff\xff")
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := &logWriter{}
			begin(w)
			refusesUnchanged(t, writeDir(t, map[string][]byte{firstSegment: w.buf}), walName)
		})
	}
}

func beginAfterHeader(w *logWriter, conf string) {
	w.record(5, payload(0x08, uint64(0), 0x10, uint64(0)))
	w.record(5, payload(0x08, uint64(1), 0x10, uint64(1), 0x1a, conf))
	w.state(1, 0, 1)
}

// What only a newer version can have written is not damage.
func TestLoadNamesANewerFormat(t *testing.T) {
	newer := testHeader().encode()
	newer[len(headerMagic)+3] = 2
	header := &logWriter{}
	header.raw(4, 0, nil)
	header.record(1, newer)
	beginAfterHeader(header, testConf())
	snapshot := &logWriter{}
	snapshot.begin()
	snapshot.record(5, payload(0x08, uint64(9), 0x10, uint64(1), 0x1a, testConf()+"\x38\x01"))
	snapshot.state(1, 0, 9)
	for name, w := range map[string]*logWriter{"header": header, "snapshot": snapshot} {
		_, err := tryLoad(t, writeDir(t, map[string][]byte{firstSegment: w.buf}))
		if !errors.Is(err, raftlock.ErrUnknownFormat) || errors.Is(err, raftlock.ErrCorrupt) {
			t.Errorf("newer %s: %v, want ErrUnknownFormat alone", name, err)
		}
	}
}

func TestLoadRefusesMissingAndReorderedSegments(t *testing.T) {
	dir := t.TempDir()
	s := storagetest.Started(t, diskAt(dir))
	must(t, s.Append(storagetest.Hard(2, 7, 1), nil))
	for i := range uint64(14) {
		must(t, s.Append(nil, storagetest.Entries(2, 2+i, strings.Repeat("x", testSegmentSize/2))))
	}
	must(t, s.Close())
	names := slices.Sorted(maps.Keys(readDir(t, filepath.Join(dir, walName))))
	if len(names) < 4 {
		t.Fatalf("segments %v, want at least 4", names)
	}
	for name, spoil := range map[string]func(wal string){
		"the first is missing":   func(wal string) { must(t, os.Remove(filepath.Join(wal, names[0]))) },
		"the second is missing":  func(wal string) { must(t, os.Remove(filepath.Join(wal, names[1]))) },
		"one within is missing":  func(wal string) { must(t, os.Remove(filepath.Join(wal, names[2]))) },
		"two have changed names": func(wal string) { swap(t, filepath.Join(wal, names[1]), filepath.Join(wal, names[2])) },
		"one is there twice": func(wal string) {
			must(t, os.Link(filepath.Join(wal, names[1]), filepath.Join(wal, strings.Replace(names[1], "-", "-1", 1))))
		},
		"one has another index": func(wal string) {
			must(t, os.Rename(filepath.Join(wal, names[1]), filepath.Join(wal, "0000000000000001-00000000000000ff.wal")))
		},
		"one has index 0": func(wal string) {
			must(t, os.Rename(filepath.Join(wal, names[1]), filepath.Join(wal, "0000000000000001-0000000000000000.wal")))
		},
		"the first has an index": func(wal string) {
			must(t, os.Rename(filepath.Join(wal, names[0]), filepath.Join(wal, "0000000000000000-0000000000000001.wal")))
		},
		"one is cut short": func(wal string) { must(t, os.Truncate(filepath.Join(wal, names[1]), 4096)) },
		"one is empty":     func(wal string) { must(t, os.Truncate(filepath.Join(wal, names[1]), 0)) },
		"the last is empty": func(wal string) {
			must(t, os.Truncate(filepath.Join(wal, names[len(names)-1]), 0))
		},
		"one is of a spelling that etcd reads": func(wal string) {
			must(t, os.Rename(filepath.Join(wal, names[1]), filepath.Join(wal, "1-2.wal")))
		},
		"all are missing": func(wal string) {
			for _, name := range names {
				must(t, os.Remove(filepath.Join(wal, name)))
			}
		},
		"one is a directory": func(wal string) {
			must(t, os.Remove(filepath.Join(wal, names[1])))
			must(t, os.Mkdir(filepath.Join(wal, names[1]), 0o700))
		},
	} {
		t.Run(name, func(t *testing.T) {
			bad := filepath.Join(t.TempDir(), "d")
			copyDir(t, dir, bad)
			spoil(filepath.Join(bad, walName))
			before := readDir(t, bad)
			if _, err := tryLoad(t, bad); err == nil || !strings.Contains(err.Error(), filepath.Join(bad, walName)) {
				t.Errorf("Load: %v, want an error with the path", err)
			}
			if !maps.Equal(before, readDir(t, bad)) {
				t.Error("the refused directory was changed")
			}
		})
	}
}

// A segment whose checksum follows on, but of another node's log.
func TestLoadRefusesASegmentOfAnotherLog(t *testing.T) {
	for name, node := range map[string]uint64{"own": testHeader().nodeID, "other": 7} {
		first := &logWriter{}
		first.begin()
		first.state(2, 7, 1)
		second := &logWriter{crc: first.crc}
		second.raw(4, first.crc, nil)
		off := second.record(1, header{clusterID: testHeader().clusterID, nodeID: node}.encode())
		second.state(2, 7, 1)
		const name2 = "0000000000000001-0000000000000002.wal"
		dir := writeDir(t, map[string][]byte{firstSegment: first.buf, name2: second.buf})
		if name == "other" {
			refusesUnchanged(t, dir, fmt.Sprintf("%s: offset %d: ", name2, off))
		} else if _, err := tryLoad(t, dir); err != nil {
			t.Errorf("the own segment: %v", err)
		}
	}
}

func swap(t *testing.T, a, b string) {
	t.Helper()
	must(t, os.Rename(a, a+".moved"))
	must(t, os.Rename(b, a))
	must(t, os.Rename(a+".moved", b))
}

// refusesUnchanged checks that Load refuses a directory as corrupt, with text in
// its error, and leaves it as it is.
func refusesUnchanged(t *testing.T, dir, text string) {
	t.Helper()
	before := readDir(t, dir)
	_, err := tryLoad(t, dir)
	if !errors.Is(err, raftlock.ErrCorrupt) || !strings.Contains(err.Error(), text) {
		t.Errorf("Load: %v, want ErrCorrupt with %q", err, text)
	}
	if !maps.Equal(before, readDir(t, dir)) {
		t.Error("the refused directory was changed")
	}
}

// FuzzScan: whatever a segment holds, it is read or refused; and what is read,
// etcd's code reads the same way, which Load checks.
func FuzzScan(f *testing.F) {
	w := &logWriter{}
	w.begin()
	f.Add(slices.Clone(w.buf))
	w.state(2, 7, 1)
	w.entry(0, 2, 2, strings.Repeat("\x00", 1200))
	w.state(2, 7, 2)
	f.Add(slices.Clone(w.buf))
	f.Add(w.buf[:len(w.buf)-900])
	f.Add(flippable(f))
	w.record(5, payload(0x08, uint64(2), 0x10, uint64(2), 0x1a, testConf()))
	w.record(5, payload(0x08, uint64(500), 0x10, uint64(2), 0x1a, testConf()))
	f.Add(slices.Clone(w.buf))
	w.state(3, 0, 500)
	w.entry(2, 3, 501, "members")
	w.state(3, 0, 501)
	f.Add(slices.Clone(w.buf))
	f.Fuzz(func(t *testing.T, buf []byte) {
		s, err := scanBytes(buf)
		if err != nil {
			return
		}
		dir := writeDir(t, map[string][]byte{firstSegment: buf})
		must(t, os.Mkdir(filepath.Join(dir, snapshotsName), 0o700))
		for _, m := range s.marks {
			if m.index > firstIndex {
				path := filepath.Join(dir, snapshotsName, fmt.Sprintf("%016x-%016x.snap", m.index, m.term))
				must(t, os.WriteFile(path, storagetest.SnapshotBytes(m.meta(), "state"), 0o600))
			}
		}
		_, err = tryLoad(t, dir)
		if err != nil && !errors.Is(err, raftlock.ErrCorrupt) {
			t.Errorf("Load: %v", err)
		}
	})
}

// FuzzHeader: a header that is read is written as it was.
func FuzzHeader(f *testing.F) {
	good := header{clusterID: 1, nodeID: 1 << 63}.encode()
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := decodeHeader(b); err == nil && !bytes.Equal(h.encode(), b) {
			t.Errorf("%x is written as %x", b, h.encode())
		}
	})
}

// FuzzSnapshotName: a snapshot has one name.
func FuzzSnapshotName(f *testing.F) {
	s := &Store{}
	f.Add(filepath.Base(s.snapshotPath(mark{index: 77, term: 5})))
	f.Add("00000000000000FF-0000000000000001.snap")
	f.Fuzz(func(t *testing.T, name string) {
		if m, ok := snapshotOf(name); ok && filepath.Base(s.snapshotPath(m)) != name {
			t.Errorf("%q is written as %q", name, s.snapshotPath(m))
		}
	})
}

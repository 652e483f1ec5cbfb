package walstore

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.uber.org/goleak"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/internal/storagetest"
)

var _ raftlock.Storage = (*Store)(nil)

// testSegmentSize makes logs of a few segments small.
const testSegmentSize = 64 << 10

func TestMain(m *testing.M) {
	setSegmentSize() // or the first Open would set it
	if wal.SegmentSizeBytes != segmentSize {
		panic("the segment size was not set")
	}
	UseSegmentSize(testSegmentSize)
	goleak.VerifyTestMain(m)
}

func diskAt(dir string) storagetest.Disk {
	return func(tb testing.TB) raftlock.Storage {
		tb.Helper()
		return open(tb, dir)
	}
}

func open(tb testing.TB, dir string) *Store {
	tb.Helper()
	s, err := Open(Config{Dir: dir})
	if err != nil {
		tb.Fatalf("Open: %v", err)
	}
	s.check = storagetest.CheckSnapshot
	tb.Cleanup(func() { _ = s.Close() })
	return s
}

// tryLoad opens, loads and closes.
func tryLoad(tb testing.TB, dir string) (raftlock.Recovered, error) {
	tb.Helper()
	s := open(tb, dir)
	found, err := s.Load()
	if cerr := s.Close(); cerr != nil {
		tb.Fatalf("Close: %v", cerr)
	}
	return found, err
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func TestStoreKeepsTheContract(t *testing.T) {
	storagetest.Run(t, func(tb testing.TB) storagetest.Disk {
		return diskAt(filepath.Join(tb.TempDir(), "a", "b"))
	})
}

func TestOpenRefusesASecondHold(t *testing.T) {
	dir := t.TempDir()
	first := open(t, dir)
	_, err := Open(Config{Dir: dir})
	if !errors.Is(err, raftlock.ErrLocked) || !strings.Contains(err.Error(), dir) {
		t.Fatalf("second Open: %v, want ErrLocked with the directory's name", err)
	}
	must(t, first.Close())
	open(t, dir)
}

func TestOpenSaysWhatIsMissing(t *testing.T) {
	if _, err := Open(Config{}); err == nil || !strings.Contains(err.Error(), "Dir") {
		t.Errorf("Open without Dir: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	if _, err := Open(Config{Dir: file}); err == nil {
		t.Error("Open of a file returned nil")
	}
}

func TestAppendFailsForGoodAfterTheFirstError(t *testing.T) {
	dir := t.TempDir()
	s := storagetest.Started(t, diskAt(dir))
	must(t, s.Append(storagetest.Hard(2, 7, 1), storagetest.Entries(2, 2, "a")))
	first := s.Append(nil, storagetest.Entries(2, 9, "gap"))
	if first == nil {
		t.Fatal("Append of a gap returned nil")
	}
	if err := s.Append(nil, storagetest.Entries(2, 3, "b")); err != first {
		t.Errorf("Append afterwards: %v, want %v", err, first)
	}
	if err := s.SaveIdentity(storagetest.ID()); err != first {
		t.Errorf("SaveIdentity afterwards: %v, want %v", err, first)
	}
	must(t, s.Close())
	found, err := tryLoad(t, dir)
	if err != nil || len(found.Entries) != 1 {
		t.Errorf("loaded\n%s, %v", storagetest.Text(found), err)
	}
}

// The term is durable before the first entry of it, so that a log that was cut
// anywhere never has an entry that the hard state does not know.
func TestAppendWritesANewTermFirst(t *testing.T) {
	dir := t.TempDir()
	s := storagetest.Started(t, diskAt(dir))
	must(t, s.Append(storagetest.Hard(2, 7, 2), storagetest.Entries(2, 2, "a")))
	must(t, s.Close())
	buf, err := os.ReadFile(filepath.Join(dir, walName, firstSegment))
	must(t, err)
	var kinds []int64
	for off := 0; off < len(buf) && !allZero(buf[off:]); {
		rec, err := readRecord(buf, off)
		must(t, err)
		kinds, off = append(kinds, rec.kind), rec.end
	}
	want := []int64{
		wal.CrcType, wal.MetadataType, wal.SnapshotType, wal.SnapshotType, wal.StateType,
		wal.StateType, wal.EntryType, wal.StateType,
	}
	if len(kinds) != len(want) {
		t.Fatalf("records of types %v, want %v", kinds, want)
	}
	for i := range want {
		if kinds[i] != want[i] {
			t.Fatalf("records of types %v, want %v", kinds, want)
		}
	}
}

// A segment begins with the hard state, also when it was not changed since the
// log was opened: segments before it will be deleted one day.
func TestEachSegmentBeginsWithTheState(t *testing.T) {
	dir := t.TempDir()
	s := storagetest.Started(t, diskAt(dir))
	must(t, s.Append(storagetest.Hard(2, 7, 1), nil))
	must(t, s.Close())
	s, _ = storagetest.Load(t, diskAt(dir))
	must(t, s.Append(nil, storagetest.Entries(2, 2, strings.Repeat("x", testSegmentSize))))
	must(t, s.Append(nil, storagetest.Entries(2, 3, "the log is cut after this"))) // it looks before it flushes
	must(t, s.Close())
	segments, err := listSegments(filepath.Join(dir, walName))
	must(t, err)
	if len(segments) != 2 {
		t.Fatalf("%d segments, want 2", len(segments))
	}
	buf, err := os.ReadFile(segments[1].path)
	must(t, err)
	off := 0
	for _, want := range []int64{wal.CrcType, wal.MetadataType, wal.StateType} {
		rec, err := readRecord(buf, off)
		if err != nil || rec.kind != want {
			t.Fatalf("record of type %d, %v, want type %d", rec.kind, err, want)
		}
		off = rec.end
	}
}

// etcd's code takes a left-over file for its next segment as it is.
func TestLoadRemovesAllocatedSegments(t *testing.T) {
	dir := t.TempDir()
	s := storagetest.Started(t, diskAt(dir))
	must(t, s.Append(storagetest.Hard(2, 7, 1), nil))
	must(t, s.Close())
	junk := bytes.Repeat([]byte{0xa5}, testSegmentSize)
	for _, name := range []string{"0.tmp", "1.tmp"} {
		must(t, os.WriteFile(filepath.Join(dir, walName, name), junk, 0o600))
	}
	s, _ = storagetest.Load(t, diskAt(dir))
	for i := range uint64(6) {
		must(t, s.Append(nil, storagetest.Entries(2, 2+i, strings.Repeat("x", testSegmentSize/2))))
	}
	must(t, s.Close())
	if found, err := tryLoad(t, dir); err != nil || len(found.Entries) != 6 {
		t.Errorf("%d entries, %v", len(found.Entries), err)
	}
}

func TestLoggerHearsOfARepair(t *testing.T) {
	dir := t.TempDir()
	s := storagetest.Started(t, diskAt(dir))
	must(t, s.Append(storagetest.Hard(2, 7, 1), storagetest.Entries(2, 2, "a")))
	must(t, s.Close())
	segment := filepath.Join(dir, walName, firstSegment)
	must(t, os.Truncate(segment, int64(endOf(t, segment))-9))
	var out bytes.Buffer
	logged, err := Open(Config{Dir: dir, Logger: slog.New(slog.NewTextHandler(&out, nil))})
	must(t, err)
	_, err = logged.Load()
	must(t, err)
	must(t, logged.Close())
	if !strings.Contains(out.String(), segment) || !strings.Contains(out.String(), "torn") {
		t.Errorf("logged %q", out.String())
	}
}

// etcd's code logs at Fatal and Panic in places; neither may get further than
// the call.
func TestGuardStopsPanicAndFatal(t *testing.T) {
	var out bytes.Buffer
	for _, log := range []*slog.Logger{slog.New(slog.DiscardHandler), slog.New(slog.NewTextHandler(&out, nil))} {
		zap := newZap(log)
		for name, call := range map[string]func(){
			"fatal": func() { zap.Fatal("the end") },
			"panic": func() { zap.Panic("the end") },
			"plain": func() { panic(errors.New("the end")) },
		} {
			err := guard("try", func() error { call(); return nil })
			if err == nil || !strings.Contains(err.Error(), "the end") {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if !strings.Contains(out.String(), "level=ERROR") {
		t.Errorf("logged %q", out.String())
	}
}

const firstSegment = "0000000000000000-0000000000000000.wal"

// endOf returns where the records of a segment end.
func endOf(tb testing.TB, path string) int {
	tb.Helper()
	buf, err := os.ReadFile(path)
	must(tb, err)
	off := 0
	for off < len(buf) && !allZero(buf[off:]) {
		rec, err := readRecord(buf, off)
		must(tb, err)
		off = rec.end
	}
	return off
}

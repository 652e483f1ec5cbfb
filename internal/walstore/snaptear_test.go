package walstore

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/internal/storagetest"
)

// compacted is a log whose first segments are gone and whose newest one has more
// than 64 KiB, with own snapshots in it and one from the leader.
func compacted(t *testing.T) (dir string, segments []segment) {
	t.Helper()
	UseSegmentSize(testSegmentSize + 16<<10)
	t.Cleanup(func() { UseSegmentSize(testSegmentSize) })
	rng := rand.New(rand.NewPCG(5, 6))
	dir = t.TempDir()
	s := storagetest.Started(t, diskAt(dir))
	must(t, s.Append(storagetest.Hard(2, 7, 1), nil))
	index := uint64(2)
	for round := 0; ; round++ {
		for range 6 {
			must(t, s.Append(storagetest.Hard(2, 7, index-1), storagetest.Entries(2, index, strings.Repeat("entry", rng.IntN(300)))))
			index++
		}
		meta := storagetest.Meta(index-2, 2)
		if round%9 == 8 {
			index += 500
			meta = storagetest.Meta(index-1, 2)
		}
		storagetest.Commit(t, s, meta, "state")
		if round%9 == 8 {
			must(t, s.InstallSnapshot(meta, storagetest.Hard(2, 7, index-1)))
		} else {
			must(t, s.SaveSnapshot(meta))
		}
		segments, err := listSegments(filepath.Join(dir, walName))
		must(t, err)
		if newest := segments[len(segments)-1]; newest.seq >= 4 && endOf(t, newest.path) > testSegmentSize {
			break
		}
	}
	must(t, s.Close())
	segments, err := listSegments(filepath.Join(dir, walName))
	must(t, err)
	if segments[0].seq == 0 {
		t.Fatal("no segment was released")
	}
	return dir, segments
}

// newestOf scans all but the newest segment of a log, and reads that one.
func newestOf(t *testing.T, segments []segment) (before scan, buf []byte) {
	t.Helper()
	for i, seg := range segments {
		b, err := os.ReadFile(seg.path)
		must(t, err)
		before.seq, before.begins, before.seen, buf = seg.seq, i == 0, 0, b
		if i == len(segments)-1 {
			return before, buf
		}
		must(t, before.segment(seg.path, b, false))
	}
	return before, buf
}

// fork is a scan that can go on without a trace in this one.
func (s scan) fork() *scan {
	s.log.runs, s.marks = slices.Clone(s.log.runs), slices.Clone(s.marks)
	return &s
}

func (s *scan) summary() string {
	text := fmt.Sprintf("term %d vote %d commit %d last %d", s.log.term, s.log.vote, s.log.commit, s.log.last)
	for _, m := range s.marks {
		text += fmt.Sprintf(" snapshot %d", m.index)
	}
	return text
}

// Every length that the newest segment of a compacted log can be cut to gives
// what its whole records say, and every byte that is changed is found.
func TestCompactedLogDamagedAnywhere(t *testing.T) {
	_, segments := compacted(t)
	before, buf := newestOf(t, segments)
	clean := before.fork()
	path := segments[len(segments)-1].path
	must(t, clean.records(path, buf, 0, true))
	at := before // what the records before off say
	strideCut, strideFlip := 1, 1
	if testing.Short() {
		strideCut, strideFlip = 17, 61
	}
	snapshots := 0
	for off, n := 0, 0; !allZero(buf[off:]); n++ {
		rec, err := readRecord(buf, off)
		must(t, err)
		if rec.kind == 5 {
			snapshots++
		}
		for cut := off; cut < rec.end; cut += strideCut {
			s := at.fork()
			err := s.records(path, buf[:cut], off, true)
			if n < 2 { // both headers are durable before the file has its name
				if !errors.Is(err, raftlock.ErrCorrupt) {
					t.Fatalf("cut at %d: %v, want ErrCorrupt", cut, err)
				}
			} else if got, want := s.summary(), at.summary(); err != nil || got != want {
				t.Fatalf("cut at %d: %s, %v, want %s", cut, got, err, want)
			}
		}
		for pos := off + (off*7)%strideFlip; pos < rec.end; pos += strideFlip {
			for _, value := range []byte{buf[pos] ^ 0xff, buf[pos] ^ 1<<(pos%8)} {
				flipped := buf[pos]
				buf[pos] = value
				s := at.fork()
				err := s.records(path, buf, off, true)
				buf[pos] = flipped
				want := fmt.Sprintf("%s: offset %d: ", path, off)
				if n == 0 {
					want = path + ": offset " // a first checksum shows in what follows on it
				}
				if !errors.Is(err, raftlock.ErrCorrupt) || !strings.Contains(err.Error(), want) {
					t.Fatalf("byte %d %#02x→%#02x: %s, %v, want ErrCorrupt with %q", pos, flipped, value, s.summary(), err, want)
				}
			}
		}
		if err := at.records(path, buf[:rec.end], off, true); n > 0 {
			must(t, err)
		}
		off = rec.end
	}
	if got, want := at.summary(), clean.summary(); got != want {
		t.Errorf("record by record %s, at once %s", got, want)
	}
	if snapshots < 5 {
		t.Errorf("%d snapshots in the segment", snapshots)
	}
}

// The same through Load, for a sample of cuts: what is loaded is what some whole
// records say, its snapshot can be read, and it goes on.
func TestCompactedLogCutAnywhereGoesOn(t *testing.T) {
	dir, segments := compacted(t)
	name := filepath.Base(segments[len(segments)-1].path)
	end := endOf(t, segments[len(segments)-1].path)
	stride := 2003
	if testing.Short() {
		stride = 9973
	}
	for cut := 200; cut < end; cut += stride {
		bad := filepath.Join(t.TempDir(), "d")
		copyDir(t, dir, bad)
		must(t, os.Truncate(filepath.Join(bad, walName, name), int64(cut)))
		s := open(t, bad)
		found, err := s.Load()
		if errors.Is(err, raftlock.ErrCorrupt) && strings.Contains(err.Error(), "missing") {
			continue // the files of the snapshots that it went back to were released long ago
		}
		must(t, err)
		next := found.Snapshot.GetIndex() + uint64(len(found.Entries)) + 1
		must(t, s.Append(found.Hard, storagetest.Entries(2, next, "on")))
		must(t, s.Close())
		again, err := tryLoad(t, bad)
		if err != nil || len(again.Entries) != len(found.Entries)+1 {
			t.Fatalf("cut at %d: %d entries, then %d, %v", cut, len(found.Entries), len(again.Entries), err)
		}
	}
}

// A power cut while a snapshot is named leaves any of the sectors of its record
// and of the states before it that nobody waits for.
func TestNamingASnapshotWithAnyHole(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	torn := 0
	for round := range 120 {
		w := &logWriter{}
		w.begin()
		w.state(2, 7, 1)
		w.entry(0, 2, 2, strings.Repeat("d", rng.IntN(1500)))
		w.entry(0, 2, 3, "e")
		w.state(2, 7, 2)
		durable := len(w.buf)
		for range rng.IntN(20) {
			w.state(2, 7, 3)
		}
		index := uint64(3)
		if round%2 == 0 {
			index = 500
		}
		w.record(5, payload(0x08, index, 0x10, uint64(2), 0x1a, testConf()+strings.Repeat("\x18\x07", rng.IntN(500))))
		full := append(slices.Clone(w.buf), make([]byte, 4096)...)
		first := durable / sectorSize
		sectors := (len(w.buf)-1)/sectorSize - first + 1
		for mask := range 1 << sectors {
			buf := slices.Clone(full)
			for i := range sectors {
				if mask&(1<<i) == 0 {
					from := (first + i) * sectorSize
					clear(buf[max(from, durable) : from+sectorSize])
				}
			}
			s, err := scanBytes(buf)
			if err != nil && lengthAlone(w.buf, buf, durable) {
				continue
			}
			if err != nil || s.log.last != 3 || s.log.commit < 2 || s.torn != nil && s.torn.offset < durable {
				t.Fatalf("round %d, sectors %b: %s, %+v, %v", round, mask, s.summary(), s.torn, err)
			}
			if s.torn != nil {
				torn++
			}
		}
	}
	if torn == 0 {
		t.Error("nothing was torn")
	}
}

// What is behind a snapshot's record was written when that was durable.
func TestLoadRefusesAHoleInASnapshotBeforeALaterWrite(t *testing.T) {
	for _, later := range []bool{false, true} {
		w := &logWriter{}
		w.begin()
		w.state(2, 7, 1)
		w.entry(0, 2, 2, strings.Repeat("a", 300))
		w.state(2, 7, 2)
		off := w.record(5, payload(0x08, uint64(2), 0x10, uint64(2), 0x1a, testConf()+strings.Repeat("\x18\x07", 3*sectorSize)))
		if later {
			w.state(2, 7, 2)
		}
		buf := append(w.buf, make([]byte, 4096)...)
		hole := off - off%sectorSize + 2*sectorSize
		clear(buf[hole : hole+sectorSize])
		s, err := scanBytes(buf)
		if !later && (err != nil || s.torn == nil || s.torn.offset != off) {
			t.Errorf("the last write torn: %+v, %v", s.torn, err)
		}
		if later && !errors.Is(err, raftlock.ErrCorrupt) {
			t.Errorf("a state behind the torn snapshot: %v, want ErrCorrupt", err)
		}
	}
}

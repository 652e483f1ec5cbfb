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

// A history of appends that a test then damages. ends[i] is the offset in the
// newest segment after the append that made entry i+2 durable.
type history struct {
	dir     string
	segment string // path of the newest segment
	data    []string
	ends    []int // 0: in an earlier segment
}

// makeHistory fills one segment and most of a second, with entries of all sizes.
func makeHistory(t *testing.T) history {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	h := history{dir: t.TempDir()}
	s := storagetest.Started(t, diskAt(h.dir))
	must(t, s.Append(storagetest.Hard(2, 7, 1), nil))
	for full := 0; full < testSegmentSize-4096 || len(h.segments(t)) < 2; {
		data := strings.Repeat(fmt.Sprintf("entry %d ", len(h.data)), rng.IntN(200)+1)
		index := uint64(len(h.data)) + 2
		must(t, s.Append(storagetest.Hard(2, 7, index-1), storagetest.Entries(2, index, data)))
		h.data = append(h.data, data)
		segments := h.segments(t)
		if last := segments[len(segments)-1].path; last != h.segment {
			h.segment = last
			clear(h.ends)
		}
		full = endOf(t, h.segment)
		h.ends = append(h.ends, full)
	}
	must(t, s.Close())
	return h
}

func (h history) segments(t *testing.T) []segment {
	t.Helper()
	segments, err := listSegments(filepath.Join(h.dir, walName))
	must(t, err)
	return segments
}

// acknowledged returns how many entries lie wholly before an offset.
func (h history) acknowledged(cut int) int {
	n := 0
	for n < len(h.ends) && h.ends[n] <= cut {
		n++
	}
	return n
}

// check loads a damaged copy: all that was acknowledged, in order and nothing
// else, and it goes on from there.
func (h history) check(t *testing.T, dir string, least int) {
	t.Helper()
	s, err := Open(Config{Dir: dir})
	must(t, err)
	defer func() { _ = s.Close() }()
	found, err := s.Load()
	if err != nil {
		t.Errorf("Load: %v", err)
		return
	}
	data := dataOf(found)
	if len(data) < least || len(data) > len(h.data) || !slices.Equal(data, h.data[:len(data)]) {
		t.Errorf("loaded %d entries, want the first %d to %d", len(data), least, len(h.data))
	}
	must(t, s.Append(nil, storagetest.Entries(2, uint64(len(data))+2, "afterwards")))
	must(t, s.Close())
	again, err := tryLoad(t, dir)
	if want := append(data, "afterwards"); err != nil || !slices.Equal(dataOf(again), want) {
		t.Errorf("after a repair and one more entry: %d entries, %v, want %d", len(again.Entries), err, len(want))
	}
}

// Every length that the newest segment can be cut to, judged in memory, and a
// sample of them on disk.
func TestLoadAfterAnyTruncation(t *testing.T) {
	h := makeHistory(t)
	segments := h.segments(t)
	before := &scan{}
	for _, seg := range segments[:len(segments)-1] {
		buf, err := os.ReadFile(seg.path)
		must(t, err)
		must(t, before.segment(seg.path, buf, false))
	}
	before.seen = 0
	buf, err := os.ReadFile(h.segment)
	must(t, err)
	first, err := readRecord(buf, 0)
	must(t, err)
	second, err := readRecord(buf, first.end)
	must(t, err)
	headers := second.end // every segment has these two
	from := 0             // a record begins here that the cut is in, and before has read all before it
	for cut := 0; cut <= len(buf); cut++ {
		if rec, err := readRecord(buf, from); err == nil && rec.end == cut {
			if err := before.records(h.segment, buf[:cut], from, true); cut >= headers {
				must(t, err)
			}
			from = cut
		}
		s := *before
		s.log.runs = slices.Clone(s.log.runs)
		err := s.records(h.segment, buf[:cut], from, true)
		if cut < headers {
			if !errors.Is(err, raftlock.ErrCorrupt) || !strings.Contains(err.Error(), h.segment+": offset ") {
				t.Fatalf("cut at %d: %v, want ErrCorrupt with file and offset", cut, err)
			}
			continue
		}
		// The entry comes before its state: it can be whole when that is not.
		least := h.acknowledged(cut)
		if got := int(s.log.last) - 1; err != nil || got < least || got > least+1 {
			t.Fatalf("cut at %d: %d entries, %v, want %d", cut, got, err, least)
		}
	}
	stride := 1999
	if testing.Short() {
		stride = 9973
	}
	cuts := []int{headers, len(buf)}
	for cut := headers; cut < len(buf); cut += stride {
		cuts = append(cuts, cut)
	}
	for _, end := range h.ends[len(h.ends)-2:] {
		cuts = append(cuts, end-1, end, end+1, end+8)
	}
	for _, cut := range cuts {
		dir := filepath.Join(t.TempDir(), "d")
		copyDir(t, h.dir, dir)
		must(t, os.Truncate(filepath.Join(dir, walName, filepath.Base(h.segment)), int64(cut)))
		t.Run(fmt.Sprint("cut at ", cut), func(t *testing.T) { h.check(t, dir, h.acknowledged(cut)) })
	}
}

// A power cut leaves any of the sectors that were being written, in any order.
// All combinations for a write of several entries behind two states that nobody
// waits for.
func TestLoadAfterAnyHole(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for round := range 60 {
		w := &logWriter{}
		w.begin()
		w.state(2, 7, 1)
		index := uint64(2)
		write := func(count int) {
			for range count {
				size := rng.IntN(900)
				data := strings.Repeat("d", size)
				if rng.IntN(3) == 0 {
					data = strings.Repeat("\x00", size) // as good as never written
				}
				w.entry(0, 2, index, data)
				index++
			}
			w.state(2, 7, index-2)
		}
		for range rng.IntN(5) {
			write(1)
		}
		durable, acknowledged := len(w.buf), index-1
		w.state(2, 7, acknowledged)
		w.state(2, 7, acknowledged)
		write(4)
		written := len(w.buf)
		full := append(w.buf, make([]byte, 4096)...)
		first := durable / sectorSize
		sectors := (written-1)/sectorSize - first + 1
		for mask := range 1 << min(sectors, 10) {
			buf := slices.Clone(full)
			for i := range sectors {
				if mask&(1<<i) != 0 {
					continue // this one reached the disk
				}
				at := (first + i) * sectorSize
				clear(buf[max(at, durable) : at+sectorSize])
			}
			s, err := scanBytes(buf)
			if err != nil && lengthAlone(w.buf, buf, durable) {
				continue // a record that is there but for its length: refused, see lostLength
			}
			if err != nil {
				t.Fatalf("round %d, sectors %b: %v", round, mask, err)
			}
			if s.log.last < acknowledged || s.log.last > index-1 || s.torn != nil && s.torn.offset < durable {
				t.Fatalf("round %d, sectors %b: last entry %d, %+v, want at least %d, offset %d",
					round, mask, s.log.last, s.torn, acknowledged, durable)
			}
		}
	}
}

// lengthAlone tells whether all that is missing of a record is its length, at
// the end of a sector.
func lengthAlone(written, buf []byte, from int) bool {
	for off := from; off < len(written); {
		rec, err := readRecord(written, off)
		if err != nil {
			return false
		}
		if !slices.Equal(written[off:rec.end], buf[off:rec.end]) {
			return off%sectorSize == sectorSize-frameSize &&
				slices.Equal(written[off+frameSize:rec.end], buf[off+frameSize:rec.end])
		}
		off = rec.end
	}
	return false
}

// What a crash leaves is told from what was durable once and is gone.
func TestLoadRefusesAHoleBeforeALaterWrite(t *testing.T) {
	for writes := range 3 {
		w := &logWriter{}
		w.begin()
		w.state(2, 7, 1)
		first := w.entry(0, 2, 2, strings.Repeat("a", 3*sectorSize))
		w.state(2, 7, 2)
		for i := range uint64(writes) {
			w.entry(0, 2, 3+i, strings.Repeat("b", 3*sectorSize))
			w.state(2, 7, 3+i)
		}
		buf := append(w.buf, make([]byte, 4096)...)
		clear(buf[2*sectorSize : 3*sectorSize])
		s, err := scanBytes(buf)
		if writes == 0 { // as if in the middle of the first
			if err != nil || s.torn == nil || s.torn.offset != first {
				t.Errorf("the last write torn: %+v, %v", s.torn, err)
			}
		} else if !errors.Is(err, raftlock.ErrCorrupt) {
			t.Errorf("a sector lost, then %d writes: %v, want ErrCorrupt", writes, err)
		}
	}
}

// flippable is a log with records at awkward places: one with sectors that are
// zero, one whose length stands alone at the end of a sector, and a length that
// one flipped byte makes zero.
func flippable(t testing.TB) []byte {
	w := &logWriter{}
	w.begin()
	w.state(2, 7, 1)
	w.entry(0, 2, 2, "")
	w.state(2, 7, 2)
	w.entry(1, 2, 3, strings.Repeat("\x00", 3*sectorSize)+"end")
	w.state(3, 0x9000000000000003, 3)
	w.entry(0, 3, 4, "one")
	alone := func(index uint64, more int) {
		short := 2*sectorSize - frameSize - len(w.buf)%sectorSize
		w.entry(0, 3, index, strings.Repeat("f", short-64))
		for size := 0; len(w.buf)%sectorSize != sectorSize-frameSize; size++ {
			again := *w
			again.entry(0, 3, index+1, strings.Repeat("g", size))
			if len(again.buf)%sectorSize == sectorSize-frameSize {
				*w = again
			}
			if size > 200 {
				t.Fatal("no entry ends where it should")
			}
		}
		for size := 0; ; size++ { // a record that needs no padding
			again := *w
			again.buf = slices.Clone(w.buf)
			off := again.entry(0, 3, index+2, strings.Repeat("h", more+size))
			if again.buf[off+7] == 0 {
				*w = again
				return
			}
		}
	}
	alone(5, 20)
	w.state(3, 0x9000000000000003, 7)
	alone(8, 20) // and nothing behind it
	return append(w.buf, make([]byte, 2*sectorSize)...)
}

// Every byte of a log, damaged in several ways, is found where it lies or makes
// no difference.
func TestLoadFindsEveryFlippedByte(t *testing.T) {
	buf := flippable(t)
	clean, err := scanBytes(buf)
	must(t, err)
	if clean.torn != nil || clean.log.last != 10 {
		t.Fatalf("the log that is to be damaged: %+v", clean)
	}
	var starts []int
	end := 0
	for !allZero(buf[end:]) {
		rec, err := readRecord(buf, end)
		must(t, err)
		starts, end = append(starts, end), rec.end
	}
	starts = append(starts, end)
	stride := 1
	if testing.Short() {
		stride = 13
	}
	harmless := 0
	for at := 0; at < len(buf); at += stride {
		for _, value := range []byte{buf[at] ^ 0xff, buf[at] ^ 1<<(at%8), buf[at] ^ 0x80, buf[at] + 1, 0} {
			if value == buf[at] {
				continue
			}
			bad := slices.Clone(buf)
			bad[at] = value
			s, err := scanBytes(bad)
			if err == nil {
				if at < end || s.log.last != clean.log.last || s.torn != nil && s.torn.offset != end {
					t.Fatalf("byte %d %#02x→%#02x: no error, last entry %d, %+v", at, buf[at], value, s.log.last, s.torn)
				}
				harmless++
				continue
			}
			i, _ := slices.BinarySearch(starts, at+1)
			if want := fmt.Sprintf("%s: offset %d: ", firstSegment, starts[i-1]); !errors.Is(err, raftlock.ErrCorrupt) || !strings.Contains(err.Error(), want) {
				t.Fatalf("byte %d %#02x→%#02x: %v, want ErrCorrupt with %q", at, buf[at], value, err, want)
			}
		}
	}
	if harmless == 0 {
		t.Error("not one byte of the unused end was damaged")
	}
}

// The same through Load, for a sample: it refuses without a trace on the disk,
// or loads what was there.
func TestLoadChangesNothingThatItRefuses(t *testing.T) {
	buf := flippable(t)
	want, err := tryLoad(t, writeDir(t, map[string][]byte{firstSegment: buf}))
	must(t, err)
	stride := 61
	if testing.Short() {
		stride = 499
	}
	for at := 0; at < len(buf); at += stride {
		bad := slices.Clone(buf)
		bad[at] ^= 0xff
		dir := writeDir(t, map[string][]byte{firstSegment: bad})
		before := readDir(t, dir)
		found, err := tryLoad(t, dir)
		if err == nil {
			if storagetest.Text(found) != storagetest.Text(want) {
				t.Fatalf("byte %d: loaded\n%s\nwant\n%s", at, storagetest.Text(found), storagetest.Text(want))
			}
			continue
		}
		path := filepath.Join(dir, walName, firstSegment)
		if !errors.Is(err, raftlock.ErrCorrupt) || !strings.Contains(err.Error(), path+": offset ") || !strings.Contains(err.Error(), remedy) {
			t.Fatalf("byte %d: %v", at, err)
		}
		after := readDir(t, dir)
		if len(after) != len(before) || after[identityName] != before[identityName] ||
			after[filepath.Join(walName, firstSegment)] != string(bad) {
			t.Fatalf("byte %d: the refused directory was changed", at)
		}
	}
}

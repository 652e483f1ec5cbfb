package walstore

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raftlock/raftlock"
)

// scan is what a log holds, without the data of its entries, found by reading
// all of it and believing none of it. It changes nothing.
type scan struct {
	log    ledger
	header header
	marks  []mark // the snapshots that the log names, rising; those before an installed one are gone
	born   *mark  // the first state, of a log that begins with it; nil otherwise

	first   uint64 // index in the first segment's name
	seq     uint64 // of this segment
	begins  bool   // this segment is the first one that there is
	crc     uint32 // running
	seen    int    // records in this segment
	top     uint64 // the highest index so far, which may be higher than the last one's
	pending *mark  // the record before this one, if it is a snapshot that is not of the log yet

	torn *tear // nil: the log ends cleanly
}

// mark is a snapshot that a record names.
type mark struct {
	index, term uint64
	conf        *raftpb.ConfState
	seq         uint64 // of the segment that the record is in
}

// tear is where a crash left the newest segment: what lies behind the offset
// was never acknowledged.
type tear struct {
	path   string
	offset int
}

// segment is a file of the log.
type segment struct {
	path       string
	seq, index uint64
}

var segmentName = regexp.MustCompile(`^([0-9a-f]{16})-([0-9a-f]{16})\.wal$`)

// scanLog reads the log in a directory. An error around raftlock.ErrCorrupt
// says where it stops being one.
func scanLog(dir string) (*scan, error) {
	segments, err := listSegments(dir)
	if err != nil {
		return nil, err
	}
	s := &scan{}
	for i, seg := range segments {
		buf, err := os.ReadFile(seg.path)
		if err != nil {
			return nil, fmt.Errorf("read wal: %w", err)
		}
		switch {
		case seg.seq == 0: // whose name listSegments knows
		case i == 0:
			s.first, s.top = seg.index, seg.index
		case seg.index == 0 || seg.index > s.top+1:
			return nil, corruptFile(seg.path, "begins with entry %d by its name, the highest before it is %d", seg.index, s.top)
		}
		s.seq, s.begins = seg.seq, i == 0
		if err := s.segment(seg.path, buf, i == len(segments)-1); err != nil {
			return nil, err
		}
	}
	last := segments[len(segments)-1]
	switch {
	case len(s.marks) == 0 && segments[0].seq == 0:
		return nil, corruptFile(last.path, "the log ends before its first state")
	case len(s.marks) == 0:
		return nil, corruptFile(segments[0].path, "the log begins with segment %d and names no snapshot: "+
			"the segments before it are missing", segments[0].seq)
	case s.log.hard() == nil && s.marks[0].index > 0:
		return nil, corruptFile(last.path, "the log ends before its first state")
	}
	return s, nil
}

// listSegments returns the log's files in their order. They have to be numbered
// without a gap, but those before the oldest snapshot may be gone. Other files are
// none of ours, but what only looks like a segment would be read by etcd's code.
func listSegments(dir string) ([]segment, error) {
	entries, err := os.ReadDir(dir) // sorted
	if err != nil {
		return nil, fmt.Errorf("read wal: %w", err)
	}
	var segments []segment
	for _, entry := range entries {
		name := entry.Name()
		path := filepath.Join(dir, name)
		if filepath.Ext(name) != ".wal" {
			continue
		}
		match := segmentName.FindStringSubmatch(name)
		if match == nil {
			return nil, corruptFile(path, "not the name of a segment")
		}
		seg := segment{path: path}
		seg.seq, _ = strconv.ParseUint(match[1], 16, 64)
		seg.index, _ = strconv.ParseUint(match[2], 16, 64)
		if n := len(segments); n > 0 && seg.seq != segments[n-1].seq+1 {
			want := segments[n-1].seq + 1
			return nil, corruptFile(path, "segment %d where segment %d belongs: a file is missing or was renamed", seg.seq, want)
		}
		segments = append(segments, seg)
	}
	if len(segments) == 0 {
		return nil, corruptFile(dir, "no segment of the log in it")
	}
	if first := segments[0]; (first.seq == 0) != (first.index == 0) {
		return nil, corruptFile(first.path, "segment %d begins with entry %d by its name", first.seq, first.index)
	}
	return segments, nil
}

// segment reads one file, from where the one before it ended.
func (s *scan) segment(path string, buf []byte, last bool) error {
	s.seen = 0
	return s.records(path, buf, 0, last)
}

// records reads on from an offset.
func (s *scan) records(path string, buf []byte, off int, last bool) error {
	for off < len(buf) {
		rec, err := readRecord(buf, off)
		if err == nil && rec.kind != wal.CrcType && !rec.follows(s.crc) {
			err = fmt.Errorf("checksum mismatch in record of type %d", rec.kind)
		}
		if err != nil {
			return s.stop(path, buf, off, last, err)
		}
		if err := s.take(rec); err != nil {
			return corruptAt(path, off, err)
		}
		off = rec.end
		s.seen++
	}
	return s.stop(path, buf, off, last, errCut)
}

// stop decides what it means that no record can be read at an offset: the end of
// the segment, a torn one, or damage.
func (s *scan) stop(path string, buf []byte, off int, last bool, cause error) error {
	switch {
	case s.seen < 2: // both are durable before the file gets its name
		return corruptAt(path, off, fmt.Errorf("the segment has no header: %w", cause))
	case allZero(buf[off:]) && len(buf)%frameSize == 0:
		return nil
	case !last || !tornAt(buf, off, s.crc):
		return corruptAt(path, off, cause)
	}
	s.torn = &tear{path: path, offset: off}
	return nil
}

// take accepts a record whose checksum is right.
func (s *scan) take(rec record) error {
	if (rec.kind == wal.CrcType) != (s.seen == 0) || (rec.kind == wal.MetadataType) != (s.seen == 1) {
		return fmt.Errorf("record %d of the segment is of type %d", s.seen, rec.kind)
	}
	if s.begins && s.seq > 0 && s.seen == 2 && rec.kind != wal.StateType {
		return fmt.Errorf("the log begins with a record of type %d, and not with a state", rec.kind)
	}
	pending := s.pending
	s.pending = nil // whatever this is, if it does not commit the snapshot, that one was given up
	var err error
	switch rec.kind {
	case wal.CrcType:
		if rec.crc != s.crc && !(s.begins && s.seq > 0) {
			err = fmt.Errorf("the segment follows on checksum %08x, the one before it ends with %08x", rec.crc, s.crc)
		}
	case wal.MetadataType:
		err = s.takeHeader(rec.payload)
	case wal.SnapshotType:
		err = s.takeSnapshot(rec.payload)
	case wal.StateType:
		err = s.takeState(rec.payload, pending)
	case wal.EntryType:
		err = s.takeEntry(rec.payload)
	default:
		err = fmt.Errorf("record of unknown type %d", rec.kind)
	}
	s.crc = rec.crc
	return err
}

func (s *scan) takeHeader(payload []byte) error {
	h, err := decodeHeader(payload)
	if err != nil {
		return err
	}
	if s.header != (header{}) && s.header != h {
		return errors.New("the segment is of another member's log")
	}
	s.header = h
	return nil
}

// takeState accepts a state. One right behind the snapshot that it commits
// completes an installation.
func (s *scan) takeState(payload []byte, pending *mark) error {
	v, err := numbers(payload, stateTags)
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	if s.seq == 0 && len(s.marks) == 0 {
		return errors.New("a state before the first snapshot")
	}
	if pending == nil || v[2] < pending.index {
		return s.log.state(v[0], v[1], v[2])
	}
	if !s.log.has(pending.index, pending.term) {
		s.marks, s.born = nil, nil
	}
	s.marks = append(s.marks, *pending)
	s.log, err = s.log.installed(pending.index, pending.term, [3]uint64(v[:3]))
	return err
}

func (s *scan) takeEntry(payload []byte) error {
	v, err := numbers(payload, entryTags)
	if err != nil {
		return fmt.Errorf("entry: %w", err)
	}
	if v[0] > math.MaxInt32 {
		return fmt.Errorf("entry of type %d", v[0])
	}
	s.top = max(s.top, v[2])
	return s.log.entry(raftpb.EntryType(v[0]), v[1], v[2])
}

// takeSnapshot accepts the one or two snapshots that a log begins with, and
// those that it was given later.
func (s *scan) takeSnapshot(payload []byte) error {
	if v, err := numbers(payload, baseTags); err == nil {
		if s.seq != 0 || s.log.known() || v[0] != 0 || v[1] != 0 {
			return fmt.Errorf("snapshot at index %d, term %d without members", v[0], v[1])
		}
		s.log.begin(0, 0)
		s.marks = []mark{{conf: &raftpb.ConfState{}}}
		return nil
	}
	v, err := numbers(payload, snapshotTags)
	if err != nil {
		return err
	}
	m := mark{index: v[0], term: v[1], conf: &raftpb.ConfState{}, seq: s.seq}
	if err := proto.Unmarshal(payload[uint64(len(payload))-v[2]:], m.conf); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	if len(m.conf.ProtoReflect().GetUnknown()) > 0 {
		return fmt.Errorf("%w: a field of a configuration", raftlock.ErrUnknownFormat)
	}
	return s.takeMark(m)
}

// takeMark judges a snapshot by the log before it. One that is not committed is
// a snapshot that is being installed, if the next record commits it; if not, the
// process died before that, and it counts for nothing.
func (s *scan) takeMark(m mark) error {
	newest := uint64(0)
	if n := len(s.marks); n > 0 {
		newest = s.marks[n-1].index
	}
	s.top = max(s.top, m.index)
	switch fresh := s.seq == 0 && s.log.known() && s.log.last == 0 && s.log.term == 0; {
	case fresh && m.index == firstIndex && m.term == firstTerm:
		s.log.begin(m.index, m.term)
		s.marks, s.born = []mark{m}, &m
	case m.index <= firstIndex || m.term == 0 || s.seq == 0 && len(s.marks) == 0:
		return fmt.Errorf("a snapshot at index %d, term %d", m.index, m.term)
	case m.index > s.log.commit:
		s.pending = &m
	case m.index < newest:
		return fmt.Errorf("a snapshot at index %d after one at %d", m.index, newest)
	case s.log.known() && s.log.from() <= m.index && !s.log.has(m.index, m.term):
		return fmt.Errorf("a snapshot at index %d, term %d, where the log has term %d", m.index, m.term, s.log.termOf(m.index))
	case m.index == newest: // named once more
		s.marks[len(s.marks)-1] = m
	default:
		s.marks = append(s.marks, m)
	}
	return nil
}

// carries tells whether the log goes on from a snapshot that it names, and so that
// etcd's code finds where, which goes by names.
func (s *scan) carries(m mark) bool { return s.first <= m.index && s.log.carries(m.index) }

// belongsTo checks that the log is the one that goes with an identity.
func (s *scan) belongsTo(h header, voters []uint64, joined bool) error {
	if s.header != h {
		return fmt.Errorf("the log is of node %x in cluster %x, %s of node %x in cluster %x",
			s.header.nodeID, s.header.clusterID, identityName, h.nodeID, h.clusterID)
	}
	switch {
	case s.born == nil && !joined && s.marks[0].index <= firstIndex:
		return errors.New("the log ends before its first state")
	case s.born != nil && joined:
		return fmt.Errorf("the log begins with members, %s is of one that joined later", identityName)
	case s.born != nil && !proto.Equal(s.born.conf, &raftpb.ConfState{Voters: voters}):
		return fmt.Errorf("the log begins with the members %x, %s has %x", s.born.conf.GetVoters(), identityName, voters)
	}
	return nil
}

func allZero(b []byte) bool {
	for len(b) > len(zeros) {
		if !bytes.Equal(b[:len(zeros)], zeros) {
			return false
		}
		b = b[len(zeros):]
	}
	return bytes.Equal(b, zeros[:len(b)])
}

var zeros = make([]byte, 4096)

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
	conf   *raftpb.ConfState // of the snapshot that the log stands on; nil at first

	crc  uint32 // running
	seen int    // records in this segment

	torn *tear // nil: the log ends cleanly
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
		if i > 0 && (seg.index == 0 || seg.index > s.log.last+1) {
			return nil, corruptFile(seg.path, "begins with entry %d by its name, the entry before it is %d", seg.index, s.log.last)
		}
		if err := s.segment(seg.path, buf, i == len(segments)-1); err != nil {
			return nil, err
		}
	}
	last := segments[len(segments)-1]
	if s.conf == nil || s.log.hard() == nil {
		return nil, corruptFile(last.path, "the log ends before its first state")
	}
	return s, nil
}

// listSegments returns the log's files in their order. They have to be numbered
// from 0 without a gap. Other files are none of ours, but what only looks like a
// segment would be read by etcd's code.
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
		if want := uint64(len(segments)); seg.seq != want {
			return nil, corruptFile(path, "segment %d where segment %d belongs: a file is missing or was renamed", seg.seq, want)
		}
		segments = append(segments, seg)
	}
	if len(segments) == 0 {
		return nil, corruptFile(dir, "no segment of the log in it")
	}
	if segments[0].index != 0 {
		return nil, corruptFile(segments[0].path, "the first segment begins with entry %d by its name", segments[0].index)
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
	var err error
	switch rec.kind {
	case wal.CrcType:
		if rec.crc != s.crc {
			err = fmt.Errorf("the segment follows on checksum %08x, the one before it ends with %08x", rec.crc, s.crc)
		}
	case wal.MetadataType:
		err = s.takeHeader(rec.payload)
	case wal.SnapshotType:
		err = s.takeSnapshot(rec.payload)
	case wal.StateType:
		err = s.takeState(rec.payload)
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

func (s *scan) takeState(payload []byte) error {
	v, err := numbers(payload, stateTags)
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	if s.conf == nil {
		return errors.New("a state before the first snapshot")
	}
	return s.log.state(v[0], v[1], v[2])
}

func (s *scan) takeEntry(payload []byte) error {
	v, err := numbers(payload, entryTags)
	if err != nil {
		return fmt.Errorf("entry: %w", err)
	}
	if v[0] > math.MaxInt32 {
		return fmt.Errorf("entry of type %d", v[0])
	}
	return s.log.entry(raftpb.EntryType(v[0]), v[1], v[2])
}

// takeSnapshot accepts the two snapshots that a log begins with.
func (s *scan) takeSnapshot(payload []byte) error {
	if v, err := numbers(payload, baseTags); err == nil {
		if s.log.runs != nil || v[0] != 0 || v[1] != 0 {
			return fmt.Errorf("snapshot at index %d, term %d without members", v[0], v[1])
		}
		return s.log.snapshot(0, 0)
	}
	v, err := numbers(payload, snapshotTags)
	if err != nil {
		return err
	}
	if s.conf != nil || v[0] != firstIndex || v[1] != firstTerm {
		return fmt.Errorf("%w: a snapshot at index %d, term %d", raftlock.ErrUnknownFormat, v[0], v[1])
	}
	conf := &raftpb.ConfState{}
	if err := proto.Unmarshal(payload[uint64(len(payload))-v[2]:], conf); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	s.conf = conf
	return s.log.snapshot(v[0], v[1])
}

// belongsTo checks that the log is the one that goes with an identity.
func (s *scan) belongsTo(h header, voters []uint64) error {
	if s.header != h {
		return fmt.Errorf("the log is of node %x in cluster %x, %s of node %x in cluster %x",
			s.header.nodeID, s.header.clusterID, identityName, h.nodeID, h.clusterID)
	}
	if !proto.Equal(s.conf, &raftpb.ConfState{Voters: voters}) {
		return fmt.Errorf("the log begins with the members %x, %s has %x", s.conf.GetVoters(), identityName, voters)
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

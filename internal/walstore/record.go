package walstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"
)

// frameSize is the length field before each record.
const frameSize = 8

// maxRecord is far above what is ever written; a length above it is damage.
const maxRecord = 1 << 30

// record is one record of a segment. Its payload lies in the segment's buffer.
type record struct {
	kind    int64
	crc     uint32 // as stored: of all payloads up to and with this one
	payload []byte
	end     int // offset after the record and its padding
}

var errCut = errors.New("the file ends within the record")

// readRecord reads the record at an offset, which is a multiple of 8, strictly:
// encoding what it returns gives the same bytes. It does not look at the
// checksum.
func readRecord(buf []byte, off int) (record, error) {
	size, padded, err := readFrame(buf[off:])
	if err != nil {
		return record{}, err
	}
	body := buf[off+frameSize:]
	if padded > len(body) {
		return record{}, errCut
	}
	rec, n, err := readBody(body[:size])
	if err != nil {
		return record{}, err
	}
	if n != size {
		return record{}, fmt.Errorf("record of %d bytes in a frame of %d", n, size)
	}
	for _, b := range body[size:padded] {
		if b != 0 {
			return record{}, errors.New("padding is not zero")
		}
	}
	rec.end = off + frameSize + padded
	return rec, nil
}

// readFrame reads a length field: the size of a record without and with padding.
func readFrame(b []byte) (size, padded int, err error) {
	if len(b) < frameSize {
		return 0, 0, errCut
	}
	field := binary.LittleEndian.Uint64(b)
	length := field & (1<<56 - 1)
	if length == 0 || length > maxRecord {
		return 0, 0, fmt.Errorf("length field %#x", field)
	}
	want, padding := length, -length%8
	if padding != 0 {
		want |= (0x80 | padding) << 56
	}
	if field != want {
		return 0, 0, fmt.Errorf("length field %#x", field)
	}
	return int(length), int(length + padding), nil
}

// readBody reads a record without its frame; n is its size. When b ends too
// early, the error is errCut and n the size that the record says it has, 0 if b
// ends before it says that. The type is returned as far as it was read.
func readBody(b []byte) (rec record, n int, err error) {
	kind, n, err := field(b, 0, 0x08)
	if err != nil {
		return rec, 0, err
	}
	if kind > uint64(wal.SnapshotType) {
		return rec, 0, fmt.Errorf("record of type %d", kind)
	}
	rec.kind = int64(kind)
	sum, n, err := field(b, n, 0x10)
	if err != nil {
		return rec, 0, err
	}
	if sum > math.MaxUint32 {
		return rec, 0, fmt.Errorf("checksum %#x", sum)
	}
	rec.crc = uint32(sum)
	if rec.kind == wal.CrcType {
		return rec, n, nil
	}
	size, n, err := field(b, n, 0x1a)
	if err != nil {
		return rec, 0, err
	}
	if size > maxRecord {
		return rec, 0, fmt.Errorf("payload of %d bytes", size)
	}
	if size > uint64(len(b)-n) {
		return rec, n + int(size), errCut
	}
	rec.payload = b[n : n+int(size)]
	return rec, n + int(size), nil
}

// field reads a one-byte tag and a varint at an offset, and returns the offset
// after them. The varint has to be of the shortest form.
func field(b []byte, at int, tag byte) (value uint64, next int, err error) {
	if len(b) <= at {
		return 0, 0, errCut
	}
	if b[at] != tag {
		return 0, 0, fmt.Errorf("byte %#02x where %#02x belongs", b[at], tag)
	}
	at++
	value, n := protowire.ConsumeVarint(b[at:])
	if n < 0 && len(b)-at < 10 {
		return 0, 0, errCut
	}
	if n < 0 || n != protowire.SizeVarint(value) {
		return 0, 0, errors.New("a number is not well formed")
	}
	return value, at + n, nil
}

// follows tells whether the record's checksum goes on from an earlier one.
func (r record) follows(crc uint32) bool {
	return crc32.Update(crc, castagnoli, r.payload) == r.crc
}

// The payloads, tag by tag. No two have the same tags, as a record's type is
// under no checksum. Part of the disk format, do not change.
var (
	entryTags    = []byte{0x08, 0x10, 0x18, 0x22} // type, term, index, data
	stateTags    = []byte{0x08, 0x10, 0x18}       // term, vote, commit
	baseTags     = []byte{0x08, 0x10}             // index, term: the snapshot 0
	snapshotTags = []byte{0x08, 0x10, 0x1a}       // index, term, configuration
)

// numbers reads a payload that has these fields and no others. The last one's
// tag may be that of bytes, which reach to the end; their number is returned.
func numbers(b, tags []byte) (values [4]uint64, err error) {
	at := 0
	for i, tag := range tags {
		if values[i], at, err = field(b, at, tag); err != nil {
			return values, err
		}
		if tag&7 == 2 {
			if values[i] != uint64(len(b)-at) {
				return values, fmt.Errorf("%d bytes of data in %d", values[i], len(b)-at)
			}
			at = len(b)
		}
	}
	if at != len(b) {
		return values, fmt.Errorf("%d bytes too many", len(b)-at)
	}
	return values, nil
}

// fullState and fullEntry set every field: the form that the format asks for.

func fullState(term, vote, commit uint64) *raftpb.HardState {
	return &raftpb.HardState{Term: new(term), Vote: new(vote), Commit: new(commit)}
}

func fullEntry(e *raftpb.Entry) *raftpb.Entry {
	full := &raftpb.Entry{Type: new(e.GetType()), Term: new(e.GetTerm()), Index: new(e.GetIndex()), Data: e.GetData()}
	if full.Data == nil {
		full.Data = []byte{} // as opposed to nil it is written, with length 0
	}
	return full
}

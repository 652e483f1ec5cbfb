package walstore

import (
	"errors"
	"fmt"
	"os"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/server/v3/storage/wal"
)

// sectorSize is what a disk writes whole or not at all, at the least.
const sectorSize = 512

// longestHead is the most that stands before a record's payload.
const longestHead = 2 + 6 + 6

// tornAt tells whether a crash can have left what lies at an offset of the
// newest segment, where no record can be read that follows on crc.
//
// The bytes from there on were written, if at all, by a call that never
// returned. Of these some sectors reached the disk, others are as they were:
// a sector that a record begins in may end at that record, one further on is
// all zero. Or the file had not grown far enough yet. A flipped bit leaves
// neither, and neither leaves room for a second write behind it.
func tornAt(buf []byte, off int, crc uint32) bool {
	rest := buf[off:]
	if len(rest) < frameSize {
		return true
	}
	sectorEnd := off - off%sectorSize + sectorSize
	if allZero(rest[:frameSize]) {
		if !allZero(buf[off:min(sectorEnd, len(buf))]) {
			return false
		}
		if sectorEnd-off == frameSize && lostLength(rest[frameSize:], crc) {
			return false
		}
	} else if !missesSector(buf, off, sectorEnd) {
		return false
	}
	return !laterWrite(buf, off+frameSize, rest[frameSize:])
}

// lostLength tells whether the record is there and only the length in front of
// it is zero, alone at the end of its sector. That record may have been
// acknowledged, so it must not be cut off.
func lostLength(body []byte, crc uint32) bool {
	rec, _, err := readBody(body)
	return err == nil && rec.follows(crc)
}

// missesSector tells whether the record at an offset says its length twice and
// consistently, and a sector of it behind the first one is missing. Where the
// second saying is itself in the missing part, the first has to do.
func missesSector(buf []byte, off, sectorEnd int) bool {
	size, padded, err := readFrame(buf[off:])
	if err != nil {
		return false
	}
	start, end := off+frameSize, off+frameSize+padded
	_, said, err := readBody(buf[start:min(start+size, len(buf))])
	headCut := said == 0 && errors.Is(err, errCut) && end > len(buf)
	headZero := start+longestHead > sectorEnd && sectorEnd < end && zeroSector(buf, sectorEnd)
	if said != size && !headCut && !headZero {
		return false
	}
	for at := sectorEnd; at < end; at += sectorSize {
		if zeroSector(buf, at) {
			return true
		}
	}
	return end > len(buf)
}

// zeroSector tells whether all of a sector is in the file, and zero.
func zeroSector(buf []byte, at int) bool {
	return at+sectorSize <= len(buf) && allZero(buf[at:at+sectorSize])
}

// laterWrite tells whether, somewhere behind an offset, a write was begun after
// one that an entry or a snapshot belongs to. Entries and their state are one
// write, a snapshot is one by itself, and both are durable before the next is
// begun; so that something after a state after an entry, or after a snapshot,
// proves that all before it was durable once. A state alone proves nothing: one
// that only commits is not waited for.
func laterWrite(buf []byte, from int, head []byte) bool {
	first, _, _ := readBody(head)
	afterEntry := first.kind == wal.EntryType
	afterSnapshot := first.kind == wal.SnapshotType
	for at := from; at+frameSize < len(buf); {
		if buf[at+frameSize] != 0x08 { // not even the first tag; most are not
			at += frameSize
			continue
		}
		rec, err := readRecord(buf, at)
		if err != nil {
			at += frameSize
			continue
		}
		end, proof := followWrites(buf, rec, afterEntry, afterSnapshot)
		if proof {
			return true
		}
		at = end
	}
	return false
}

// followWrites goes on from a record for as long as checksums agree. entry: an
// entry came before; whole: a write that is waited for did.
func followWrites(buf []byte, rec record, entry, whole bool) (end int, proof bool) {
	for known := knownForm(rec); ; known = knownForm(rec) {
		if known && whole {
			return rec.end, true
		}
		switch {
		case !known:
			return rec.end, false
		case rec.kind == wal.EntryType:
			entry = true
		case rec.kind == wal.StateType:
			whole = entry
		case rec.kind == wal.SnapshotType:
			whole = true
		}
		next, err := readRecord(buf, rec.end)
		if err != nil || !next.follows(rec.crc) {
			return rec.end, false
		}
		if whole {
			return next.end, true
		}
		rec = next
	}
}

// knownForm tells whether a record has the form of one that is written within a
// segment.
func knownForm(rec record) bool {
	tags := map[int64][]byte{wal.EntryType: entryTags, wal.StateType: stateTags, wal.SnapshotType: snapshotTags}[rec.kind]
	_, err := numbers(rec.payload, tags)
	return tags != nil && err == nil
}

// repair cuts off what lies behind the offset. The file keeps its size: etcd's
// code allocates it again when it opens the log. Safe to do again after a crash.
func (t *tear) repair() error {
	file, err := os.OpenFile(t.path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("repair torn wal: %w", err)
	}
	info, err := file.Stat()
	if err == nil {
		err = file.Truncate(int64(t.offset))
	}
	if err == nil {
		err = file.Truncate(info.Size() - info.Size()%frameSize)
	}
	if err == nil {
		err = fileutil.Fsync(file)
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("repair torn wal: %w", err)
	}
	return nil
}

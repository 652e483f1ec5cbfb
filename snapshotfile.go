package raftlock

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"

	"go.etcd.io/raft/v3/raftpb"
)

// A snapshot as a file, or as a stream between members:
//
//	file  = magic (8 bytes), version (4), checksum of the 12 bytes before it (4), block*
//	block = length (4), checksum (4), records (length bytes; see snapshot.go)
//
// Numbers have their small end first. A checksum is CRC-32C. That of a block is
// over its length and its records and goes on from the one before it, so that no
// block can be missing, doubled or in another place. The file ends with the
// block that holds the end record. The first 16 bytes are the same in every
// version, so that what is only newer is not taken for damage. Part of the disk
// format, do not change.
const (
	snapshotMagic   = "raftlock"
	snapshotVersion = 1

	snapshotPreamble = 16
	blockHead        = 8
)

// castagnoli returns the table of the checksum; package crc32 makes it once.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// frozen is the state of a replica at one entry of the log, to be read by any
// goroutine.
type frozen struct {
	header snapshotHeader
	view   *tableView
	hash   uint64
}

// writeTo writes the snapshot, in as many calls of Write as it has blocks, and
// one. It returns the first error of w.
func (s *frozen) writeTo(w io.Writer) error {
	preamble := make([]byte, 0, snapshotPreamble)
	preamble = append(preamble, snapshotMagic...)
	preamble = binary.LittleEndian.AppendUint32(preamble, snapshotVersion)
	sum := crc32.Checksum(preamble, castagnoli())
	preamble = binary.LittleEndian.AppendUint32(preamble, sum)
	if _, err := w.Write(preamble); err != nil {
		return err
	}
	var out []byte
	return s.view.pack(&s.header, s.hash, func(block []byte) error {
		out = binary.LittleEndian.AppendUint32(out[:0], uint32(len(block)))
		sum = crc32.Update(crc32.Update(sum, castagnoli(), out), castagnoli(), block)
		out = binary.LittleEndian.AppendUint32(out, sum)
		out = append(out, block...)
		_, err := w.Write(out)
		return err
	})
}

// readBlocks gives the blocks of a snapshot to each, which must not keep them,
// and returns at the end of r. An error is around errMalformed if the bytes are
// not what writeTo wrote, or around errUnknownFormat; otherwise it is one of r or
// each.
func readBlocks(r io.Reader, each func(block []byte) error) error {
	var head [snapshotPreamble]byte
	if err := readFull(r, head[:]); err != nil {
		return err
	}
	sum := crc32.Checksum(head[:12], castagnoli())
	if string(head[:8]) != snapshotMagic || binary.LittleEndian.Uint32(head[12:]) != sum {
		return fmt.Errorf("%w: not the beginning of a snapshot", errMalformed)
	}
	if v := binary.LittleEndian.Uint32(head[8:]); v != snapshotVersion {
		return fmt.Errorf("%w: snapshot of version %d, this build knows %d", errUnknownFormat, v, snapshotVersion)
	}
	var block []byte
	for {
		if _, err := io.ReadFull(r, head[:1]); errors.Is(err, io.EOF) {
			return nil // whether it is the right place is for the reader of the records to say
		} else if err != nil {
			return err
		}
		if err := readFull(r, head[1:blockHead]); err != nil {
			return err
		}
		n := binary.LittleEndian.Uint32(head[:4])
		if n == 0 || n > maxBlock {
			return fmt.Errorf("%w: block of %d bytes", errMalformed, n)
		}
		block = slices.Grow(block[:0], int(n))[:n]
		if err := readFull(r, block); err != nil {
			return err
		}
		sum = crc32.Update(crc32.Update(sum, castagnoli(), head[:4]), castagnoli(), block)
		if binary.LittleEndian.Uint32(head[4:]) != sum {
			return fmt.Errorf("%w: checksum of a block", errMalformed)
		}
		if err := each(block); err != nil {
			return err
		}
	}
}

// readFull fills b; that there is less is damage.
func readFull(r io.Reader, b []byte) error {
	_, err := io.ReadFull(r, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: snapshot is cut off", errMalformed)
	}
	return err
}

// walkSnapshot gives the records of a snapshot to walker.
func walkSnapshot(r io.Reader, walker *snapshotWalker) error {
	err := readBlocks(bufio.NewReaderSize(r, 2*blockFill), walker.block)
	if err == nil {
		err = walker.close()
	}
	if errors.Is(err, errUnknownFormat) {
		return fmt.Errorf("%w: %w", ErrUnknownFormat, err)
	}
	return err
}

// CheckSnapshot reads a snapshot to the end of r and returns what it is the
// state of: index, term and the members of raft. It verifies every byte by
// checksums and keeps at most a megabyte at a time. The error is around
// ErrUnknownFormat when only a newer version can have written the snapshot; any
// other says that it is damaged, or is r's own. It is for implementations of
// Storage.
func CheckSnapshot(r io.Reader) (*raftpb.SnapshotMetadata, error) {
	var walker snapshotWalker
	if err := walkSnapshot(r, &walker); err != nil {
		return nil, fmt.Errorf("check snapshot: %w", err)
	}
	return metaOf(&walker.header), nil
}

// loadSnapshot reads a snapshot and makes its table. Errors as in CheckSnapshot.
func loadSnapshot(r io.Reader) (*snapshotHeader, *table, error) {
	loader := newTableLoader()
	walker := snapshotWalker{}
	walker.take = func(num recordNumber, record []byte) error {
		if num == recordHeader {
			loader.begin(&walker.header)
		}
		return loader.take(num, record)
	}
	if err := walkSnapshot(r, &walker); err != nil {
		return nil, nil, fmt.Errorf("load snapshot: %w", err)
	}
	table, err := loader.finish(walker.end.hash)
	if err != nil {
		return nil, nil, fmt.Errorf("load snapshot: %w", err)
	}
	return &walker.header, table, nil
}

// metaOf is what raft wants to know of a snapshot.
func metaOf(h *snapshotHeader) *raftpb.SnapshotMetadata {
	return &raftpb.SnapshotMetadata{
		Index: new(h.index), Term: new(h.term),
		ConfState: &raftpb.ConfState{
			Voters: h.conf.voters, Learners: h.conf.learners,
			VotersOutgoing: h.conf.outgoing, LearnersNext: h.conf.next, AutoLeave: new(h.conf.autoLeave),
		},
	}
}

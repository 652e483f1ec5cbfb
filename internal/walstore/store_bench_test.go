package walstore

import (
	"bytes"
	"testing"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftlock/raftlock/internal/storagetest"
)

// One entry and one commit an operation: the disk's fdatasync rate.
func BenchmarkAppend(b *testing.B) {
	b.ReportAllocs()
	wal.SegmentSizeBytes = segmentSize
	b.Cleanup(func() { wal.SegmentSizeBytes = testSegmentSize })
	s := storagetest.Started(b, diskAt(b.TempDir()))
	must(b, s.Append(storagetest.Hard(2, 7, 1), nil))
	data := bytes.Repeat([]byte{'x'}, 200)
	index := uint64(2)
	entries := make([]*raftpb.Entry, 1)
	for b.Loop() {
		entries[0] = &raftpb.Entry{Term: new(uint64(2)), Index: new(index), Data: data}
		must(b, s.Append(storagetest.Hard(2, 7, index-1), entries))
		index++
	}
}

// A log of 100 MB in entries of 64 KiB, as full batches make them.
func BenchmarkLoad(b *testing.B) {
	b.ReportAllocs()
	wal.SegmentSizeBytes = segmentSize
	b.Cleanup(func() { wal.SegmentSizeBytes = testSegmentSize })
	dir := b.TempDir()
	s := storagetest.Started(b, diskAt(dir))
	must(b, s.Append(storagetest.Hard(2, 7, 1), nil))
	data := string(bytes.Repeat([]byte{'x'}, 64<<10))
	const count = 1600
	for index := uint64(2); index < 2+count; index += 16 {
		entries := make([]string, 16)
		for i := range entries {
			entries[i] = data
		}
		must(b, s.Append(nil, storagetest.Entries(2, index, entries...)))
	}
	must(b, s.Close())
	b.SetBytes(count * int64(len(data)))
	for b.Loop() {
		if found, err := tryLoad(b, dir); err != nil || len(found.Entries) != count {
			b.Fatal(len(found.Entries), err)
		}
	}
}

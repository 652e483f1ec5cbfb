package raftlock

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// keptSnapshots is how many snapshots a disk keeps for the log to stand on.
const keptSnapshots = 2

// memorySnapshot is a committed snapshot of a MemoryStorage.
type memorySnapshot struct {
	meta  *raftpb.SnapshotMetadata
	bytes []byte
}

// CreateSnapshot implements Storage.
func (m *MemoryStorage) CreateSnapshot(meta *raftpb.SnapshotMetadata) (SnapshotSink, error) {
	sink := &memorySink{hold: m, meta: proto.CloneOf(meta)}
	return sink, m.held(func(d *memoryDisk) error {
		if len(d.kept) == 0 || meta.GetIndex() <= firstIndex || meta.GetTerm() == 0 || meta.GetConfState() == nil {
			return fmt.Errorf("raftlock: create snapshot: no log yet, or not a snapshot of one: {%v}", meta)
		}
		return nil
	})
}

// SaveSnapshot implements Storage.
func (m *MemoryStorage) SaveSnapshot(meta *raftpb.SnapshotMetadata) error {
	return m.held(func(d *memoryDisk) error {
		if err := d.committed(meta); err != nil {
			return fmt.Errorf("raftlock: save snapshot: %w", err)
		}
		if meta.GetIndex() <= d.newest().GetIndex() {
			d.dropFiles(0)
			return nil
		}
		if !d.hasEntry(meta) {
			return fmt.Errorf("raftlock: save snapshot: no entry %d of term %d", meta.GetIndex(), meta.GetTerm())
		}
		d.hard.Commit = new(max(d.hard.GetCommit(), meta.GetIndex()))
		d.synced = max(d.synced, meta.GetIndex())
		d.keep(meta)
		return nil
	})
}

// InstallSnapshot implements Storage.
func (m *MemoryStorage) InstallSnapshot(meta *raftpb.SnapshotMetadata, hard *raftpb.HardState) error {
	return m.held(func(d *memoryDisk) error {
		if err := d.committed(meta); err != nil {
			return fmt.Errorf("raftlock: install snapshot: %w", err)
		}
		has := d.hasEntry(meta)
		last := meta.GetIndex()
		if has {
			last = d.kept[0].GetIndex() + uint64(len(d.entries))
		}
		switch {
		case meta.GetIndex() <= max(d.hard.GetCommit(), d.newest().GetIndex()):
			return fmt.Errorf("raftlock: install snapshot: index %d is committed here", meta.GetIndex())
		case hard.GetTerm() < max(d.hard.GetTerm(), meta.GetTerm()) || hard.GetCommit() < meta.GetIndex() || hard.GetCommit() > last:
			return fmt.Errorf("raftlock: install snapshot: state of term %d that commits %d, after term %d; the last entry is %d",
				hard.GetTerm(), hard.GetCommit(), d.hard.GetTerm(), last)
		}
		d.hard, d.synced = cloneHardState(hard), hard.GetCommit()
		if !has {
			d.kept, d.entries = nil, nil
		}
		d.keep(meta)
		return nil
	})
}

// OpenSnapshot implements Storage.
func (m *MemoryStorage) OpenSnapshot(index uint64) (SnapshotFile, error) {
	var found memoryFile
	err := m.held(func(d *memoryDisk) error {
		file, ok := d.files[index]
		if !ok {
			return fmt.Errorf("raftlock: open snapshot %d: %w", index, fs.ErrNotExist)
		}
		found.Reader = bytes.NewReader(file.bytes)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// committed tells whether there is such a snapshot.
func (d *memoryDisk) committed(meta *raftpb.SnapshotMetadata) error {
	file, ok := d.files[meta.GetIndex()]
	if !ok && meta.GetIndex() < d.newest().GetIndex() {
		return nil // was let go of
	}
	if !ok || file.meta.GetTerm() != meta.GetTerm() || file.meta.GetConfState().Equivalent(meta.GetConfState()) != nil {
		return fmt.Errorf("snapshot {%v} is not committed", meta)
	}
	return nil
}

// hasEntry tells whether the log goes through the index and term of a snapshot.
func (d *memoryDisk) hasEntry(meta *raftpb.SnapshotMetadata) bool {
	behind := meta.GetIndex() - d.kept[0].GetIndex()
	return behind >= 1 && behind <= uint64(len(d.entries)) && d.entries[behind-1].GetTerm() == meta.GetTerm()
}

// keep makes a snapshot the newest one, and lets go of what is not needed.
func (d *memoryDisk) keep(meta *raftpb.SnapshotMetadata) {
	d.kept = append(d.kept, proto.CloneOf(meta))
	for len(d.kept) > keptSnapshots {
		d.entries = slices.Clone(d.entries[d.kept[1].GetIndex()-d.kept[0].GetIndex():])
		d.kept = slices.Delete(d.kept, 0, 1)
	}
	d.dropFiles(0)
}

// dropFiles removes the files that nobody needs any more: all that are not kept,
// but for those above the newest one, which may still be named. These go too
// from an index on, if one is given.
func (d *memoryDisk) dropFiles(from uint64) {
	maps.DeleteFunc(d.files, func(index uint64, _ memorySnapshot) bool {
		kept := slices.ContainsFunc(d.kept, func(k *raftpb.SnapshotMetadata) bool { return k.GetIndex() == index })
		return !kept && (index < d.newest().GetIndex() || from > 0 && index >= from)
	})
}

// newest is the snapshot that the log stands on; nil before there is a log.
func (d *memoryDisk) newest() *raftpb.SnapshotMetadata {
	if len(d.kept) == 0 {
		return nil
	}
	return d.kept[len(d.kept)-1]
}

// memorySink is a snapshot that is being written.
type memorySink struct {
	hold  *MemoryStorage
	meta  *raftpb.SnapshotMetadata
	bytes []byte
	ended bool
}

var errSinkEnded = errors.New("raftlock: snapshot is committed or discarded")

func (s *memorySink) Write(p []byte) (int, error) {
	if s.ended {
		return 0, errSinkEnded
	}
	s.bytes = append(s.bytes, p...)
	return len(p), s.hold.held(func(*memoryDisk) error { return nil })
}

func (s *memorySink) Commit(context.Context) error {
	if s.ended {
		return errSinkEnded
	}
	s.ended = true
	return s.hold.held(func(d *memoryDisk) error {
		d.files[s.meta.GetIndex()] = memorySnapshot{meta: s.meta, bytes: s.bytes}
		return nil
	})
}

func (s *memorySink) Discard() error {
	s.ended = true
	return nil
}

// memoryFile is an open snapshot of a MemoryStorage.
type memoryFile struct{ *bytes.Reader }

func (memoryFile) Close() error { return nil }

// nothing is what the log of a member begins at that joined a running cluster.
func nothing() *raftpb.SnapshotMetadata {
	return &raftpb.SnapshotMetadata{ConfState: &raftpb.ConfState{}, Index: new(uint64(0)), Term: new(uint64(0))}
}

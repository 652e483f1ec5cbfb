package walstore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"

	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raftlock/raftlock"
)

// keptSnapshots is how many snapshots are kept for the log to stand on.
const keptSnapshots = 2

func markOf(meta *raftpb.SnapshotMetadata) mark {
	return mark{index: meta.GetIndex(), term: meta.GetTerm(), conf: proto.CloneOf(meta.GetConfState())}
}

// meta is what a mark says in raft's words.
func (m mark) meta() *raftpb.SnapshotMetadata {
	return &raftpb.SnapshotMetadata{ConfState: proto.CloneOf(m.conf), Index: new(m.index), Term: new(m.term)}
}

// record is what a mark is written as.
func (m mark) record() *walpb.Snapshot {
	return &walpb.Snapshot{Index: new(m.index), Term: new(m.term), ConfState: m.conf}
}

func (m mark) same(other mark) bool {
	return m.index == other.index && m.term == other.term && m.conf.Equivalent(other.conf) == nil
}

// SaveSnapshot implements raftlock.Storage.
func (s *Store) SaveSnapshot(meta *raftpb.SnapshotMetadata) error {
	if err := s.usable(); err != nil {
		return err
	}
	return s.final(guard("save snapshot", func() error { return s.saveSnapshot(markOf(meta)) }))
}

func (s *Store) saveSnapshot(m mark) error {
	if s.wal == nil {
		return errors.New("no log yet")
	}
	if m.index <= s.newest().index {
		return s.removeSnapshots()
	}
	if err := s.committed(m); err != nil {
		return err
	}
	if !s.ledger.has(m.index, m.term) {
		return fmt.Errorf("the log has no entry %d of term %d", m.index, m.term)
	}
	// A record that no state commits counts for nothing at the next start.
	if m.index > s.ledger.commit {
		if err := s.save(fullState(s.ledger.term, s.ledger.vote, m.index), nil); err != nil {
			return err
		}
	}
	if err := s.do("name snapshot", func() error { return s.wal.SaveSnapshot(m.record()) }); err != nil {
		return err
	}
	return s.keep(m)
}

// InstallSnapshot implements raftlock.Storage. The record of the snapshot is
// durable before the state that commits it; until that is there too, the record
// counts for nothing.
func (s *Store) InstallSnapshot(meta *raftpb.SnapshotMetadata, hard *raftpb.HardState) error {
	if err := s.usable(); err != nil {
		return err
	}
	return s.final(guard("install snapshot", func() error { return s.installSnapshot(markOf(meta), hard) }))
}

func (s *Store) installSnapshot(m mark, hard *raftpb.HardState) error {
	if s.wal == nil {
		return errors.New("no log yet")
	}
	if err := s.committed(m); err != nil {
		return err
	}
	if m.index <= max(s.ledger.commit, s.newest().index) {
		return fmt.Errorf("index %d is committed here", m.index)
	}
	has := s.ledger.has(m.index, m.term)
	after, err := s.ledger.installed(m.index, m.term, [3]uint64{hard.GetTerm(), hard.GetVote(), hard.GetCommit()})
	if err != nil {
		return err
	}
	if err := s.do("name snapshot", func() error { return s.wal.SaveSnapshot(m.record()) }); err != nil {
		return err
	}
	if err := s.do("save state", func() error { return s.wal.Save(after.hard(), nil) }); err != nil {
		return err
	}
	if err := s.do("sync state", s.wal.Sync); err != nil {
		return err
	}
	s.ledger = after
	if !has {
		s.kept = nil
	}
	return s.keep(m)
}

// committed tells whether there is a file for a mark.
func (s *Store) committed(m mark) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if file, ok := s.mu.files[m.index]; !ok || !file.same(m) {
		return fmt.Errorf("snapshot {%v} is not committed", m.meta())
	}
	return nil
}

// newest is the snapshot that the log stands on.
func (s *Store) newest() mark { return s.kept[len(s.kept)-1] }

// keep makes a snapshot, whose record is the last one of the log, the newest one
// and lets go of what is not needed any more.
func (s *Store) keep(m mark) error {
	segments, err := listSegments(s.walDir())
	if err != nil {
		return err
	}
	m.seq = segments[len(segments)-1].seq
	s.kept = append(s.kept, m)
	if n := len(s.kept); n > keptSnapshots {
		s.kept = slices.Clone(s.kept[n-keptSnapshots:])
	}
	oldest := s.kept[0]
	s.ledger.standOn(oldest.index, oldest.term)
	if err := s.releaseSegments(segments, oldest); err != nil {
		return err
	}
	return s.removeSnapshots()
}

// releaseSegments removes the segments that the oldest snapshot does not need:
// those before its record, and before the last one whose name is not above its
// index, as from there on all entries behind it are. They go one by one from the
// first on, each for good before the next, so that what is left after a crash
// has no gap.
func (s *Store) releaseSegments(segments []segment, oldest mark) error {
	first := segments[0]
	for _, seg := range segments {
		if seg.index <= oldest.index && seg.seq <= oldest.seq {
			first = seg
		}
	}
	if first == segments[0] {
		return nil
	}
	if err := s.wal.ReleaseLockTo(first.index + 1); err != nil { // keeps the last one below that
		return err
	}
	s.released = slices.DeleteFunc(slices.Clone(segments), func(seg segment) bool { return seg.seq >= first.seq })
	return s.removeReleased(removeAtOnce)
}

// removeAtOnce is how many segments go with the snapshot that releases them. Of
// the rest one goes with each append: to remove a full one takes some
// milliseconds, and calls wait for the log.
const removeAtOnce = 4

// removeReleased removes segments that are released, at most so many.
func (s *Store) removeReleased(most int) error {
	for ; most > 0 && len(s.released) > 0; most-- {
		if err := s.remove(s.released[0].path); err != nil {
			return err
		}
		if err := s.syncDir(s.walDir()); err != nil {
			return err
		}
		s.released = s.released[1:]
	}
	return nil
}

// removeSnapshots removes the files below the newest snapshot that are not kept.
// Those above it may yet be named.
func (s *Store) removeSnapshots() error {
	newest := s.newest().index
	return s.removeFiles(func(m mark) bool { return m.index > newest || s.keeps(m) })
}

// removeUnnamed removes, at the start, what is not a snapshot of this log; but
// not those that it names and that were found damaged.
func (s *Store) removeUnnamed(found *scan) error {
	newest := s.newest().index
	left, err := os.ReadDir(s.snapshotDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, file := range left {
		if filepath.Ext(file.Name()) == tmpSuffix {
			if err := s.remove(filepath.Join(s.snapshotDir(), file.Name())); err != nil {
				return err
			}
		}
	}
	s.mu.Lock()
	s.mu.files = map[uint64]mark{}
	for _, m := range s.kept {
		if m.index > firstIndex {
			s.mu.files[m.index] = m
		}
	}
	s.mu.Unlock()
	return s.removeFiles(func(m mark) bool {
		return s.keeps(m) || m.index > newest &&
			slices.ContainsFunc(found.marks, func(f mark) bool { return f.index == m.index && f.term == m.term })
	})
}

func (s *Store) keeps(m mark) bool {
	return slices.ContainsFunc(s.kept, func(k mark) bool { return k.index == m.index && k.term == m.term })
}

func (s *Store) removeFiles(stays func(mark) bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	left, err := os.ReadDir(s.snapshotDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	removed := false
	for _, file := range left {
		m, ok := snapshotOf(file.Name())
		if !ok || stays(m) {
			continue
		}
		if err := s.remove(filepath.Join(s.snapshotDir(), file.Name())); err != nil {
			return err
		}
		if s.mu.files[m.index].term == m.term {
			delete(s.mu.files, m.index)
		}
		removed = true
	}
	if !removed {
		return nil
	}
	return s.syncDir(s.snapshotDir())
}

// OpenSnapshot implements raftlock.Storage.
func (s *Store) OpenSnapshot(index uint64) (raftlock.SnapshotFile, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usableLocked(); err != nil {
		return nil, err
	}
	m, ok := s.mu.files[index]
	if !ok {
		return nil, fmt.Errorf("open snapshot %d: %w", index, fs.ErrNotExist)
	}
	file, err := os.Open(s.snapshotPath(m))
	if err != nil {
		return nil, fmt.Errorf("open snapshot: %w", err)
	}
	info, err := file.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open snapshot: %w", err), file.Close())
	}
	return snapshotFile{File: file, size: info.Size()}, nil
}

// snapshotFile is a file that does not change any more.
type snapshotFile struct {
	*os.File
	size int64
}

func (f snapshotFile) Size() int64 { return f.size }

// judge reads the file of a mark; the first state has none.
func (s *Store) judge(m mark) error {
	if m.index <= firstIndex {
		return nil
	}
	path := s.snapshotPath(m)
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return corruptFile(path, "missing, though the log says that it was durable")
	}
	if err != nil {
		return fmt.Errorf("open snapshot: %w", err)
	}
	defer file.Close() // it was only read
	return s.judgeFile(path, file, m)
}

// judgeFile checks that a file, from its beginning to its end, is the snapshot of
// a mark. Where the reading stopped is as near as an offset can be named.
func (s *Store) judgeFile(path string, file io.Reader, m mark) error {
	if at, err := s.readBack(file, m); err != nil {
		return corruptAt(path, at, err)
	}
	return nil
}

// readBack says where and why a file is not the snapshot of a mark.
func (s *Store) readBack(file io.Reader, m mark) (offset int, err error) {
	counted := &countingReader{from: file}
	meta, err := s.check(counted)
	if err == nil && !markOf(meta).same(m) {
		err = fmt.Errorf("it is the snapshot {%v}, where {%v} belongs", meta, m.meta())
	}
	return counted.n, err
}

// countingReader knows how far it was read.
type countingReader struct {
	from io.Reader
	n    int
}

func (r *countingReader) Read(p []byte) (int, error) {
	n, err := r.from.Read(p)
	r.n += n
	return n, err
}

var snapshotName = regexp.MustCompile(`^([0-9a-f]{16})-([0-9a-f]{16})\.snap$`)

// snapshotOf reads the name of a snapshot file.
func snapshotOf(name string) (m mark, ok bool) {
	match := snapshotName.FindStringSubmatch(name)
	if match == nil {
		return m, false
	}
	m.index, _ = strconv.ParseUint(match[1], 16, 64)
	m.term, _ = strconv.ParseUint(match[2], 16, 64)
	return m, true
}

func (s *Store) snapshotPath(m mark) string {
	return filepath.Join(s.snapshotDir(), fmt.Sprintf("%016x-%016x%s", m.index, m.term, snapshotSuffix))
}

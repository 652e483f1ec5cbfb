package walstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftlock/raftlock"
)

// openWAL judges the log and the snapshots, and changes nothing that it does not
// accept; then it repairs a torn end, removes what unfinished calls have left,
// opens the log, and reads it.
func (s *Store) openWAL() (raftlock.Recovered, error) {
	found, err := s.scanWAL()
	if err != nil {
		return raftlock.Recovered{}, err
	}
	if s.kept, err = s.chooseSnapshot(found); err != nil {
		return raftlock.Recovered{}, err
	}
	if t := found.torn; t != nil {
		s.log.Warn("wal: cutting off a write that a crash has torn; it was never acknowledged",
			"path", t.path, "offset", t.offset)
		if err := t.repair(); err != nil {
			return raftlock.Recovered{}, err
		}
	}
	if err := errors.Join(s.removeAllocated(), s.removeUnnamed(found)); err != nil {
		return raftlock.Recovered{}, err
	}
	base := s.kept[len(s.kept)-1]
	s.ledger = found.log
	s.ledger.standOn(base.index, base.term)
	entries, err := s.readWAL(base)
	if err == nil {
		err = s.releaseOld()
	}
	if err != nil {
		return raftlock.Recovered{}, errors.Join(err, s.closeWAL())
	}
	return raftlock.Recovered{
		Identity: cloneIdentity(*s.identity),
		Snapshot: base.meta(),
		Hard:     s.ledger.hard(),
		Entries:  entries,
	}, nil
}

func (s *Store) scanWAL() (*scan, error) {
	ids, err := voters(*s.identity)
	if err != nil {
		return nil, corrupt(s.identityPath(), err)
	}
	found, err := scanLog(s.walDir())
	if err != nil {
		return nil, err
	}
	if err := found.belongsTo(s.header(), ids, s.identity.Joined); err != nil {
		return nil, corrupt(s.walDir(), err)
	}
	return found, nil
}

// chooseSnapshot finds the newest snapshot that the log carries on from and whose
// file is good, and the one before it.
func (s *Store) chooseSnapshot(found *scan) (kept []mark, err error) {
	var first error // why the newest one is of no use
	marks := found.marks
	for i := len(marks) - 1; i >= 0; i-- {
		m := marks[i]
		if !found.carries(m) {
			break // and so it is for all before it
		}
		err := s.judge(m)
		if errors.Is(err, raftlock.ErrUnknownFormat) || errors.Is(err, fs.ErrPermission) {
			return nil, err
		}
		if err != nil {
			s.log.Error("snapshot: the file is damaged, trying the one before it", "err", err)
			if first == nil {
				first = err
			}
			continue
		}
		if first != nil {
			s.log.Error("snapshot: the log stands on an older one, as the newest is damaged; nothing is lost, "+
				"but look after this disk", "index", m.index)
		}
		if older := s.older(found, marks[:i]); older != nil {
			kept = append(kept, *older)
		}
		return append(kept, m), nil
	}
	if first == nil {
		first = corruptFile(s.walDir(), "the log does not go on from any snapshot that it names: segments are missing")
	}
	return nil, first
}

// older is the newest of some marks that may serve if a newer one's file is
// damaged. Its file is not read now: it would have to be the whole of it.
func (s *Store) older(found *scan, marks []mark) *mark {
	for i := len(marks) - 1; i >= 0; i-- {
		m := marks[i]
		if !found.carries(m) {
			return nil
		}
		if has, err := exists(s.snapshotPath(m)); m.index <= firstIndex || err == nil && has {
			return &m
		}
	}
	return nil
}

// removeAllocated removes segments that were being made when a process died.
// etcd's code takes such a file as it is and writes over its beginning only.
func (s *Store) removeAllocated() error {
	left, err := os.ReadDir(s.walDir())
	if err != nil {
		return fmt.Errorf("read wal: %w", err)
	}
	for _, file := range left {
		if filepath.Ext(file.Name()) != tmpSuffix {
			continue
		}
		if err := os.Remove(filepath.Join(s.walDir(), file.Name())); err != nil {
			return fmt.Errorf("remove unused segment: %w", err)
		}
	}
	return nil
}

// readWAL opens the log for writing and returns the entries behind the snapshot
// that it stands on. What it returns is durable: an earlier process may have died
// between write and fsync.
func (s *Store) readWAL(base mark) (entries []*raftpb.Entry, err error) {
	err = guard("open wal", func() (err error) {
		at := &walpb.Snapshot{Index: new(base.index), Term: new(base.term)}
		s.wal, err = wal.Open(s.zap, s.walDir(), at)
		return err
	})
	if err != nil {
		return nil, err
	}
	var hard *raftpb.HardState
	err = guard("read wal", func() (err error) {
		if _, hard, entries, err = s.wal.ReadAll(); err != nil {
			return err
		}
		return errors.Join(s.wal.Sync(), syncDir(s.walDir()), syncDir(s.dir))
	})
	if err != nil {
		return nil, err
	}
	if s.ledger.last == base.index {
		entries = nil // etcd's code returns those that an installed snapshot took the place of
		err = s.nameAgain(base)
	}
	if err != nil {
		return nil, err
	}
	if err := sameLog(s.ledger, base, hard, entries); err != nil {
		return nil, corrupt(s.walDir(), err)
	}
	for _, e := range entries {
		if len(e.Data) == 0 {
			e.Data = nil // as it was given, see fullEntry
		}
	}
	return entries, nil
}

// releaseOld removes the segments that a process had no time to remove.
func (s *Store) releaseOld() error {
	segments, err := listSegments(s.walDir())
	if err != nil {
		return err
	}
	return s.releaseSegments(segments, s.kept[0])
}

// nameAgain writes the record of the snapshot that the log stands on once more,
// if no entry is behind it: etcd's code names the next segment after the last
// entry that it has read, which may be one from before the snapshot, and would
// look for the snapshot in that segment at the next start.
func (s *Store) nameAgain(base mark) error {
	if base.index <= firstIndex {
		return nil
	}
	return guard("name snapshot", func() error { return s.wal.SaveSnapshot(base.record()) })
}

// sameLog holds what etcd's code read against what was judged.
func sameLog(l ledger, base mark, hard *raftpb.HardState, entries []*raftpb.Entry) error {
	if hard.GetTerm() != l.term || hard.GetVote() != l.vote || hard.GetCommit() != l.commit {
		return fmt.Errorf("read twice, state {%v}, then term %d, vote %d, commit %d", hard, l.term, l.vote, l.commit)
	}
	if uint64(len(entries)) != l.last-base.index {
		return fmt.Errorf("read twice, %d entries, then %d", len(entries), l.last-base.index)
	}
	for i, e := range entries {
		if index := base.index + 1 + uint64(i); e.GetIndex() != index || e.GetTerm() != l.termOf(index) {
			return fmt.Errorf("read twice, entry %d of term %d, then %d of term %d", e.GetIndex(), e.GetTerm(), index, l.termOf(index))
		}
	}
	return nil
}

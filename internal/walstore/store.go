package walstore

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"

	"github.com/raftlock/raftlock"
)

// The first state of every member: the empty table, at this place in the log.
// Part of the disk format, do not change.
const (
	firstIndex = 1
	firstTerm  = 1
)

// segmentSize is allocated at once, twice over; etcd's 64 MB would make every
// empty member of a test or demo 128 MB big.
const segmentSize = 16 << 20

// The variable is the process's, hence once, whatever a host does with it later.
var setSegmentSize = sync.OnceFunc(func() { wal.SegmentSizeBytes = segmentSize })

var (
	errClosed    = errors.New("walstore: closed")
	errNotLoaded = errors.New("walstore: not loaded, or loaded twice")
)

// Config says where a Store lies. The zero value lacks Dir.
type Config struct {
	// Dir is the member's data directory. It is made if it is missing, with
	// its parents, and belongs to this member alone.
	Dir string
	// Logger gets what the log reports, such as slow disks, new segments and
	// repairs; nil = silent.
	Logger *slog.Logger
}

// Store is a raftlock.Storage in a directory. As that says, it is used from one
// goroutine at a time, and any error but Load's is final: every later call
// returns that first one again, Close excepted. No call panics or ends the
// process, whatever the directory holds.
type Store struct {
	dir  string
	log  *slog.Logger
	zap  *zap.Logger
	lock *fileutil.LockedFile

	loaded, closed bool
	failed         error // the first error; final

	identity *raftlock.Identity // as on disk; nil when there is none
	wal      *wal.WAL           // nil until there is a log
	ledger   ledger             // of wal

	// trace is told of each durable step, so that tests can look at the disk
	// there.
	trace func(step string)
}

// Open takes the directory's lock, making the directory if need be, and reads
// nothing yet. An error around raftlock.ErrLocked means that another Store has
// it, in this process or another; it can be tried again when that one is
// closed. It does not wait for the lock.
func Open(cfg Config) (*Store, error) {
	if cfg.Dir == "" {
		return nil, errors.New("walstore: Config.Dir is empty")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	setSegmentSize()
	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	return &Store{
		dir:   cfg.Dir,
		log:   cfg.Logger,
		zap:   newZap(cfg.Logger),
		lock:  lock,
		trace: func(string) {},
	}, nil
}

// Load implements raftlock.Storage. It reads the whole log twice: once to judge
// it, once through etcd's code. After an error only Close is of use.
func (s *Store) Load() (raftlock.Recovered, error) {
	switch {
	case s.closed:
		return raftlock.Recovered{}, errClosed
	case s.loaded:
		return raftlock.Recovered{}, errNotLoaded
	}
	s.loaded = true
	found, err := s.load()
	if err != nil {
		s.failed = err
		return raftlock.Recovered{}, err
	}
	return found, nil
}

func (s *Store) load() (raftlock.Recovered, error) {
	if err := s.readIdentity(); err != nil {
		return raftlock.Recovered{}, err
	}
	hasLog, err := exists(s.walDir())
	if err != nil {
		return raftlock.Recovered{}, err
	}
	switch {
	case s.identity == nil && hasLog:
		return raftlock.Recovered{}, corruptFile(s.identityPath(), "missing beside a log")
	case s.identity == nil:
		return raftlock.Recovered{}, nil
	case len(s.identity.Members) == 0: // a log beside it is one that Bootstrap had not finished
		return raftlock.Recovered{Identity: cloneIdentity(*s.identity)}, nil
	case !hasLog: // a member that votes without the log that it acknowledged breaks every promise
		return raftlock.Recovered{}, corruptFile(s.walDir(), "missing beside the identity of a member that had it")
	}
	return s.openWAL()
}

// readIdentity sets s.identity, and makes durable what was read: an earlier
// process may have died between renaming the file and syncing its directory.
func (s *Store) readIdentity() error {
	file, err := os.ReadFile(s.identityPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read identity: %w", err)
	}
	id, err := decodeIdentity(file)
	if err != nil {
		return corrupt(s.identityPath(), err)
	}
	s.identity = &id
	return syncDir(s.dir)
}

// SaveIdentity implements raftlock.Storage. It refuses what would make the log
// another member's: setting Members, or changing anything but Started once
// they are set.
func (s *Store) SaveIdentity(id raftlock.Identity) error {
	if err := s.usable(); err != nil {
		return err
	}
	return s.final(s.saveIdentity(id))
}

func (s *Store) saveIdentity(id raftlock.Identity) error {
	if s.identity != nil && len(s.identity.Members) > 0 {
		want := *s.identity
		want.Started = id.Started
		if !sameIdentity(want, id) {
			return errors.New("save identity: only Started may change after Bootstrap")
		}
	} else if len(id.Members) > 0 {
		return errors.New("save identity: members are set by Bootstrap")
	}
	return s.writeIdentity(id)
}

func (s *Store) writeIdentity(id raftlock.Identity) error {
	file, err := encodeIdentity(id)
	if err != nil {
		return err
	}
	if err := replaceFile(s.identityPath(), file, s.trace); err != nil {
		return fmt.Errorf("save identity: %w", err)
	}
	s.identity = cloneIdentity(id)
	return nil
}

// Append implements raftlock.Storage. A hard state that changes only the commit
// index is written with the next one that must be durable, or by Close.
//
// When the term changes, it is durable before the first entry of that term: a
// second fsync once in a term, for which no crash ever leaves an entry of a term
// that the hard state does not know.
func (s *Store) Append(hard *raftpb.HardState, entries []*raftpb.Entry) error {
	if err := s.usable(); err != nil {
		return err
	}
	if raft.IsEmptyHardState(hard) && len(entries) == 0 {
		return nil
	}
	if s.wal == nil {
		return s.final(errors.New("append: no log before Bootstrap"))
	}
	return s.final(guard("append", func() error { return s.append(hard, entries) }))
}

func (s *Store) append(hard *raftpb.HardState, entries []*raftpb.Entry) error {
	if raft.IsEmptyHardState(hard) {
		hard = s.ledger.hard()
	} else if hard.GetTerm() > s.ledger.term && len(entries) > 0 {
		if err := s.save(fullState(hard.GetTerm(), hard.GetVote(), s.ledger.commit), nil); err != nil {
			return err
		}
	}
	full := make([]*raftpb.Entry, len(entries))
	for i, e := range entries {
		if i > 0 && e.GetIndex() != entries[i-1].GetIndex()+1 {
			return fmt.Errorf("entry %d after %d", e.GetIndex(), entries[i-1].GetIndex())
		}
		if err := s.ledger.entry(e.GetType(), e.GetTerm(), e.GetIndex()); err != nil {
			return err
		}
		full[i] = fullEntry(e)
	}
	return s.save(fullState(hard.GetTerm(), hard.GetVote(), hard.GetCommit()), full)
}

// save writes a state that is its own, after entries that the ledger has.
func (s *Store) save(hard *raftpb.HardState, entries []*raftpb.Entry) error {
	if err := s.ledger.state(hard.GetTerm(), hard.GetVote(), hard.GetCommit()); err != nil {
		return err
	}
	return s.wal.Save(hard, entries)
}

// Close implements raftlock.Storage. It ends the goroutine of the log and lets
// go of the lock, whatever failed before.
func (s *Store) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	return errors.Join(s.closeWAL(), s.lock.Close())
}

// closeWAL closes the log. Its Close syncs first and on an error keeps all files
// open and locked; so after one, and when an earlier fsync failed, which says
// that another would tell nothing, it goes without.
func (s *Store) closeWAL() error {
	if s.wal == nil {
		return nil
	}
	w := s.wal
	s.wal = nil
	if s.failed != nil {
		w.SetUnsafeNoFsync()
	}
	err := guard("close wal", w.Close)
	if err != nil {
		w.SetUnsafeNoFsync()
		_ = guard("close wal", w.Close)
	}
	return err
}

// usable tells whether a call may go on.
func (s *Store) usable() error {
	switch {
	case s.closed:
		return errClosed
	case s.failed != nil:
		return s.failed
	case !s.loaded:
		return errNotLoaded
	}
	return nil
}

// final remembers the first error.
func (s *Store) final(err error) error {
	if s.failed == nil {
		s.failed = err
	}
	return err
}

// openWAL judges the log, repairs a torn end, opens it, and reads it.
func (s *Store) openWAL() (raftlock.Recovered, error) {
	found, err := s.scanWAL()
	if err != nil {
		return raftlock.Recovered{}, err
	}
	if t := found.torn; t != nil {
		s.log.Warn("wal: cutting off a write that a crash has torn; it was never acknowledged",
			"path", t.path, "offset", t.offset)
		if err := t.repair(); err != nil {
			return raftlock.Recovered{}, err
		}
	}
	if err := s.removeAllocated(); err != nil {
		return raftlock.Recovered{}, err
	}
	entries, err := s.readWAL(found)
	if err != nil {
		return raftlock.Recovered{}, errors.Join(err, s.closeWAL())
	}
	s.ledger = found.log
	return raftlock.Recovered{
		Identity: cloneIdentity(*s.identity),
		Snapshot: &raftpb.SnapshotMetadata{
			ConfState: found.conf,
			Index:     new(uint64(firstIndex)),
			Term:      new(uint64(firstTerm)),
		},
		Hard:    found.log.hard(),
		Entries: entries,
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
	if err := found.belongsTo(s.header(), ids); err != nil {
		return nil, corrupt(s.walDir(), err)
	}
	return found, nil
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

// readWAL opens the log for writing and returns its entries. What it returns is
// durable: an earlier process may have died between write and fsync.
func (s *Store) readWAL(found *scan) (entries []*raftpb.Entry, err error) {
	err = guard("open wal", func() (err error) {
		at := &walpb.Snapshot{Index: new(uint64(firstIndex)), Term: new(uint64(firstTerm))}
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
	if err := sameLog(found.log, hard, entries); err != nil {
		return nil, corrupt(s.walDir(), err)
	}
	for _, e := range entries {
		if len(e.Data) == 0 {
			e.Data = nil // as it was given, see fullEntry
		}
	}
	return entries, nil
}

// sameLog holds what etcd's code read against what was judged.
func sameLog(l ledger, hard *raftpb.HardState, entries []*raftpb.Entry) error {
	if hard.GetTerm() != l.term || hard.GetVote() != l.vote || hard.GetCommit() != l.commit {
		return fmt.Errorf("read twice, state {%v}, then term %d, vote %d, commit %d", hard, l.term, l.vote, l.commit)
	}
	if uint64(len(entries)) != l.last-l.base {
		return fmt.Errorf("read twice, %d entries, then %d", len(entries), l.last-l.base)
	}
	for i, e := range entries {
		if index := l.base + 1 + uint64(i); e.GetIndex() != index || e.GetTerm() != l.termOf(index) {
			return fmt.Errorf("read twice, entry %d of term %d, then %d of term %d", e.GetIndex(), e.GetTerm(), index, l.termOf(index))
		}
	}
	return nil
}

func (s *Store) header() header {
	return header{clusterID: s.identity.ClusterID, nodeID: s.identity.Members[s.identity.Name].NodeID}
}

func (s *Store) walDir() string       { return filepath.Join(s.dir, walName) }
func (s *Store) identityPath() string { return filepath.Join(s.dir, identityName) }

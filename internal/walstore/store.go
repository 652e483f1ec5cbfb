package walstore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/server/v3/storage/wal"
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

// UseSegmentSize makes the segments of this process so big, in bytes, from the
// next Open on: for tests, that want to see a log of several without writing
// 16 MiB each. It must not run beside any other call of this package.
func UseSegmentSize(bytes int64) {
	setSegmentSize() // or the first Open would
	wal.SegmentSizeBytes = bytes
}

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

// Store is a raftlock.Storage in a directory. That says which calls may run
// beside others and which errors are final: after one of these every later call
// returns it again, Close excepted. No call panics or ends the process, whatever
// the directory holds.
type Store struct {
	dir  string
	log  *slog.Logger
	zap  *zap.Logger
	lock *fileutil.LockedFile

	identity *raftlock.Identity // as on disk; nil when there is none
	wal      *wal.WAL           // nil until there is a log
	ledger   ledger             // of wal
	kept     []mark             // the snapshots that the log can stand on, rising
	released []segment          // the first ones of wal, which nothing needs any more

	// check judges a snapshot file from its beginning to its end.
	check func(io.Reader) (*raftpb.SnapshotMetadata, error)

	// mu guards what snapshots need that are written and read beside the log.
	// It is held over a rename, an fsync of a directory and an open, never over
	// the writing or reading of a file.
	mu struct {
		sync.Mutex
		loaded, closed bool
		failed         error           // the first error; final
		files          map[uint64]mark // the good snapshot files by index; nil before there is a log
		begun          uint64          // how many files were begun, for their names
	}

	// trace is told of each durable step, so that tests can look at the disk
	// there; fault, if set, of each step of a snapshot before it is done, and
	// an error of it is as if that step had failed.
	trace func(step string)
	fault func(step string) error
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
	s := &Store{
		dir:   cfg.Dir,
		log:   cfg.Logger,
		zap:   newZap(cfg.Logger),
		lock:  lock,
		check: checkSnapshot,
		trace: func(string) {},
	}
	return s, nil
}

// Load implements raftlock.Storage. It reads the whole log twice: once to judge
// it, once through etcd's code. After an error only Close is of use.
func (s *Store) Load() (raftlock.Recovered, error) {
	if err := s.beginLoad(); err != nil {
		return raftlock.Recovered{}, err
	}
	found, err := s.load()
	return found, s.final(err)
}

func (s *Store) beginLoad() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.mu.closed:
		return errClosed
	case s.mu.loaded:
		return errNotLoaded
	}
	s.mu.loaded = true
	return nil
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
			return errors.New("save identity: only Started may change once there are members")
		}
	} else if len(id.Members) > 0 || id.Joined {
		return errors.New("save identity: members are set by Bootstrap and Join")
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
		return s.final(errors.New("append: no log yet"))
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
	if err := s.save(fullState(hard.GetTerm(), hard.GetVote(), hard.GetCommit()), full); err != nil {
		return err
	}
	return s.removeReleased(1)
}

// save writes a state that is its own, after entries that the ledger has.
func (s *Store) save(hard *raftpb.HardState, entries []*raftpb.Entry) error {
	if err := s.ledger.state(hard.GetTerm(), hard.GetVote(), hard.GetCommit()); err != nil {
		return err
	}
	if err := s.wal.Save(hard, entries); err != nil {
		return fmt.Errorf("save to the log in %s: %w", s.walDir(), err) // a failed fsync names no file
	}
	return nil
}

// Close implements raftlock.Storage. It ends the goroutine of the log and lets
// go of the lock, whatever failed before.
func (s *Store) Close() error {
	s.mu.Lock()
	closed := s.mu.closed
	s.mu.closed = true
	s.mu.Unlock()
	if closed {
		return nil
	}
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
	s.mu.Lock()
	failed := s.mu.failed
	s.mu.Unlock()
	if failed != nil {
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
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.usableLocked()
}

func (s *Store) usableLocked() error {
	switch {
	case s.mu.closed:
		return errClosed
	case s.mu.failed != nil:
		return s.mu.failed
	case !s.mu.loaded:
		return errNotLoaded
	}
	return nil
}

// final remembers the first error.
func (s *Store) final(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.failed == nil {
		s.mu.failed = err
	}
	return err
}

func (s *Store) header() header {
	return header{clusterID: s.identity.ClusterID, nodeID: s.identity.Members[s.identity.Name].NodeID}
}

func (s *Store) walDir() string       { return filepath.Join(s.dir, walName) }
func (s *Store) snapshotDir() string  { return filepath.Join(s.dir, snapshotsName) }
func (s *Store) identityPath() string { return filepath.Join(s.dir, identityName) }

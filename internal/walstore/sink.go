package walstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftlock/raftlock"
)

// sink is a snapshot that is being written, under a name that Load removes.
type sink struct {
	store *Store
	mark  mark
	path  string   // of the file that is written to
	file  *os.File // nil once it is committed or discarded
	dirty int      // bytes since the last sync
}

// syncEvery is how many bytes of a snapshot are synced at a time. All at once
// they would hold up the log's own syncs on the same disk for as long.
const syncEvery = 2 << 20

var errSinkEnded = errors.New("walstore: snapshot is committed or discarded")

// CreateSnapshot implements raftlock.Storage.
func (s *Store) CreateSnapshot(meta *raftpb.SnapshotMetadata) (raftlock.SnapshotSink, error) {
	m := markOf(meta)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usableLocked(); err != nil {
		return nil, err
	}
	if s.mu.files == nil || m.index <= firstIndex || m.term == 0 || meta.GetConfState() == nil {
		return nil, fmt.Errorf("create snapshot: no log yet, or not a snapshot of one: {%v}", meta)
	}
	if err := s.makeSnapshotDir(); err != nil {
		return nil, fmt.Errorf("create snapshot: %w", err)
	}
	s.mu.begun++
	path := fmt.Sprintf("%s.%d%s", s.snapshotPath(m), s.mu.begun, tmpSuffix)
	var file *os.File
	err := s.do("create "+filepath.Base(path), func() (err error) {
		file, err = os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_EXCL, fileutil.PrivateFileMode)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("create snapshot: %w", err)
	}
	return &sink{store: s, mark: m, path: path, file: file}, nil
}

// makeSnapshotDir makes the directory, and its name durable, if it is missing.
func (s *Store) makeSnapshotDir() error {
	has, err := exists(s.snapshotDir())
	if err != nil || has {
		return err
	}
	err = s.do("make "+snapshotsName, func() error { return os.Mkdir(s.snapshotDir(), fileutil.PrivateDirMode) })
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return s.syncDir(s.dir)
}

// Write implements raftlock.SnapshotSink.
func (k *sink) Write(p []byte) (n int, err error) {
	if k.file == nil {
		return 0, errSinkEnded
	}
	if err := k.store.usable(); err != nil {
		return 0, err
	}
	err = k.store.do("write "+filepath.Base(k.path), func() (err error) {
		n, err = k.file.Write(p)
		return err
	})
	if k.dirty += n; err != nil || k.dirty < syncEvery {
		return n, err
	}
	k.dirty = 0
	return n, k.sync()
}

func (k *sink) sync() error {
	return k.store.do("sync "+filepath.Base(k.path), func() error { return fileutil.Fdatasync(k.file) })
}

// Commit implements raftlock.SnapshotSink.
func (k *sink) Commit(ctx context.Context) error {
	if k.file == nil {
		return errSinkEnded
	}
	if err := k.commit(ctx); err != nil {
		return errors.Join(fmt.Errorf("commit snapshot: %w", err), k.Discard())
	}
	return nil
}

// commit syncs the file, reads it back and gives it its name.
func (k *sink) commit(ctx context.Context) error {
	s := k.store
	if err := s.usable(); err != nil {
		return err
	}
	if err := s.do("sync "+filepath.Base(k.path), func() error { return fileutil.Fsync(k.file) }); err != nil {
		return err
	}
	if _, err := k.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if at, err := s.readBack(untilDone{ctx, k.file}, k.mark); err != nil {
		return fmt.Errorf("%s does not read back: offset %d: %w", filepath.Base(k.path), at, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usableLocked(); err != nil {
		return err
	}
	path := s.snapshotPath(k.mark)
	if err := s.do("rename "+filepath.Base(path), func() error { return os.Rename(k.path, path) }); err != nil {
		return err
	}
	k.path = path
	if err := s.syncDir(s.snapshotDir()); err != nil {
		if s.mu.files[k.mark.index].same(k.mark) {
			k.path = "" // which replaced one that may be needed, and is as good
		}
		return err
	}
	s.mu.files[k.mark.index] = k.mark
	file := k.file
	k.file = nil
	return file.Close()
}

// untilDone reads until ctx ends.
type untilDone struct {
	ctx  context.Context
	from io.Reader
}

func (u untilDone) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.from.Read(p)
}

// Discard implements raftlock.SnapshotSink. When the store is closed, the
// directory may have another owner, who has removed the file or will.
func (k *sink) Discard() error {
	if k.file == nil {
		return nil
	}
	err := k.file.Close()
	k.file = nil
	k.store.mu.Lock()
	defer k.store.mu.Unlock()
	if k.store.mu.closed || k.path == "" {
		return err
	}
	return errors.Join(err, k.store.remove(k.path))
}

// do carries out a step on the disk. Tests make it fail, or look at the disk
// after it.
func (s *Store) do(step string, act func() error) error {
	if s.fault != nil {
		if err := s.fault(step); err != nil {
			return err
		}
	}
	if err := act(); err != nil {
		return err
	}
	s.trace(step)
	return nil
}

func (s *Store) remove(path string) error {
	return s.do("remove "+filepath.Base(path), func() error { return os.Remove(path) })
}

func (s *Store) syncDir(dir string) error {
	return s.do("sync "+filepath.Base(dir), func() error { return syncDir(dir) })
}

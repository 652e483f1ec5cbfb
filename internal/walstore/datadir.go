package walstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"

	"github.com/raftlock/raftlock"
)

// The names within a data directory. Part of the disk format, do not change.
const (
	lockName       = "LOCK"
	identityName   = "member.json"
	walName        = "wal"
	newWALName     = "wal.new"
	snapshotsName  = "snapshots"
	snapshotSuffix = ".snap"
	tmpSuffix      = ".tmp"
)

// lockDir makes the directory durable if it is missing and takes its lock. The
// lock belongs to the open file, so that a second Store of the same process is
// refused like one of another.
func lockDir(dir string) (*fileutil.LockedFile, error) {
	if err := makeDir(dir); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	lock, err := fileutil.TryLockFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, fileutil.PrivateFileMode)
	if errors.Is(err, fileutil.ErrLocked) {
		return nil, fmt.Errorf("%w: %s", raftlock.ErrLocked, dir)
	}
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	return lock, nil
}

// makeDir makes dir and its missing parents, and each name durable in its
// parent: a log that is fsynced in a directory that is not can vanish whole.
func makeDir(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	var parents []string
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Stat(at); !errors.Is(err, fs.ErrNotExist) || at == filepath.Dir(at) {
			break
		}
		parents = append(parents, filepath.Dir(at))
	}
	if err := os.MkdirAll(dir, fileutil.PrivateDirMode); err != nil {
		return err
	}
	for _, parent := range parents {
		if err := syncDir(parent); err != nil {
			return err
		}
	}
	return nil
}

// replaceFile makes path hold data, durably, or leaves it as it was. trace is
// told of each step.
func replaceFile(path string, data []byte, trace func(string)) error {
	tmp := path + tmpSuffix
	if err := writeSynced(tmp, data); err != nil {
		return err
	}
	trace("written " + filepath.Base(tmp))
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	trace("renamed " + filepath.Base(path))
	return syncDir(filepath.Dir(path))
}

func writeSynced(path string, data []byte) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, fileutil.PrivateFileMode)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err == nil {
		err = fileutil.Fsync(file)
	}
	return errors.Join(err, file.Close())
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	file, err := fileutil.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(fileutil.Fsync(file), file.Close())
}

// exists tells a file that is missing from one that cannot be looked at.
func exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

//go:build unix

package fence_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/raftlock/raftlock/fence"
)

// tokenFile is a file whose first line is the token that wrote it, before the
// data. Both are replaced in one step, so that a token is known exactly as long as
// its data is, over crashes too. Any number of processes of one machine may use
// it; flock does not reach over every network file system.
type tokenFile struct{ path string }

// Write replaces the data, unless the file has seen a greater token.
func (f tokenFile) Write(token int64, data []byte) error {
	return f.locked(token, func([]byte, int64) error { return f.replace(token, data) })
}

// Read returns the data, unless the file has seen a greater token. A greater one
// than the file's is stored before, so that what is read stays true until its
// holder writes, or loses the lock to a greater token yet. With an equal one too,
// what is returned is on the disk.
func (f tokenFile) Read(token int64) (data []byte, err error) {
	err = f.locked(token, func(present []byte, seen int64) error {
		data = present
		if token == seen { // perhaps by a process that has crashed before its sync
			return f.syncDirectory()
		}
		return f.replace(token, data)
	})
	return data, err
}

// locked compares the tokens and acts, with the file to itself. The lock is a file
// of its own, because the data's file is another one after each write.
func (f tokenFile) locked(token int64, act func(data []byte, seen int64) error) error {
	if token < 1 {
		return fmt.Errorf("%w: %d", fence.ErrInvalidToken, token)
	}
	lock, err := os.OpenFile(f.path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close() // unlocks
	for err = syscall.EINTR; errors.Is(err, syscall.EINTR); {
		err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX)
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", f.path, err)
	}
	data, seen, err := f.load()
	if err != nil {
		return err
	}
	if token < seen {
		return &fence.StaleError{Resource: f.path, Token: token, Greatest: seen}
	}
	return act(data, seen)
}

// load reads the file. One that does not begin with a token is an error and not
// token 0, which would let everybody through.
func (f tokenFile) load() (data []byte, seen int64, err error) {
	all, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	} else if err != nil {
		return nil, 0, err
	}
	first, data, _ := bytes.Cut(all, []byte("\n"))
	if seen, err = fence.ParseToken(string(first)); err != nil {
		return nil, 0, fmt.Errorf("first line of %s: %w", f.path, err)
	}
	return data, seen, nil
}

// replace writes token and data beside the file, and puts them in its place when
// they are on the disk. What a crash leaves beside it is overwritten next time.
func (f tokenFile) replace(token int64, data []byte) error {
	beside, err := os.OpenFile(f.path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = beside.Write(append(strconv.AppendInt(nil, token, 10), "\n"+string(data)...))
	if err = errors.Join(err, beside.Sync(), beside.Close()); err != nil {
		return err
	}
	if err := os.Rename(beside.Name(), f.path); err != nil {
		return err
	}
	return f.syncDirectory()
}

// syncDirectory makes the last replacement durable: without it the file before that
// could be back after a loss of power, with its smaller token.
func (f tokenFile) syncDirectory() error {
	dir, err := os.Open(filepath.Dir(f.path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// A file that refuses writers who have lost their lock: the token stands in it.
func Example_file() {
	dir, err := os.MkdirTemp("", "fence")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "plan")

	fmt.Println(tokenFile{path}.Write(41, []byte("plan A")))
	data, err := tokenFile{path}.Read(42) // the next holder, in another process
	fmt.Println(string(data), err)
	err = tokenFile{path}.Write(41, []byte("plan B"))
	fmt.Println(errors.Is(err, fence.ErrStale))
	data, err = tokenFile{path}.Read(42)
	fmt.Println(string(data), err)
	// Output:
	// <nil>
	// plan A <nil>
	// true
	// plan A <nil>
}

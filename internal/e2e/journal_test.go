package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/history"
	"github.com/raftlock/raftlock/internal/supervise"
)

// journal is a client whose operations are in a file as soon as they begin, and
// again when they are answered: of a program that is killed, what it was about to
// do is known. A release that is missing would make a correct history look wrong.
//
// Its instants are those of the clock that all processes of the machine share. An
// operation is taken to begin before it does, and to end after it did, by what
// reading the clock takes; a promised end is taken to come that much earlier. So
// what is certain in it is so in the joined history of all.
type journal struct {
	client.Client
	name string
	base supervise.Instant // what instants are counted from

	mu   sync.Mutex
	file *os.File
	last int
	err  error // of writing
}

// entry is a line of a journal. The last one of a number counts.
type entry struct {
	Number int
	Op     history.Op
}

func newJournal(c client.Client, name, file string, base supervise.Instant) (*journal, error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	return &journal{Client: c, name: name, base: base, file: f}, nil
}

// finish closes the file and tells what went wrong with it.
func (j *journal) finish() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return errors.Join(j.err, j.file.Close())
}

func (j *journal) number() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.last++
	return j.last
}

// write adds a line. A system call takes a line as a whole or not at all.
func (j *journal) write(number int, op history.Op) {
	line, err := json.Marshal(entry{number, op})
	j.mu.Lock()
	defer j.mu.Unlock()
	if err == nil {
		_, err = j.file.Write(append(line, '\n'))
	}
	j.err = errors.Join(j.err, err)
}

func (j *journal) instant() time.Duration { return time.Duration(supervise.Now() - j.base) }

// noted makes a call with a recorder of its own.
func noted[R any](j *journal, call func(c client.Client) (R, error)) (R, error) {
	number, begun, rec := j.number(), j.instant(), history.New()
	op := func() history.Op {
		op := rec.History().Ops[0]
		op.From = begun
		if op.Expires > 0 {
			op.Expires += begun
		}
		return op
	}
	res, err := call(rec.Client(&announcing{j.Client, func() { j.write(number, op()) }}, j.name))
	answered := op()
	answered.To = j.instant()
	j.write(number, answered)
	return res, err
}

func (j *journal) Acquire(ctx context.Context, req *client.AcquireRequest) (*client.AcquireResult, error) {
	return noted(j, func(c client.Client) (*client.AcquireResult, error) { return c.Acquire(ctx, req) })
}

func (j *journal) Release(ctx context.Context, req *client.ReleaseRequest) (*client.ReleaseResult, error) {
	return noted(j, func(c client.Client) (*client.ReleaseResult, error) { return c.Release(ctx, req) })
}

func (j *journal) Renew(ctx context.Context, req *client.RenewRequest) (*client.RenewResult, error) {
	return noted(j, func(c client.Client) (*client.RenewResult, error) { return c.Renew(ctx, req) })
}

func (j *journal) CancelWait(ctx context.Context, req *client.CancelWaitRequest) (*client.CancelWaitResult, error) {
	return noted(j, func(c client.Client) (*client.CancelWaitResult, error) { return c.CancelWait(ctx, req) })
}

func (j *journal) GetLockInfo(ctx context.Context, req *client.GetLockInfoRequest) (*client.LockInfo, error) {
	return noted(j, func(c client.Client) (*client.LockInfo, error) { return c.GetLockInfo(ctx, req) })
}

func (j *journal) GetLocks(ctx context.Context, req *client.GetLocksRequest) (*client.GetLocksResult, error) {
	return noted(j, func(c client.Client) (*client.GetLocksResult, error) { return c.GetLocks(ctx, req) })
}

// announcing stands behind the recorder: it says that an operation which may have
// an effect is about to be made. Looks have none.
type announcing struct {
	client.Client
	announce func()
}

func (a *announcing) Acquire(ctx context.Context, req *client.AcquireRequest) (*client.AcquireResult, error) {
	a.announce()
	return a.Client.Acquire(ctx, req)
}

func (a *announcing) Release(ctx context.Context, req *client.ReleaseRequest) (*client.ReleaseResult, error) {
	a.announce()
	return a.Client.Release(ctx, req)
}

func (a *announcing) Renew(ctx context.Context, req *client.RenewRequest) (*client.RenewResult, error) {
	a.announce()
	return a.Client.Renew(ctx, req)
}

func (a *announcing) CancelWait(ctx context.Context, req *client.CancelWaitRequest) (*client.CancelWaitResult, error) {
	a.announce()
	return a.Client.CancelWait(ctx, req)
}

// readJournal adds the operations of a journal to a history. The last line of a
// program that was killed may be torn.
func readJournal(file string, into *history.History) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close() // it was only read
	at := map[int]int{}
	lines := bufio.NewReader(f)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		var e entry
		if err == nil {
			err = json.Unmarshal(line, &e)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		i, known := at[e.Number]
		if !known {
			i = len(into.Ops)
			at[e.Number], into.Ops = i, append(into.Ops, e.Op)
		}
		into.Ops[i] = e.Op
	}
}

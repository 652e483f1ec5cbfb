package history

import (
	"io"
	"slices"
	"sync"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/internal/clock"
)

// Recorder keeps what clients do. Its methods may be called concurrently. It
// keeps every operation in memory, some 300 bytes each and what listings show,
// until it is let go of.
type Recorder struct {
	start time.Time

	mu struct {
		sync.Mutex
		ops  []Op          // in the order in which they began
		last time.Duration // the instant that was given out last
	}
}

// New returns a recorder whose time begins now.
func New() *Recorder { return &Recorder{start: time.Now()} }

// Client returns a client that does what c does and has it recorded. name says in
// reports which client it was. Whoever holds locks through it counts by c's
// clock; results, errors and contexts pass through unchanged. What goes to c
// directly is not recorded, and a release that is missing makes a correct
// history look wrong.
func (r *Recorder) Client(c client.Client, name string) client.Client {
	return &recorded{Client: c, recorder: r, name: name, clock: clock.Of(c)}
}

// Write records a write to the resource that a lock protects, under the token
// that goes with it: do makes it, and returns nil when the resource has accepted
// it. Its error is returned; such a write counts as refused.
func (r *Recorder) Write(lockID string, token int64, do func() error) error {
	i := r.begin(Op{Call: Write, Lock: lockID, Token: token})
	err := do()
	r.end(i, func(op *Op) {
		op.Outcome = OK
		if err != nil {
			op.Outcome = Failed
		}
	})
	return err
}

// begin records that an operation is called, and returns its number. The instant
// is taken under the lock, so that the order of the list is that of time.
func (r *Recorder) begin(op Op) int {
	op.Outcome = Open
	op.TTL, op.Timeout = bounded(op.TTL), bounded(op.Timeout) // callers may ask for anything
	r.mu.Lock()
	defer r.mu.Unlock()
	op.From = r.now()
	r.mu.ops = append(r.mu.ops, op)
	return len(r.mu.ops) - 1
}

// end records how it was answered.
func (r *Recorder) end(i int, fill func(op *Op)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	op := &r.mu.ops[i]
	op.To = r.now()
	fill(op)
}

// now is an instant of its own, under the lock: where many things happen at one, as
// in virtual time, the rules would not know what came first.
func (r *Recorder) now() time.Duration {
	r.mu.last = max(time.Since(r.start), r.mu.last+1)
	return r.mu.last
}

func bounded(d time.Duration) time.Duration { return min(max(d, -longest), longest) }

// History returns what was recorded so far. What is under way is Open in it.
func (r *Recorder) History() *History {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &History{Ops: slices.Clone(r.mu.ops)}
}

// WriteTo writes what was recorded so far, as History.WriteTo does.
func (r *Recorder) WriteTo(w io.Writer) (int64, error) { return r.History().WriteTo(w) }

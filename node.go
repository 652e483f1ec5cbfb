package raftlock

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/internal/clock"
)

// Node is one member of a lock cluster. All methods may be called concurrently.
//
// Its goroutines, all started by Open or by one of these, and all ended by Close:
//
//	goroutine   how many         what ends it                    who waits for it
//	main, loop  1                Close, or a failure             Close
//	appender    1                the loop's end                  main
//	snapshot    1 while one is   its end, or the loop's          main
//	            taken, 1 per
//	            peer that one
//	            is sent to
//	outbox      1 per peer, +2   the loop's end, or the peer's   main
//	            while it is up   removal
//	knock       1 per place      the loop's end, or the coming   main
//	            that is empty    of its member
//	receiver    1 per stream     its stream's end                Transport.Close
//	            of a peer
//	withdrawal  1 per call given its answer, or the node's end   main
//	            up with a RequestID
//
// The loop owns everything: raft, the lock table, the calls that wait. The
// others only bring it input and carry out what it wants done.
type Node struct {
	cfg      Config
	logger   *slog.Logger
	clock    clock.Clock
	assembly *assembly
	started  time.Time

	inbox    *inbox
	appender *appender
	log      *raft.MemoryStorage
	// directory is the peers, as the loop last told; never nil.
	directory atomic.Pointer[directory]

	ctx    context.Context // ends when the node is to end; its cause says why
	cancel context.CancelCauseFunc
	work   sync.WaitGroup // appender, snapshots, outboxes, knocks, withdrawals

	incoming incoming   // the snapshot that is coming
	meetings repetition // what the log says of those that fail

	formed chan struct{} // closed by main when the loop runs
	ready  chan struct{} // closed by the loop when this member can serve
	done   chan struct{} // closed by main when all has ended

	calls    callPool
	view     atomic.Pointer[standing]
	sessions atomic.Uint64 // numbers the streams of peers

	mu struct {
		sync.Mutex
		addresses map[string]string // client addresses, by member
		err       error             // what ended the node
		closeErr  error             // of the release of transport and storage
		closing   bool

		withdrawals int  // that are under way
		ended       bool // no goroutine may join work any more
	}
}

// standing is what the loop last told about the member's place in the cluster.
type standing struct {
	term    uint64
	lead    uint64
	leads   bool
	going   bool // the leadership is being handed over
	office  office
	changed chan struct{} // closed when there is a newer one
}

// closeLimit bounds Close, handOverLimit its first part.
const (
	closeLimit    = 5 * time.Second
	handOverLimit = 2 * time.Second
)

// Open starts a member on its storage and transport, which the Node owns from
// the call on, also when it returns an error. It reads the log back, which may
// take a while, and returns without waiting for the other members; see Ready.
// The same call serves the first start and every restart.
//
// The first start needs all initial members up at some time together; a restart
// needs a majority. Errors: a fault in cfg, or one around ErrCorrupt, ErrLocked
// ErrWrongCluster or ErrRemoved.
func Open(cfg Config) (*Node, error) {
	cfg.setDefaults()
	n, found, err := open(cfg)
	if err != nil {
		closeQuietly(&cfg)
		return nil, err
	}
	go n.main(found)
	return n, nil
}

func open(cfg Config) (*Node, recalled, error) {
	if err := cfg.validate(); err != nil {
		return nil, recalled{}, err
	}
	found, err := cfg.Storage.Load()
	if err != nil {
		return nil, recalled{}, fmt.Errorf("load storage: %w", err)
	}
	known, err := recall(&cfg, found)
	if err != nil {
		return nil, recalled{}, fmt.Errorf("load storage: %w", err)
	}
	id, err := identityFor(&cfg, found.Identity, known.now)
	if err != nil {
		return nil, recalled{}, err
	}
	n := &Node{
		cfg: cfg, logger: cfg.Logger.With("member", cfg.Name),
		assembly: newAssembly(&cfg, id),
		inbox:    newInbox(), log: raft.NewMemoryStorage(),
		formed: make(chan struct{}), ready: make(chan struct{}), done: make(chan struct{}),
	}
	n.clock = clock.Of(cfg.Storage)
	n.meetings.clock = n.clock
	n.inbox.clock, n.assembly.clock = n.clock, n.clock
	n.started = n.clock.Now()
	n.mu.addresses = map[string]string{cfg.Name: cfg.ClientAddress}
	n.view.Store(&standing{changed: make(chan struct{})})
	n.directory.Store(&directory{roster: &roster{}})
	n.ctx, n.cancel = context.WithCancelCause(context.Background())
	if cfg.Transport != nil {
		if err := cfg.Transport.Serve(n.accept); err != nil {
			n.cancel(err)
			return nil, recalled{}, fmt.Errorf("serve peers: %w", err)
		}
	}
	return n, known, nil
}

// closeQuietly lets go of what a failed Open had been given; the error of Open
// says what matters.
func closeQuietly(cfg *Config) {
	if cfg.Transport != nil {
		_ = cfg.Transport.Close()
	}
	if cfg.Storage != nil {
		_ = cfg.Storage.Close()
	}
}

// Client returns a client of this member: in process, without the network where
// this member leads, one hop away where it does not. It follows the leader. Each
// call gives a client of its own, whose Close closes only itself.
func (n *Node) Client() client.Client { return newLocalClient(n) }

// Ready is closed when the member can serve: it has met a leader and has applied
// all that was committed by then.
func (n *Node) Ready() <-chan struct{} { return n.ready }

// Done is closed when the member has ended, by Close or by a failure.
func (n *Node) Done() <-chan struct{} { return n.done }

// Err is nil while the member runs and after Close; otherwise it is what ended
// it: an error of the disk, ErrDiskLost, ErrUnknownFormat.
func (n *Node) Err() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.err
}

// IsLeader reports whether this member is raft's leader. It is for operators
// and tests; to elect one of your own processes, hold a lock.
func (n *Node) IsLeader() bool { return n.view.Load().leads }

// Leader returns the name of raft's leader and the address where it serves
// clients, as far as this member knows; both are empty when there is none.
func (n *Node) Leader() (name, clientAddress string) {
	lead := n.view.Load().lead
	if lead == 0 {
		return "", ""
	}
	name = n.directory.Load().nameOf(lead)
	n.mu.Lock()
	defer n.mu.Unlock()
	return name, n.mu.addresses[name]
}

// ClusterID returns the id that the cluster got when it was made, in hexadecimal;
// "" until then. It tells apart clusters of the same name.
func (n *Node) ClusterID() string {
	id := n.assembly.identity().ClusterID
	if id == 0 {
		return ""
	}
	return fmt.Sprintf("%016x", id)
}

// StateHash returns a hash of the lock table and the members, and the index of the
// last entry in it: at one index it is equal on all members. It returns ctx's error, or
// ErrClosed.
func (n *Node) StateHash(ctx context.Context) (index, hash uint64, err error) {
	type state struct{ index, hash uint64 }
	s, err := look(ctx, n, func(r *replica) state { return state{r.applied, r.table.hash() + r.roster.hash()} })
	return s.index, s.hash, err
}

// look returns what the loop sees. When it ends early, with ctx's error or
// ErrClosed, the look may still be taken, for nobody.
func look[T any](ctx context.Context, n *Node, see func(*replica) T) (T, error) {
	var none T
	seen := make(chan T, 1)
	if !n.inbox.request(func(r *replica) { seen <- see(r) }) {
		return none, ErrClosed
	}
	select {
	case v := <-seen:
		return v, nil
	case <-n.done:
		return none, ErrClosed
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

// lookInOrder returns what the loop sees behind the frames that have come. It does
// not wait for the end of a member that is about to end: that waits in turn for the
// streams of its peers, over which this is asked.
func lookInOrder[T any](n *Node, see func(*replica) T) (T, error) {
	var none T
	seen := make(chan T, 1)
	if !n.inbox.inOrder(func(r *replica) { seen <- see(r) }) {
		return none, ErrClosed
	}
	select {
	case v := <-seen:
		return v, nil
	case <-n.ctx.Done():
		return none, ErrClosed
	}
}

// Close hands the leadership to another member, fails what is pending with
// ErrClosed, and lets go of transport and storage. It takes at most 5 s; it
// releases no lock. Close returns the first error of letting go; a second Close
// waits for the first and returns the same.
func (n *Node) Close() error {
	limit := n.clock.NewTimer(closeLimit)
	defer limit.Stop()
	n.mu.Lock()
	first := !n.mu.closing
	n.mu.closing = true
	n.mu.Unlock()
	if first {
		n.handOver()
		n.cancel(ErrClosed)
	}
	select {
	case <-n.done:
	case <-limit.C:
		return fmt.Errorf("close: the disk or the transport did not end within %v", closeLimit)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.closeErr
}

// handOver gives the leadership away, if this member has it and another can
// take it. It waits for the new leader: the vote of this member may be needed.
func (n *Node) handOver() {
	if !n.IsLeader() || !n.inbox.request((*replica).handOver) {
		return
	}
	limit := n.clock.NewTimer(handOverLimit)
	defer limit.Stop()
	for {
		view := n.view.Load()
		going, err := look(n.ctx, n, func(r *replica) bool { return r.handingOver || r.lead == 0 })
		if err != nil || !going {
			return // it is done, or nobody can take it
		}
		select {
		case <-view.changed:
		case <-n.done:
			return
		case <-limit.C:
			return
		}
	}
}

// fail ends the member because of err.
func (n *Node) fail(err error) { n.cancel(err) }

// main is the life of the member.
func (n *Node) main(found recalled) {
	defer close(n.done)
	err := n.live(found)
	if err == nil {
		err = context.Cause(n.ctx)
	}
	n.cancel(err)
	if errors.Is(err, ErrClosed) {
		err = nil
	} else {
		n.logger.Error("member has failed", "error", err)
	}
	n.mu.Lock()
	n.mu.err, n.mu.ended = err, true
	n.mu.Unlock()
	for _, c := range n.inbox.close().calls {
		c.finish(&reply{failure: memberGone})
	}
	if errors.Is(err, errPanicked) {
		n.calls.abort()
	}
	n.view.Store(&standing{changed: make(chan struct{})})
	closeErr := n.letGo()
	n.mu.Lock()
	n.mu.closeErr = closeErr
	n.mu.Unlock()
}

// letGo lets go of everything, in the order in which things depend on it.
func (n *Node) letGo() error {
	var errs []error
	if n.cfg.Transport != nil {
		if err := n.cfg.Transport.Close(); err != nil {
			errs = append(errs, fmt.Errorf("close transport: %w", err))
		}
	}
	n.work.Wait()
	if errors.Is(n.Err(), errSplit) {
		if err := n.assembly.unstart(); err != nil {
			errs = append(errs, err)
		}
	}
	if err := n.cfg.Storage.Close(); err != nil && n.Err() == nil {
		errs = append(errs, fmt.Errorf("close storage: %w", err))
	}
	return errors.Join(errs...)
}

// live is what the member does until it is to end.
func (n *Node) live(found recalled) error {
	if !n.assembly.identity().Started {
		if err := n.assembly.assemble(n.ctx, n.cfg.TickInterval, n.askPeer); err != nil {
			return err
		}
		if found.Snapshot == nil {
			found = begin(n.assembly.identity())
		}
	}
	r, err := n.raise(found)
	if err != nil {
		return err
	}
	n.appender = newAppender(n.cfg.Storage, n.log, n.deliver)
	n.work.Go(func() {
		if err := n.guard(func() error { return n.appender.run(n.ctx.Done()) }); err != nil {
			n.fail(err)
		}
	})
	n.enroll(r.roster, r.self)
	close(n.formed)
	return n.guard(func() error { return n.loop(r) })
}

var errPanicked = errors.New("member panicked")

// guard turns a panic into an error: a broken invariant of ours, or raft's word
// that its log cannot be true, ends the member and not its host.
func (n *Node) guard(run func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			n.logger.Error("panic", "value", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("%w: %v", errPanicked, p)
		}
	}()
	return run()
}

// beside does something beside the loop, which the end of the member waits for.
// Only main and the loop call it.
func (n *Node) beside(what string, do func()) {
	n.work.Go(func() {
		if err := n.guard(func() error { do(); return nil }); err != nil {
			n.fail(fmt.Errorf("%s: %w", what, err))
		}
	})
}

// raise makes the replica from what the storage holds.
func (n *Node) raise(found recalled) (*replica, error) {
	if found.Snapshot == nil {
		return nil, fmt.Errorf("load storage: no snapshot: %w", ErrCorrupt)
	}
	if err := found.fill(n.log); err != nil {
		return nil, fmt.Errorf("load log: %w", err)
	}
	id := n.assembly.identity()
	return newReplica(replicaConfig{
		self: id.nodeID(), smallest: memberNames(id.Members)[0] == id.Name,
		cluster: id.ClusterID, log: n.log, state: found.state, snapshots: n.cfg.Snapshots, seed: randomID(),
		electionTicks: n.cfg.ElectionTicks, tick: n.cfg.TickInterval,
		requestTimeout: n.cfg.RequestTimeout, limits: &n.cfg.Limits, logger: n.logger, newest: n.cfg.newest,
		roster: found.members,
	})
}

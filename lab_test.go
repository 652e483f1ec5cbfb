package raftlock

import (
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftlock/raftlock/pb"
)

// lab runs replicas on one goroutine: the test decides when time passes, whose
// disk works, and which messages arrive. Time is the lab's own; nothing in it
// reads a clock.
type lab struct {
	t     *testing.T
	now   time.Time
	nodes []*labNode
}

const (
	labTick          = 10 * time.Millisecond
	labElectionTicks = 10
	labElection      = labElectionTicks * labTick
)

type labNode struct {
	id      uint64
	r       *replica
	log     *raft.MemoryStorage
	build   format // what it reads and writes at most; 0 is newestFormat
	limits  Limits
	inbox   []*raftpb.Message
	calls   []labForward
	appends []*raftpb.Message
	written uint64 // append messages that are durable
	life    uint64 // counts the starts that are to be told apart

	cut      bool // nothing from or to it arrives
	deaf     bool // nothing arrives
	stopped  bool // it takes no turns: SIGSTOP
	diskHung bool
	// refuses is a type of message that does not arrive here.
	refuses raftpb.MessageType
}

type labForward struct {
	from uint64
	msg  forward
}

func newLab(t *testing.T, size int) *lab {
	l := &lab{t: t, now: time.Unix(1_000_000, 0)}
	voters := make([]uint64, size)
	for i := range voters {
		voters[i] = uint64(i + 1)
	}
	for _, id := range voters {
		l.nodes = append(l.nodes, &labNode{id: id, log: labLog(voters)})
	}
	// The first one last: it campaigns as soon as it starts, and is heard.
	for _, n := range slices.Backward(l.nodes) {
		l.boot(n)
	}
	return l
}

func labSnapshots() (s Snapshots) {
	s.setDefaults()
	return s
}

func labLog(voters []uint64) *raft.MemoryStorage {
	log := raft.NewMemoryStorage()
	index, term := uint64(firstIndex), uint64(1)
	_ = log.ApplySnapshot(&raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
		ConfState: &raftpb.ConfState{Voters: voters}, Index: &index, Term: &term,
	}})
	_ = log.SetHardState(&raftpb.HardState{Term: &term, Commit: &index})
	return log
}

// boot starts a node, or starts it again with what its log holds.
func (l *lab) boot(n *labNode) {
	l.t.Helper()
	n.limits.setDefaults()
	r, err := newReplica(replicaConfig{
		self: n.id, smallest: n.id == 1, log: n.log, seed: 1000*n.id + n.life<<32, snapshots: labSnapshots(),
		electionTicks: labElectionTicks, tick: labTick, requestTimeout: 30 * time.Second,
		limits: &n.limits, logger: slog.New(slog.DiscardHandler), newest: n.newest(),
		roster: n.roster(),
	})
	if err != nil {
		l.t.Fatal(err)
	}
	n.r = r
	n.inbox, n.calls, n.appends, n.written = nil, nil, nil, 0
	r.begin(l.now)
	for _, other := range l.nodes {
		if other != n {
			r.peerReads(other.id, other.newest())
			r.peerUp(other.id)
			r.sessionUp(other.id, 1)
			if other.r != nil {
				other.r.peerReads(n.id, n.newest())
			}
		}
	}
	l.settle()
}

// roster is who the cluster was made of: all voters of the log's first state.
func (n *labNode) roster() *roster {
	_, conf, _ := n.log.InitialState()
	t := &roster{index: firstIndex}
	for _, id := range conf.GetVoters() {
		t.records = append(t.records, record{name: fmt.Sprintf("n%d", id), since: firstIndex, node: id, incarnation: id, voter: true})
	}
	return t
}

func (n *labNode) newest() format {
	if n.build == 0 {
		return newestFormat
	}
	return n.build
}

// turn lets a node take what has arrived and work.
func (l *lab) turn(n *labNode, ticks int) {
	l.t.Helper()
	if n.stopped {
		return
	}
	n.r.begin(l.now)
	for range ticks {
		n.r.disk.observe(n.written+uint64(len(n.appends)), n.written)
		n.r.tick()
	}
	inbox, calls := n.inbox, n.calls
	n.inbox, n.calls = nil, nil
	for _, m := range inbox {
		if err := n.r.step(m); err != nil {
			l.t.Fatal(err)
		}
	}
	for _, c := range calls {
		n.r.receive(c.from, 1, c.msg)
	}
	if err := n.r.advance(func() { l.carryOut(n) }); err != nil {
		l.t.Fatal(err)
	}
}

// carryOut does what a node's replica wants done.
func (l *lab) carryOut(n *labNode) {
	out := n.r.out
	n.r.out = outputs{}
	n.appends = append(n.appends, out.appends...)
	for _, m := range out.messages {
		l.send(n, m)
	}
	for _, f := range out.forwards {
		if to := l.node(f.to); l.joined(n, to) {
			to.calls = append(to.calls, labForward{n.id, f.msg})
		}
	}
	if !n.diskHung {
		l.flush(n)
	}
}

// flush makes a node's pending appends durable.
func (l *lab) flush(n *labNode) {
	appends := n.appends
	n.appends = nil
	if len(appends) == 0 {
		return
	}
	a := newAppender(labStorage{}, n.log, func(responses []*raftpb.Message) {
		for _, m := range responses {
			l.send(n, m)
		}
	})
	if err := a.write(appends); err != nil {
		l.t.Fatal(err)
	}
	n.written += uint64(len(appends))
}

// labStorage is a disk that forgets nothing while its log is in memory.
type labStorage struct{ Storage }

func (labStorage) Append(*raftpb.HardState, []*raftpb.Entry) error { return nil }

func (l *lab) send(from *labNode, m *raftpb.Message) {
	to := l.node(m.GetTo())
	if to == nil {
		from.inbox = append(from.inbox, m) // the disk's answer
		return
	}
	if to == from || l.joined(from, to) && m.GetType() != to.refuses {
		to.inbox = append(to.inbox, m)
	}
}

func (l *lab) joined(from, to *labNode) bool { return !from.cut && !to.cut && !to.deaf }

func (l *lab) node(id uint64) *labNode {
	if id < 1 || id > uint64(len(l.nodes)) {
		return nil
	}
	return l.nodes[id-1]
}

// settle lets all nodes work until nothing is left to do, without time passing.
func (l *lab) settle() {
	l.t.Helper()
	for range 1000 {
		for _, n := range l.nodes {
			if n.r != nil {
				l.turn(n, 0)
			}
		}
		if !l.busy() {
			return
		}
	}
	l.t.Fatal("the lab does not come to rest")
}

func (l *lab) busy() bool {
	for _, n := range l.nodes {
		if n.r != nil && !n.stopped && (len(n.inbox)+len(n.calls) > 0 || n.r.wantsTurn()) {
			return true
		}
	}
	return false
}

// pass lets time pass in ticks; d is a multiple of labTick.
func (l *lab) pass(d time.Duration) {
	l.t.Helper()
	for ; d > 0; d -= labTick {
		l.now = l.now.Add(labTick)
		for _, n := range l.nodes {
			l.turn(n, 1)
		}
		l.settle()
	}
}

// jump lets time pass at once, as when all members are stopped together.
func (l *lab) jump(d time.Duration) { l.now = l.now.Add(d) }

// elect makes a node the leader and lets it take office, whatever leader the
// others believe in: they are asked as in a transfer of the leadership.
func (l *lab) elect(n *labNode) {
	l.t.Helper()
	if n.r.office == officeOpen {
		return
	}
	n.r.begin(l.now)
	err := n.r.step(&raftpb.Message{
		Type: raftpb.MsgTimeoutNow.Enum(), From: new(n.id), To: new(n.id), Term: new(n.r.term),
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.settle()
	if n.r.office != officeOpen {
		l.t.Fatalf("node %d is not elected", n.id)
	}
}

// leader waits for a leader in office among the nodes that take part.
func (l *lab) leader() *labNode {
	l.t.Helper()
	for range 20 * labElectionTicks {
		for _, n := range l.nodes {
			if n.r.office == officeOpen && !n.cut && !n.stopped {
				return n
			}
		}
		l.pass(labTick)
	}
	l.t.Fatal("no leader")
	return nil
}

// submit hands a command to a node as a call of its own process.
func (l *lab) submit(n *labNode, cmd command) *call {
	c := &call{cmd: cmd, refusal: n.limits.check(&cmd), done: make(chan struct{}, 1), patience: holdLimit, arrived: l.now, since: l.now}
	c.lane = laneOf(c)
	n.r.begin(l.now)
	n.r.submit(c)
	return c
}

// do submits a command and returns its result, which must come without time passing.
func (l *lab) do(n *labNode, cmd command) reply {
	l.t.Helper()
	c := l.submit(n, cmd)
	l.settle()
	select {
	case <-c.done:
		return c.reply
	default:
		l.t.Fatalf("no answer to %+v", cmd)
		return reply{}
	}
}

// waitFor takes the reply of a call that is answered.
func waitFor(c *call) reply {
	<-c.done
	return c.reply
}

// acquire takes a lock for a client, which must succeed.
func (l *lab) acquire(n *labNode, lock, client string, ttl time.Duration) reply {
	l.t.Helper()
	rep := l.do(n, command{kind: cmdAcquire, lock: lock, client: client, attempt: 1, ttl: span(ttl)})
	if rep.failure != nil || rep.result.code != pb.ErrorCode_OK {
		l.t.Fatalf("acquire: %+v %+v", rep.failure, rep.result)
	}
	return rep
}

// owner is who holds a lock by a node's own table.
func (n *labNode) owner(lock string) string {
	v, _ := n.r.table.info(lock)
	return v.owner
}

// freedAfter lets time pass until the leader's table says that the lock is
// free, and returns how long that took.
func (l *lab) freedAfter(lock string, limit time.Duration) time.Duration {
	l.t.Helper()
	begun := l.now
	for l.now.Sub(begun) < limit {
		for _, n := range l.nodes {
			if n.r.office == officeOpen && !n.cut && n.owner(lock) == "" {
				return l.now.Sub(begun)
			}
		}
		l.pass(labTick)
	}
	l.t.Fatalf("%s is still held after %v", lock, limit)
	return 0
}

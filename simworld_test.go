package raftlock

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"github.com/raftlock/raftlock/history"
)

// sim is a cluster with its clients, networks, disks and clocks, all on one
// goroutine. The replicas, their logs and snapshots, the log's writer, the frames
// and the hellos are those of the product; time, the network, the disk under the
// log and chance are the simulation's own. Nothing in it reads a real clock, and
// all chance comes from one seed, so that the same seed makes the same run.
type sim struct {
	seed  uint64
	dice  *rand.Rand
	shape simShape

	now    time.Duration // true time
	queue  simQueue
	placed uint64 // events, for the order of those of one instant

	members []*simMember // all that there ever were
	clients []*simClient
	faults  *simFaults
	changer *simChanger
	oracle  *simOracle
	trace   simTrace
	tally   simTally

	calm  bool // no fault strikes any more
	wrong error
}

// simShape is what kind of cluster a seed makes.
type simShape struct {
	size      int
	clients   int
	locks     int
	snapshots Snapshots
	limits    Limits
	changes   bool          // members come and go
	length    time.Duration // of the time with faults
	think     time.Duration // about how long a client does nothing between two calls
}

// simTally is what happened.
type simTally struct {
	Answers int // acknowledged operations: what the table answered
	Grants  int
	Handed  int // grants to those who waited
	Unknown int // operations without an answer

	Renewals, Withdrawals, Enqueues int // those that the table made
	Limited, QueueFull              int // calls that met a limit: of a member, and of a lock's queue

	Faults   map[string]int
	Changes  int // of the members
	Installs int // snapshots that came from a leader
	Taken    int // snapshots
	Terms    int // leaders in office
	Entries  uint64
	Compared int // state hashes
	Gaps     int // times without a leader, over which the stamps were compared
	Virtual  time.Duration
}

func (t *simTally) add(o *simTally) {
	t.Answers += o.Answers
	t.Grants += o.Grants
	t.Handed += o.Handed
	t.Unknown += o.Unknown
	t.Renewals += o.Renewals
	t.Withdrawals += o.Withdrawals
	t.Enqueues += o.Enqueues
	t.Limited += o.Limited
	t.QueueFull += o.QueueFull
	t.Changes += o.Changes
	t.Installs += o.Installs
	t.Taken += o.Taken
	t.Terms += o.Terms
	t.Entries += o.Entries
	t.Compared += o.Compared
	t.Gaps += o.Gaps
	t.Virtual += o.Virtual
	if t.Faults == nil {
		t.Faults = map[string]int{}
	}
	for kind, n := range o.Faults {
		t.Faults[kind] += n
	}
}

const (
	simTick = 10 * time.Millisecond
	// simRevival is how long after the last fault the cluster may take until it
	// serves everybody again.
	simRevival = 20 * time.Second
	// simTransit is how long after the last answer the last word about the calls of
	// clients may be on its way, and simRest how long until no wait is left, and no
	// grant, that may still be claimed.
	simTransit = time.Second
	simRest    = 12 * time.Second
)

func shapeOf(dice *rand.Rand) simShape {
	s := simShape{
		size: 3 + 2*dice.IntN(2), clients: 10 + dice.IntN(16), locks: 2 + dice.IntN(10),
		changes: dice.IntN(2) == 0, length: 7500 * time.Millisecond,
		think: time.Duration(2+dice.IntN(16)) * time.Millisecond,
	}
	s.snapshots = Snapshots{MinLogBytes: 1<<10 + dice.IntN(16<<10), KeepLogBytes: 1<<10 + dice.IntN(4<<10)}
	if dice.IntN(4) == 0 {
		s.snapshots = Snapshots{} // none in so short a time
	}
	s.snapshots.setDefaults()
	s.limits.MinTTL = 20 * time.Millisecond
	if dice.IntN(4) == 0 {
		s.limits.Pending, s.limits.LockWaiters = 1+dice.IntN(8), 1+dice.IntN(4)
	}
	s.limits.setDefaults()
	return s
}

func newSim(seed uint64) *sim {
	s := &sim{seed: seed, dice: rand.New(rand.NewPCG(seed, 0))}
	s.shape = shapeOf(s.dice)
	s.tally.Faults = map[string]int{}
	s.oracle = newSimOracle(s)
	s.faults = &simFaults{s: s}
	s.changer = &simChanger{s: s}
	names := make([]string, s.shape.size)
	for i := range names {
		names[i] = fmt.Sprintf("n%d", i+1)
	}
	s.found(names)
	for i := range s.shape.clients {
		s.clients = append(s.clients, newSimClient(s, i))
	}
	return s
}

// run lets the cluster suffer and work, and then recover. It returns what broke a
// promise.
func (s *sim) run() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic at %v: %v\n%s", s.now, p, debug.Stack())
		}
	}()
	for _, c := range s.clients {
		s.after(s.draw(50*time.Millisecond), c.next)
	}
	s.faults.begin()
	if s.shape.changes {
		s.changer.begin()
	}
	s.advance(s.shape.length, nil)
	s.calm = true
	s.faults.relent()
	for _, c := range s.clients {
		c.hurry()
	}
	begun := s.now
	if s.advance(simRevival, s.revived); s.wrong == nil && !s.revived() {
		return fmt.Errorf("not everybody is served again %v after the last fault: %s", s.now-begun, s.standing())
	}
	s.rest()
	s.tally.Virtual, s.tally.Compared, s.tally.Entries, s.tally.Gaps = s.now, s.oracle.compared, s.oracle.last, s.oracle.gaps
	if s.wrong != nil {
		return s.wrong
	}
	return s.judge()
}

// rest lets the cluster be, when all clients are content and none asks for anything.
// Then nothing may wait that none of them waits for, and no lock be granted.
func (s *sim) rest() {
	s.advance(simTransit, nil)
	leader := s.leader()
	if leader == nil {
		s.fail("there is no leader any more")
	}
	if s.wrong != nil {
		return
	}
	for _, m := range s.living() {
		if attached, guests := len(m.r.waits.attached), len(m.r.waits.guests); attached+guests > 0 {
			s.fail("%s has %d calls that wait, %d of other members, and nobody waits for them", m.name, attached, guests)
		}
		for _, c := range m.r.forwards.calls {
			if c.wish == nil {
				s.fail("%s has forwarded a call that nobody waits for", m.name)
			}
		}
	}
	if !s.one(8) { // the rest takes longer than all that was before
		return
	}
	token := leader.r.table.token
	s.advance(simRest, nil)
	for _, m := range s.living() {
		if n := m.r.table.waiterCount(); n > 0 {
			s.fail("%d places are kept for nobody at %s", n, m.name)
		}
		for lock := range s.shape.locks {
			if v, _ := m.r.table.info(simLock(lock)); v.owner != "" && v.version > token {
				s.fail("%s is granted to %s by token %d, which does not know of it", v.id, v.owner, v.version)
			}
		}
		if m.r.load != ([lanes]load{}) {
			s.fail("%s has the load %+v when all is done", m.name, m.r.load)
		}
	}
}

// judge holds what the clients have seen against the rules of package history.
func (s *sim) judge() error {
	h := &history.History{}
	for _, c := range s.clients {
		h.Ops = append(h.Ops, c.ops...)
	}
	return h.Check(history.Bounds{}).Err()
}

// advance lets d pass, or less when enough says so.
func (s *sim) advance(d time.Duration, enough func() bool) {
	until := s.now + d
	look := s.now
	for len(s.queue) > 0 && s.queue[0].at <= until && s.wrong == nil {
		e := heap.Pop(&s.queue).(simEvent)
		s.now = e.at
		e.do()
		if enough != nil && s.now >= look {
			if enough() {
				return
			}
			look = s.now + simTick
		}
	}
	if s.wrong == nil {
		s.now = max(s.now, until)
	}
}

// after has something done after d.
func (s *sim) after(d time.Duration, do func()) {
	s.placed++
	heap.Push(&s.queue, simEvent{at: s.now + max(0, d), placed: s.placed, do: do})
}

// draw is a random time below d.
func (s *sim) draw(d time.Duration) time.Duration { return time.Duration(s.dice.Int64N(int64(d) + 1)) }

// last reports whether the faults are about to end, or have. What is taken then is kept
// for long, so that a wait for nobody is not granted before it is seen.
func (s *sim) last() bool { return s.now > s.shape.length-500*time.Millisecond }

// one reports true once in n times.
func (s *sim) one(n int) bool { return s.dice.IntN(n) == 0 }

// fail ends the run: a promise is broken.
func (s *sim) fail(format string, args ...any) {
	if s.wrong == nil {
		s.wrong = fmt.Errorf("at %v: %w", s.now, fmt.Errorf(format, args...))
	}
}

// living are the members that run, in order.
func (s *sim) living() (list []*simMember) {
	for _, m := range s.members {
		if m.alive {
			list = append(list, m)
		}
	}
	return list
}

// leader is the member in office with the greatest term, nil if there is none.
func (s *sim) leader() (leader *simMember) {
	for _, m := range s.living() {
		if m.r.office == officeOpen && (leader == nil || m.r.term > leader.r.term) {
			leader = m
		}
	}
	return leader
}

// revived reports whether all clients have been served by every member since the
// faults ended, all members vote, and all have applied the same.
func (s *sim) revived() bool {
	for _, c := range s.clients {
		if !c.content() {
			return false
		}
	}
	return s.united()
}

func (s *sim) united() bool {
	leader := s.leader()
	if leader == nil {
		return false
	}
	for i := range leader.r.roster.records {
		rec := &leader.r.roster.records[i]
		m := s.byNode(rec.node)
		if m == nil || !m.alive || !rec.voter || m.r.roster.index != leader.r.roster.index || m.r.applied != leader.r.applied {
			return false
		}
	}
	return true
}

func (s *sim) byNode(node uint64) *simMember {
	for _, m := range s.members {
		if node != 0 && m.node == node {
			return m
		}
	}
	return nil
}

// standing says where everybody is, for a run that failed.
func (s *sim) standing() string {
	text := ""
	for _, m := range s.members {
		text += "\n\t" + m.String()
	}
	for _, c := range s.clients {
		text += "\n\t" + c.String()
	}
	return text
}

// simEvent is something that will happen.
type simEvent struct {
	at     time.Duration
	placed uint64
	do     func()
}

// simQueue is the heap of what will happen.
type simQueue []simEvent

func (q simQueue) Len() int      { return len(q) }
func (q simQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q simQueue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].placed < q[j].placed
}
func (q *simQueue) Push(e any) { *q = append(*q, e.(simEvent)) }
func (q *simQueue) Pop() any {
	old := *q
	e := old[len(old)-1]
	old[len(old)-1] = simEvent{}
	*q = old[:len(old)-1]
	return e
}

// simTrace is a hash over all that happened, in order.
type simTrace struct {
	sum   uint64
	steps []uint64 // the sum after each step, if they are kept
	keeps bool
}

func (t *simTrace) note(words ...uint64) {
	for _, w := range words {
		t.sum = mixWord(t.sum, w)
	}
	if t.keeps {
		t.steps = append(t.steps, t.sum)
	}
}

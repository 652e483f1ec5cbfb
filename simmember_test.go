package raftlock

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// simMember is a place where a member runs, or has run: its disk, its clock, and
// the member itself while it is alive. It does what the goroutines of a Node do.
type simMember struct {
	s      *sim
	name   string
	number int
	node   uint64 // 0 until it has a place
	cfg    Config
	disk   *simDisk
	clock  simClock

	alive   bool
	stopped bool // SIGSTOP
	gone    bool // it was removed, and knows it
	life    int  // counts the starts
	late    []func()

	r        *replica
	log      *raft.MemoryStorage
	assembly *assembly
	known    *roster // whom it speaks with
	links    map[uint64]*simLink
	sessions uint64
	ticks    metronome
	alarm    int
	turnDue  bool
	compared uint64 // the entry whose state was compared last

	calls    []*call
	answers  []*raftpb.Message
	frames   []func(*replica) error
	requests []func(*replica)
	applies  []*raftpb.Message // one entry each
	open     []*simCall
	coming   *simTransfer // the snapshot that is coming
}

func (m *simMember) String() string {
	switch {
	case m.gone:
		return m.name + " is gone"
	case !m.alive:
		return m.name + " is down"
	}
	return fmt.Sprintf("%s node %d: term %d, lead %d, office %d, commit %d, applied %d, members at %d, stopped %v, disk %+v, %d calls",
		m.name, m.node, m.r.term, m.r.lead, m.r.office, m.r.commit, m.r.applied, m.r.roster.index, m.stopped, m.disk.state(), len(m.open))
}

// simClock is a member's own clock: it goes wrong by so many millionths.
type simClock struct {
	at    time.Duration
	local time.Time
	ppm   int64
}

// now is what the clock shows at a true time.
func (c *simClock) now(at time.Duration) time.Time {
	d := at - c.at
	return c.local.Add(d + time.Duration(int64(d)*c.ppm/1_000_000))
}

// length is how long a time by this clock takes.
func (c *simClock) length(d time.Duration) time.Duration {
	return d - time.Duration(int64(d)*c.ppm/1_000_000)
}

// back is how long ago an instant of this clock was.
func (c *simClock) back(now time.Duration, instant time.Time) time.Duration {
	return c.length(c.now(now).Sub(instant))
}

// skew makes the clock go at another rate from now on.
func (c *simClock) skew(now time.Duration, ppm int64) {
	c.local, c.at = c.now(now), now
	c.ppm = ppm
}

func (s *sim) newMember(name string) *simMember {
	m := &simMember{s: s, name: name, number: len(s.members)}
	m.clock = simClock{local: time.Unix(1_700_000_000+s.dice.Int64N(1_000_000), s.dice.Int64N(1e9)), ppm: s.dice.Int64N(1001) - 500}
	m.empty()
	s.members = append(s.members, m)
	return m
}

// empty gives the member a new disk.
func (m *simMember) empty() {
	m.disk = newSimDisk(m)
	m.node = 0
}

func (m *simMember) configure(names []string) {
	m.cfg = Config{
		Name: m.name, Storage: m.disk.hold, InitialCluster: map[string]string{}, Snapshots: m.s.shape.snapshots,
		TickInterval: simTick, Limits: m.s.shape.limits, RequestTimeout: 10 * time.Second,
	}
	for _, name := range names {
		m.cfg.InitialCluster[name] = name + ":1"
	}
	m.cfg.setDefaults()
}

// found makes the first members, as they are when they have met.
func (s *sim) found(names []string) {
	ids := map[string]MemberID{}
	for _, name := range names {
		m := s.newMember(name)
		id := s.dice.Uint64()>>1 | 1
		ids[name], m.node = MemberID{NodeID: id, Incarnation: id}, id
	}
	cluster := s.dice.Uint64() | 1
	for _, m := range s.members {
		m.configure(names)
		m.write(Identity{Name: m.name, ClusterName: m.cfg.ClusterName, Incarnation: m.node}, func(id Identity) error {
			id.ClusterID, id.Members, id.Started = cluster, ids, true
			return m.disk.hold.Bootstrap(id)
		})
	}
	for _, m := range s.members {
		m.boot()
	}
}

// write makes an identity on an empty disk, and lets it grow.
func (m *simMember) write(bare Identity, grow func(Identity) error) {
	_, err := m.disk.hold.Load()
	if err == nil {
		err = m.disk.hold.SaveIdentity(bare)
	}
	if err == nil {
		err = grow(bare)
	}
	m.check(err)
	m.disk.hold = m.disk.hold.Reopen()
}

// boot starts the member on what is on its disk.
func (m *simMember) boot() {
	m.life++
	m.cfg.Storage = m.disk.hold
	found, err := m.disk.hold.Load()
	if err != nil {
		m.s.fail("%s: load: %w", m.name, err)
		return
	}
	known, err := recall(&m.cfg, found)
	if err != nil {
		m.s.fail("%s: recall: %w", m.name, err)
		return
	}
	id, err := identityFor(&m.cfg, found.Identity, known.now)
	if errors.Is(err, ErrRemoved) {
		m.leave(err)
		return
	} else if err != nil {
		m.s.fail("%s: identity: %w", m.name, err)
		return
	}
	m.node = id.nodeID()
	m.raise(id, known)
	m.turn()
}

func (m *simMember) raise(id Identity, found recalled) {
	m.log = raft.NewMemoryStorage()
	m.check(found.fill(m.log))
	r, err := newReplica(replicaConfig{
		self: m.node, smallest: memberNames(id.Members)[0] == id.Name, cluster: id.ClusterID,
		log: m.log, state: found.state, snapshots: m.cfg.Snapshots, seed: m.s.dice.Uint64() >> 1,
		electionTicks: m.cfg.ElectionTicks, tick: simTick, requestTimeout: m.cfg.RequestTimeout,
		limits: &m.cfg.Limits, logger: m.cfg.Logger, newest: m.cfg.newest, roster: found.members,
	})
	if err != nil {
		m.s.fail("%s: %w", m.name, err)
		return
	}
	m.r, m.alive, m.stopped = r, true, false
	m.assembly = newAssembly(&m.cfg, id)
	m.known, m.links, m.late = nil, map[uint64]*simLink{}, nil
	m.ticks = metronome{interval: simTick, last: m.local(), rest: 1}
	m.turnDue, m.compared = false, 0
	m.calls, m.answers, m.frames, m.requests, m.applies, m.open = nil, nil, nil, nil, nil, nil
	m.disk.begin(m)
}

func (m *simMember) check(err error) {
	if err != nil {
		m.s.fail("%s: %w", m.name, err)
	}
}

func (m *simMember) local() time.Time { return m.clock.now(m.s.now) }

// after has something done in this life after a time, and not while the process
// is stopped.
func (m *simMember) after(d time.Duration, do func()) {
	life := m.life
	m.s.after(d, func() {
		switch {
		case !m.alive || m.life != life:
		case m.stopped:
			m.late = append(m.late, do)
		default:
			do()
		}
	})
}

// wake has the loop take a turn.
func (m *simMember) wake() {
	if !m.turnDue {
		m.turnDue = true
		m.after(m.s.draw(60*time.Microsecond), m.turn)
	}
}

// turn is what the loop of a Node does between two sleeps.
func (m *simMember) turn() {
	m.turnDue = false
	now := m.local()
	r := m.r
	r.begin(now)
	for due := m.ticks.due(now); due > 0; due-- {
		r.disk.observe(m.disk.given, m.disk.done)
		r.tick()
	}
	if err := m.work(); err != nil {
		m.end(err)
		return
	}
	m.s.oracle.leads(m)
	m.s.trace.note(uint64(m.s.now), uint64(m.number), r.term, r.lead, r.commit, r.applied, r.table.hash())
	m.answer()
	wait := m.ticks.next(now, r.rest())
	if end, ok := r.nextAlarm(); ok {
		wait = min(wait, end)
	}
	m.alarm++
	alarm := m.alarm
	m.after(m.clock.length(max(0, wait))+1, func() {
		if alarm == m.alarm {
			m.wake()
		}
	})
	if r.wantsTurn() {
		m.wake()
	}
}

// work hands in what has come and lets the replica work.
func (m *simMember) work() error {
	requests, answers, frames, calls := m.requests, m.answers, m.frames, m.calls
	m.requests, m.answers, m.frames, m.calls = nil, nil, nil, nil
	for _, request := range requests {
		request(m.r)
	}
	for _, a := range answers {
		if err := m.r.step(a); err != nil {
			return err
		}
	}
	for _, f := range frames {
		if err := f(m.r); err != nil {
			return err
		}
	}
	for _, c := range calls {
		m.r.submit(c)
	}
	return m.r.advance(m.emit)
}

// emit carries out what the replica wants done, and has it apply one entry at a
// time, so that the state after each can be compared.
func (m *simMember) emit() {
	m.carryOut()
	m.s.oracle.compare(m)
	for _, a := range m.r.applies {
		entries := a.GetEntries()
		for i, e := range entries {
			one := &raftpb.Message{Entries: []*raftpb.Entry{e}}
			if i == len(entries)-1 {
				one.Responses = a.GetResponses()
			}
			m.applies = append(m.applies, one)
		}
	}
	m.r.applies = nil
	if len(m.applies) > 0 {
		m.r.applies = m.applies[:1:1]
		m.applies = m.applies[1:]
		m.s.oracle.applies(m, m.r.applies[0].GetEntries()[0])
	}
}

func (m *simMember) carryOut() {
	r := m.r
	out := r.out
	r.out = outputs{}
	var parted []*simLink
	if now := r.company(); now != m.known {
		parted = m.enroll(now)
	}
	m.s.oracle.proposes(m, out.appends)
	m.deliver(out.messages)
	m.disk.append(out.appends)
	byPeer := map[uint64][]forward{}
	for _, f := range out.forwards {
		byPeer[f.to] = append(byPeer[f.to], f.msg)
	}
	for _, to := range slices.Sorted(maps.Keys(byPeer)) {
		if l := m.links[to]; l != nil {
			l.send(nil, byPeer[to])
		}
	}
	for _, order := range out.sends {
		m.sendSnapshot(order)
	}
	if out.snapshot != nil {
		m.takeSnapshot(out.snapshot)
	}
	for _, l := range parted {
		l.part()
	}
}

// deliver sends messages to their members: those to this one are the disk's.
func (m *simMember) deliver(messages []*raftpb.Message) {
	for _, msg := range messages {
		if msg.GetTo() == m.node {
			m.answers = append(m.answers, msg)
			m.wake()
		} else if l := m.links[msg.GetTo()]; l != nil {
			l.send([]*raftpb.Message{msg}, nil)
		}
	}
}

// enroll begins to speak with those who are new in a roster, and returns the links
// to those that are gone.
func (m *simMember) enroll(now *roster) (parted []*simLink) {
	m.known = now
	m.assembly.learn(now)
	for i := range now.records {
		rec := &now.records[i]
		if rec.node != 0 && rec.node != m.node && m.links[rec.node] == nil {
			l := &simLink{s: m.s, from: m, to: rec.node, name: rec.name}
			m.links[rec.node] = l
			l.dial()
		}
	}
	for _, node := range slices.Sorted(maps.Keys(m.links)) {
		if now.byNode(node) == nil {
			parted = append(parted, m.links[node])
			delete(m.links, node)
		}
	}
	return parted
}

// end is the end of a member by an error.
func (m *simMember) end(err error) {
	switch {
	case errors.Is(err, ErrRemoved):
		m.leave(err)
	case errors.Is(err, errSimDisk):
		m.crash(false)
	default:
		m.s.fail("%s has ended: %w", m.name, err)
	}
}

// leave is the end of a member that hears that it was removed. It must be true.
func (m *simMember) leave(err error) {
	if !m.s.oracle.wasRemoved(m.node) {
		m.s.fail("%s, node %d, hears that it was removed and was not: %w", m.name, m.node, err)
	}
	m.crash(false)
	m.gone = true
}

// crash is kill -9, or with torn a power cut.
func (m *simMember) crash(torn bool) {
	if m.alive {
		m.s.oracle.stops(m)
		m.alive, m.stopped = false, false
		m.s.breakLinks(m)
		if m.coming != nil {
			m.coming.end(errors.New("the peer has died"))
		}
		for _, c := range m.open {
			c.lost()
		}
		m.open = nil
	}
	m.disk.crash(torn)
}

func (m *simMember) pause() {
	m.s.oracle.stops(m)
	m.stopped = true
}

func (m *simMember) resume() {
	if !m.alive || !m.stopped {
		return
	}
	m.stopped = false
	m.s.oracle.goesOn(m)
	late := m.late
	m.late = nil
	for _, do := range late {
		m.after(0, do)
	}
}

// request has the loop do something.
func (m *simMember) request(do func(*replica)) {
	m.requests = append(m.requests, do)
	m.wake()
}

// inOrder has it done behind the frames that have come.
func (m *simMember) inOrder(do func(*replica) error) {
	m.frames = append(m.frames, do)
	m.wake()
}

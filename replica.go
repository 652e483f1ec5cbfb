package raftlock

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// replica is the synchronous core of a member: raft, the lock table, cluster
// time, and the calls that wait. It has no goroutine and does no I/O: whoever
// owns it (the loop of a Node, or a simulation) begins a turn, hands in what
// has come, calls advance, and carries out what is in out.
type replica struct {
	self     uint64
	limits   *Limits
	bounds   bounds
	logger   *slog.Logger
	smallest bool // this member's name is the first of the initial ones

	electionTicks  int
	requestTimeout time.Duration

	raw   *raft.RawNode
	log   *logStore
	table *table
	clock clusterClock

	now   time.Time // of this turn
	ticks int
	beat  int // the tick of the last heartbeat: sent by a leader, received by a follower

	// What raft said last.
	term, lead uint64
	role       raft.StateType
	commit     uint64
	applied    uint64
	stampTerm  uint64 // of the last applied entry with a stamp
	// newestApplied is the newest format of the applied entries.
	newestApplied format

	// office is how far this member has come as the leader of term.
	office       office
	openFirst    bool   // the opening entry is the term's first
	opener       bool   // the opening entry is proposed
	ledSince     int    // the tick of taking office in this term
	opening      uint64 // counts the ways into officeOpening, so that only the last one's entry opens
	stampWanted  bool   // an entry is wanted though no call waits
	handingOver  bool   // the leadership is being given away
	heir         uint64 // to whom; 0: to whoever has most of the log
	transferring bool   // raft has been told to give it away
	refused      bool   // raft took no proposal; it is asked again with the next tick

	held      []*call // calls that wait for a leader
	load      [lanes]load
	proposals proposals
	waits     waits
	reads     reads
	forwards  forwards
	changes   changes
	roster    *roster           // who belongs to the cluster, as of applied; never nil
	told      *roster           // the same, as a peer has told; nil before one has
	conf      *raftpb.ConfState // the same to raft
	cluster   uint64            // its id

	horizon horizon
	sending map[uint64]uint64 // peers that a snapshot is on its way to, and its index
	// sendFailures are peers that the last one did not come to, and how many.
	sendFailures map[uint64]int
	offer        *loaded   // the snapshot that raft is offered in this turn
	arriving     []*loaded // those that raft has taken and that are not installed yet

	up       map[uint64]bool   // peers whose outgoing stream is up
	sessions map[uint64]uint64 // the stream over which each peer's calls come
	heard    map[uint64]int    // the tick of each peer's last message

	disk               diskWatch
	formats            formats
	stats              stats
	tidings            tidings
	diskTerm, diskVote uint64 // of the last hard state that went to the disk

	decoded entry // scratch of applyEntry
	probe   *call // the read that finds out whether this member is ready

	applies []*raftpb.Message // MsgStorageApply, to be applied in this turn
	out     outputs
}

// outputs is what a turn wants done, in order within each kind.
type outputs struct {
	messages []*raftpb.Message // to peers, at once
	appends  []*raftpb.Message // MsgStorageAppend: to the disk; the responses go out when it is durable
	forwards []outgoing        // to peers
	sends    []sendOrder       // snapshots to peers, each on a stream of its own
	snapshot *takenSnapshot    // to the disk, beside the log; nil when there is none
}

type outgoing struct {
	to  uint64
	msg forward
}

// firstIndex is the index of the state that every log begins after.
const firstIndex = 1

// holdLimit is how long a call may wait for being proposed, measured by each
// member that it reaches.
const holdLimit = 5 * time.Second

type replicaConfig struct {
	self           uint64
	smallest       bool
	cluster        uint64
	log            *raft.MemoryStorage
	state          *loaded // what log begins after; nil: nothing, or the first state
	snapshots      Snapshots
	seed           uint64 // where the numbers of forwarded calls begin
	electionTicks  int
	tick           time.Duration
	requestTimeout time.Duration
	limits         *Limits
	logger         *slog.Logger
	newest         format  // that this build reads and writes
	roster         *roster // of the first state
}

func newReplica(cfg replicaConfig) (*replica, error) {
	log := &logStore{MemoryStorage: cfg.log}
	begin, err := cfg.log.Snapshot()
	if err != nil {
		return nil, fmt.Errorf("start raft: %w", err)
	}
	applied := begin.GetMetadata().GetIndex()
	raw, err := raft.NewRawNode(&raft.Config{
		ID:                        cfg.self,
		ElectionTick:              cfg.electionTicks,
		HeartbeatTick:             beatTicks(cfg.electionTicks),
		Storage:                   log,
		Applied:                   applied,
		AsyncStorageWrites:        true,
		MaxSizePerMsg:             1 << 20,
		MaxCommittedSizePerReady:  4 << 20,
		MaxUncommittedEntriesSize: 128 << 20,
		MaxInflightMsgs:           256,
		MaxInflightBytes:          16 << 20,
		CheckQuorum:               true,
		PreVote:                   true,
		ReadOnlyOption:            raft.ReadOnlySafe,
		DisableProposalForwarding: true,
		StepDownOnRemoval:         true,
		Logger:                    raftLogger{cfg.logger},
	})
	if err != nil {
		return nil, fmt.Errorf("start raft: %w", err)
	}
	r := &replica{
		self: cfg.self, smallest: cfg.smallest,
		limits: cfg.limits, bounds: cfg.limits.bounds(), logger: cfg.logger,
		electionTicks: cfg.electionTicks, requestTimeout: cfg.requestTimeout,
		raw: raw, log: log, table: newTable(), applied: applied, cluster: cfg.cluster,
		conf: begin.GetMetadata().GetConfState(), horizon: horizon{policy: cfg.snapshots}, sending: map[uint64]uint64{}, sendFailures: map[uint64]int{},
		clock: clusterClock{maxJump: 2 * time.Duration(cfg.electionTicks) * cfg.tick},
		waits: newWaits(), formats: newFormats(cfg.newest), roster: cfg.roster,
		forwards: forwards{calls: map[uint64]*call{}, last: cfg.seed},
		tidings:  tidings{peers: map[uint64]*raftpb.Message{}},
		up:       map[uint64]bool{}, sessions: map[uint64]uint64{}, heard: map[uint64]int{},
	}
	r.log.floor = r.roster.index
	if cfg.state != nil {
		r.adopt(cfg.state)
	}
	r.refresh()
	r.horizon.replay = r.commit
	if voters, _ := r.voters(); voters == 1 {
		_ = raw.Campaign() // nobody else can lead; refused when it is no voter itself
		r.refresh()
	}
	return r, nil
}

// begin begins a turn at the local instant now. What is handed in during the
// turn has arrived by then, and nothing later has.
func (r *replica) begin(now time.Time) {
	r.now = now
	jumped := r.clock.turn(now)
	if r.office == officeOpen {
		r.clock.heard()
	}
	if jumped && r.office != officeNone && !r.openFirst {
		r.logger.Warn("local time jumped: committing an entry before answering")
		r.beginOpening(false)
	}
}

// tick lets a unit of raft's time pass and ends what has run out of time.
func (r *replica) tick() {
	r.ticks++
	r.refused = false
	r.watchDisk()
	r.agreeOnFormat()
	if r.mayCampaign() {
		r.raw.Tick()
	}
	r.refresh()
	if r.leads() && r.ticks-r.beat >= beatTicks(r.electionTicks) {
		r.beat = r.ticks // raft counts alike
	}
	r.expireFlight()
	r.expireForwards()
	r.expireReads()
	r.expireChanges()
	r.dropSilent()
	r.rerouteHeld()
	if r.handingOver && (r.successor() == 0 || r.transferring && r.raw.BasicStatus().LeadTransferee == 0) {
		r.handingOver, r.transferring, r.heir = false, false, 0 // raft has given it up
	}
}

// dropSilent lets go of the calls of members that have not been heard for two
// election time-outs, whatever their streams look like.
func (r *replica) dropSilent() {
	if r.role != raft.StateLeader || len(r.waits.guests) == 0 {
		return
	}
	for _, member := range slices.Sorted(maps.Keys(r.sessions)) { // a simulation does the same each time
		if r.ticks-r.heard[member] >= 2*r.electionTicks {
			r.dropGuests(member, r.sessions[member])
		}
	}
}

// step takes a message of a peer, or the disk's answer.
func (r *replica) step(m *raftpb.Message) error {
	if m.GetType() == raftpb.MsgTimeoutNow && r.disk.hangs {
		return nil // it would lead without a disk
	}
	if m.GetType() == raftpb.MsgStorageAppendResp && !raft.IsEmptySnap(m.GetSnapshot()) {
		if err := r.install(m.GetSnapshot()); err != nil {
			return err
		}
	}
	err := r.raw.Step(m)
	if err != nil && !errors.Is(err, raft.ErrProposalDropped) && !errors.Is(err, raft.ErrStepPeerNotFound) {
		return fmt.Errorf("step %v: %w", m.GetType(), err)
	}
	switch m.GetType() {
	case raftpb.MsgStorageAppendResp, raftpb.MsgStorageApplyResp:
		return nil
	case raftpb.MsgApp, raftpb.MsgHeartbeat, raftpb.MsgSnap:
		r.refresh()
		if m.GetFrom() == r.lead && m.GetTerm() == r.term {
			r.beat = r.ticks
			// A leader counts from its first entry on; the span before it is
			// without a leader, also if it dies first.
			if r.stampTerm == r.term {
				r.clock.heard()
			}
		}
	default:
		if m.GetTerm() != r.term {
			r.refresh()
		}
	}
	if from := m.GetFrom(); from != r.self {
		r.heard[from] = r.ticks
	}
	return nil
}

// submit takes a new call.
func (r *replica) submit(c *call) {
	if c.lane != laneNone {
		if load := &r.load[c.lane]; load.calls >= r.limits.Pending || load.bytes >= maxPendingBytes {
			r.answer(c, reply{failure: overloaded})
			return
		}
		r.load[c.lane].add(c, 1)
	}
	c.place = placeHeld
	r.route(c)
}

// route gives a call that is not proposed its way: into the log, to the leader,
// or on hold until there is one.
func (r *replica) route(c *call) {
	switch {
	case r.leads():
		r.enqueue(c)
	case c.from != 0:
		r.answer(c, reply{failure: elsewhere})
	case r.lead == 0 || !r.up[r.lead]:
		r.hold(c)
	case c.read != readNone && r.disk.hangs:
		r.answer(c, reply{failure: diskHangs}) // what it asks about would not be applied here
	case c.read != readNone:
		c.place = placeQueued
		r.reads.queue = append(r.reads.queue, c)
	default:
		r.passOn(c)
	}
}

// enqueue puts a call into the leader's queues.
func (r *replica) enqueue(c *call) {
	if c.refusal != nil {
		r.answer(c, reply{failure: c.refusal})
		return
	}
	c.place = placeQueued
	switch {
	case c.wish != nil:
		r.changes.waiting = append(r.changes.waiting, c)
		r.changes.stir = true
	case c.read != readNone || r.asksFirst(c):
		r.reads.queue = append(r.reads.queue, c)
	case c.goesFirst():
		r.proposals.first = append(r.proposals.first, c)
	default:
		r.proposals.queue = append(r.proposals.queue, c)
	}
}

func (r *replica) hold(c *call) {
	c.place = placeHeld
	r.held = append(r.held, c)
}

// rerouteHeld tries every held call again, and ends those that were held for
// too long. A leader expires what waits in its queues in the same way.
func (r *replica) rerouteHeld() {
	held := r.held
	r.held = nil
	for _, c := range held {
		if r.tooLate(c) || c.state.Load() == callLeft {
			r.abandonUnproposed(c)
			continue
		}
		r.route(c)
	}
	r.proposals.first = r.dropLate(r.proposals.first)
	r.proposals.queue = r.dropLate(r.proposals.queue)
	r.reads.queue = r.dropLate(r.reads.queue)
}

func (r *replica) dropLate(queue []*call) []*call {
	kept := queue[:0]
	for _, c := range queue {
		if r.tooLate(c) || c.state.Load() == callLeft {
			r.abandonUnproposed(c)
		} else {
			kept = append(kept, c)
		}
	}
	clear(queue[len(kept):])
	return kept
}

// peerUp is told that the outgoing stream to a member is up.
func (r *replica) peerUp(id uint64) {
	r.up[id] = true
	if r.office == officeOpen {
		r.stampWanted = true // it may be behind by all the quiet time (rule 7)
	}
	r.campaignAtBirth()
	r.rerouteHeld()
}

// peerDown is told that the outgoing stream to a member is lost.
func (r *replica) peerDown(id uint64) {
	r.up[id] = false
	r.raw.ReportUnreachable(id)
	if id == r.lead {
		r.failForwards(id)
	}
}

// sessionUp is told that a member has opened the stream over which its calls come.
func (r *replica) sessionUp(id, session uint64) {
	if old := r.sessions[id]; old != 0 && old != session {
		r.dropGuests(id, old) // it has one stream at a time
	}
	r.sessions[id] = session
	r.heard[id] = r.ticks
	if id == r.lead {
		r.failForwards(id) // what it answered while it had no stream is lost
	}
	r.campaignAtBirth()
}

// sessionLost is told that such a stream is lost: the calls that came over it
// have nobody who waits for them, and the answers to our own calls may be lost.
func (r *replica) sessionLost(id, session uint64) {
	if r.sessions[id] == session {
		delete(r.sessions, id)
		if id == r.lead {
			r.failForwards(id)
		}
	}
	r.dropGuests(id, session)
}

// advance proposes what waits, lets raft work, applies what is committed and
// answers what can be answered. It proposes once, before anything is answered:
// those who are answered now should come back first, so that their next calls
// ride with the ones that wait already. See wantsTurn.
//
// It calls emit for out to be carried out before it applies anything: to apply a
// full batch takes longer than to write one, and a follower is told of a commit
// together with the next entries.
func (r *replica) advance(emit func()) error {
	r.propose()
	r.tendChanges()
	r.startReads()
	for {
		if err := r.drain(); err != nil {
			return err
		}
		r.serveReads()
		r.deliverTidings()
		r.tendSnapshot()
		emit()
		if len(r.applies) == 0 {
			return nil
		}
		applies := r.applies
		r.applies = nil
		for _, m := range applies {
			if err := r.apply(m.GetEntries()); err != nil {
				return err
			}
			for _, resp := range m.GetResponses() {
				if err := r.step(resp); err != nil {
					return err
				}
			}
		}
	}
}

// drain takes what raft has ready. Messages to peers leave at once, beside the
// fsync; what depends on the disk rides as a response on the append message.
func (r *replica) drain() error {
	for r.raw.HasReady() {
		rd := r.raw.Ready()
		if !raft.IsEmptySnap(rd.Snapshot) {
			if err := r.accept(rd.Snapshot); err != nil {
				return err
			}
		}
		if rd.SoftState != nil {
			r.refresh()
		}
		if rd.HardState != nil {
			r.commit = rd.HardState.GetCommit()
		}
		r.placed(rd.Entries)
		for _, rs := range rd.ReadStates {
			if len(rs.RequestCtx) == 8 {
				r.confirm(binary.BigEndian.Uint64(rs.RequestCtx), rs.Index, 0)
			}
		}
		for _, m := range rd.Messages {
			switch m.GetTo() {
			case raft.LocalAppendThread:
				r.toDisk(m)
			case raft.LocalApplyThread:
				r.applies = append(r.applies, m)
			default:
				r.toPeer(m)
			}
		}
	}
	r.offer = nil // raft has taken it, or has no need of it
	return nil
}

// wantsTurn reports whether there is something to propose or to read already: the next
// turn should come without waiting for input.
func (r *replica) wantsTurn() bool {
	return r.mayPropose() || r.mayStartReads() || r.changes.stir && r.office == officeOpen
}

// close ends every call that is still here.
func (r *replica) close() {
	r.dropWaits()
	for _, b := range r.proposals.flight {
		for _, c := range b.calls {
			if c.place == placeProposed {
				r.answer(c, reply{failure: memberClosed})
			}
		}
	}
	for _, c := range r.forwards.calls {
		r.answer(c, reply{failure: memberClosed})
	}
	for _, c := range r.changes.underWay() {
		if c.place == placeProposed {
			r.answer(c, reply{failure: memberClosed})
		}
	}
	for _, round := range r.reads.rounds {
		for _, c := range round.calls {
			if c.place == placeProposed {
				r.answer(c, reply{failure: memberGone})
			}
		}
	}
	for _, queue := range [][]*call{r.held, r.proposals.first, r.proposals.queue, r.reads.queue, r.changes.waiting} {
		for _, c := range queue {
			r.answer(c, reply{failure: memberGone})
		}
	}
}

package raftlock

import (
	"encoding/binary"

	"github.com/raftlock/raftlock/pb"
)

// readKind says what a read answers with.
type readKind uint8

const (
	readNone  readKind = iota
	readIndex          // how far a member must have applied, and the cluster time
	readLock           // one lock
	readTable          // a clone of the table, to be scanned outside the loop
)

// reads are linearizable: a round asks a quorum who leads (raft's ReadIndex)
// and then serves from the table as soon as it has applied what was committed
// when the round began. A follower's round is one question to the leader, who
// answers with the index and the cluster time. A round serves all the reads
// that were queued when it began. There is no lease: a leader that was stopped
// must not answer from the past.
type reads struct {
	queue  []*call
	rounds []*readRound // in order of their beginning
}

type readRound struct {
	id        uint64 // raft's context, or the number of the question to the leader
	calls     []*call
	confirmed bool
	index     uint64
	now       logTime // the leader's time; on the leader, taken when served
	begun     int     // the tick
}

// maxReadRounds is how many rounds may be unconfirmed at once: more would not
// answer sooner, and each costs a heartbeat to every member.
const maxReadRounds = 2

// startReads begins a round for the reads that wait.
func (r *replica) startReads() {
	if !r.mayStartReads() {
		return
	}
	rd := &r.reads
	round := &readRound{begun: r.ticks}
	for _, c := range rd.queue {
		if r.tooLate(c) || !c.state.CompareAndSwap(callWaits, callTaken) {
			r.abandonUnproposed(c)
			continue
		}
		c.place = placeProposed
		round.calls = append(round.calls, c)
	}
	clear(rd.queue)
	rd.queue = rd.queue[:0]
	if len(round.calls) == 0 {
		return
	}
	round.id = r.nextNumber()
	rd.rounds = append(rd.rounds, round)
	if r.leads() {
		r.raw.ReadIndex(binary.BigEndian.AppendUint64(nil, round.id))
	} else {
		r.respond(r.lead, forward{kind: forwardRead, id: round.id})
	}
}

// answersReads reports whether reads may be answered now: by a follower with
// what the leader said, by a leader only in office.
func (r *replica) answersReads() bool { return !r.leads() || r.office == officeOpen }

func (r *replica) mayStartReads() bool {
	return len(r.reads.queue) > 0 && r.unconfirmedRounds() < maxReadRounds
}

func (r *replica) unconfirmedRounds() (n int) {
	for _, round := range r.reads.rounds {
		if !round.confirmed {
			n++
		}
	}
	return n
}

// confirm notes the answer to a round.
func (r *replica) confirm(id, index uint64, now logTime) {
	for _, round := range r.reads.rounds {
		if round.id == id && !round.confirmed {
			round.confirmed, round.index, round.now = true, index, now
			return
		}
	}
}

// serveReads answers the rounds whose index is applied.
func (r *replica) serveReads() {
	rd := &r.reads
	if !r.answersReads() {
		return
	}
	for i := 0; i < len(rd.rounds); {
		round := rd.rounds[i]
		if !round.confirmed || round.index > r.applied {
			i++
			continue
		}
		rd.rounds = append(rd.rounds[:i], rd.rounds[i+1:]...)
		if r.leads() {
			round.now = r.clock.now()
		}
		var view *tableView // the same for all listings of the round
		for _, c := range round.calls {
			if c.read == readTable && view == nil {
				view = r.table.clone()
			}
			r.serve(c, round, view)
		}
	}
}

// serve answers one read from the table.
func (r *replica) serve(c *call, round *readRound, view *tableView) {
	if c.place != placeProposed {
		return
	}
	if c.read == readNone {
		r.serveAcquire(c)
		return
	}
	rep := reply{now: round.now, index: round.index}
	switch c.read {
	case readLock:
		rep.result.lock, rep.found = r.table.info(c.cmd.lock)
		if c.withWaiters {
			rep.waiters = r.table.waiters(c.cmd.lock)
		}
	case readTable:
		rep.table = view
	}
	r.answer(c, rep)
}

// asksFirst reports whether an Acquire that waits for nothing is likely to be
// refused: then it rides in a round of reads, which costs no write.
func (r *replica) asksFirst(c *call) bool {
	if c.asked || c.cmd.kind != cmdAcquire || c.cmd.wait || r.office != officeOpen {
		return false
	}
	_, refused := r.table.refuses(&c.cmd, r.clock.now())
	return refused
}

// serveAcquire refuses an Acquire whose lock another holds, as a majority has
// confirmed; otherwise it is proposed after all.
func (r *replica) serveAcquire(c *call) {
	if held, refused := r.table.refuses(&c.cmd, r.clock.now()); refused {
		r.answerWith(c, &result{code: pb.ErrorCode_LOCK_HELD, lock: held})
		return
	}
	if !c.state.CompareAndSwap(callTaken, callWaits) {
		r.answer(c, reply{failure: notProposed})
		return
	}
	c.asked = true
	r.enqueue(c)
}

// rerouteReads gives every unanswered read another way; a read may always be
// asked again.
func (r *replica) rerouteReads() {
	rounds, queue := r.reads.rounds, r.reads.queue
	r.reads.rounds, r.reads.queue = nil, nil
	for _, round := range rounds {
		for _, c := range round.calls {
			if c.place == placeProposed && c.state.CompareAndSwap(callTaken, callWaits) {
				r.route(c)
			} else {
				r.answer(c, reply{failure: notProposed})
			}
		}
	}
	for _, c := range queue {
		r.route(c)
	}
}

// expireReads asks again where an answer has not come within an election
// time-out (raft forgets rounds when the leader changes), and ends reads that
// have run out of time.
func (r *replica) expireReads() {
	stale := false
	for _, round := range r.reads.rounds {
		stale = stale || !round.confirmed && r.ticks-round.begun > r.electionTicks
		for _, c := range round.calls {
			if c.place == placeProposed && r.overdue(c) {
				r.answer(c, reply{failure: readTimedOut})
			}
		}
	}
	if stale {
		r.rerouteReads()
	}
}

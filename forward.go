package raftlock

import (
	"maps"
	"slices"

	"github.com/raftlock/raftlock/pb"
)

// forwardKind says what one member tells another about a call. The values are
// part of the wire between members.
type forwardKind uint8

const (
	// To the leader.
	forwardCall  forwardKind = 1 // propose this command for me, under this number
	forwardRead  forwardKind = 2 // how far must I have applied, and what time is it
	forwardLeave forwardKind = 3 // nobody waits for that call any more
	forwardWish  forwardKind = 8 // change the members for me, or lead elsewhere

	// From the leader.
	forwardQueued forwardKind = 4 // the call's command waits in a lock's queue
	forwardResult forwardKind = 5 // the table's answer
	forwardIndex  forwardKind = 6 // the answer to forwardRead
	forwardFailed forwardKind = 7 // no answer of the table
)

// forward is one such message. id is the call's number at the member that asks.
type forward struct {
	kind forwardKind
	id   uint64

	cmd       command   // forwardCall
	wish      *wish     // forwardWish
	how       departure // forwardLeave
	result    result    // forwardResult
	remaining span      // forwardResult: of the grant, by the leader's clock
	timed     bool      // forwardResult: remaining is known
	index     uint64    // forwardIndex
	now       logTime   // forwardIndex
	failure   *failure  // forwardFailed
}

// forwards are the calls that this member has passed to the leader.
type forwards struct {
	calls map[uint64]*call
	last  uint64 // the last number given; it begins at random, so that an answer to an earlier life is not taken for ours
}

// passOn sends a call to the leader.
func (r *replica) passOn(c *call) {
	if !c.state.CompareAndSwap(callWaits, callTaken) {
		r.answer(c, reply{failure: notProposed})
		return
	}
	c.id = r.nextNumber()
	c.arrived = r.now // it may have been held: what a grant has left counts from here
	c.place = placeForwarded
	r.forwards.calls[c.id] = c
	if c.wish != nil {
		r.respond(r.lead, forward{kind: forwardWish, id: c.id, wish: c.wish})
		return
	}
	r.respond(r.lead, forward{kind: forwardCall, id: c.id, cmd: c.cmd})
}

// nextNumber gives a number to a call or a round of reads: at the leader they
// share one space.
func (r *replica) nextNumber() uint64 {
	r.forwards.last++
	return r.forwards.last
}

// respond sends a message to another member.
func (r *replica) respond(to uint64, m forward) {
	r.out.forwards = append(r.out.forwards, outgoing{to, m})
}

// receive takes a message that another member sent over a stream of its own.
func (r *replica) receive(from, session uint64, m forward) {
	switch m.kind {
	case forwardCall:
		r.receiveCall(from, session, m)
	case forwardRead:
		c := &call{read: readIndex, from: from, session: session, id: m.id, patience: holdLimit}
		r.receiveGuest(c)
	case forwardWish:
		r.receiveGuest(&call{wish: m.wish, from: from, session: session, id: m.id, patience: r.requestTimeout})
	case forwardLeave:
		if c := r.waits.guests[guest{from, m.id}]; c != nil {
			r.leave(c, m.how)
		}
	default:
		r.receiveAnswer(from, m)
	}
}

func (r *replica) receiveCall(from, session uint64, m forward) {
	c := &call{cmd: m.cmd, from: from, session: session, id: m.id, patience: holdLimit}
	c.refusal = r.limits.check(&c.cmd)
	if r.receiveGuest(c) && c.waits() {
		r.waits.guests[guest{from, m.id}] = c
	}
}

// receiveGuest admits a call of another member. It is never passed on: its own
// member knows better, or soon will.
func (r *replica) receiveGuest(c *call) bool {
	c.arrived, c.since = r.now, r.now
	c.lane = laneOf(c)
	if !r.leads() {
		r.respond(c.from, forward{kind: forwardFailed, id: c.id, failure: elsewhere})
		return false
	}
	r.submit(c)
	return c.place != placeNone
}

// receiveAnswer takes the leader's answer to a call or read of this member.
func (r *replica) receiveAnswer(from uint64, m forward) {
	if m.kind == forwardIndex {
		if from == r.lead {
			r.confirm(m.id, m.index, m.now)
		}
		return
	}
	c := r.forwards.calls[m.id]
	if c == nil {
		r.receiveStray(from, m)
		return
	}
	switch m.kind {
	case forwardQueued:
		if c.place == placeForwarded {
			r.uncount(c)
			c.place = placeAway
		}
	case forwardResult:
		// For a call that waited away, remaining is too young to count from
		// when the call was sent.
		delete(r.forwards.calls, m.id)
		rep := reply{result: m.result, remaining: m.remaining, at: c.arrived, timed: m.timed && c.place != placeAway}
		if m.result.code == pb.ErrorCode_LOCK_HELD {
			rep.usual = r.table.usualHold(m.result.lock.id)
		}
		r.answer(c, rep)
	case forwardFailed:
		delete(r.forwards.calls, m.id)
		r.forwardRefused(c, m.failure)
	}
}

// receiveStray takes an answer to what is no call of this member, or no longer.
func (r *replica) receiveStray(from uint64, m forward) {
	switch m.kind {
	case forwardQueued: // the call has ended here meanwhile: nobody waits for it
		r.respond(from, forward{kind: forwardLeave, id: m.id, how: lostTouch})
	case forwardFailed:
		if from == r.lead {
			r.rerouteRound(m.id)
		}
	}
}

// forwardRefused ends a forwarded call, or keeps it for the next leader when the
// one that was asked did not propose it.
func (r *replica) forwardRefused(c *call, f *failure) {
	if f.again && c.state.CompareAndSwap(callTaken, callWaits) {
		r.hold(c)
		return
	}
	r.answer(c, reply{failure: f})
}

// rerouteRound gives the reads of a refused question another way.
func (r *replica) rerouteRound(id uint64) {
	for _, round := range r.reads.rounds {
		if round.id == id && !round.confirmed {
			round.begun = r.ticks - r.electionTicks - 1 // the next tick asks again
		}
	}
}

// leaveForwarded tells the leader that nobody waits for a forwarded call.
func (r *replica) leaveForwarded(c *call, how departure) {
	delete(r.forwards.calls, c.id)
	r.uncount(c)
	c.place = placeNone
	r.respond(r.lead, forward{kind: forwardLeave, id: c.id, how: how})
}

// failForwards ends the calls that are at a leader who cannot be asked any more,
// or whose answers may be lost. What waited comes back to claim its place;
// of the rest nobody knows whether it was proposed.
func (r *replica) failForwards(leader uint64) {
	calls := r.forwards.calls
	r.forwards.calls = map[uint64]*call{}
	for _, id := range slices.Sorted(maps.Keys(calls)) {
		c := calls[id]
		if c.wish != nil && c.state.CompareAndSwap(callTaken, callWaits) {
			r.hold(c) // to ask again is safe
			continue
		}
		r.respond(leader, forward{kind: forwardLeave, id: id, how: lostTouch})
		if c.place == placeAway {
			r.answer(c, reply{failure: waitInterrupted})
		} else {
			r.answer(c, reply{failure: leaderLost})
		}
	}
	r.rerouteReads()
}

// unsent takes back a call that never left this member.
func (r *replica) unsent(id uint64) {
	c := r.forwards.calls[id]
	if c == nil || c.place != placeForwarded {
		return
	}
	delete(r.forwards.calls, id)
	r.forwardRefused(c, elsewhere)
}

func (r *replica) expireForwards() {
	var late []uint64
	for id, c := range r.forwards.calls {
		if c.place == placeForwarded && r.overdue(c) {
			late = append(late, id)
		}
	}
	slices.Sort(late)
	for _, id := range late {
		c := r.forwards.calls[id]
		delete(r.forwards.calls, id)
		r.answer(c, reply{failure: timedOut})
	}
}

package raftlock

import (
	"cmp"
	"maps"
	"slices"

	"github.com/raftlock/raftlock/pb"
)

// attachment is a waiter of the table with the calls that wait for it, on the
// leader. Calls of one identity share it. It lives until the table says how the
// wait ended, or until its last call has gone; then the table is told, and the
// waiter is detached (connection lost) or leaves (given up).
type attachment struct {
	lock  string
	id    identity
	claim uint64 // the newest claim that any of the calls made
	calls []*call
}

// guest names a call that another member forwarded, by its number there.
type guest struct{ member, id uint64 }

// waits are the attachments of a leader.
type waits struct {
	attached map[uint64]*attachment // by the waiter's number
	guests   map[guest]*call        // forwarded calls that may be left: placeProposed, placeAttached
}

func newWaits() waits {
	return waits{attached: map[uint64]*attachment{}, guests: map[guest]*call{}}
}

// attach lets a call whose command was queued wait for its turn.
func (r *replica) attach(c *call, res *result) {
	r.uncount(c)
	a := r.waits.attached[res.waiter]
	if a == nil {
		a = &attachment{lock: c.cmd.lock, id: c.cmd.identity()}
		r.waits.attached[res.waiter] = a
	}
	a.claim = max(a.claim, res.claim)
	a.calls = append(a.calls, c)
	c.place, c.waiter = placeAttached, res.waiter
	if c.from != 0 {
		r.respond(c.from, forward{kind: forwardQueued, id: c.id})
		if c.session != r.sessions[c.from] {
			c.leaving = lostTouch
		}
	}
	if c.leaving != stays {
		r.unattach(c, c.leaving)
	}
}

// unattach takes a call that has gone away from its waiter.
func (r *replica) unattach(c *call, how departure) {
	a := r.waits.attached[c.waiter]
	r.forget(c)
	for i, other := range a.calls {
		if other == c {
			a.calls = append(a.calls[:i], a.calls[i+1:]...)
			break
		}
	}
	if len(a.calls) > 0 {
		return
	}
	delete(r.waits.attached, c.waiter)
	if c.from != 0 && a.id.request != "" {
		how = lostTouch // its withdrawal may be lost with its member
	}
	r.departed(a.lock, a.id, a.claim, how)
}

// departed tells the table that nobody waits for a waiter any more. A call with
// a request id that gave up is withdrawn by its member, as a call of its own.
func (r *replica) departed(lock string, id identity, claim uint64, how departure) {
	cmd := command{kind: cmdDetach, lock: lock, client: id.client, request: id.request, claim: claim}
	if how == gaveUp {
		if id.request != "" {
			return
		}
		cmd.kind = cmdAbandon
	}
	r.enqueue(&call{cmd: cmd, lane: laneNone, arrived: r.now, since: r.now})
}

// leave is told that nobody waits for a call any more.
func (r *replica) leave(c *call, how departure) {
	switch c.place {
	case placeHeld, placeQueued:
		c.state.CompareAndSwap(callWaits, callLeft)
	case placeProposed:
		c.leaving = how
	case placeAttached:
		r.unattach(c, how)
	case placeForwarded, placeAway:
		r.leaveForwarded(c, how)
	}
}

// ended hands the ends of waits to the calls that waited.
func (r *replica) ended(events []event) {
	for i := range events {
		ev := &events[i]
		a := r.waits.attached[ev.waiter]
		if a == nil {
			continue
		}
		delete(r.waits.attached, ev.waiter)
		for _, c := range a.calls {
			res := resultOf(ev)
			r.answerWith(c, &res)
		}
	}
}

// dropWaits interrupts every wait: this member leads no more. The waiters keep
// their places, and the calls come back to claim them.
func (r *replica) dropWaits() {
	attached := r.waits.attached
	r.waits = newWaits()
	for _, waiter := range slices.Sorted(maps.Keys(attached)) {
		for _, c := range attached[waiter].calls {
			r.answer(c, reply{failure: waitInterrupted})
		}
	}
}

// dropGuests lets go of the calls that came over a stream that is lost.
func (r *replica) dropGuests(member, session uint64) {
	var lost []*call
	for key, c := range r.waits.guests {
		if key.member == member && c.session == session {
			lost = append(lost, c)
		}
	}
	slices.SortFunc(lost, func(a, b *call) int { return cmp.Compare(a.id, b.id) })
	for _, c := range lost {
		r.leave(c, lostTouch)
	}
}

// forget removes a forwarded call from the guests.
func (r *replica) forget(c *call) {
	c.place = placeNone
	if key := (guest{c.from, c.id}); r.waits.guests[key] == c {
		delete(r.waits.guests, key)
	}
}

// resultOf is the result with which a wait ends.
func resultOf(ev *event) result {
	res := result{lock: ev.lock, waiter: ev.waiter}
	switch ev.kind {
	case eventGranted:
		res.code = pb.ErrorCode_OK
	case eventTimedOut, eventLapsed:
		res.code = pb.ErrorCode_TIMEOUT
	default:
		res.code = pb.ErrorCode_NOT_WAITING
	}
	return res
}

package raftlock

import (
	"errors"
	"fmt"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftlock/raftlock/pb"
)

// The applying of the log: what each entry does to the table, to cluster time and to
// the calls that wait for it.

func (r *replica) apply(entries []*raftpb.Entry) error {
	for _, e := range entries {
		if err := r.applyEntry(e); err != nil {
			return fmt.Errorf("apply entry %d: %w", e.GetIndex(), err)
		}
	}
	return nil
}

func (r *replica) applyEntry(e *raftpb.Entry) error {
	b := r.settle(e.GetIndex(), e.GetTerm())
	mine := r.settleChange(e.GetIndex(), e.GetTerm())
	r.applied = e.GetIndex()
	r.horizon.note(e.GetIndex(), len(e.GetData()))
	switch {
	case e.GetType() == raftpb.EntryConfChangeV2:
		return r.applyChange(e, mine)
	case e.GetType() != raftpb.EntryNormal:
		return fmt.Errorf("%w: entry of type %v", ErrUnknownFormat, e.GetType())
	case len(e.GetData()) == 0 && mine != nil: // what raft made of a change that came too early
		r.retryWish(mine.call)
		return nil
	case len(e.GetData()) == 0: // raft's no-op
		r.takeOffice(e.GetTerm())
		return nil
	}
	r.stampTerm = e.GetTerm()
	r.newestApplied = max(r.newestApplied, format(e.GetData()[0]))
	if b != nil {
		r.applyBatch(b)
		return nil
	}
	err := r.formats.own.decodeEntryInto(e.GetData(), &r.decoded)
	if errors.Is(err, errUnknownFormat) {
		return fmt.Errorf("%w: %w", ErrUnknownFormat, err)
	}
	if err != nil {
		return err
	}
	out := r.table.apply(&r.decoded)
	clear(r.decoded.commands) // it must not keep what the table lets go of
	r.clock.applied(r.table.now())
	r.swept(&out)
	return nil
}

// applyBatch applies an entry of our own, as it was before it was encoded, and
// answers its calls.
func (r *replica) applyBatch(b *batch) {
	if b.term == r.term && r.leads() {
		if b.opens == r.opening && r.office == officeOpening {
			if b.entry.first {
				r.clock.start()
			}
			r.office, r.openFirst = officeOpen, false
		}
		if b.handsOver {
			r.transfer()
		}
	}
	// Callers are answered one by one, and come back while the rest is applied.
	out := r.table.applyEach(&b.entry, func(i int, res *result) { r.resolve(b.calls[i], res, b.term) })
	r.clock.applied(r.table.now())
	r.ended(out.events)
	r.swept(&out)
	r.proposals.recycle(b)
}

// swept counts what an entry did, and orders the next one at once when the
// sweep left ends behind.
func (r *replica) swept(out *outcome) {
	r.stats.note(r.table.now(), tally{
		granted: out.granted, ended: out.ended, expired: out.expired,
		held: time.Duration(out.heldFor) * time.Microsecond,
	})
	if out.more && r.office == officeOpen {
		r.stampWanted = true
	}
}

// resolve answers the call of a command that was proposed in term and is applied,
// or attaches it to its waiter. A wait of an earlier term has to be claimed, even
// from a member that leads again: the new term's first entry detaches it.
func (r *replica) resolve(c *call, res *result, term uint64) {
	mine := r.leads() && term == r.term
	if c.place != placeProposed {
		if res.queued && c.waits() && mine { // answered meanwhile: its time was up
			r.claimForNobody(c, res)
		}
		return
	}
	if res.queued && c.waits() {
		if mine {
			r.attach(c, res)
		} else {
			r.answer(c, reply{failure: waitInterrupted})
		}
		return
	}
	r.answerWith(c, res)
}

// claimForNobody sees to a wait whose call has been answered before it was queued.
func (r *replica) claimForNobody(c *call, res *result) {
	if a := r.waits.attached[res.waiter]; a != nil {
		a.claim = max(a.claim, res.claim)
		return
	}
	r.departed(c.cmd.lock, c.cmd.identity(), res.claim, lostTouch)
}

// answerWith answers a call with a result of the table; only a leader in office
// can say how long a grant still has.
func (r *replica) answerWith(c *call, res *result) {
	rep := reply{result: *res, at: r.now}
	if res.code == pb.ErrorCode_LOCK_HELD {
		rep.usual = r.table.usualHold(res.lock.id)
	}
	if r.office == officeOpen {
		rep.timed = true
		rep.now = r.clock.now()
		rep.remaining = span(max(0, res.lock.end-rep.now))
	}
	r.answer(c, rep)
}

// answer ends a call. Whatever came before, a call is answered once.
func (r *replica) answer(c *call, rep reply) {
	if c.answered {
		return
	}
	r.uncount(c)
	r.forget(c)
	if c.from != 0 {
		c.answered = true
		r.answerGuest(c, &rep)
		return
	}
	c.finish(&rep)
}

func (r *replica) answerGuest(c *call, rep *reply) {
	m := forward{id: c.id}
	switch {
	case rep.failure != nil:
		m.kind, m.failure = forwardFailed, rep.failure
	case c.read == readIndex:
		m.kind, m.index, m.now = forwardIndex, rep.index, rep.now
	default:
		m.kind, m.result, m.remaining, m.timed = forwardResult, rep.result, rep.remaining, rep.timed
	}
	r.respond(c.from, m)
}

// uncount takes a call out of the load: it is answered, or waits in a queue.
func (r *replica) uncount(c *call) {
	switch c.place {
	case placeNone, placeAttached, placeAway:
		return
	}
	if c.lane != laneNone {
		r.load[c.lane].add(c, -1)
	}
}

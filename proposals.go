package raftlock

import (
	"errors"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// Group commit. All calls that wait become one raft entry: one write, one
// fsync, one message to each peer. A batch goes out when nothing is in flight,
// so that a lone caller waits for nobody; while something is in flight, calls
// gather, and only a full batch goes out beside it.
const (
	maxBatchCommands = 1024
	maxBatchBytes    = 256 << 10
	maxInflight      = 8
)

// batch is one proposed entry and who waits for which of its results.
type batch struct {
	term, index uint64 // index is 0 until raft has given it a place
	entry       entry
	calls       []*call // calls[i] waits for the result of entry.commands[i]
	opens       uint64  // the way into office that ends with it; 0 for none
	handsOver   bool    // the leadership goes away once it is applied
}

// proposals is the way of calls into the log on the leader, and back.
type proposals struct {
	first  []*call // renewals and releases
	queue  []*call // the others
	flight []*batch

	last  logTime  // the last stamp of this term
	spare []*batch // for reuse
	data  []byte   // scratch for encoding
}

func (p *proposals) waiting() int { return len(p.first) + len(p.queue) }

// propose puts batches into the log as far as the rules of group commit allow.
func (r *replica) propose() {
	for r.mayPropose() {
		if !r.proposeBatch() {
			return
		}
	}
}

func (r *replica) mayPropose() bool {
	p := &r.proposals
	switch {
	case r.refused:
		return false
	case r.office == officeOpening && !r.opener:
		return true // the term's first entry, or the first after a jump
	case r.office != officeOpen || r.handingOver && !r.stampWanted:
		return false
	case len(p.flight) == 0:
		return p.waiting() > 0 || r.stampWanted || r.endIsDue()
	case len(p.flight) >= maxInflight:
		return false
	}
	return p.waiting() >= maxBatchCommands || r.stampWanted || r.endIsDue()
}

// endIsDue reports whether an end has come that no entry in flight reaches.
func (r *replica) endIsDue() bool {
	now := r.clock.now()
	if bound, ok := r.table.noEndBefore(); !ok || bound > now {
		return false
	}
	end, ok := r.table.nextEnd()
	return ok && end <= now && end > r.proposals.last
}

// proposeBatch makes an entry of what waits and proposes it. It reports whether
// raft took it; what it did not take waits on.
func (r *replica) proposeBatch() bool {
	p := &r.proposals
	b := p.newBatch(r.term)
	opening := r.office == officeOpening
	b.entry.first = opening && r.openFirst
	b.entry.wall = r.now.UnixMicro()
	if b.entry.first {
		b.entry.floor = b.entry.wall
	}
	if opening {
		b.opens = r.opening
	}
	b.handsOver = r.handingOver
	r.fill(b)
	p.data = r.formats.writes.appendEntry(p.data[:0], &b.entry)
	// raft keeps the bytes, so they get an array of their own.
	err := r.raw.Propose(append([]byte(nil), p.data...))
	if err != nil {
		if !errors.Is(err, raft.ErrProposalDropped) {
			r.logger.Warn("proposal refused", "error", err)
		}
		r.putBack(b)
		r.refused = true
		return false
	}
	p.flight = append(p.flight, b)
	p.last = b.entry.stamp
	r.stampWanted = false
	if opening {
		r.opener = true
	}
	return true
}

// fill takes calls into the batch, renewals and releases first, and stamps it.
func (r *replica) fill(b *batch) {
	p := &r.proposals
	size := 0
	p.first = r.take(b, p.first, &size)
	p.queue = r.take(b, p.queue, &size)
	b.entry.stamp = r.clock.now()
	if len(p.first) > 0 {
		b.entry.stamp = min(b.entry.stamp, r.clock.at(p.first[0].arrived))
	}
	b.entry.stamp = max(b.entry.stamp, p.last)
	for i, c := range b.calls {
		b.entry.commands[i].arrival = min(r.clock.at(c.arrived), b.entry.stamp)
	}
}

// take moves calls from a queue into the batch and returns what stays.
func (r *replica) take(b *batch, from []*call, size *int) []*call {
	for i, c := range from {
		if len(b.calls) == maxBatchCommands || *size >= maxBatchBytes-maxCommandBytes {
			return shift(from, i)
		}
		if r.tooLate(c) || !c.state.CompareAndSwap(callWaits, callTaken) {
			r.abandonUnproposed(c)
			continue
		}
		c.place = placeProposed
		b.calls = append(b.calls, c)
		b.entry.commands = append(b.entry.commands, c.cmd)
		cmd := &b.entry.commands[len(b.entry.commands)-1]
		r.limits.resolve(cmd)
		if cmd.kind == cmdAcquire || cmd.kind == cmdEnqueue {
			b.entry.bounds = r.bounds
		}
		*size += commandSize(cmd)
	}
	return from[:0]
}

// maxCommandBytes bounds the size of one command within its limits: the ids and
// a full set of metadata, generously.
const maxCommandBytes = 16 << 10

// commandSize estimates a command's bytes in the entry.
func commandSize(c *command) int {
	size := 64 + len(c.lock) + len(c.client) + len(c.request)
	for _, p := range c.metadata {
		size += 8 + len(p.key) + len(p.value)
	}
	return size
}

// tooLate reports whether a call has waited longer than it may for being proposed.
func (r *replica) tooLate(c *call) bool {
	return c.lane != laneNone && r.now.Sub(c.since) > c.patience
}

// abandonUnproposed ends a call that was never proposed and now never will be.
func (r *replica) abandonUnproposed(c *call) {
	if r.leads() {
		r.answer(c, reply{failure: notProposed})
	} else {
		r.answer(c, reply{failure: noLeader})
	}
}

// putBack undoes fill after a refused proposal.
func (r *replica) putBack(b *batch) {
	p := &r.proposals
	var first, queue []*call
	for _, c := range b.calls {
		if !c.state.CompareAndSwap(callTaken, callWaits) {
			r.answer(c, reply{failure: notProposed})
			continue
		}
		c.place = placeQueued
		if c.goesFirst() {
			first = append(first, c)
		} else {
			queue = append(queue, c)
		}
	}
	p.first = append(first, p.first...)
	p.queue = append(queue, p.queue...)
	p.recycle(b)
}

// placed notes the index that raft gave to a batch: entries of the own term
// with data come in the order of their proposals.
func (r *replica) placed(entries []*raftpb.Entry) {
	if !r.leads() {
		return
	}
	next := 0
	flight := r.proposals.flight
	for next < len(flight) && flight[next].index != 0 {
		next++
	}
	for _, e := range entries {
		r.placedChange(e)
		if next < len(flight) && e.GetTerm() == r.term && e.GetType() == raftpb.EntryNormal && len(e.GetData()) > 0 && flight[next].term == r.term {
			flight[next].index = e.GetIndex()
			next++
		}
	}
}

// settle returns the batch that the applied entry is, or nil, and gives back the
// calls of those that it shows to be lost: an entry of an earlier term cannot be
// committed any more once one of a later term is applied at or before its index.
func (r *replica) settle(index, term uint64) *batch {
	p := &r.proposals
	for len(p.flight) > 0 {
		b := p.flight[0]
		switch {
		case b.term == term && b.index == index:
			p.flight = shift(p.flight, 1)
			return b
		case b.term < term:
			p.flight = shift(p.flight, 1)
			r.overwritten(b)
		default:
			return nil
		}
	}
	return nil
}

// overwritten gives the calls of a lost batch another way: it is certain that
// they were not applied.
func (r *replica) overwritten(b *batch) {
	for _, c := range b.calls {
		if c.place != placeProposed {
			continue
		}
		if c.from != 0 {
			r.answer(c, reply{failure: elsewhere}) // its own member knows whether anybody still waits
			continue
		}
		if c.lane == laneNone || !c.state.CompareAndSwap(callTaken, callWaits) {
			r.answer(c, reply{failure: notProposed})
			continue
		}
		c.arrived = r.now
		r.route(c)
	}
	r.proposals.recycle(b)
}

// expireFlight answers calls whose request time-out has passed: what was
// proposed may still be applied.
func (r *replica) expireFlight() {
	for _, b := range r.proposals.flight {
		for _, c := range b.calls {
			if c.place == placeProposed && r.overdue(c) {
				r.answer(c, reply{failure: timedOut})
			}
		}
	}
}

func (r *replica) overdue(c *call) bool {
	return c.lane != laneNone && r.now.Sub(c.since) > r.requestTimeout
}

func (p *proposals) newBatch(term uint64) *batch {
	if n := len(p.spare); n > 0 {
		b := p.spare[n-1]
		p.spare = p.spare[:n-1]
		b.term = term
		return b
	}
	return &batch{term: term}
}

// recycle keeps a batch for reuse, without what it points to.
func (p *proposals) recycle(b *batch) {
	if len(p.spare) >= maxInflight {
		return
	}
	clear(b.calls)
	clear(b.entry.commands)
	*b = batch{calls: b.calls[:0], entry: entry{commands: b.entry.commands[:0]}}
	p.spare = append(p.spare, b)
}

// shift drops the first n of a queue and keeps its array, so that a queue that
// is drained and filled all the time does not allocate.
func shift[T any](queue []T, n int) []T {
	rest := copy(queue, queue[n:])
	clear(queue[rest:])
	return queue[:rest]
}

// nextAlarm is how long the loop may sleep before something is due: an end that
// this leader has to see to, or tidings that have waited long enough.
func (r *replica) nextAlarm() (time.Duration, bool) {
	wait, ok := r.nextEnd()
	if since := r.tidings.since; !since.IsZero() {
		left := max(0, maxTidingsWait-r.now.Sub(since))
		if !ok || left < wait {
			return left, true
		}
	}
	return wait, ok
}

func (r *replica) nextEnd() (time.Duration, bool) {
	if r.office != officeOpen {
		return 0, false
	}
	if r.refused || r.handingOver || len(r.proposals.flight) >= maxInflight {
		return 0, false // nothing can be proposed before something else happens
	}
	// A bound will do: to wake up early costs less than to know.
	end, ok := r.table.noEndBefore()
	if !ok {
		return 0, false
	}
	if end <= r.clock.now() {
		if end, ok = r.table.nextEnd(); !ok || end <= r.proposals.last {
			return 0, false
		}
	}
	return r.clock.until(end), true
}

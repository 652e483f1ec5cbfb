package raftlock

import (
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// diskWatch finds out that the own disk hangs: that it has finished nothing of
// what it was given for two election time-outs, counted in ticks, so that the
// time during which the whole process was stopped is not held against the disk.
//
// A leader whose disk hangs would lead for ever, because heartbeats do not wait
// for a disk, and answer nobody, because only what is on its own disk is applied.
// So it gives the leadership away; if nobody takes it, it falls silent, until the
// others have elected another leader, or raft itself takes the leadership from
// one who hears of nobody. Until the disk answers it does not campaign: it would
// win, and hang again. Nothing of this needs its disk, and nothing is lost by it:
// when the disk answers, the member goes on as any that was slow.
type diskWatch struct {
	given, done uint64 // append messages, as of the last tick
	mark        uint64 // what was given at the tick since
	since       int
	hangs       bool

	offered bool // the leadership was offered, in this term
	muted   bool // nobody took it: nothing is said to the peers
	until   int  // the tick at which the offer is void

	answered int // the tick of the last heartbeat that was answered
}

// observe notes how far the disk has come by a tick.
func (w *diskWatch) observe(given, done uint64) { w.given, w.done = given, done }

// look reports whether the disk hangs at a tick.
func (w *diskWatch) look(tick, patience int) bool {
	if w.done >= w.mark {
		w.mark, w.since = w.given, tick
	}
	return w.done < w.mark && tick-w.since >= patience
}

// watchDisk is called at every tick, before raft's.
func (r *replica) watchDisk() {
	w := &r.disk
	hung := w.look(r.ticks, 2*r.electionTicks)
	if hung != w.hangs {
		w.hangs = hung
		r.logger.Warn("disk: "+map[bool]string{true: "a write does not end", false: "it answers again"}[hung],
			"leads", r.leads(), "waiting", w.given-w.done)
	}
	if !hung || !r.leads() {
		w.offered, w.muted = false, false
	}
	switch {
	case !hung:
	case r.leads():
		r.offerLeadership()
	default:
		r.standBack()
	}
}

// offerLeadership gives the leadership away without the entry that goes before
// it otherwise: the own log takes none. The successor may be behind by the quiet
// time then, to the advantage of those who hold a lock.
func (r *replica) offerLeadership() {
	w := &r.disk
	if !w.offered {
		w.offered, w.until = true, r.ticks+r.electionTicks
		if to := r.successor(); to != 0 {
			r.raw.TransferLeader(to)
			return
		}
	}
	if r.raw.BasicStatus().LeadTransferee == 0 || r.ticks >= w.until {
		w.muted = true
	}
}

// standBack is what a member whose disk hangs does while it does not lead. Its
// callers are better off with another: what it proposed as a leader it cannot
// see applied, and reads it cannot serve.
func (r *replica) standBack() {
	for _, b := range r.proposals.flight {
		for _, c := range b.calls {
			if c.place == placeProposed {
				r.answer(c, reply{failure: leaderLost})
			}
		}
	}
	r.rerouteReads()
	// raft's time stands still (see tick), and with it the lease by which a
	// follower refuses its vote to others as long as it hears of a leader.
	if r.lead != 0 && r.ticks-r.heard[r.lead] > r.electionTicks {
		_ = r.raw.ForgetLeader() // no follower is refused that
		r.refresh()
	}
}

// withholds reports whether a message to a peer must not go out. A leader that
// has fallen silent says nothing. A follower whose disk hangs acknowledges
// nothing either, so its leader does not know what it has got, and sends up to a
// megabyte of the log again at each heartbeat that it answers: it answers a few,
// so as to be known to live.
func (r *replica) withholds(m *raftpb.Message) bool {
	switch m.GetType() {
	case raftpb.MsgApp, raftpb.MsgHeartbeat, raftpb.MsgSnap:
		return r.disk.muted
	case raftpb.MsgHeartbeatResp:
		if !r.disk.hangs || r.ticks-r.disk.answered >= r.electionTicks/2 {
			r.disk.answered = r.ticks
			return false
		}
		return true
	}
	return false
}

// mayCampaign reports whether raft's time may pass: what passes for a member
// that does not lead is the time until it campaigns.
func (r *replica) mayCampaign() bool { return r.role == raft.StateLeader || !r.disk.hangs }

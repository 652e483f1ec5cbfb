package raftlock

import (
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/tracker"
)

// office is a leader's way into its term: elected, it applies what its
// predecessors left up to its own no-op; then it proposes the term's first
// entry, on which every later leader anchors; when that is applied it may answer.
// A jump of local time leads back to officeOpening.
type office uint8

const (
	officeNone    office = iota // not leader, or its no-op is not applied
	officeOpening               // the opening entry is not applied
	officeOpen                  // proposes and answers
)

// refresh looks at raft's view of term and leader and acts on what changed.
func (r *replica) refresh() {
	st := r.raw.BasicStatus()
	term, lead, role := st.GetTerm(), st.Lead, st.RaftState
	r.commit = st.GetCommit()
	if term == r.term && lead == r.lead && role == r.role {
		return
	}
	wasLeader, oldTerm, oldLead := r.role == raft.StateLeader, r.term, r.lead
	r.term, r.lead, r.role = term, lead, role
	if wasLeader && (role != raft.StateLeader || term != oldTerm) {
		r.leaveOffice()
	}
	if !wasLeader && r.leads() {
		r.beat = r.ticks
	}
	if oldLead != 0 && oldLead != r.self && oldLead != lead {
		r.failForwards(oldLead)
	}
	if lead != oldLead {
		r.logger.Info("leader changed", "term", term, "leader", r.nameOf(lead))
	}
	r.rerouteHeld()
}

// leaveOffice ends this member's leadership: waits are interrupted, calls that
// were not proposed go to the next leader, those in flight wait to be seen
// applied or overwritten.
func (r *replica) leaveOffice() {
	r.clock.stop()
	r.office, r.openFirst, r.stampWanted, r.handingOver = officeNone, false, false, false
	r.transferring, r.heir = false, 0
	r.proposals.last = 0
	r.dropWaits()
	p := &r.proposals
	queued := append(append([]*call(nil), p.first...), p.queue...)
	p.first, p.queue = nil, nil
	for _, c := range queued {
		if c.lane == laneNone {
			continue // the new term detaches every waiter anyway
		}
		r.route(c)
	}
	r.rerouteReads()
	r.leaveChanges()
}

// leads reports whether this member is raft's leader, in office or not yet.
func (r *replica) leads() bool { return r.role == raft.StateLeader }

// campaignAtBirth spares a cluster that has never had a leader its first
// election time-out.
func (r *replica) campaignAtBirth() {
	if r.smallest && r.applied <= firstIndex && r.term <= 1 && r.lead == 0 && r.role == raft.StateFollower && r.quorumUp() {
		_ = r.raw.Campaign() // refused when this member may not lead: then another will
		r.refresh()
	}
}

// quorumUp reports whether a majority can be asked and can answer.
func (r *replica) quorumUp() bool {
	voters, reached := r.voters()
	return reached > voters/2
}

// voters counts them, and those that are up, this member included if it is one.
func (r *replica) voters() (all, reached int) {
	r.raw.WithProgress(func(id uint64, kind raft.ProgressType, _ tracker.Progress) {
		if kind == raft.ProgressTypePeer {
			all++
			if id == r.self || r.up[id] && r.sessions[id] != 0 {
				reached++
			}
		}
	})
	return all, reached
}

// takeOffice is reached when raft's no-op of a term is applied: all that earlier
// leaders left is now in the table, and time is rebased on it.
func (r *replica) takeOffice(term uint64) {
	if !r.leads() || term != r.term || r.office != officeNone {
		return
	}
	r.ledSince = r.ticks
	r.proposals.last = r.clock.rebase()
	r.beginOpening(true)
}

// beginOpening makes an entry come before the next answer: the term's first
// one, or, after a jump of local time, one that tells later leaders the time.
func (r *replica) beginOpening(first bool) {
	r.office, r.openFirst, r.opener = officeOpening, first, false
	r.opening++
}

// handOver begins to give the leadership to another member, to heir if one is
// set. An entry goes first, so that the successor knows how late it is (rule 7).
func (r *replica) handOver() {
	if r.office == officeOpen && r.successor() != 0 {
		r.handingOver, r.stampWanted = true, true
	}
}

func (r *replica) transfer() {
	if to := r.successor(); to != 0 {
		r.raw.TransferLeader(to)
		r.transferring = true
		return
	}
	r.handingOver = false
}

// successor is the heir, if one is wanted, otherwise the reachable voter that has
// most of the log; 0 when there is none. Raft's own word on who is active is no
// good here: it forgets that of all once in an election time-out.
func (r *replica) successor() uint64 {
	var best, match uint64
	r.raw.WithProgress(func(id uint64, kind raft.ProgressType, pr tracker.Progress) {
		if kind != raft.ProgressTypePeer || id == r.self || !r.up[id] || !r.heardLately(id) || r.heir != 0 && id != r.heir {
			return
		}
		if best == 0 || pr.Match > match || pr.Match == match && id < best {
			best, match = id, pr.Match
		}
	})
	return best
}

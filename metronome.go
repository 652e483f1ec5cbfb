package raftlock

import "time"

// metronome says when raft's time passes. Ticks lie on a grid of the local
// clock; a member that is quiet sleeps over those at which nothing can happen,
// and makes up for them when it wakes, before it looks at what has come. So its
// raft counts as if it had woken at each, and a cluster that nobody uses wakes
// for its heartbeats only.
//
// What a member did not mean to sleep over is lost, as with a time.Ticker: the
// time during which it was stopped or had no processor is not held against
// those who could not be heard meanwhile.
type metronome struct {
	interval time.Duration
	last     time.Time // the grid's last point that counted
	rest     int       // how many ticks may come together, at least 1
}

// due is how many ticks are to be made up for at the instant now.
func (m *metronome) due(now time.Time) int {
	passed := int(now.Sub(m.last) / m.interval)
	if passed <= 0 {
		return 0
	}
	m.last = m.last.Add(time.Duration(passed) * m.interval)
	return min(passed, m.rest)
}

// next plans to sleep over rest ticks, and returns how long that is from now.
func (m *metronome) next(now time.Time, rest int) time.Duration {
	m.rest = rest
	return m.last.Add(time.Duration(rest) * m.interval).Sub(now)
}

// beats is how many heartbeats a leader sends in an election time-out, if that
// has so many ticks: a follower misses several before it campaigns.
const beats = 5

// beatTicks is how often a leader is heard.
func beatTicks(electionTicks int) int { return max(1, electionTicks/beats) }

// rest is how many ticks this member may sleep over. A leader has to send the
// next heartbeat; a follower has to notice that one is missing, and from then on
// takes each tick for itself, so as not to campaign late.
func (r *replica) rest() int {
	switch {
	case !r.quiet():
		return 1
	case r.leads():
		return max(1, r.beat+beatTicks(r.electionTicks)-r.ticks)
	case r.lead == 0:
		return 1
	}
	return max(1, r.beat+r.electionTicks/2-r.ticks)
}

// quiet reports whether nothing is under way here that is looked after at each
// tick. Grants and calls that wait for a lock do not disturb it.
func (r *replica) quiet() bool {
	p, rd, ch := &r.proposals, &r.reads, &r.changes
	switch {
	case r.leads() && r.office != officeOpen, r.refused, r.handingOver:
		return false
	case r.disk.hangs, r.disk.done < r.disk.given:
		return false
	case len(ch.waiting) > 0, ch.flight != nil, ch.handing != nil:
		return false
	}
	calls := len(r.held) + p.waiting() + len(p.flight) + len(rd.queue) + len(rd.rounds)
	for i := range r.load {
		calls += r.load[i].calls // those that are forwarded too
	}
	return calls == 0
}

package raftlock

import "time"

// clusterClock is a member's view of cluster time. Cluster time is what the log
// says it is: it moves only by the stamps of applied entries. Between them each
// member counts on, by its own monotonic clock, so that the next leader can
// stamp where the last one stopped.
//
// Invariant over the log: for entries k before j, stamp(j) − stamp(k) is at most
// the real time that passed between the two stampings. Hence no end that counts
// from stamp(k) comes early, whoever leads. The rules that keep it:
//
//   - Every applied stamped entry becomes the anchor, with the instant of
//     applying it; no anchor is older than the last entry (rules 1, 4).
//   - Only time in contact with a leader counts: a new leader starts at the
//     anchor plus the time up to the last message of the old leader (rule 2).
//   - A jump between two turns of the loop counts only up to maxJump: a member
//     that was stopped has not been in contact (rule 2).
//   - A leader stamps from its base, which is fixed when its term's first entry
//     is applied and stays until the term ends; its own entries do not move it,
//     or every commit's latency would be lost (rules 3, 4).
//
// It is not safe for concurrent use; the loop owns it.
type clusterClock struct {
	maxJump time.Duration // two election time-outs

	last    time.Time     // the loop's last turn
	counted time.Duration // local time since start, jumps cut to maxJump

	anchor  mark          // the last applied stamped entry
	contact time.Duration // counted time of the last sign of a leader

	base mark // what this member stamps from
	// leading is how far this term's leadership has come; base is valid from
	// clockFrozen on.
	leading leadState
}

// mark is an instant on both scales.
type mark struct {
	stamp logTime
	at    time.Duration // counted local time
}

type leadState uint8

const (
	clockFollows leadState = iota // not leader, or its no-op is not yet applied
	clockFrozen                   // rebased; time stands still until the first entry is applied
	clockRuns                     // counts from base
)

// turn begins a turn of the loop at the local instant now. It reports whether
// time jumped by more than counts: then a leader's view is behind that of a
// member that was not stopped, and it must commit an entry before it answers
// anything (rule 3).
func (c *clusterClock) turn(now time.Time) (jumped bool) {
	if c.last.IsZero() {
		c.last = now
	}
	step := max(0, now.Sub(c.last)) // package time never goes back; a test's may
	c.last = c.last.Add(step)
	if step > c.maxJump {
		step, jumped = c.maxJump, true
	}
	c.counted += step
	return jumped
}

// heard notes a sign of the current leader: a message of its term, or being it.
func (c *clusterClock) heard() { c.contact = c.counted }

// applied notes that an entry with this stamp was applied.
func (c *clusterClock) applied(stamp logTime) {
	c.anchor = mark{stamp, c.counted}
}

// rebase fixes the cluster time at which this member's leadership begins; it is
// called when the no-op of its term is applied, and returns the stamp of the
// term's first entry. Time stands still until start.
func (c *clusterClock) rebase() logTime {
	inContact := max(0, c.contact-c.anchor.at)
	c.base = mark{c.anchor.stamp.plus(span(inContact)), c.counted}
	c.leading = clockFrozen
	return c.base.stamp
}

// start lets time run again: the first entry of the own term is applied.
func (c *clusterClock) start() {
	c.base.at = c.counted
	c.leading = clockRuns
}

// stop ends the leadership; the base is never used again.
func (c *clusterClock) stop() {
	c.base, c.leading = mark{}, clockFollows
}

// now is the leader's cluster time at this turn. It must not be asked of a
// member whose clock does not lead.
func (c *clusterClock) now() logTime {
	if c.leading == clockFrozen {
		return c.base.stamp
	}
	return c.base.stamp.plus(span(c.counted - c.base.at))
}

// at is the cluster time of an earlier local instant of this term, at most now
// and at least the base.
func (c *clusterClock) at(instant time.Time) logTime {
	back := span(max(0, c.last.Sub(instant)))
	return max(c.base.stamp, c.now()-logTime(back))
}

// estimate is a follower's guess: as if its leader lived and it had missed
// nothing. Good for advice, never for a decision.
func (c *clusterClock) estimate() logTime {
	if c.leading != clockFollows {
		return c.now()
	}
	return c.anchor.stamp.plus(span(c.counted - c.anchor.at))
}

// until is how long from this turn until cluster time reaches end.
func (c *clusterClock) until(end logTime) time.Duration {
	return time.Duration(max(0, end-c.now()))
}

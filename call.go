package raftlock

import (
	"sync/atomic"
	"time"
)

// call is one request on its way through a member: from a caller of this
// process, from a member that forwards it, or from the replica itself. The
// loop owns it from the moment it is submitted; the caller keeps only state
// and done.
type call struct {
	cmd  command  // as the caller made it; kind 0 for what is no command
	read readKind // readNone for a command
	wish *wish    // of the members; nil for a command and a read
	// withWaiters is readLock's: the answer lists the queue.
	withWaiters bool
	// refusal is what this member's limits say against the command. It counts
	// only where this member leads.
	refusal *failure
	// patience is how long the call may be kept without being proposed.
	patience time.Duration

	state   atomic.Int32 // callWaits, callTaken, callLeft
	awaited atomic.Bool  // somebody waits for done
	// done gets one token, for which it has room, when reply is set and the
	// loop is through with the call. nil when nobody waits.
	done  chan struct{}
	reply reply

	// arrived is when the call reached this member; a call that comes back
	// from a lost term arrives anew. since is its first arrival.
	arrived, since time.Time // since is not changed after the inbox has set it

	from    uint64 // the member that forwards it; 0 for this one
	session uint64 // the stream it came over
	id      uint64 // its number at that member, or, forwarded, at this one

	lane     lane
	place    place
	answered bool
	asked    bool   // an Acquire that a round of reads did not refuse
	waiter   uint64 // at placeAttached
	leaving  departure
}

// The states of a call. A caller that gives up learns by a swap whether its
// call may have been proposed: from callWaits to callLeft it never will be.
const (
	callWaits int32 = iota // not proposed, not sent
	callTaken              // proposed or sent: the outcome is the cluster's
	callLeft               // nobody waits for it any more
)

// place is where the loop has put a call.
type place uint8

const (
	placeNone      place = iota // not submitted, or answered
	placeHeld                   // kept until there is a leader
	placeQueued                 // waits for its batch, or its read round
	placeProposed               // in a batch, or a round
	placeAttached               // its command waits in a lock's queue
	placeForwarded              // sent to the leader
	placeAway                   // sent to the leader, and waits in a lock's queue there
)

// departure is how a caller went away.
type departure uint8

const (
	stays     departure = 0
	gaveUp    departure = 1 // its context ended
	lostTouch departure = 2 // its connection was lost: its wait keeps its place
)

// lane is what a call counts against. Overload of one must not touch the other.
type lane uint8

const (
	laneNormal lane = iota // acquires, enqueues, listings
	laneUrgent             // what keeps or frees: renewals, releases, cancels; single reads
	laneNone               // the replica's own
	lanes
)

// load is what is under way in a lane.
type load struct{ calls, bytes int }

// maxPendingBytes bounds the commands of a lane that are under way: they may
// carry ten thousand bytes of metadata each.
const maxPendingBytes = 64 << 20

// add counts a call in, or out with a sign of -1.
func (l *load) add(c *call, sign int) {
	l.calls += sign
	l.bytes += sign * commandSize(&c.cmd)
}

func laneOf(c *call) lane {
	switch c.cmd.kind {
	case cmdAcquire, cmdEnqueue:
		if c.cmd.attempt > 1 {
			return laneUrgent // a repeat may be the claim of a wait or a grant
		}
		return laneNormal
	case cmdRelease, cmdRenew, cmdCancel, cmdWithdraw, cmdAbandon, cmdDetach:
		return laneUrgent
	}
	if c.read == readTable {
		return laneNormal
	}
	return laneUrgent
}

// goesFirst reports whether a call comes first in its entry, and bounds the
// stamps of entries that leave it behind: a renewal or a release that reached
// the leader in time must not be expired by one (rule 10).
func (c *call) goesFirst() bool {
	return c.cmd.kind == cmdRenew || c.cmd.kind == cmdRelease
}

// waits reports whether the call's own wait in a lock's queue is part of it.
func (c *call) waits() bool { return c.cmd.kind == cmdAcquire && c.cmd.wait }

// finish gives the call its reply and lets go of it: whoever waits for it may
// use it again at once.
func (c *call) finish(rep *reply) {
	c.answered = true
	c.reply = *rep
	if c.done != nil {
		c.done <- struct{}{}
	}
}

// reply is the answer to a call: a failure, or what its kind asks for.
type reply struct {
	failure *failure
	result  result // of a command
	unsure  bool   // an earlier attempt of the same call has an unknown outcome

	// remaining is what a grant in result still had at the instant at, by the
	// leader's clock. timed is false when no leader could say so: then the
	// caller asks once more before it relies on the grant.
	remaining span
	at        time.Time
	timed     bool
	usual     span // LOCK_HELD: how long that lock is usually held; 0 when not known

	found   bool         // readLock, with the lock in result
	waiters []waiterView // readLock withWaiters
	table   *tableView   // readTable
	now     logTime      // reads: the leader's cluster time
	index   uint64       // readIndex: what must be applied before the read may be served
}

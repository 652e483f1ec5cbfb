package raftlock

import "github.com/raftlock/raftlock/pb"

// logTime is an instant of cluster time: nanoseconds that the cluster has
// counted since it was made. Only the log carries it (see clock.go); it is
// never a wall clock and never a member's own clock.
type logTime int64

// span is a length of cluster time in nanoseconds. The pure files use it in
// place of time.Duration, whose package they must not import.
type span int64

// never is the end of what has no end.
const never = logTime(1<<63 - 1)

// plus returns t+d; it saturates at never and does not go below t for a
// negative d.
func (t logTime) plus(d span) logTime {
	if d <= 0 {
		return t
	}
	if t > never-logTime(d) {
		return never
	}
	return t + logTime(d)
}

// identity names a contender for a lock. The empty request is a value: plain
// calls of one client share an identity.
type identity struct{ client, request string }

// metadata is a grant's key-value data, sorted by key, keys unique. It is
// shared between commands, table and clones, hence never changed in place.
type metadata []pair

type pair struct{ key, value string }

// commandKind says what a command does. Values are part of the log's format:
// they are never changed or reused.
type commandKind uint8

const (
	cmdAcquire  commandKind = 1 // take the lock, or join its queue, or claim a wait or grant of the same identity
	cmdRelease  commandKind = 2 // give the lock back
	cmdRenew    commandKind = 3 // move the grant's end, never earlier
	cmdEnqueue  commandKind = 4 // join the queue without a call that waits
	cmdCancel   commandKind = 5 // CancelWait without a request id: leave the queue
	cmdWithdraw commandKind = 6 // CancelWait with a request id: end wait and grant, remember the request
	cmdAbandon  commandKind = 7 // the context of the last plain call that waited has ended
	cmdDetach   commandKind = 8 // the connection of the last call that waited is lost
)

// command is one call as it stands in the log, or (before the leader has
// resolved its defaults) as a caller made it: then a zero ttl or timeout means
// the default, and arrival is unset.
type command struct {
	kind     commandKind
	wait     bool // Acquire: join the queue when the lock is held
	attempt  int32
	priority int32 // Acquire, Enqueue: higher is served first

	lock    string
	client  string
	request string // Acquire, Withdraw, Detach; "" for a plain call

	version int64   // Release, Renew: the token; Enqueue: remembered with the wait; Cancel: 0 or the wait's
	ttl     span    // Acquire, Renew, Enqueue
	timeout span    // Acquire with wait, Enqueue: how long the wait may last
	claim   uint64  // Abandon, Detach: the claim that it ends; a newer one stands
	arrival logTime // when it reached the leader, never later than the entry's stamp

	metadata metadata // Acquire
}

func (c *command) identity() identity { return identity{c.client, c.request} }

// entry is what one raft entry carries: a batch of commands under one stamp.
type entry struct {
	stamp logTime // cluster time; ends that the commands make count from it
	wall  int64   // the leader's wall clock, µs since 1970: stored for people, never compared

	// first marks the first entry of a term. It carries floor, below or at
	// which no token of the term lies (ignored above maxFloor), and detaches
	// every wait, because its calls were attached to an earlier leader.
	first bool
	floor int64

	bounds   bounds
	commands []command
}

// bounds are the leader's limits, written into the entry so that every member
// decides alike. They are in the log only when a command needs them.
type bounds struct {
	lockWaiters int64 // waiters of one lock
	locks       int64 // locks in the table, freed ones included
	waiters     int64 // waiters in the table
}

// result is what the table answers to one command.
type result struct {
	// code is OK, or the refusal: LOCK_HELD, LOCK_NOT_HELD, NOT_LOCK_OWNER,
	// VERSION_MISMATCH, LOCK_NOT_FOUND, WAIT_QUEUE_FULL, NOT_WAITING,
	// RATE_LIMITED. A queued Acquire or Enqueue is OK with queued set.
	code pb.ErrorCode

	queued   bool   // Acquire, Enqueue: stands in the queue as waiter, under claim
	promoted bool   // Release, Withdraw: the freed lock went to a waiter
	waiter   uint64 // the waiter's number: its place in log order, never reused
	claim    uint64 // the claim that this command made; larger is newer
	position int32  // queued: how many stand before it

	limit int64    // WAIT_QUEUE_FULL, RATE_LIMITED: the bound that was reached
	lock  lockView // the lock as the command left it, or found it when refused
}

// lockView is a copy of what a lock's record says.
type lockView struct {
	id       string
	owner    string // "" when free
	request  string // the holder's request id
	version  int64  // the token of the grant, or of the last one when free; 0 when there was none
	end      logTime
	acquired int64 // wall clock of the grant's entry, µs
	modified int64 // wall clock of the last change, µs
	waiters  int32
	metadata metadata // of the grant; nil when free
}

// held reports whether somebody holds the lock.
func (v *lockView) held() bool { return v.owner != "" }

// eventKind says what happened to a waiter outside its own command.
type eventKind uint8

const (
	eventGranted   eventKind = 1 // its turn came: it holds the lock
	eventTimedOut  eventKind = 2 // its own wait time-out passed
	eventCancelled eventKind = 3 // CancelWait, Withdraw or Abandon ended it
	eventLapsed    eventKind = 4 // nobody claimed it within the window of its detachment
)

// event tells the calls that are attached to a waiter how their wait ended.
// Each waiter has exactly one.
type event struct {
	kind   eventKind
	waiter uint64
	id     identity
	lock   lockView // after the event
}

// outcome is all that one entry did: a result for each command, in order, and
// the ends of waits, in the order in which they came about.
type outcome struct {
	results []result
	events  []event
	// more: the sweep stopped at its cap with ends still due; another entry
	// must follow at once.
	more bool
	// How many grants this entry made, how many it ended, and how many of those
	// ended by time; and how long those that ended were held, in µs of the
	// leaders' wall clocks.
	granted, ended, expired int
	heldFor                 int64
}

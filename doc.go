// Package raftlock gives a service its own distributed lock cluster, inside its
// own process: a raft group that replicates a table of locks. On the member that
// leads, taking a lock is a function call and one commit; on the others it is one
// hop more. Package embed opens a member on a disk and a network in one call,
// package testcluster a whole cluster in a unit test; this package is what both
// are made of.
//
// # Work under a lock
//
//	func bill(ctx context.Context, disk raftlock.Storage) error {
//		node, err := raftlock.Open(raftlock.Config{Name: "n1", Storage: disk})
//		if err != nil {
//			return err
//		}
//		defer node.Close()
//		return client.Do(ctx, node.Client(), "invoices", func(ctx context.Context, token int64) error {
//			return writeInvoices(ctx, token) // for as long as ctx lasts; the token goes with every write
//		})
//	}
//
// # What it promises
//
// One holder. A lock has at most one holder in the table. Every grant has a
// token (Lock.Version), unique and growing over all locks of the cluster, also
// over restarts and changes of the leader; a renewal keeps it.
//
// Never early. A grant ends when it is released, withdrawn, or when its TTL has
// passed since the request that was answered, and not before, whichever members
// die. Time without a leader is added to what a holder has left, never taken.
//
// Nothing acknowledged is lost. A call is answered when its effect is on the
// disks of a majority. A call that was proposed and not answered ends as
// client.ErrOutcomeUnknown, never as a refusal; the same call made again with
// the same identity finds out.
//
// In turn. Who waits for a lock is granted it by priority, then in the order of
// the log; the release that frees a lock grants it, in one commit. A wait keeps
// its place when the leader dies or a connection breaks.
//
// Linearizable reads, from every member.
//
// A guest's manners. A member never ends the process, panics across the border
// of this package, catches signals, writes to a standard stream, or leaves a
// goroutine behind; there is no global state, so that any number of members may
// share a process. What ends a member shows in Node.Done and Node.Err.
//
// # What it refuses
//
// It does not stop a process that believes in a lock it has lost, as one that
// was suspended does: no lock service can. What the lock protects must remember
// the greatest token it has seen and refuse smaller ones; package fence is that
// half, with recipes for databases, files, HTTP and object stores.
//
// Wall clocks decide nothing, with one exception: the first entry of each term
// carries its leader's wall clock in microseconds, and no token of the term is
// below that. It keeps tokens growing when a cluster is restored from a copy or
// made anew, unless the clock was set back in between.
//
// A member whose data directory is gone, or is another one than its cluster
// knows, has lost the votes it gave, and does not take part (ErrDiskLost). What
// a newer version wrote ends the member before it is applied
// (ErrUnknownFormat). A log that does not read back as it was written is not
// opened (ErrCorrupt), but for the torn end that a crash leaves.
//
// # The map of the house
//
// The files of this package in reading order. The pure ones do what the log says
// and nothing else: no clock, no I/O, no goroutine, no configuration.
//
//	config.go          Config and Limits: what a member is given
//	errors.go          what ends a member, or keeps it from opening
//	node.go            Node: Open, Client, Close; the table of its goroutines
//	loop.go            the one goroutine that owns everything: take, work, carry out, sleep
//	metronome.go       when raft's time passes, and how long an idle member sleeps
//	inbox.go           the one door into the loop
//	replica.go         the synchronous core: raft, the table, the calls that wait
//	apply.go           what an entry of the log does, and the answers to calls
//	call.go            a call on its way, and its reply
//	office.go          a leader's way into its term and out of it
//	proposals.go       group commit: waiting calls become one raft entry
//	clock.go           cluster time: anchors, the leader's base, stamps
//	waits.go           calls that wait in a lock's queue: attach, detach, leave
//	tidings.go         what raft wants told and nobody waits for
//	reads.go           linearizable reads in rounds
//	forward.go         a follower's calls at the leader
//	appender.go        the writing of the log, beside the loop
//	horizon.go         when a snapshot is due, and where the log is cut
//	snapshottake.go    the taking of a snapshot
//	snapshotsend.go    its way to a peer that lacks too much of the log
//	snapshotreceive.go its coming from the leader, and in whose place it is put
//	diskwatch.go       a disk that hangs: the leadership goes to another
//	changes.go         changes of the members, one at a time
//
//	command.go         pure: commands, entries, results, events
//	statemachine.go    pure: the lock table, apply(entry) → results
//	locktree.go        pure: the locks by id, and the hash of the state
//	waitqueue.go       pure: every waiter of every lock, in one tree
//	requests.go        pure: the RequestIDs that must not come back
//	holdtime.go        pure: how long a lock is usually held
//	deadlines.go       pure: what ends next, and the sweep
//	query.go           pure: reading one lock, listing many
//	codec.go           pure: the bytes of entries, commands and results
//	snapshot.go        pure: the bytes of a snapshot
//	snapshotload.go    pure: its items, and the table made from them
//	roster.go          pure: who belongs to the cluster
//	change.go          pure: a change of the members, and its bytes
//
//	attempt.go         one attempt of such a call: in, wait, give up
//	local.go           the client in process: attempts, repeats, withdrawals
//	limits.go          what callers may ask: checks and defaults
//	answers.go         the loop's replies in the types of package client
//	failure.go         why a call got no answer of the table
//	stats.go           what became of grants in the last minute
//	status.go          Health, GetStatus, GetBackoffAdvice
//	membership.go      Members, AddMember, RemoveMember, ReplaceMember, TransferLeadership
//
//	transport.go       the contract of the wire between members
//	frame.go           what goes over it: raft's messages and forwarded calls
//	outbox.go          the way to one peer: batches, drops, reports
//	peers.go           meeting a peer: greeting, being greeted, receiving
//	knock.go           telling who comes to an empty place, and does not ask
//	repetition.go      what the log does not say again when meetings fail
//	directory.go       the ways to all peers, as members come and go
//	format.go          versions of what is written: all members must read it
//	hello.go           what members say first, and how they judge it
//	identity.go        who a member is, on disk
//	assembly.go        the first start: members become a cluster, once
//
//	storage.go         the contract of a disk
//	storage_memory.go  a disk in memory, for tests
//	memorysnapshot.go  its snapshots
//	snapshotfile.go    a snapshot as a file: blocks, checksums
//	raftlog.go         raft's messages in the member's log
//	doc.go             this page
//
// The goroutines of a member, with what ends each, stand in the table at [Node].
// docs/guarantees.md names the tests of each promise and what they assume,
// docs/locktable.md specifies the table, docs/design.md tells why all of it is as
// it is.
package raftlock

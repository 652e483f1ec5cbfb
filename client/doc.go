// Package client is the door to a raftlock cluster: the calls, what goes into
// them and comes out, the errors, and the settings of a client.
//
// # What it promises
//
// A lock has at most one holder. Every grant carries a Version, the fencing
// token: it is unique and grows over all locks of the cluster, so that a
// resource which remembers the highest one it has seen can refuse a holder
// whose time is over. A grant never ends before its time-to-live has passed.
// The same interfaces are served by a client over the network and by one that
// shares a process with the cluster; programs cannot tell them apart, and
// mocks of the interfaces keep compiling: they never get another method.
//
// A call that is refused returns both, a result that says why (its Error, and
// advice on when to come back) and an error. The error is a *ClientError
// around one of the Err… values of this package: test it with errors.Is, never
// with == and never by its text.
//
// # What it refuses
//
// It never says that a lock was not acquired, or is not released, when it does
// not know. A command that was sent and not answered ends with an error that
// is ErrOutcomeUnknown, and repeating it with the same identity finds out.
// Nor does it retry what the cluster has decided: a refusal is final.
//
// # Who a caller is
//
// The pair (ClientID, RequestID) holds and waits, and empty is a value. A
// ClientID names one running process (see NewClientID); a RequestID names one
// call, over all its attempts. Two callers with the same pair share one grant
// and one token instead of excluding each other.
//
// # Work under a lock
//
//	err := client.Do(ctx, c, "invoices/2024", func(ctx context.Context, token int64) error {
//		return writeInvoices(ctx, token)
//	})
//
// Do waits for its turn, keeps the lock renewed while the function runs, and
// gives it back. The function's context ends before the lock can be granted to
// another, network or not; the token goes along with every write. Hold is the
// same for work that is not one function; LockHandle and AutoRenewer are its
// parts. Under all of them are the calls of RaftLockClient: Acquire, Renew and
// Release, and whoever makes those himself also has to know when to stop.
//
// A process that was suspended is told at its first look, and what it has under
// way by then is stopped by its token alone.
//
// # The files, in reading order
//
//	client.go      the interfaces that a cluster answers to
//	requests.go    what goes into a call
//	results.go     what comes out of it
//	lock.go        a grant, a lock, a waiter, a filter, advice on retries
//	locks.go       ranging over many locks
//	status.go      how a member and its raft group are doing
//	errors.go      every error of the package, and the codes behind them
//	validation.go  a field that was refused before anything was sent
//	config.go      the settings of a client, and what is wrong with them
//	retry.go       when and how often a call is repeated
//	identity.go    a fresh ClientID
//	do.go          work under a lock: Do, DoWithLock, RunWithLock
//	hold.go        a lock that is held and kept
//	handle.go      one lock with its state kept for the caller
//	renewer.go     renewing in the background
//	lease.go       one grant in the hands of this process, under all of these
//	metrics.go     what a client counts
//
// The client over the network:
//
//	dial.go        Dial, and the published constructors around it
//	builder.go     the settings collected step by step
//	remote.go      the client itself: its life, and how Close ends it
//	locking.go     the calls that change the table
//	looking.go     the calls that do not
//	exchange.go    one call over all its attempts: passes, redirects, the verdict
//	attempt.go     one attempt
//	failure.go     why an attempt or a call failed, and the error that says so
//	checks.go      what is refused before anything is sent
//	convert.go     from and to the messages of package pb
//	withdrawal.go  taking back a call that was cancelled
//	endpoints.go   where the cluster may be met: the order of trying, the leader, the pinned cluster
//	endpoint.go    one address and the connections to it
//	hosts.go       the addresses behind the configured names
//	wiretap.go     what gRPC tells beside its results
//	counters.go    Metrics, counted
package client

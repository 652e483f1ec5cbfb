// Package history records what clients of a lock cluster do, and says whether the
// cluster kept its promises to them.
//
//	rec := history.New()
//	a, b := rec.Client(cl, "a"), rec.Client(cl, "b") // clients like any other
//	…                                                // run anything through them
//	if err := rec.History().Check(history.Bounds{}).Err(); err != nil {
//		t.Error(err) // names the rule and the two operations that break it
//	}
//
// A recorder wraps any client.Client. Its History can be checked at once, or
// written as lines of JSON and checked elsewhere: by Read and Check, or by the
// command `raftlock check`, which also looks for an order of the operations that
// explains it.
//
// # What it promises
//
// Check takes O(n log n). Each of the Rules speaks only of what is certain, and so
// is silent about every history that a correct cluster can cause, whatever was
// lost, late, repeated or without a leader in it: an operation is known to have
// had its effect between its call and its answer; one without an answer may have
// it at any time, or never; a hold is guaranteed from its answer to the end that
// was promised, and no longer than to the call of a release. A violation names two
// operations and says in words what does not go together.
//
// # What it refuses
//
// It does not prove that a cluster is correct. What is not certain in a history is
// not held against it: Report.Compared tells for each rule how often it had
// something to compare, and Report.Thin that the history says nothing about
// exclusion. Rules about what is late measure only time in which answers are seen
// to come, because time without a leader counts for nobody: to have them speak,
// let some client look at a lock every few milliseconds. Those about queues need
// looks with IncludeWaiters: nothing else shows that somebody waits.
//
// Who records must record everything that ends holds. A release, or a withdrawal,
// by a client that is not wrapped makes a correct history look wrong; and so does a
// grant that its owner asked for before, past the recorder.
//
// # The files, in reading order
//
//	operation.go  an operation, and what an answer shows
//	history.go    the list of them, as lines of JSON
//	recorder.go   keeping what clients do
//	recorded.go   a client that is recorded
//	bounds.go     the times that the rules allow
//	report.go     rules, violations, and their words
//	index.go      Check: what a history says about each lock and each grant
//	asks.go       what the calls of one identity mean for its grants
//	service.go    the time in which the cluster is seen to serve
//	exclusion.go  rules: mutual exclusion, one token per request id
//	tokens.go     rules: unique and growing tokens, none unasked, no stale token, no stale read
//	losses.go     rule: no hold lost early
//	expiry.go     rule: expiry within its bound
//	queue.go      rule: queue order
//	waiters.go    rule: waiters served
//
// # The format
//
// A history is a text of lines, each a JSON object. The first is
//
//	{"format":"raftlock-history","version":1}
//
// and each of the others an operation, with the fields of Op; all times are
// nanoseconds since the recording began. It is frozen: what older readers would
// misunderstand gets another version, and a field that a reader does not know is
// an error.
package history

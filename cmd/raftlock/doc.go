// Command raftlock takes locks for other programs, and shows what a lock cluster
// does.
//
//	raftlock lock NAME -- COMMAND    run a command while holding a lock
//	raftlock ls, get, release        look at locks, give them back, take them away
//	raftlock status                  ask every member how it is
//	raftlock member                  list and change the members
//	raftlock serve                   run a member for programs that do not embed one
//	raftlock check                   say whether a recorded history keeps the promises
//	raftlock demo                    a cluster of three in one process: tokens, a
//	                                 queue, a leader that dies, a stale token that
//	                                 is refused
//	raftlock version                 the version of this build
//	raftlock help                    all of it
//
// docs/command.md describes every command, the environment, the exit codes and
// what the watchdog of lock promises. Exit code 0 means that what was asked for
// is done, 64 that the command line makes no sense, 69 that no cluster can be
// reached, 130 an interrupt; otherwise it is 1, but for lock, which exits as its
// command does and has codes of its own, and check, which has 2 and 3 as well. Every failure says why in a line on
// standard error.
//
// The files: main.go runs a command line; exit.go has the exit codes and how
// errors are told; connection.go finds the cluster, environment.go has flags read
// from the environment. lock.go is the command lock, around package supervise,
// witness.go what it learns from renewals, signals_*.go the signals it takes.
// ls.go, get.go, release.go, status.go and member.go are the commands of those names, view.go
// how locks are shown. serve.go runs a member, papers.go reads its certificates.
// check.go holds a history against rules and searches for an order of it, model.go
// is the lock for that search.
// demo.go is the demo's script, trio.go its cluster, links.go the connections that
// it can cut, stage.go how it talks; version.go is the version.
package main

// Command raftlock shows what a lock cluster does.
//
//	raftlock demo       a cluster of three in one process: tokens, a queue,
//	                    a leader that dies, a stale token that is refused
//	raftlock version    the version of this build
//	raftlock help       all of it
//
// It exits with 0 when it has done what it was asked for, with 130 when it was
// interrupted, and otherwise with 1 and a line on standard error that says why.
//
// The files: main.go turns arguments into an exit code; demo.go is the demo's
// script, trio.go its cluster, links.go the connections that it can cut, stage.go
// how it talks; version.go is the version.
package main

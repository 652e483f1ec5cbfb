// Package e2e tests members in processes of their own: what happens when one is
// killed without a word, when all are, when a disk fails under one, and what
// programs that talk to them over the network notice of it. It has no
// code but tests. The test binary runs itself again as a member, or as a program without one (child_test.go),
// that takes commands as lines of JSON; the test (fleet_test.go) starts and
// kills such members and checks what they have acknowledged. TestKillAll does it again
// and again, under load; make torture has it go on for as long as one likes.
//
// The tests need nothing but loopback ports and, for failing disks and for
// crashes at a chosen system call, strace; without it those are skipped.
package e2e

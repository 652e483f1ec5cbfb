// Package e2e tests members in processes of their own: what happens when one is
// killed without a word, when all are, when a disk fails under one, and what
// programs that talk to them over the network notice of it. It has no
// code but tests. The test binary runs itself again as a member, or as a program without one (child_test.go),
// that takes commands as lines of JSON; the test (fleet_test.go) starts and
// kills such members and checks what they have acknowledged. TestKillAll does it again
// and again, under load. TestTorture does worse to members that `raftlock serve`
// runs (server_linux_test.go), with every fault there is (faults_linux_test.go)
// on ways that are in its hands (relay_test.go), while programs (customer_test.go)
// write down what they see (journal_test.go). make torture has both go on for as long
// as one likes.
// TestSoak has three members work at full rate and looks for what grows; make soak
// runs it for 20 minutes and draws the curves.
//
// The tests need nothing but loopback ports and, for failing disks and for
// crashes at a chosen system call, strace, and for TestSoak, /proc; without it those are skipped.
package e2e

// Package transporttest checks that a raftlock.Transport keeps its contract.
// Every implementation runs it:
//
//	func TestContract(t *testing.T) {
//		transporttest.Run(t, func(tb testing.TB) transporttest.Open { … })
//	}
//
// and one that lives in virtual time runs it there as well, with [RunInBubble].
// Nothing in it sleeps or depends on how fast the machine is: what should
// happen is waited for, for as long as patience lasts, and in a bubble a wait
// in vain fails at once.
package transporttest

package transporttest

import (
	"testing"
	"testing/synctest"

	"github.com/raftlock/raftlock"
)

// Open makes a transport that is not serving yet: at addr, where an earlier
// one was closed, or, when addr is empty, at an address that nobody uses. It
// returns the address that others dial.
type Open func(addr string) (transport raftlock.Transport, address string)

// Factory makes the network of one test. What it makes it cleans up through
// tb, except the transports, which the suite closes.
type Factory func(tb testing.TB) Open

type check struct {
	name string
	run  func(t *testing.T, open Open)
}

var checks = []check{
	{"echo", echo},
	{"empty frame", emptyFrame},
	{"order both ways", order},
	{"largest frame", largestFrame},
	{"too large a frame is refused", tooLarge},
	{"many streams", manyStreams},
	{"slow reader", slowReader},
	{"dialler closes", diallerCloses},
	{"acceptor closes", acceptorCloses},
	{"close unblocks own receive", closeUnblocksOwnRecv},
	{"close unblocks blocked senders", closeUnblocksSend},
	{"close is idempotent", closeTwice},
	{"accept returns", acceptReturns},
	{"accept returns while others send", acceptReturnsBusy},
	{"dial nobody", dialNobody},
	{"dial with an ended context", dialEnded},
	{"context bounds only the dial", contextBoundsDial},
	{"dial before serve", dialBeforeServe},
	{"serve twice", serveTwice},
	{"transport close breaks streams", transportCloseBreaks},
	{"transport close waits for accept", transportCloseWaits},
	{"transport close is idempotent", transportCloseTwice},
	{"closed transport", closedTransport},
	{"close while dialling", closeWhileDialling},
	{"restart at the same address", restart},
}

// Run runs the contract's checks, each as a subtest with a network of its own.
func Run(t *testing.T, factory Factory) {
	t.Helper()
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) { c.run(t, factory(t)) })
	}
}

// RunInBubble is Run with each check in a testing/synctest bubble.
func RunInBubble(t *testing.T, factory Factory) {
	t.Helper()
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { c.run(t, factory(t)) })
		})
	}
}

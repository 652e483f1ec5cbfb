// Package memnet is a network in memory, for tests and for the test cluster:
// every member gets a [Transport] under an address that is only a name, and
// the test cuts and mends the links between them.
//
//	network := memnet.New()
//	a, b := network.Transport("a"), network.Transport("b")
//	network.Isolate("b") // b's streams stall; whoever dials it hangs
//	network.Heal()       // the stalled streams break; dialling works again
//
// # What it promises
//
// The contract of raftlock.Transport, and no more of it than TCP gives: a
// frame that was handed over may be lost with everything behind it, never
// alone. Frames of one stream arrive in the order of Send, and at once in fair
// weather. Wherever one event touches several streams it takes them in the
// order in which they were dialled.
//
// The receiver gets the slice that the sender handed over. Nothing is copied,
// so a sender that keeps writing into a frame it gave away shows up under the
// race detector.
//
// # Faults
//
// A cut link loses everything, as a real partition does, and like one it
// says nothing:
//
//   - Dial hangs until its context ends or the link, in both directions, is
//     mended. Nobody listening behind a whole link is an error at once.
//   - A stream stalls in the direction that is cut: what had arrived can still
//     be received, what is sent from then on is lost although Send returns nil,
//     and a Close is not seen by the other end. The other direction works on.
//   - A stalled stream never comes back. Both ends get errors when the link is
//     mended, or [Network.StallTimeout] after the cut, whichever is first.
//
// Links are cut for three independent reasons, and each is undone by its own
// counterpart: [Network.Cut] by [Network.Mend], [Network.Isolate] by
// [Network.Rejoin], [Network.Partition] by the next Partition (of nothing, to
// end it). [Network.Heal] undoes all three.
//
// A link that is not cut has its weather ([Network.SetWeather]): frames take their
// time, get lost, or reach the peer although the sender is told otherwise, so that
// they come twice or late. It never changes what a stream is: see [Weather].
// [Network.Seed], the link and the number of the frame decide what becomes of it,
// so that the same frames meet the same fates again.
//
// A machine that dies with its network is Isolate, then Close. A process that
// dies is only Close: its peers notice at once. Either comes back by serving
// again under the same address, with a new Transport.
//
// # Virtual time
//
// Everything that waits, waits on a channel or a condition variable; no
// goroutine exists but those in which accept runs; the only timers are those
// of stalled streams and of what is under way. So a network lives inside a testing/synctest bubble, or
// outside of any, but must be used where it was made.
package memnet

// Package testcluster is a whole lock cluster in a unit test: real members,
// with real raft and the real lock table, on disks and a network in memory. No
// port is opened, no file written, and no goroutine is left when the test ends.
//
//	func TestMyService(t *testing.T) {
//		c := testcluster.New(t, 3)
//		svc := NewService(c.Client()) // a client.Client
//		…
//		c.CrashLeader() // what does the service do now?
//	}
//
// Inside a testing/synctest bubble everything works unchanged and time is
// virtual: ten minutes of TTL cost less than a second. Give New the bubble's own t.
//
// # Faults
//
// Each is one call. Members crash and start again (Crash, CrashLeader, Restart), lose
// with the power what was not on the disk (LoseUnsynced), stop and go on as
// processes do (Pause, Resume), and have clocks that run too fast or too slow
// (SkewRate). The leadership goes where it is sent (TransferLeadership).
//
// The network between members parts them (Isolate, Partition) or works in one
// direction only (Cut), takes its time (Delay), and loses, repeats or holds up what
// is sent (Drop, Duplicate, Reorder). Mend ends what was done to one link, Heal all
// of it. Disks are slow, hang or fail (DelayDisk, HangDisk, FailDisk, MendDisk), or
// are gone (LoseDisk).
//
// What chance decides about them comes from the seed: a test that fails is told it,
// and has the same faults again WithSeed.
//
// Add starts one member more; a Node removes and replaces them.
//
// Each client is a machine of its own, with a clock (SkewRate) and a line to the
// cluster: it is cut off (Cut, Mend), its answers get lost (DropAnswers), it is
// stopped as a process or a virtual machine is (Pause, Resume, Wake). What a service
// sees of that is what it would see of a real network: client.ErrUnavailable,
// client.ErrOutcomeUnknown, and holds that are lost.
//
// A cluster made WithGRPC also serves remote clients, over connections in memory;
// ClientConfig is what client.Dial needs, and Dial makes such a client on a machine
// of its own.
//
// When the test ends, New's cleanup ends all faults and compares the lock tables
// of all running members: a difference fails the test. So does a member that has
// ended by itself, whenever that was, unless the test has broken or taken its disk,
// or removed it. RequireReleased has it fail for a forgotten lock, too. What the
// cluster's clients have seen is held against the rules of package history: by all of
// them, unless the test has asked for a Node or for ClientConfig, whose clients may do
// what nobody records, or has let clocks go wrong; then by those about tokens. What the
// members log is shown if the test fails.
//
// # In a bubble
//
// Time passes only while every goroutine of the bubble waits for something in the
// bubble. So code under test does there what it always does, but:
//
//   - It waits for no real socket, pipe or process: time would stand still. The
//     cluster's own connections are in memory.
//   - What it uses is made in the bubble: no clients in package variables.
//   - It holds no mutex while it waits for time to pass.
//   - It ends its goroutines before the test's function returns: holds are
//     released, contexts cancelled.
//
// A holder for an hour, in seconds:
//
//	synctest.Test(t, func(t *testing.T) { // this t, not the outer one
//		c := testcluster.New(t, 3)
//		held, err := client.Hold(t.Context(), c.Client(), "a", client.WithTTL(time.Minute))
//		…
//		defer held.Release(context.Background())
//		time.Sleep(time.Hour) // renewed all the time
//	})
//
// docs/testing.md has more of that, and what the cluster says to a test that does
// otherwise.
package testcluster

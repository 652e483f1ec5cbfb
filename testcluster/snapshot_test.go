package testcluster_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/internal/callctx"
	"github.com/raftlock/raftlock/pb"
	"github.com/raftlock/raftlock/testcluster"
)

// smallSnapshots has members take a snapshot every few dozen calls.
func smallSnapshots() testcluster.Option {
	return testcluster.WithSnapshots(raftlock.Snapshots{MinLogBytes: 4 << 10, KeepLogBytes: 1 << 10})
}

// churn takes and releases locks, which fills the log.
func churn(t *testing.T, cl client.RaftLockClient, calls int) {
	t.Helper()
	for i := range calls {
		give(t, cl, take(t, cl, &client.AcquireRequest{
			LockID: fmt.Sprint("churn", i%17), ClientID: "churner", TTL: longTTL, Metadata: map[string]string{"call": fmt.Sprint(i)},
		}))
	}
}

func raftStatus(t *testing.T, c *testcluster.Cluster, i int) *client.RaftStatus {
	t.Helper()
	status, err := c.ClientOn(i).GetStatus(t.Context(), &client.GetStatusRequest{IncludeReplicationDetails: true})
	if err != nil {
		t.Fatalf("status of member %d: %v", i, err)
	}
	return status.RaftStatus
}

// until waits until holds does.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for range 6000 {
		if holds() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("never: %s", what)
}

// A member that starts from its snapshot goes on as if it had never stopped.
func TestAllStartFromSnapshots(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		cl := c.Client()
		held := hold(t, cl, "held", "owner")
		short := take(t, cl, &client.AcquireRequest{LockID: "short", ClientID: "owner", TTL: 30 * time.Second})
		for round := range 3 {
			churn(t, cl, 100)
			for i := range 3 {
				until(t, "a snapshot on every member", func() bool { return raftStatus(t, c, i).SnapshotIndex > uint64(100*(round+1)) })
			}
			for i := range 3 {
				c.Crash(i)
			}
			time.Sleep(time.Hour) // counts against nobody
			for i := range 3 {
				c.Restart(i)
			}
			c.Leader()
			last := hold(t, cl, fmt.Sprint("round", round), "owner")
			if last.Version <= short.Version {
				t.Errorf("token %d after %d", last.Version, short.Version)
			}
			for _, l := range []*client.Lock{held, short} {
				if info := look(t, cl, l.LockID); info.OwnerID != "owner" || info.Version != l.Version {
					t.Errorf("round %d: %s is held by %q with token %d", round, l.LockID, info.OwnerID, info.Version)
				}
			}
		}
		info := look(t, cl, "short")
		within(t, "what is left of 30 s after three hours without a cluster", time.Until(info.ExpiresAt), 20*time.Second, 30*time.Second)
		time.Sleep(time.Until(info.ExpiresAt) + late)
		if info, err := cl.GetLockInfo(t.Context(), &client.GetLockInfoRequest{LockID: "short"}); err == nil && info.OwnerID != "" || err != nil && !errors.Is(err, client.ErrLockNotFound) {
			t.Errorf("it is not free at its end: %+v, %v", info, err)
		}
	}, smallSnapshots())
}

// A follower that was away past the horizon of the log catches up by a snapshot,
// and can lead: queues, tokens, withdrawn requests and waits that nobody is
// attached to are there.
func TestFollowerBeyondTheHorizon(t *testing.T) {
	for _, away := range []string{"down", "cut off"} {
		t.Run(away, func(t *testing.T) {
			bubble(t, 5, func(t *testing.T, c *testcluster.Cluster) { beyondTheHorizon(t, c, away == "down") }, smallSnapshots())
		})
	}
}

func beyondTheHorizon(t *testing.T, c *testcluster.Cluster, down bool) {
	lead := c.Leader()
	behind, other := (lead+1)%5, (lead+2)%5
	cl := c.ClientOn(lead)
	if down {
		c.Crash(behind)
	} else {
		c.Isolate(behind)
	}
	first := hold(t, cl, "queue", "first")
	churn(t, cl, 60)
	second := waiting(t.Context(), c.ClientOn(other), client.AcquireRequest{LockID: "queue", ClientID: "second", RequestID: "r2"})
	third := waiting(t.Context(), cl, client.AcquireRequest{LockID: "queue", ClientID: "third", RequestID: "r3", Priority: 7})
	ctx, cancel := context.WithCancel(t.Context())
	left := waiting(ctx, cl, client.AcquireRequest{LockID: "queue", ClientID: "left", RequestID: "gone"})
	cancel()
	ended(t, left, 0)
	before := c.ClientOn(behind)
	base := raftStatus(t, c, lead).LastApplied
	churn(t, cl, 200)

	ctx, lose := context.WithCancelCause(t.Context())
	lost := waiting(ctx, cl, client.AcquireRequest{LockID: "queue", ClientID: "lost", RequestID: "r4"})
	lose(callctx.ErrConnectionLost)
	ended(t, lost, 0)
	churn(t, cl, 60) // a snapshot with the detached wait in it
	until(t, "a snapshot on the leader", func() bool { return raftStatus(t, c, lead).SnapshotIndex > base+200 })
	if down {
		c.Restart(behind)
	} else {
		c.Heal()
	}
	until(t, "that the follower catches up", func() bool {
		applied := raftStatus(t, c, lead).LastApplied
		return raftStatus(t, c, behind).LastApplied >= applied
	})
	if got := raftStatus(t, c, behind).SnapshotIndex; got <= base {
		t.Fatalf("the follower stands on a snapshot of %d: it did not get one", got)
	}
	if err := c.Node(lead).TransferLeadership(limit(t, time.Second), name(behind)); err != nil {
		t.Fatal(err)
	}
	back := waiting(t.Context(), before, client.AcquireRequest{LockID: "queue", ClientID: "lost", RequestID: "r4", Attempt: 2})
	if got, want := queueOf(t, before, "queue"), []string{"third", "second", "lost"}; !slices.Equal(got, want) {
		t.Fatalf("the queue is %v, want %v", got, want)
	}
	_, err := before.Acquire(t.Context(), &client.AcquireRequest{LockID: "queue", ClientID: "left", RequestID: "gone", Attempt: 2, Wait: true})
	wantError(t, err, client.ErrNotWaiting, pb.ErrorCode_NOT_WAITING)
	if c.Leader() != behind {
		t.Error("it has lost the leadership")
	}
	last := first.Version
	give(t, before, first)
	for _, w := range []<-chan outcome{third, second, back} {
		lock := granted(t, w, 0)
		if lock.Version <= last {
			t.Errorf("token %d after %d", lock.Version, last)
		}
		last = lock.Version
		give(t, before, lock)
	}
	synctest.Wait()
}

// A transfer that does not get on is given up after a minute and tried again;
// nobody else notices.
func TestSnapshotTransferThatHangs(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
		lead := c.Leader()
		behind := (lead + 1) % 3
		cl := c.ClientOn(lead)
		c.Isolate(behind)
		churn(t, cl, 100)
		c.HangDisk(behind)
		c.Heal()
		inProgress := func() bool { return raftStatus(t, c, lead).Replication[name(behind)].SnapshotInProgress }
		until(t, "that a snapshot is on its way", inProgress)
		begun := time.Now()
		longest := time.Duration(0)
		for inProgress() {
			call := time.Now()
			give(t, cl, hold(t, cl, "beside", "owner"))
			longest = max(longest, time.Since(call))
			time.Sleep(150 * time.Millisecond)
		}
		within(t, "a transfer without progress", time.Since(begun), 59*time.Second, 62*time.Second)
		if longest > 2*beat {
			t.Errorf("a call beside it took %v", longest)
		}
		until(t, "that it is tried again", inProgress)
		c.MendDisk(behind)
		until(t, "that the follower catches up", func() bool {
			applied := raftStatus(t, c, lead).LastApplied
			return raftStatus(t, c, behind).LastApplied >= applied
		})
		if c.Leader() != lead {
			t.Error("the leader has changed")
		}
	}, smallSnapshots())
}

// Whoever is lost while a snapshot is on its way, it comes in the end.
func TestSnapshotTransferThatBreaks(t *testing.T) {
	for _, lost := range []string{"sender", "receiver", "way"} {
		t.Run(lost, func(t *testing.T) {
			bubble(t, 3, func(t *testing.T, c *testcluster.Cluster) {
				lead := c.Leader()
				behind := (lead + 1) % 3
				cl := c.Client()
				c.Isolate(behind)
				held := hold(t, cl, "held", "owner")
				churn(t, cl, 100)
				c.HangDisk(behind) // holds the transfer up where it begins to write
				c.Heal()
				until(t, "that a snapshot is on its way", func() bool {
					return raftStatus(t, c, lead).Replication[name(behind)].SnapshotInProgress
				})
				switch lost {
				case "sender":
					c.Crash(lead)
				case "receiver":
					c.Crash(behind)
				default:
					c.Isolate(behind)
				}
				time.Sleep(time.Second)
				c.MendDisk(behind)
				time.Sleep(time.Second)
				switch lost {
				case "sender":
					c.Restart(lead)
				case "receiver":
					c.Restart(behind)
				default:
					c.Heal()
				}
				churn(t, cl, 10)
				until(t, "that the follower catches up", func() bool {
					applied := raftStatus(t, c, c.Leader()).LastApplied
					return raftStatus(t, c, behind).LastApplied >= applied
				})
				if raftStatus(t, c, behind).SnapshotIndex < 100 {
					t.Error("it came without a snapshot")
				}
				if info := look(t, c.ClientOn(behind), "held"); info.Version != held.Version {
					t.Errorf("it knows token %d, want %d", info.Version, held.Version)
				}
			}, smallSnapshots())
		})
	}
}

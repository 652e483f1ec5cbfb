package testcluster_test

import (
	"errors"
	"testing"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/fence"
	"github.com/raftlock/raftlock/testcluster"
)

// TestHolderWhoseClockStopsWritesNothing holds the two halves together: a holder
// whose clock stands still goes on for ever as if it had the lock, and the token
// of the next one keeps it from the resource.
func TestHolderWhoseClockStopsWritesNothing(t *testing.T) {
	bubble(t, 3, holderWhoseClockStopsWritesNothing)
}

func holderWhoseClockStopsWritesNothing(t *testing.T, cluster *testcluster.Cluster) {
	var guard fence.Guard
	write := func() error { return nil }
	machine := cluster.Client()
	old, err := client.Hold(t.Context(), machine, "account", client.WithTTL(10*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if err := guard.Do(t.Context(), "account", old.Token(), write); err != nil {
		t.Errorf("the holder: %v", err)
	}
	machine.SkewRate(-999_999) // a second takes eleven days
	young, err := client.Hold(t.Context(), cluster.Client(), "account")
	if err != nil {
		t.Fatal(err)
	}
	if err := old.Err(); err != nil {
		t.Fatalf("the old holder knows that it has lost: %v", err)
	}
	if err := guard.Do(t.Context(), "account", young.Token(), write); err != nil { // it reads first
		t.Errorf("the next holder: %v", err)
	}
	if err := guard.Do(t.Context(), "account", old.Token(), func() error { t.Error("it wrote"); return nil }); !errors.Is(err, fence.ErrStale) {
		t.Errorf("the old holder: %v", err)
	}
	if err := old.Release(t.Context()); !errors.Is(err, client.ErrNotLockOwner) {
		t.Errorf("the old holder's release: %v", err)
	}
	if err := young.Release(t.Context()); err != nil {
		t.Error(err)
	}
}

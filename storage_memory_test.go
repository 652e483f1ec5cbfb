package raftlock_test

import (
	"testing"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/internal/storagetest"
)

func TestMemoryStorageKeepsTheContract(t *testing.T) {
	storagetest.Run(t, func(testing.TB) storagetest.Disk {
		disk := raftlock.NewMemoryStorage()
		return func(testing.TB) raftlock.Storage {
			disk = disk.Reopen()
			return disk
		}
	})
}

// A crashed member never calls Close, and may still be within a call.
func TestMemoryStorageReopenTakesTheDiskAway(t *testing.T) {
	crashed := raftlock.NewMemoryStorage()
	storagetest.Started(t, func(testing.TB) raftlock.Storage { return crashed })
	if err := crashed.Append(storagetest.Hard(2, 7, 1), storagetest.Entries(2, 2, "kept")); err != nil {
		t.Fatal(err)
	}
	restarted := crashed.Reopen()
	if err := crashed.Append(nil, storagetest.Entries(2, 3, "late")); err == nil {
		t.Error("the crashed member could write")
	}
	if err := crashed.Close(); err != nil {
		t.Errorf("Close of the crashed member's storage: %v", err)
	}
	found, err := restarted.Load()
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	if len(found.Entries) != 1 || string(found.Entries[0].GetData()) != "kept" {
		t.Errorf("loaded\n%s", storagetest.Text(found))
	}
	if err := restarted.Append(nil, storagetest.Entries(2, 3, "next")); err != nil {
		t.Errorf("Append: %v", err)
	}
}

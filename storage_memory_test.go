package raftlock_test

import (
	"fmt"
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

// A power cut keeps any part of the append that was under way, and any commit
// index since the last sync; nothing else is lost.
func TestMemoryStorageAfterAPowerCut(t *testing.T) {
	for _, cut := range []struct {
		kept, uncommitted int
		want              string
	}{
		{0, 0, "term 2 vote 7 commit 3: a b c"},
		{0, 1, "term 2 vote 7 commit 2: a b c"},
		{0, 2, "term 2 vote 7 commit 1: a b c"},
		{1, 0, "term 3 vote 8 commit 3: a b c"}, // a new vote is synced, and the commit index with it
		{2, 0, "term 3 vote 8 commit 3: a b x"},
		{3, 0, "term 3 vote 8 commit 3: a b x y"},
		{4, 0, "term 3 vote 8 commit 4: a b x y"},
	} {
		disk := raftlock.NewMemoryStorage()
		storagetest.Started(t, func(testing.TB) raftlock.Storage { return disk })
		for _, err := range []error{
			disk.Append(storagetest.Hard(2, 7, 1), storagetest.Entries(2, 2, "a", "b", "c")),
			disk.Append(storagetest.Hard(2, 7, 3), nil), // without a sync
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		picks := []int{cut.kept, cut.uncommitted}
		pick := func(n int) int {
			k := picks[0]
			if k > n {
				t.Errorf("%+v: one of %d", cut, n)
			}
			picks = picks[1:]
			return k
		}
		disk = disk.ReopenTorn(storagetest.Hard(3, 8, 4), storagetest.Entries(3, 4, "x", "y"), pick)
		found, err := disk.Load()
		if err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprintf("term %d vote %d commit %d:", found.Hard.GetTerm(), found.Hard.GetVote(), found.Hard.GetCommit())
		for _, e := range found.Entries {
			got += " " + string(e.GetData())
		}
		if got != cut.want {
			t.Errorf("after %+v there is %s", cut, got)
		}
	}
}

// Before there is a log, and where no append was under way, nothing can be torn.
func TestMemoryStorageWithNothingToLose(t *testing.T) {
	disk := raftlock.NewMemoryStorage()
	all := func(n int) int { return n }
	if found, err := disk.ReopenTorn(nil, nil, all).Load(); err != nil || found.Snapshot != nil || found.Hard != nil {
		t.Errorf("of nothing there is %+v, %v", found, err)
	}
	disk = raftlock.NewMemoryStorage()
	storagetest.Started(t, func(testing.TB) raftlock.Storage { return disk })
	found, err := disk.ReopenTorn(nil, nil, all).Load()
	if err != nil || found.Hard.GetCommit() != 1 || len(found.Entries) != 0 {
		t.Errorf("of a log without entries there is %+v, %v", found, err)
	}
}

package raftlock

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
)

// entriesOf makes entries of one term from index first to last.
func entriesOf(term, first, last uint64) (entries []*raftpb.Entry) {
	for i := first; i <= last; i++ {
		entries = append(entries, &raftpb.Entry{Term: new(term), Index: new(i)})
	}
	return entries
}

func TestMergeEntries(t *testing.T) {
	for name, c := range map[string]struct {
		have, more []*raftpb.Entry
		last       uint64
		terms      []uint64
	}{
		"nothing":           {nil, nil, 0, nil},
		"nothing more":      {entriesOf(1, 2, 3), nil, 3, []uint64{1, 1}},
		"the first":         {nil, entriesOf(1, 2, 3), 3, []uint64{1, 1}},
		"behind":            {entriesOf(1, 2, 3), entriesOf(2, 4, 4), 4, []uint64{1, 1, 2}},
		"over the end":      {entriesOf(1, 2, 4), entriesOf(2, 3, 3), 3, []uint64{1, 2}},
		"over all":          {entriesOf(1, 3, 4), entriesOf(2, 3, 3), 3, []uint64{2}},
		"over all and more": {entriesOf(1, 3, 4), entriesOf(2, 2, 3), 3, []uint64{2, 2}},
	} {
		got := mergeEntries(c.have, c.more)
		if len(got) != len(c.terms) {
			t.Errorf("%s: %d entries, want %d", name, len(got), len(c.terms))
			continue
		}
		for i, e := range got {
			if e.GetTerm() != c.terms[i] {
				t.Errorf("%s: entry %d is of term %d", name, i, e.GetTerm())
			}
		}
		if len(got) > 0 && got[len(got)-1].GetIndex() != c.last {
			t.Errorf("%s: ends at %d", name, got[len(got)-1].GetIndex())
		}
	}
}

func TestMergeEntriesLeavesTheirArraysAlone(t *testing.T) {
	have := entriesOf(1, 2, 4)
	mergeEntries(have[:1], entriesOf(2, 3, 3))
	if have[1].GetTerm() != 1 {
		t.Error("an array that is not ours was written to")
	}
}

// sickDisk fails its appends.
type sickDisk struct{ Storage }

var errSick = errors.New("input/output error")

func (sickDisk) Append(*raftpb.HardState, []*raftpb.Entry) error { return errSick }

// What raft attached to a write must never leave when the write has failed.
func TestFailedWriteDeliversNothing(t *testing.T) {
	log := labLog([]uint64{1})
	a := newAppender(sickDisk{}, log, func([]*raftpb.Message) { t.Error("a response has left") })
	err := a.write([]*raftpb.Message{{
		Type: raftpb.MsgStorageAppend.Enum(), Entries: entriesOf(1, 2, 2),
		Responses: []*raftpb.Message{{Type: raftpb.MsgAppResp.Enum()}},
	}})
	if !errors.Is(err, errSick) {
		t.Errorf("error: %v", err)
	}
	if last, _ := log.LastIndex(); last != firstIndex {
		t.Errorf("raft can read entry %d, which is not durable", last)
	}
}

// orderedDisk notes what it is given.
type orderedDisk struct {
	Storage
	writes  int
	hard    *raftpb.HardState
	entries []*raftpb.Entry
	order   []string
}

func (d *orderedDisk) InstallSnapshot(meta *raftpb.SnapshotMetadata, hard *raftpb.HardState) error {
	d.order = append(d.order, fmt.Sprintf("install %d of %d", meta.GetIndex(), hard.GetCommit()))
	return nil
}

func (d *orderedDisk) Append(hard *raftpb.HardState, entries []*raftpb.Entry) error {
	d.writes++
	d.order = append(d.order, fmt.Sprint("append ", entries[0].GetIndex()))
	d.hard, d.entries = hard, entries
	return nil
}

func TestGatheredMessagesAreOneWrite(t *testing.T) {
	disk := &orderedDisk{}
	var delivered []*raftpb.Message
	a := newAppender(disk, labLog([]uint64{1}), func(m []*raftpb.Message) { delivered = m })
	hard := func(term, vote, commit uint64) *raftpb.Message {
		return &raftpb.Message{Term: new(term), Vote: new(vote), Commit: new(commit)}
	}
	first, last := hard(2, 1, 1), hard(3, 2, 1)
	first.Entries, last.Entries = entriesOf(2, 2, 4), entriesOf(3, 3, 3)
	first.Responses = []*raftpb.Message{{Type: raftpb.MsgAppResp.Enum()}}
	last.Responses = []*raftpb.Message{{Type: raftpb.MsgVoteResp.Enum()}}
	if err := a.write([]*raftpb.Message{first, last}); err != nil {
		t.Fatal(err)
	}
	if disk.writes != 1 || disk.hard.GetTerm() != 3 || len(disk.entries) != 2 {
		t.Errorf("%d writes, term %d, %d entries", disk.writes, disk.hard.GetTerm(), len(disk.entries))
	}
	if len(delivered) != 2 || delivered[0].GetType() != raftpb.MsgAppResp {
		t.Errorf("delivered %v", delivered)
	}
}

// A snapshot is named in the log between the writes before and after it, with a
// hard state that commits no more than it.
func TestSnapshotIsInstalledInOrder(t *testing.T) {
	disk := &orderedDisk{}
	var delivered []*raftpb.Message
	log := labLog([]uint64{1})
	a := newAppender(disk, log, func(m []*raftpb.Message) { delivered = append(delivered, m...) })
	before := &raftpb.Message{Term: new(uint64(2)), Vote: new(uint64(1)), Commit: new(uint64(1)), Entries: entriesOf(2, 2, 4)}
	snap := &raftpb.Message{
		Term: new(uint64(3)), Vote: new(uint64(1)), Commit: new(uint64(11)), Entries: entriesOf(3, 10, 11),
		Snapshot:  &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: new(uint64(9)), Term: new(uint64(3)), ConfState: &raftpb.ConfState{Voters: []uint64{1}}}},
		Responses: []*raftpb.Message{{Type: raftpb.MsgAppResp.Enum()}},
	}
	after := &raftpb.Message{Term: new(uint64(3)), Vote: new(uint64(1)), Commit: new(uint64(12)), Entries: entriesOf(3, 12, 12)}
	if err := a.writeAll([]*raftpb.Message{before, snap, after}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"append 2", "install 9 of 9", "append 10", "append 12"}; !slices.Equal(disk.order, want) {
		t.Errorf("order: %v, want %v", disk.order, want)
	}
	if first, _ := log.FirstIndex(); first != 10 || len(delivered) != 1 {
		t.Errorf("the log begins at %d, %d responses", first, len(delivered))
	}
}

// An entry that a newer version wrote must stop the member before it is applied.
func TestEntryOfANewerVersionStopsTheMember(t *testing.T) {
	l := newLab(t, 1)
	n := l.nodes[0]
	l.elect(n)
	hash := n.r.table.hash()
	newer := newestFormat.appendEntry(nil, &entry{stamp: 1})
	newer[0]++ // the version
	if err := n.r.raw.Propose(newer); err != nil {
		t.Fatal(err)
	}
	var err error
	for range 10 {
		if err = n.r.advance(func() { l.carryOut(n) }); err != nil {
			break
		}
		for _, m := range n.inbox {
			if err := n.r.step(m); err != nil {
				t.Fatal(err)
			}
		}
		n.inbox = nil
	}
	if !errors.Is(err, ErrUnknownFormat) {
		t.Errorf("error: %v", err)
	}
	if n.r.table.hash() != hash {
		t.Error("some of it was applied")
	}
}

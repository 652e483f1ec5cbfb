package storagetest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftlock/raftlock"
)

func snapshotTests() []contractTest {
	return []contractTest{
		{"Join makes a log that begins at nothing", joinState},
		{"Join and Bootstrap exclude one another and mind Joined", joinOrBootstrap},
		{"a log that begins at nothing takes states, then a snapshot", joinInstalls},
		{"a snapshot that is not named counts for nothing", unnamedIsGone},
		{"a snapshot that is discarded is gone", discardedIsGone},
		{"what is no snapshot of a log is refused", createRefuses},
		{"SaveSnapshot makes the log stand on it", saveStands},
		{"SaveSnapshot commits what it must", saveCommits},
		{"SaveSnapshot is refused without a committed file of an entry", saveRefuses},
		{"SaveSnapshot of an overtaken snapshot removes it", saveOvertaken},
		{"two snapshots are kept", twoAreKept},
		{"InstallSnapshot takes the place of the log", installReplaces},
		{"InstallSnapshot takes the place of entries that contradict it", installContradicts},
		{"InstallSnapshot of an entry that the log has keeps the log", installKeeps},
		{"InstallSnapshot is refused where it makes no sense", installRefuses},
		{"an open snapshot can be read after it was let go of", openOutlives},
		{"two snapshots of one index can be under way", sinksOfOneIndex},
		{"sinks and files work beside the log", besideTheLog},
		{"Close ends sinks and opening", closeEndsSnapshots},
		{"a random history with snapshots loads as its twin", randomSnapshots},
	}
}

// Joined is ID of a member that was admitted to a running cluster.
func Joined() raftlock.Identity {
	id := ID()
	id.Joined, id.JoinedAt, id.Configured = true, 42, []string{"n1", "n9"}
	return id
}

// Meta is of a snapshot with the voters of ID and a learner.
func Meta(index, term uint64) *raftpb.SnapshotMetadata {
	conf := state(nil).Snapshot.GetConfState()
	conf.Learners = []uint64{99}
	return &raftpb.SnapshotMetadata{ConfState: conf, Index: new(index), Term: new(term)}
}

// Commit makes a committed snapshot with some content.
func Commit(tb testing.TB, s raftlock.Storage, meta *raftpb.SnapshotMetadata, content string) {
	tb.Helper()
	sink, err := s.CreateSnapshot(meta)
	must(tb, "CreateSnapshot", err)
	WriteSnapshot(tb, sink, meta, content)
	must(tb, "Commit", sink.Commit(tb.Context()))
	must(tb, "Discard after Commit", sink.Discard())
}

// WriteSnapshot writes a snapshot into a sink, in pieces.
func WriteSnapshot(tb testing.TB, sink io.Writer, meta *raftpb.SnapshotMetadata, content string) {
	tb.Helper()
	for all := string(SnapshotBytes(meta, content)); all != ""; {
		n := min(len(all), 1000)
		wrote, err := sink.Write([]byte(all[:n]))
		if wrote != n || err != nil {
			tb.Fatalf("Write of %d bytes: %d, %v", n, wrote, err)
		}
		all = all[n:]
	}
}

// holds checks that the snapshot of an index can be read.
func holds(tb testing.TB, s raftlock.Storage, meta *raftpb.SnapshotMetadata, content string) {
	tb.Helper()
	file, err := s.OpenSnapshot(meta.GetIndex())
	must(tb, "OpenSnapshot", err)
	reads(tb, file, meta, content)
	must(tb, "Close of the file", file.Close())
}

func reads(tb testing.TB, file raftlock.SnapshotFile, meta *raftpb.SnapshotMetadata, content string) {
	tb.Helper()
	want := string(SnapshotBytes(meta, content))
	if file.Size() != int64(len(want)) {
		tb.Errorf("Size of snapshot %d: %d, want %d", meta.GetIndex(), file.Size(), len(want))
	}
	got, err := io.ReadAll(io.NewSectionReader(file, 0, file.Size()))
	if err != nil || string(got) != want {
		tb.Errorf("snapshot %d reads as %.100q, %v, want %.100q", meta.GetIndex(), got, err, want)
	}
}

func hasNone(tb testing.TB, s raftlock.Storage, indexes ...uint64) {
	tb.Helper()
	for _, index := range indexes {
		if file, err := s.OpenSnapshot(index); !errors.Is(err, fs.ErrNotExist) {
			tb.Errorf("OpenSnapshot(%d): %v, %v, want fs.ErrNotExist", index, file, err)
		}
	}
}

// standing is what a disk that was started with ID should load.
func standing(meta *raftpb.SnapshotMetadata, hard *raftpb.HardState, entries ...*raftpb.Entry) raftlock.Recovered {
	found := state(hard, entries...)
	found.Snapshot = meta
	return found
}

// grown is a disk with entries 2 to last of term 2, all but the last one
// committed.
func grown(t *testing.T, disk Disk, last uint64) (raftlock.Storage, []*raftpb.Entry) {
	s := Started(t, disk)
	var data []string
	for i := uint64(2); i <= last; i++ {
		data = append(data, fmt.Sprint("entry ", i))
	}
	entries := Entries(2, 2, data...)
	must(t, "Append", s.Append(Hard(2, 7, last-1), entries))
	return s, entries
}

func joinState(t *testing.T, disk Disk) {
	s, _ := Load(t, disk)
	must(t, "SaveIdentity", s.SaveIdentity(Bare()))
	must(t, "Join", s.Join(Joined()))
	id := Joined()
	want := raftlock.Recovered{Identity: &id, Snapshot: nothing()}
	s = reload(t, s, disk, want)
	id.Started = true
	must(t, "SaveIdentity", s.SaveIdentity(id))
	reload(t, s, disk, want)
}

func nothing() *raftpb.SnapshotMetadata {
	return &raftpb.SnapshotMetadata{ConfState: &raftpb.ConfState{}, Index: new(uint64(0)), Term: new(uint64(0))}
}

func joinOrBootstrap(t *testing.T, disk Disk) {
	bare := Bare()
	s, _ := Load(t, disk)
	refused(t, "Join without an identity", s.Join(Joined()))
	s = reload(t, s, disk, raftlock.Recovered{})
	must(t, "SaveIdentity", s.SaveIdentity(bare))
	for name, call := range map[string]func(raftlock.Storage) error{
		"Join without Joined":    func(s raftlock.Storage) error { return s.Join(ID()) },
		"Bootstrap with Joined":  func(s raftlock.Storage) error { return s.Bootstrap(Joined()) },
		"Join without members":   func(s raftlock.Storage) error { id := Joined(); id.Members = nil; return s.Join(id) },
		"Join without a cluster": func(s raftlock.Storage) error { id := Joined(); id.ClusterID = 0; return s.Join(id) },
		"SaveIdentity with Joined": func(s raftlock.Storage) error {
			id := Bare()
			id.Joined = true
			return s.SaveIdentity(id)
		},
	} {
		refused(t, name, call(s))
		s = reload(t, s, disk, raftlock.Recovered{Identity: &bare})
	}
	must(t, "Join", s.Join(Joined()))
	id := Joined()
	want := raftlock.Recovered{Identity: &id, Snapshot: nothing()}
	for name, call := range map[string]func(raftlock.Storage) error{
		"Join twice":              func(s raftlock.Storage) error { return s.Join(Joined()) },
		"Bootstrap after Join":    func(s raftlock.Storage) error { return s.Bootstrap(ID()) },
		"SaveIdentity, no Joined": func(s raftlock.Storage) error { return s.SaveIdentity(ID()) },
	} {
		s = reload(t, s, disk, want)
		refused(t, name, call(s))
	}
	reload(t, s, disk, want)
}

func joinInstalls(t *testing.T, disk Disk) {
	s, _ := Load(t, disk)
	must(t, "SaveIdentity", s.SaveIdentity(Bare()))
	must(t, "Join", s.Join(Joined()))
	must(t, "Append", s.Append(Hard(4, 0, 0), nil))
	id := Joined()
	s = reload(t, s, disk, raftlock.Recovered{Identity: &id, Snapshot: nothing(), Hard: Hard(4, 0, 0)})
	refused(t, "Append of entry 1", s.Append(nil, Entries(4, 1, "a")))
	s = reload(t, s, disk, raftlock.Recovered{Identity: &id, Snapshot: nothing(), Hard: Hard(4, 0, 0)})
	meta := Meta(500, 3)
	Commit(t, s, meta, "state")
	must(t, "InstallSnapshot", s.InstallSnapshot(meta, Hard(4, 0, 500)))
	want := raftlock.Recovered{Identity: &id, Snapshot: meta, Hard: Hard(4, 0, 500)}
	s = reload(t, s, disk, want)
	holds(t, s, meta, "state")
	must(t, "Append", s.Append(Hard(4, 0, 501), Entries(4, 501, "a")))
	want.Hard, want.Entries = Hard(4, 0, 501), Entries(4, 501, "a")
	reload(t, s, disk, want)
}

func unnamedIsGone(t *testing.T, disk Disk) {
	s, entries := grown(t, disk, 9)
	Commit(t, s, Meta(5, 2), "own")
	Commit(t, s, Meta(50, 2), "of the leader")
	holds(t, s, Meta(5, 2), "own")
	holds(t, s, Meta(50, 2), "of the leader")
	open, err := s.CreateSnapshot(Meta(6, 2))
	must(t, "CreateSnapshot", err)
	WriteSnapshot(t, open, Meta(6, 2), "not committed")
	hasNone(t, s, 6)
	s = reload(t, s, disk, state(Hard(2, 7, 8), entries...))
	hasNone(t, s, 0, 1, 5, 6, 50)
}

func discardedIsGone(t *testing.T, disk Disk) {
	s, entries := grown(t, disk, 9)
	sink, err := s.CreateSnapshot(Meta(5, 2))
	must(t, "CreateSnapshot", err)
	WriteSnapshot(t, sink, Meta(5, 2), "own")
	must(t, "Discard", sink.Discard())
	must(t, "a second Discard", sink.Discard())
	refused(t, "Commit after Discard", sink.Commit(t.Context()))
	_, err = sink.Write([]byte("more"))
	refused(t, "Write after Discard", err)
	hasNone(t, s, 5)
	refused(t, "SaveSnapshot", s.SaveSnapshot(Meta(5, 2)))
	reload(t, s, disk, state(Hard(2, 7, 8), entries...))
}

func createRefuses(t *testing.T, disk Disk) {
	s, _ := Load(t, disk)
	must(t, "SaveIdentity", s.SaveIdentity(Bare()))
	_, err := s.CreateSnapshot(Meta(5, 2))
	refused(t, "CreateSnapshot before Bootstrap", err)
	must(t, "Bootstrap", s.Bootstrap(ID())) // the error was not final
	bare := Meta(5, 2)
	bare.ConfState = nil
	for _, meta := range []*raftpb.SnapshotMetadata{nil, Meta(0, 2), Meta(1, 2), Meta(5, 0), bare} {
		_, err := s.CreateSnapshot(meta)
		refused(t, fmt.Sprintf("CreateSnapshot({%v})", meta), err)
	}
	reload(t, s, disk, state(Hard(1, 0, 1)))
}

func saveStands(t *testing.T, disk Disk) {
	s, entries := grown(t, disk, 9)
	meta := Meta(5, 2)
	Commit(t, s, meta, "own")
	must(t, "SaveSnapshot", s.SaveSnapshot(meta))
	must(t, "SaveSnapshot again", s.SaveSnapshot(meta))
	holds(t, s, meta, "own")
	s = reload(t, s, disk, standing(meta, Hard(2, 7, 8), entries[4:]...))
	holds(t, s, meta, "own")
	must(t, "Append", s.Append(Hard(3, 0, 9), Entries(3, 10, "ten")))
	want := append(entries[4:], Entries(3, 10, "ten")...)
	s = reload(t, s, disk, standing(meta, Hard(3, 0, 9), want...))
	meta = Meta(9, 2)
	Commit(t, s, meta, strings.Repeat("big", 10_000))
	must(t, "SaveSnapshot", s.SaveSnapshot(meta))
	s = reload(t, s, disk, standing(meta, Hard(3, 0, 9), Entries(3, 10, "ten")...))
	s = reload(t, s, disk, standing(meta, Hard(3, 0, 9), Entries(3, 10, "ten")...))
	must(t, "Append", s.Append(Hard(4, 7, 9), Entries(4, 10, "other")))
	reload(t, s, disk, standing(meta, Hard(4, 7, 9), Entries(4, 10, "other")...))
}

// What was applied is committed, whether the disk has heard of it or not.
func saveCommits(t *testing.T, disk Disk) {
	s, entries := grown(t, disk, 9)
	meta := Meta(9, 2)
	Commit(t, s, meta, "own")
	must(t, "SaveSnapshot", s.SaveSnapshot(meta))
	s = reload(t, s, disk, standing(meta, Hard(2, 7, 9)))
	refused(t, "Append in place of a committed entry", s.Append(nil, entries[7:]))
}

func saveRefuses(t *testing.T, disk Disk) {
	s, entries := grown(t, disk, 9)
	for name, spoil := range map[string]func(raftlock.Storage) *raftpb.SnapshotMetadata{
		"without a file": func(raftlock.Storage) *raftpb.SnapshotMetadata { return Meta(5, 2) },
		"with the file of another": func(s raftlock.Storage) *raftpb.SnapshotMetadata {
			Commit(t, s, Meta(4, 2), "own")
			return Meta(5, 2)
		},
		"with other members": func(s raftlock.Storage) *raftpb.SnapshotMetadata {
			Commit(t, s, Meta(5, 2), "own")
			meta := Meta(5, 2)
			meta.ConfState.Learners = nil
			return meta
		},
		"of another term": func(s raftlock.Storage) *raftpb.SnapshotMetadata {
			Commit(t, s, Meta(5, 1), "own")
			return Meta(5, 1)
		},
		"beyond the log": func(s raftlock.Storage) *raftpb.SnapshotMetadata {
			Commit(t, s, Meta(10, 2), "own")
			return Meta(10, 2)
		},
	} {
		refused(t, "SaveSnapshot "+name, s.SaveSnapshot(spoil(s)))
		s = reload(t, s, disk, state(Hard(2, 7, 8), entries...))
		hasNone(t, s, 4, 5, 10)
	}
}

func saveOvertaken(t *testing.T, disk Disk) {
	s, _ := grown(t, disk, 9)
	Commit(t, s, Meta(5, 2), "own")
	Commit(t, s, Meta(50, 3), "of the leader")
	must(t, "InstallSnapshot", s.InstallSnapshot(Meta(50, 3), Hard(3, 0, 50)))
	must(t, "SaveSnapshot", s.SaveSnapshot(Meta(5, 2)))
	hasNone(t, s, 5)
	holds(t, s, Meta(50, 3), "of the leader")
	reload(t, s, disk, standing(Meta(50, 3), Hard(3, 0, 50)))
}

func twoAreKept(t *testing.T, disk Disk) {
	s, entries := grown(t, disk, 20)
	for i := uint64(3); i <= 15; i += 3 {
		Commit(t, s, Meta(i, 2), fmt.Sprint("state ", i))
		Commit(t, s, Meta(i+1, 2), "never named")
		must(t, "SaveSnapshot", s.SaveSnapshot(Meta(i, 2)))
		holds(t, s, Meta(i, 2), fmt.Sprint("state ", i))
		hasNone(t, s, i-1, i-2)
		if i > 3 {
			holds(t, s, Meta(i-3, 2), fmt.Sprint("state ", i-3))
			hasNone(t, s, i-6)
		}
		s = reload(t, s, disk, standing(Meta(i, 2), Hard(2, 7, 19), entries[i-1:]...))
		hasNone(t, s, i+1)
	}
	holds(t, s, Meta(15, 2), "state 15")
	holds(t, s, Meta(12, 2), "state 12")
	hasNone(t, s, 3, 6, 9)
}

func installReplaces(t *testing.T, disk Disk) {
	s, _ := grown(t, disk, 9)
	Commit(t, s, Meta(5, 2), "own")
	must(t, "SaveSnapshot", s.SaveSnapshot(Meta(5, 2)))
	meta := Meta(1000, 4)
	Commit(t, s, meta, "of the leader")
	must(t, "InstallSnapshot", s.InstallSnapshot(meta, Hard(4, 7, 1000)))
	hasNone(t, s, 5)
	holds(t, s, meta, "of the leader")
	s = reload(t, s, disk, standing(meta, Hard(4, 7, 1000)))
	s = reload(t, s, disk, standing(meta, Hard(4, 7, 1000)))
	must(t, "Append", s.Append(Hard(4, 7, 1000), Entries(4, 1001, "a", "b")))
	s = reload(t, s, disk, standing(meta, Hard(4, 7, 1000), Entries(4, 1001, "a", "b")...))
	Commit(t, s, Meta(1001, 4), "own")
	must(t, "SaveSnapshot", s.SaveSnapshot(Meta(1001, 4)))
	s = reload(t, s, disk, standing(Meta(1001, 4), Hard(4, 7, 1001), Entries(4, 1002, "b")...))
	holds(t, s, meta, "of the leader")
	again := Meta(5000, 4)
	Commit(t, s, again, "once more")
	must(t, "InstallSnapshot", s.InstallSnapshot(again, Hard(5, 0, 5000)))
	hasNone(t, s, 1000, 1001)
	reload(t, s, disk, standing(again, Hard(5, 0, 5000)))
}

// Entries beyond the snapshot's index are of a leader that lost.
func installContradicts(t *testing.T, disk Disk) {
	s, _ := grown(t, disk, 9)
	must(t, "Append", s.Append(nil, Entries(2, 10, "lost", "lost", "lost", "lost")))
	meta := Meta(11, 4)
	Commit(t, s, meta, "of the leader")
	must(t, "InstallSnapshot", s.InstallSnapshot(meta, Hard(4, 0, 11)))
	s = reload(t, s, disk, standing(meta, Hard(4, 0, 11)))
	s = reload(t, s, disk, standing(meta, Hard(4, 0, 11)))
	must(t, "Append", s.Append(nil, Entries(4, 12, "new")))
	reload(t, s, disk, standing(meta, Hard(4, 0, 11), Entries(4, 12, "new")...))
}

func installKeeps(t *testing.T, disk Disk) {
	s, entries := grown(t, disk, 20)
	must(t, "Append", s.Append(nil, Entries(2, 21, "more", "and more")))
	entries = append(entries, Entries(2, 21, "more", "and more")...)
	Commit(t, s, Meta(5, 2), "own")
	must(t, "SaveSnapshot", s.SaveSnapshot(Meta(5, 2)))
	meta := Meta(21, 2)
	Commit(t, s, meta, "of the leader")
	must(t, "InstallSnapshot", s.InstallSnapshot(meta, Hard(3, 0, 21)))
	holds(t, s, Meta(5, 2), "own")
	s = reload(t, s, disk, standing(meta, Hard(3, 0, 21), entries[20:]...))
	holds(t, s, Meta(5, 2), "own")
	holds(t, s, meta, "of the leader")
}

func installRefuses(t *testing.T, disk Disk) {
	s, entries := grown(t, disk, 9)
	for _, test := range []struct {
		name   string
		commit bool
		meta   *raftpb.SnapshotMetadata
		hard   *raftpb.HardState
	}{
		{"without a file", false, Meta(50, 2), Hard(2, 7, 50)},
		{"of what is committed", true, Meta(8, 2), Hard(2, 7, 8)},
		{"without a state", true, Meta(50, 2), nil},
		{"with a state that does not commit it", true, Meta(50, 2), Hard(2, 7, 49)},
		{"with a state that commits more", true, Meta(50, 2), Hard(2, 7, 51)},
		{"with a state of an earlier term", true, Meta(50, 2), Hard(1, 7, 50)},
		{"with a state before its term", true, Meta(50, 4), Hard(3, 7, 50)},
	} {
		if test.commit {
			Commit(t, s, test.meta, "of the leader")
		}
		refused(t, "InstallSnapshot "+test.name, s.InstallSnapshot(test.meta, test.hard))
		s = reload(t, s, disk, state(Hard(2, 7, 8), entries...))
	}
}

func openOutlives(t *testing.T, disk Disk) {
	s, _ := grown(t, disk, 20)
	Commit(t, s, Meta(3, 2), "old")
	must(t, "SaveSnapshot", s.SaveSnapshot(Meta(3, 2)))
	old, err := s.OpenSnapshot(3)
	must(t, "OpenSnapshot", err)
	for i := uint64(4); i < 8; i++ {
		Commit(t, s, Meta(i, 2), "newer")
		must(t, "SaveSnapshot", s.SaveSnapshot(Meta(i, 2)))
	}
	hasNone(t, s, 3)
	reads(t, old, Meta(3, 2), "old")
	must(t, "Close", s.Close())
	reads(t, old, Meta(3, 2), "old")
	must(t, "Close of the file", old.Close())
}

func sinksOfOneIndex(t *testing.T, disk Disk) {
	s, _ := grown(t, disk, 9)
	first, err := s.CreateSnapshot(Meta(5, 2))
	must(t, "CreateSnapshot", err)
	second, err := s.CreateSnapshot(Meta(5, 2))
	must(t, "CreateSnapshot", err)
	WriteSnapshot(t, first, Meta(5, 2), "first")
	WriteSnapshot(t, second, Meta(5, 2), "second")
	must(t, "Commit", second.Commit(t.Context()))
	must(t, "Commit", first.Commit(t.Context()))
	holds(t, s, Meta(5, 2), "first")
	third, err := s.CreateSnapshot(Meta(5, 2))
	must(t, "CreateSnapshot", err)
	must(t, "Discard", third.Discard())
	holds(t, s, Meta(5, 2), "first")
}

func besideTheLog(t *testing.T, disk Disk) {
	s, _ := grown(t, disk, 9)
	var writers sync.WaitGroup
	for i := range uint64(4) {
		meta := Meta(100+i, 3)
		writers.Go(func() {
			sink, err := s.CreateSnapshot(meta)
			if err != nil {
				t.Errorf("CreateSnapshot: %v", err)
				return
			}
			if _, err := sink.Write(SnapshotBytes(meta, strings.Repeat("beside", 5000))); err != nil {
				t.Errorf("Write: %v", err)
			}
			if err := sink.Commit(t.Context()); err != nil {
				t.Errorf("Commit: %v", err)
			}
			file, err := s.OpenSnapshot(meta.GetIndex())
			if err != nil {
				t.Errorf("OpenSnapshot: %v", err)
				return
			}
			reads(t, file, meta, strings.Repeat("beside", 5000))
			if err := file.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
	}
	for i := uint64(10); i < 30; i++ {
		must(t, "Append", s.Append(Hard(2, 7, i), Entries(2, i, "entry")))
		Commit(t, s, Meta(i, 2), "own")
		must(t, "SaveSnapshot", s.SaveSnapshot(Meta(i, 2)))
	}
	writers.Wait()
	must(t, "InstallSnapshot", s.InstallSnapshot(Meta(102, 3), Hard(3, 0, 102)))
	hasNone(t, s, 28, 29, 100, 101)
	reload(t, s, disk, standing(Meta(102, 3), Hard(3, 0, 102)))
}

func closeEndsSnapshots(t *testing.T, disk Disk) {
	s, entries := grown(t, disk, 9)
	Commit(t, s, Meta(5, 2), "own")
	begun, err := s.CreateSnapshot(Meta(6, 2))
	must(t, "CreateSnapshot", err)
	must(t, "Close", s.Close())
	_, err = begun.Write([]byte("more"))
	refused(t, "Write", err)
	refused(t, "Commit", begun.Commit(t.Context()))
	must(t, "Discard", begun.Discard())
	_, err = s.CreateSnapshot(Meta(7, 2))
	refused(t, "CreateSnapshot", err)
	_, err = s.OpenSnapshot(5)
	refused(t, "OpenSnapshot", err)
	refused(t, "SaveSnapshot", s.SaveSnapshot(Meta(5, 2)))
	refused(t, "InstallSnapshot", s.InstallSnapshot(Meta(50, 2), Hard(2, 7, 50)))
	refused(t, "Join", s.Join(Joined()))
	again := disk(t)
	_, err = again.CreateSnapshot(Meta(7, 2))
	refused(t, "CreateSnapshot before Load", err)
	_, err = again.OpenSnapshot(5)
	refused(t, "OpenSnapshot before Load", err)
	refused(t, "SaveSnapshot before Load", again.SaveSnapshot(Meta(5, 2)))
	refused(t, "InstallSnapshot before Load", again.InstallSnapshot(Meta(50, 2), Hard(2, 7, 50)))
	refused(t, "Join before Load", again.Join(Joined()))
	reload(t, again, disk, state(Hard(2, 7, 8), entries...))
}

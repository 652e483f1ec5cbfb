package storagetest

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftlock/raftlock"
)

// Disk opens the same disk each time. Earlier holds of it are closed before.
type Disk func(tb testing.TB) raftlock.Storage

// Run runs the contract. newDisk makes an empty disk.
func Run(t *testing.T, newDisk func(tb testing.TB) Disk) {
	for _, test := range append(logTests(), snapshotTests()...) {
		t.Run(test.name, func(t *testing.T) { test.test(t, newDisk(t)) })
	}
}

type contractTest struct {
	name string
	test func(t *testing.T, disk Disk)
}

func logTests() []contractTest {
	return []contractTest{
		{"an empty disk loads as nothing", loadEmpty},
		{"the identity survives in each of its steps", identitySteps},
		{"the identity is copied in and out", identityIsCopied},
		{"members are set by Bootstrap alone", membersNeedBootstrap},
		{"after Bootstrap only Started changes", identityIsFixed},
		{"Bootstrap makes the first state", bootstrapState},
		{"Bootstrap is refused without an identity", bootstrapNeedsIdentity},
		{"Bootstrap is refused a second time", bootstrapOnce},
		{"Bootstrap is refused without a usable set of members", bootstrapMembers},
		{"what Append was given loads again", appendAndReload},
		{"Append replaces the tail", appendReplaces},
		{"Append keeps the type and the data of an entry", appendKinds},
		{"Append of nothing does nothing", appendNothing},
		{"Append owns nothing afterwards", appendOwnsNothing},
		{"Append is refused before Bootstrap", appendNeedsBootstrap},
		{"Append refuses what no log may hold", appendImpossible},
		{"a commit survives with the next entry", commitSurvives},
		{"a random history loads as its twin", randomHistory},
		{"calls before Load and a second Load are refused", loadFirst},
		{"Close is idempotent and ends all calls", closeEnds},
	}
}

// ID is an identity that Bootstrap accepts: n1 of three members.
func ID() raftlock.Identity {
	return raftlock.Identity{
		Name:        "n1",
		ClusterName: "test",
		Incarnation: 0xfedcba9876543210,
		ClusterID:   0x1122334455667788,
		Members: map[string]raftlock.MemberID{
			"n1": {NodeID: 0x9000000000000003, Incarnation: 0xfedcba9876543210},
			"n2": {NodeID: 7, Incarnation: 12},
			"n3": {NodeID: 0x5000000000000001, Incarnation: 13},
		},
	}
}

// Bare is ID before its cluster is agreed on.
func Bare() raftlock.Identity {
	id := ID()
	id.ClusterID, id.Members = 0, nil
	return id
}

// Load opens the disk, loads, and closes the hold at the end of the test unless
// the test does.
func Load(tb testing.TB, disk Disk) (raftlock.Storage, raftlock.Recovered) {
	tb.Helper()
	s := disk(tb)
	tb.Cleanup(func() { _ = s.Close() })
	found, err := s.Load()
	if err != nil {
		tb.Fatalf("Load: %v", err)
	}
	return s, found
}

// Started opens an empty disk and bootstraps it with ID.
func Started(tb testing.TB, disk Disk) raftlock.Storage {
	tb.Helper()
	s, _ := Load(tb, disk)
	must(tb, "SaveIdentity", s.SaveIdentity(Bare()))
	must(tb, "Bootstrap", s.Bootstrap(ID()))
	return s
}

// Hard makes a hard state.
func Hard(term, vote, commit uint64) *raftpb.HardState {
	return &raftpb.HardState{Term: new(term), Vote: new(vote), Commit: new(commit)}
}

// Entries makes entries of a term from an index on, as raft makes them: without
// a type.
func Entries(term, index uint64, data ...string) []*raftpb.Entry {
	var entries []*raftpb.Entry
	for i, d := range data {
		e := &raftpb.Entry{Term: new(term), Index: new(index + uint64(i))}
		if d != "" {
			e.Data = []byte(d)
		}
		entries = append(entries, e)
	}
	return entries
}

// Text is what was recovered, in a form to compare and to read.
func Text(found raftlock.Recovered) string {
	text := fmt.Sprintf("identity %+v\n", found.Identity)
	if found.Identity != nil {
		text = fmt.Sprintf("identity %+v\n", *found.Identity)
		for _, later := range []string{" Configured:[]", " Joined:false JoinedAt:0"} { // than some testdata
			text = strings.Replace(text, later+"}", "}", 1)
		}
	}
	if s := found.Snapshot; s != nil {
		text += fmt.Sprintf("snapshot %d term %d voters %x", s.GetIndex(), s.GetTerm(), s.GetConfState().GetVoters())
		if learners := s.GetConfState().GetLearners(); len(learners) > 0 {
			text += fmt.Sprintf(" learners %x", learners)
		}
		text += "\n"
	}
	if h := found.Hard; h != nil {
		text += fmt.Sprintf("term %d vote %x commit %d\n", h.GetTerm(), h.GetVote(), h.GetCommit())
	}
	for _, e := range found.Entries {
		text += fmt.Sprintf("%d/%d %v %q\n", e.GetTerm(), e.GetIndex(), e.GetType(), e.GetData())
	}
	return text
}

func must(tb testing.TB, call string, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatalf("%s: %v", call, err)
	}
}

func refused(tb testing.TB, call string, err error) {
	tb.Helper()
	if err == nil {
		tb.Fatalf("%s returned nil, want an error", call)
	}
}

// reload closes a hold and compares what another one loads.
func reload(tb testing.TB, s raftlock.Storage, disk Disk, want raftlock.Recovered) raftlock.Storage {
	tb.Helper()
	must(tb, "Close", s.Close())
	again, found := Load(tb, disk)
	if got, want := Text(found), Text(want); got != want {
		tb.Fatalf("loaded\n%s\nwant\n%s", got, want)
	}
	return again
}

// state is what a disk that was started with ID should load.
func state(hard *raftpb.HardState, entries ...*raftpb.Entry) raftlock.Recovered {
	id := ID()
	return raftlock.Recovered{
		Identity: &id,
		Snapshot: &raftpb.SnapshotMetadata{
			Index:     new(uint64(1)),
			Term:      new(uint64(1)),
			ConfState: &raftpb.ConfState{Voters: []uint64{7, 0x5000000000000001, 0x9000000000000003}},
		},
		Hard:    hard,
		Entries: entries,
	}
}

func loadEmpty(t *testing.T, disk Disk) {
	s, found := Load(t, disk)
	if found.Identity != nil || found.Snapshot != nil || found.Hard != nil || found.Entries != nil {
		t.Fatalf("loaded %s", Text(found))
	}
	reload(t, s, disk, raftlock.Recovered{})
}

func identitySteps(t *testing.T, disk Disk) {
	s, _ := Load(t, disk)
	bare := Bare()
	must(t, "SaveIdentity", s.SaveIdentity(bare))
	s = reload(t, s, disk, raftlock.Recovered{Identity: &bare})
	proposed := bare
	proposed.ClusterID = ID().ClusterID
	must(t, "SaveIdentity", s.SaveIdentity(proposed))
	s = reload(t, s, disk, raftlock.Recovered{Identity: &proposed})
	must(t, "Bootstrap", s.Bootstrap(ID()))
	s = reload(t, s, disk, state(Hard(1, 0, 1)))
	started := ID()
	started.Started = true
	must(t, "SaveIdentity", s.SaveIdentity(started))
	want := state(Hard(1, 0, 1))
	want.Identity = &started
	s = reload(t, s, disk, want)
	want.Hard, want.Entries = Hard(2, 7, 1), Entries(2, 2, "a")
	must(t, "Append", s.Append(want.Hard, want.Entries))
	taken := ID()
	must(t, "SaveIdentity, not Started any more", s.SaveIdentity(taken))
	want.Identity = &taken
	s = reload(t, s, disk, want)
	must(t, "SaveIdentity", s.SaveIdentity(started))
	want.Identity = &started
	reload(t, s, disk, want)
}

func identityIsCopied(t *testing.T, disk Disk) {
	s, _ := Load(t, disk)
	must(t, "SaveIdentity", s.SaveIdentity(Bare()))
	id := ID()
	must(t, "Bootstrap", s.Bootstrap(id))
	id.Members["n1"] = raftlock.MemberID{}
	must(t, "Close", s.Close())
	s, found := Load(t, disk)
	delete(found.Identity.Members, "n2")
	found.Snapshot.ConfState.Voters[0] = 0
	reload(t, s, disk, state(Hard(1, 0, 1)))
}

func membersNeedBootstrap(t *testing.T, disk Disk) {
	s, _ := Load(t, disk)
	refused(t, "SaveIdentity with members", s.SaveIdentity(ID()))
}

func identityIsFixed(t *testing.T, disk Disk) {
	changes := map[string]func(*raftlock.Identity){
		"members":     func(id *raftlock.Identity) { id.Members = nil },
		"member":      func(id *raftlock.Identity) { id.Members["n2"] = raftlock.MemberID{NodeID: 8, Incarnation: 12} },
		"cluster id":  func(id *raftlock.Identity) { id.ClusterID++ },
		"name":        func(id *raftlock.Identity) { id.Name = "n2" },
		"incarnation": func(id *raftlock.Identity) { id.Incarnation++ },
	}
	s := Started(t, disk)
	for _, change := range []string{"members", "member", "cluster id", "name", "incarnation"} {
		id := ID()
		changes[change](&id)
		refused(t, "SaveIdentity with another "+change, s.SaveIdentity(id))
		s = reload(t, s, disk, state(Hard(1, 0, 1)))
	}
}

func bootstrapState(t *testing.T, disk Disk) {
	s := Started(t, disk)
	s = reload(t, s, disk, state(Hard(1, 0, 1)))
	reload(t, s, disk, state(Hard(1, 0, 1)))
}

func bootstrapNeedsIdentity(t *testing.T, disk Disk) {
	s, _ := Load(t, disk)
	refused(t, "Bootstrap", s.Bootstrap(ID()))
}

func bootstrapOnce(t *testing.T, disk Disk) {
	s := Started(t, disk)
	must(t, "Append", s.Append(Hard(2, 7, 1), Entries(2, 2, "a")))
	refused(t, "Bootstrap", s.Bootstrap(ID()))
	reload(t, s, disk, state(Hard(2, 7, 1), Entries(2, 2, "a")...))
}

func bootstrapMembers(t *testing.T, disk Disk) {
	bare := Bare()
	s, _ := Load(t, disk)
	must(t, "SaveIdentity", s.SaveIdentity(bare))
	for _, spoil := range []func(*raftlock.Identity){
		func(id *raftlock.Identity) { id.Members = nil },
		func(id *raftlock.Identity) { delete(id.Members, "n1") },
		func(id *raftlock.Identity) { id.ClusterID = 0 },
		func(id *raftlock.Identity) { id.Members["n2"] = raftlock.MemberID{NodeID: 0, Incarnation: 12} },
		func(id *raftlock.Identity) { id.Members["n2"] = id.Members["n3"] },
	} {
		id := ID()
		spoil(&id)
		refused(t, fmt.Sprintf("Bootstrap(%+v)", id), s.Bootstrap(id))
		s = reload(t, s, disk, raftlock.Recovered{Identity: &bare})
	}
}

func appendAndReload(t *testing.T, disk Disk) {
	s := Started(t, disk)
	must(t, "Append", s.Append(Hard(2, 7, 1), nil))
	s = reload(t, s, disk, state(Hard(2, 7, 1)))
	must(t, "Append", s.Append(nil, Entries(2, 2, "", "two", "three")))
	s = reload(t, s, disk, state(Hard(2, 7, 1), Entries(2, 2, "", "two", "three")...))
	must(t, "Append", s.Append(&raftpb.HardState{}, Entries(2, 5, "four")))
	must(t, "Append", s.Append(Hard(4, 0, 5), Entries(3, 6, "five")))
	want := append(Entries(2, 2, "", "two", "three", "four"), Entries(3, 6, "five")...)
	s = reload(t, s, disk, state(Hard(4, 0, 5), want...))
	reload(t, s, disk, state(Hard(4, 0, 5), want...))
}

func appendReplaces(t *testing.T, disk Disk) {
	s := Started(t, disk)
	must(t, "Append", s.Append(Hard(2, 7, 2), Entries(2, 2, "a", "b", "c", "d")))
	must(t, "Append", s.Append(Hard(3, 0, 3), Entries(3, 4, "C")))
	want := append(Entries(2, 2, "a", "b"), Entries(3, 4, "C")...)
	s = reload(t, s, disk, state(Hard(3, 0, 3), want...))
	must(t, "Append", s.Append(Hard(5, 0, 3), Entries(5, 4, "x", "y")))
	must(t, "Append", s.Append(nil, Entries(5, 6, "z")))
	want = append(Entries(2, 2, "a", "b"), Entries(5, 4, "x", "y", "z")...)
	reload(t, s, disk, state(Hard(5, 0, 3), want...))
}

func appendKinds(t *testing.T, disk Disk) {
	s := Started(t, disk)
	must(t, "Append", s.Append(Hard(2, 7, 1), nil))
	entries := Entries(2, 2, "", "conf", "\x00\xff", "")
	entries[1].Type = raftpb.EntryConfChange.Enum()
	entries[2].Type = raftpb.EntryNormal.Enum()
	entries[3].Type = raftpb.EntryConfChangeV2.Enum()
	entries[3].Data = []byte{}
	must(t, "Append", s.Append(nil, entries))
	reload(t, s, disk, state(Hard(2, 7, 1), entries...))
}

func appendNothing(t *testing.T, disk Disk) {
	s := Started(t, disk)
	must(t, "Append", s.Append(nil, nil))
	must(t, "Append", s.Append(&raftpb.HardState{}, []*raftpb.Entry{}))
	must(t, "Append", s.Append(Hard(0, 0, 0), nil))
	reload(t, s, disk, state(Hard(1, 0, 1)))
}

func appendOwnsNothing(t *testing.T, disk Disk) {
	s := Started(t, disk)
	hard, entries := Hard(2, 7, 1), Entries(2, 2, "a", "b")
	must(t, "Append", s.Append(hard, entries))
	*hard.Term, *hard.Vote = 99, 99
	entries[0], entries[1] = nil, nil
	must(t, "Append", s.Append(nil, Entries(2, 4, "c")))
	reload(t, s, disk, state(Hard(2, 7, 1), Entries(2, 2, "a", "b", "c")...))
}

func appendNeedsBootstrap(t *testing.T, disk Disk) {
	s, _ := Load(t, disk)
	must(t, "SaveIdentity", s.SaveIdentity(Bare()))
	refused(t, "Append", s.Append(Hard(1, 0, 0), nil))
}

func appendImpossible(t *testing.T, disk Disk) {
	s := Started(t, disk)
	must(t, "Append", s.Append(Hard(3, 7, 3), Entries(3, 2, "a", "b", "c")))
	want := state(Hard(3, 7, 3), Entries(3, 2, "a", "b", "c")...)
	holes := append(Entries(3, 5, "d"), Entries(3, 7, "f")...)
	for _, test := range []struct {
		name    string
		hard    *raftpb.HardState
		entries []*raftpb.Entry
	}{
		{"a gap after the log", nil, Entries(3, 6, "e")},
		{"a gap within", nil, holes},
		{"a committed index", nil, Entries(3, 3, "B")},
		{"index 0", nil, Entries(3, 0, "z")},
		{"a term that falls", nil, Entries(2, 5, "d")},
		{"a term above the state's", nil, Entries(4, 5, "d")},
		{"a state whose term falls", Hard(2, 0, 3), nil},
		{"a commit that falls", Hard(3, 7, 2), nil},
		{"a commit beyond the log", Hard(3, 7, 5), nil},
	} {
		refused(t, "Append of "+test.name, s.Append(test.hard, test.entries))
		must(t, "Close", s.Close())
		again, found := Load(t, disk)
		// An implementation may have written what came before the fault.
		if got := found.Hard.GetCommit(); got != 3 || len(found.Entries) < 3 {
			t.Fatalf("after %s: loaded\n%s\nwant\n%s", test.name, Text(found), Text(want))
		}
		s = again
	}
}

// A hard state that changes only the commit index need not be durable by
// itself, but Close must not lose it, and neither may the next entry.
func commitSurvives(t *testing.T, disk Disk) {
	s := Started(t, disk)
	must(t, "Append", s.Append(Hard(2, 7, 1), Entries(2, 2, "a", "b")))
	must(t, "Append", s.Append(Hard(2, 7, 2), nil))
	s = reload(t, s, disk, state(Hard(2, 7, 2), Entries(2, 2, "a", "b")...))
	must(t, "Append", s.Append(Hard(2, 7, 3), nil))
	must(t, "Append", s.Append(nil, Entries(2, 4, "c")))
	reload(t, s, disk, state(Hard(2, 7, 3), Entries(2, 2, "a", "b", "c")...))
}

// randomHistory does what raft may do, in some order, and compares with a slice.
func randomHistory(t *testing.T, disk Disk) {
	const seed = 20260101
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, seed))
	s := Started(t, disk)
	term, vote, commit := uint64(1), uint64(0), uint64(1)
	var log []*raftpb.Entry
	for range 150 {
		var entries []*raftpb.Entry
		if rng.IntN(8) == 0 {
			term, vote = term+rng.Uint64N(3)+1, rng.Uint64()
		}
		if rng.IntN(4) > 0 {
			last := uint64(len(log)) + 1
			from := last + 1
			if rng.IntN(6) == 0 {
				from = commit + 1 + rng.Uint64N(last-commit+1)
			}
			log = log[: from-2 : from-2]
			for i := range uint64(rng.IntN(4)) {
				entries = append(entries, Entries(term, from+i, string(make([]byte, rng.IntN(300))))...)
			}
			if len(entries) == 0 {
				entries = Entries(term, from, "x")
			}
			log = append(log, entries...)
		}
		commit += rng.Uint64N(uint64(len(log)) + 2 - commit)
		must(t, "Append", s.Append(Hard(term, vote, commit), entries))
		if rng.IntN(20) == 0 {
			s = reload(t, s, disk, state(Hard(term, vote, commit), log...))
		}
	}
	reload(t, s, disk, state(Hard(term, vote, commit), log...))
}

func loadFirst(t *testing.T, disk Disk) {
	s := disk(t)
	refused(t, "SaveIdentity before Load", s.SaveIdentity(Bare()))
	refused(t, "Bootstrap before Load", s.Bootstrap(ID()))
	refused(t, "Append before Load", s.Append(Hard(1, 0, 1), nil))
	must(t, "Close", s.Close())
	s, _ = Load(t, disk)
	_, err := s.Load()
	refused(t, "a second Load", err)
}

func closeEnds(t *testing.T, disk Disk) {
	s := Started(t, disk)
	must(t, "Append", s.Append(Hard(2, 7, 1), Entries(2, 2, "a")))
	must(t, "Close", s.Close())
	must(t, "a second Close", s.Close())
	_, err := s.Load()
	refused(t, "Load", err)
	refused(t, "SaveIdentity", s.SaveIdentity(ID()))
	refused(t, "Bootstrap", s.Bootstrap(ID()))
	refused(t, "Append", s.Append(Hard(2, 7, 1), Entries(2, 3, "b")))
	refused(t, "Append of nothing", s.Append(nil, nil))
	unopened := disk(t)
	must(t, "Close without Load", unopened.Close())
	_, found := Load(t, disk)
	if got, want := Text(found), Text(state(Hard(2, 7, 1), Entries(2, 2, "a")...)); got != want {
		t.Fatalf("loaded\n%s\nwant\n%s", got, want)
	}
}

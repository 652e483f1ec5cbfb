package raftlock

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// nursery is a set of members that meet, without wires: each asks the others
// straight.
type nursery struct {
	t       *testing.T
	names   []string
	disks   map[string]*MemoryStorage
	members map[string]*assembly // those that are up
	lost    map[string]bool      // told that they have lost their disk
}

func newNursery(t *testing.T, names ...string) *nursery {
	n := &nursery{t: t, names: names, disks: map[string]*MemoryStorage{}, members: map[string]*assembly{}, lost: map[string]bool{}}
	for _, name := range names {
		n.disks[name] = NewMemoryStorage()
	}
	return n
}

// start starts a member on the disk that it has.
func (n *nursery) start(name string) {
	n.t.Helper()
	disk := n.disks[name].Reopen()
	n.disks[name] = disk
	found, err := disk.Load()
	if err != nil {
		n.t.Fatal(err)
	}
	cfg := Config{Name: name, InitialCluster: map[string]string{}, Storage: disk}
	for _, other := range n.names {
		cfg.InitialCluster[other] = other
	}
	cfg.setDefaults()
	id, err := identityFor(&cfg, found.Identity, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	n.members[name] = newAssembly(&cfg, id)
}

// wipe empties a member's disk.
func (n *nursery) wipe(name string) {
	delete(n.members, name)
	n.disks[name] = NewMemoryStorage()
}

// ask is one member's question to another.
func (n *nursery) ask(from string) func(context.Context, string) (hello, error) {
	return func(_ context.Context, name string) (hello, error) {
		asker, there := n.members[from], n.members[name]
		if there == nil {
			return hello{}, errors.New("not up")
		}
		mine := asker.greeting(name, asks)
		theirs := there.greeting(from, asks)
		answer, judged := theirs.answer(&mine)
		if errors.Is(judged, ErrDiskLost) {
			n.lost[name] = true
		}
		return answer, mine.heed(&answer, name)
	}
}

// step lets one member that is up meet the others once.
func (n *nursery) step(name string) {
	a := n.members[name]
	if a == nil || a.identity().Started {
		return
	}
	if err := a.round(context.Background(), n.ask(name)); errors.Is(err, ErrDiskLost) {
		n.lost[name] = true
	}
}

// check holds the one thing that must never fail: all started members are of
// one cluster with the same members.
func (n *nursery) check() {
	n.t.Helper()
	var cluster uint64
	var members map[string]MemberID
	for _, name := range n.names {
		a := n.members[name]
		if a == nil || a.identity().Members == nil {
			continue
		}
		id := a.identity()
		if members == nil {
			cluster, members = id.ClusterID, id.Members
		}
		if id.ClusterID != cluster || !maps.Equal(id.Members, members) {
			n.t.Fatalf("two clusters: %x %v and %x %v", cluster, members, id.ClusterID, id.Members)
		}
	}
}

func (n *nursery) started() (count int) {
	for _, a := range n.members {
		if a.identity().Started {
			count++
		}
	}
	return count
}

func TestFirstStartNeedsAll(t *testing.T) {
	n := newNursery(t, "a", "b", "c")
	n.start("a")
	n.start("b")
	for range 10 {
		n.step("a")
		n.step("b")
	}
	if n.members["a"].identity().Members != nil || n.members["b"].identity().Members != nil {
		t.Fatal("two of three have made a cluster")
	}
	n.start("c")
	for range 4 {
		for _, name := range n.names {
			n.step(name)
		}
	}
	n.check()
	if n.started() != 3 {
		t.Errorf("%d of 3 are started", n.started())
	}
}

// All have met, and none is of a cluster: were it for more than one of them to
// make it, two could at the same time.
func TestOneMemberMakesTheCluster(t *testing.T) {
	n := newNursery(t, "a", "b", "c")
	for _, name := range n.names {
		n.start(name)
	}
	for _, name := range []string{"c", "b", "c", "b"} {
		if n.step(name); n.members[name].identity().ClusterID != 0 {
			t.Fatalf("%s has made a cluster", name)
		}
	}
	n.step("a")
	if n.members["a"].identity().ClusterID == 0 {
		t.Error("nobody makes the cluster")
	}
}

// sickBirth is a disk that fails when the cluster is made.
type sickBirth struct{ Storage }

func (sickBirth) Bootstrap(Identity) error { return errSick }

// Others count on what a member says of its cluster: it must not say what a crash
// takes back.
func TestClusterIsNotSpokenOfBeforeItIsDurable(t *testing.T) {
	n := newNursery(t, "a", "b")
	n.start("a")
	n.start("b")
	a := n.members["a"]
	a.storage = sickBirth{a.storage}
	if err := a.round(t.Context(), n.ask("a")); !errors.Is(err, errSick) {
		t.Errorf("error: %v", err)
	}
	if h := a.greeting("b", asks); h.ClusterID != 0 || h.Members != nil {
		t.Errorf("it says that it is of cluster %x", h.ClusterID)
	}
}

// A started member needs nobody to know that it is one.
func TestRestartNeedsNoMeeting(t *testing.T) {
	n := newNursery(t, "a", "b", "c")
	for _, name := range n.names {
		n.start(name)
	}
	for range 4 {
		for _, name := range n.names {
			n.step(name)
		}
	}
	clear(n.members)
	n.start("b")
	if !n.members["b"].identity().Started {
		t.Error("a restarted member waits for the others")
	}
}

// The counter-example of the design: two of three grant, one of them is wiped,
// the other is down. The wiped one and the fresh third must not be a majority.
func TestWipedMemberFindsOut(t *testing.T) {
	n := newNursery(t, "a", "b", "c")
	for _, name := range n.names {
		n.start(name)
	}
	for range 4 {
		for _, name := range n.names {
			n.step(name)
		}
	}
	delete(n.members, "a")
	n.wipe("b")
	n.start("b")
	for range 4 {
		n.step("b")
	}
	if !n.lost["b"] {
		t.Error("a wiped member was not told")
	}
	if n.members["b"].identity().Members != nil {
		t.Error("a wiped member has joined again")
	}
}

func TestAssemblyUnderCrashesAndWipes(t *testing.T) {
	seeds := 300
	if testing.Short() {
		seeds = 60
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) { crashAndWipe(t, rand.New(rand.NewPCG(uint64(seed), 1)), seed%3 == 0) })
	}
}

// crashAndWipe lets members start, meet, crash and, with wipes, lose their
// disks, in any order. Whatever happens there is one cluster at most; without
// wipes there is one in the end.
func crashAndWipe(t *testing.T, rng *rand.Rand, wipes bool) {
	n := newNursery(t, "a", "b", "c", "d", "e")
	for range 200 {
		name := n.names[rng.IntN(len(n.names))]
		switch {
		case n.members[name] == nil:
			n.start(name)
		case rng.IntN(12) == 0:
			delete(n.members, name)
		case wipes && rng.IntN(40) == 0:
			n.wipe(name)
		default:
			n.step(name)
		}
		n.check()
	}
	for _, name := range n.names {
		if n.members[name] == nil {
			n.start(name)
		}
	}
	for range 5 {
		for _, name := range n.names {
			n.step(name)
			n.check()
		}
	}
	if !wipes && n.started() != len(n.names) {
		t.Errorf("%d of %d are started", n.started(), len(n.names))
	}
}

func TestIdentityForRefusesAnotherConfiguration(t *testing.T) {
	disk := NewMemoryStorage()
	if _, err := disk.Load(); err != nil {
		t.Fatal(err)
	}
	found := &Identity{Name: "a", ClusterName: "raftlock", Incarnation: 1, Members: map[string]MemberID{"a": {1, 1}, "b": {2, 2}}}
	for name, c := range map[string]struct {
		cfg  Config
		fits bool
	}{
		"the same":        {Config{Name: "a", InitialCluster: map[string]string{"a": "x", "b": "y"}}, true},
		"another name":    {Config{Name: "b", InitialCluster: map[string]string{"a": "x", "b": "y"}}, false},
		"another cluster": {Config{Name: "a", ClusterName: "other", InitialCluster: map[string]string{"a": "x", "b": "y"}}, false},
		"a name less":     {Config{Name: "a", InitialCluster: map[string]string{"a": "x"}}, false},
		"a name more":     {Config{Name: "a", InitialCluster: map[string]string{"a": "x", "b": "y", "c": "z"}}, false},
	} {
		c.cfg.Storage = disk
		c.cfg.setDefaults()
		_, err := identityFor(&c.cfg, found, rosterOf(found))
		if c.fits != (err == nil) || !c.fits && !errors.Is(err, ErrWrongCluster) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestJudge(t *testing.T) {
	mine := hello{
		Protocol: newestProtocol, Entries: int(newestFormat), Initial: []string{"a", "b"},
		Identity: Identity{Name: "a", ClusterName: "c", Incarnation: 1, ClusterID: 9, Members: map[string]MemberID{"a": {1, 1}, "b": {2, 2}}},
	}
	theirs := func() hello {
		h := mine
		h.Name, h.Incarnation, h.Target = "b", 2, "a"
		h.Members = maps.Clone(mine.Members)
		h.Initial = slices.Clone(mine.Initial)
		return h
	}
	ok := theirs()
	if err := mine.judge(&ok); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		spoil func(h *hello)
		want  error
	}{
		"an older protocol":      {func(h *hello) { h.Protocol-- }, errRefused},
		"reads older entries":    {func(h *hello) { h.Entries = 0 }, errRefused},
		"another cluster's name": {func(h *hello) { h.ClusterName = "x" }, errRefused},
		"means another":          {func(h *hello) { h.Target = "b" }, errRefused},
		"a stranger":             {func(h *hello) { h.Name = "z" }, errRefused},
		"our own name":           {func(h *hello) { h.Name = "a" }, errRefused},
		"another cluster's id":   {func(h *hello) { h.ClusterID = 8 }, errRefused},
		"lost its disk":          {func(h *hello) { h.Incarnation, h.Members = 5, nil }, errDiskLostThere},
		"knows us otherwise":     {func(h *hello) { h.Members["a"] = MemberID{1, 7} }, ErrDiskLost},
		"frames before forming":  {func(h *hello) { h.Frames, h.Members = true, nil }, errRefused},
	} {
		h := theirs()
		c.spoil(&h)
		if err := mine.judge(&h); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Members know each other as of different places in the log. The one that is
// behind must neither send anybody away nor give up itself.
func TestJudgeByPlaceInTheLog(t *testing.T) {
	self := func(name string, incarnation uint64) Identity {
		return Identity{Name: name, ClusterName: "c", Incarnation: incarnation, ClusterID: 9}
	}
	at := func(id Identity, index uint64, members map[string]MemberID) hello {
		id.Members = members
		return hello{Protocol: newestProtocol, Entries: int(newestFormat), Identity: id, MembersAt: index, Initial: memberNames(members)}
	}
	old := map[string]MemberID{"a": {1, 1}, "b": {2, 2}, "c": {3, 3}}
	replaced := map[string]MemberID{"a": {1, 1}, "b": {7, 7}, "c": {3, 3}}
	vacant := map[string]MemberID{"a": {1, 1}, "b": {}, "c": {3, 3}}
	removed := map[string]MemberID{"a": {1, 1}, "c": {3, 3}}
	newcomer := self("b", 7)
	newcomer.ClusterID = 0
	for name, c := range map[string]struct {
		mine, theirs hello
		want         error // of a, who judges b
	}{
		"the same":                             {at(self("a", 1), 1, old), at(self("b", 2), 1, old), nil},
		"one of whom I do not know yet":        {at(self("a", 1), 1, removed), at(self("b", 2), 5, old), errRefused},
		"one who has come since":               {at(self("a", 1), 1, old), at(self("b", 7), 5, replaced), errRefused},
		"one for whom I keep a place yet":      {at(self("a", 1), 4, vacant), at(self("b", 7), 5, replaced), errRefused},
		"one who was removed since":            {at(self("a", 1), 5, removed), at(self("b", 2), 1, old), errRemovedThere},
		"one who was replaced since":           {at(self("a", 1), 5, replaced), at(self("b", 2), 1, old), errRemovedThere},
		"one whose place is empty by now":      {at(self("a", 1), 5, vacant), at(self("b", 2), 1, old), errRemovedThere},
		"one who comes to an empty place":      {at(self("a", 1), 5, vacant), at(newcomer, 0, nil), errVacant},
		"one who comes to a place that is not": {at(self("a", 1), 5, removed), at(newcomer, 0, nil), errRefused},
		"one who comes to another's place":     {at(self("a", 1), 1, old), at(newcomer, 0, nil), errDiskLostThere},
		"one who came before":                  {at(self("a", 1), 5, replaced), at(newcomer, 0, nil), nil},
		"one who does not know me yet":         {at(self("a", 1), 5, old), at(self("b", 2), 1, map[string]MemberID{"b": {2, 2}, "c": {3, 3}}), errRefused},
		"one who knows that I was removed":     {at(self("a", 1), 1, old), at(self("b", 2), 5, map[string]MemberID{"b": {2, 2}, "c": {3, 3}}), ErrRemoved},
		"one who knows that I was replaced":    {at(self("a", 1), 1, old), at(self("b", 2), 5, map[string]MemberID{"a": {8, 8}, "b": {2, 2}}), ErrRemoved},
		"one who knows my predecessor":         {at(self("a", 1), 5, old), at(self("b", 2), 1, map[string]MemberID{"a": {8, 8}, "b": {2, 2}}), errRefused},
	} {
		c.theirs.Target = "a"
		err := c.mine.judge(&c.theirs)
		if !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		answer, _ := c.mine.answer(&c.theirs)
		if said := c.theirs.heed(&answer, "a"); errors.Is(said, ErrRemoved) != (c.want == errRemovedThere) || errors.Is(said, ErrDiskLost) != (c.want == errDiskLostThere) || errors.Is(said, errVacant) != (c.want == errVacant) {
			t.Errorf("%s is told: %v", name, said)
		}
	}
}

// Two clusters of one name meet. Only one that its founder has made again, alone, ends;
// no other hello ends anybody, whatever a wrong address brings together.
func TestJudgeAnotherCluster(t *testing.T) {
	const split, grown = 7, 9
	at := func(name string, cluster, incarnation, index uint64, members map[string]MemberID) hello {
		id := Identity{Name: name, ClusterName: "c", Incarnation: incarnation, ClusterID: cluster, Members: members, Started: true}
		return hello{Protocol: newestProtocol, Entries: int(newestFormat), Identity: id, MembersAt: index, Initial: memberNames(members)}
	}
	alone := map[string]MemberID{"a": {5, 5}}
	three := map[string]MemberID{"a": {1, 1}, "b": {2, 2}, "c": {3, 3}}
	founder, peer := at("a", split, 5, 1, alone), at("b", grown, 2, 4, three)
	joined := founder
	joined.Joined = true
	for name, c := range map[string]struct {
		mine, theirs hello // of a, of b
		splits       bool  // mine
	}{
		"a cluster that has grown since":          {founder, peer, true},
		"one that the founder has a place for":    {at("a", split, 5, 2, map[string]MemberID{"a": {5, 5}, "b": {}}), peer, true},
		"one that was made of three":              {founder, at("b", grown, 2, 1, three), false},
		"one that does not know me":               {founder, at("b", grown, 2, 4, map[string]MemberID{"b": {2, 2}, "c": {3, 3}}), false},
		"one that has emptied my place for me":    {founder, at("b", grown, 2, 4, map[string]MemberID{"a": {}, "b": {2, 2}}), true},
		"one that knows this very directory":      {founder, at("b", grown, 2, 4, map[string]MemberID{"a": {5, 5}, "b": {2, 2}}), false},
		"one that meets me with others":           {at("a", split, 5, 4, map[string]MemberID{"a": {5, 5}, "d": {6, 6}}), peer, false},
		"one that meets me, who is the last left": {joined, peer, false},
	} {
		c.mine.Target, c.theirs.Target = "b", "a"
		err := c.mine.judge(&c.theirs)
		if errors.Is(err, ErrDiskLost) != c.splits || errors.Is(err, errSplit) != c.splits || err == nil {
			t.Errorf("%s, which dials: %v", name, err)
		}
		answer, _ := c.mine.answer(&c.theirs)
		if said := c.theirs.heed(&answer, "a"); !errors.Is(said, errRefused) {
			t.Errorf("%s is told: %v", name, said)
		}
		answer, judged := c.theirs.answer(&c.mine)
		if errors.Is(judged, errDiskLostThere) != c.splits || judged == nil || errors.Is(judged, ErrDiskLost) {
			t.Errorf("%s, which is dialed: %v", name, judged)
		}
		if said := c.mine.heed(&answer, "b"); errors.Is(said, ErrDiskLost) != c.splits {
			t.Errorf("%s says: %v", name, said)
		}
	}
}

// One who comes to an empty place joins through one member that knows of it,
// whatever the others say, and takes from it who belongs to the cluster.
func TestJoin(t *testing.T) {
	disk := NewMemoryStorage()
	if _, err := disk.Load(); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Name: "c", InitialCluster: map[string]string{"a": "x", "b": "y", "c": "z", "d": "w"}, Storage: disk}
	cfg.setDefaults()
	id, err := identityFor(&cfg, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	newcomer := newAssembly(&cfg, id)
	knows := hello{
		Identity: Identity{Name: "b", ClusterID: 9, Started: true, Members: map[string]MemberID{
			"a": {1, 1}, "b": {2, 2}, "c": {id.Incarnation, id.Incarnation}, "d": {},
		}},
		MembersAt: 42, Addresses: map[string]string{"a": "elsewhere"},
	}
	ask := func(_ context.Context, name string) (hello, error) {
		switch name {
		case "a":
			return hello{}, fmt.Errorf("%w: says one that is behind", ErrDiskLost)
		case "b":
			return knows, nil
		}
		return hello{}, errors.New("not up")
	}
	if err := newcomer.round(t.Context(), ask); err != nil {
		t.Fatal(err)
	}
	got := newcomer.identity()
	want := id
	want.ClusterID, want.Joined, want.JoinedAt, want.Started = 9, true, 42, true
	want.Members = map[string]MemberID{"a": {1, 1}, "b": {2, 2}, "c": {id.Incarnation, id.Incarnation}}
	want.Configured = []string{"a", "b", "c", "d"}
	if !sameIdentity(got, want) || newcomer.toldAddress("a") != "elsewhere" {
		t.Errorf("joined as %+v, want %+v", got, want)
	}
	found, err := disk.Reopen().Load()
	if err != nil || !sameIdentity(*found.Identity, want) || found.Snapshot.GetIndex() != 0 {
		t.Errorf("the disk has %+v, %v", found, err)
	}
	known, err := recall(&Config{newest: newestFormat}, found)
	if err != nil || known.now != nil || known.members.index != 42 || known.members.voters() != 0 {
		t.Errorf("recalls %+v, %v", known, err)
	}
	// With what it was given at first, or what there is by now, and nothing else.
	now := rosterOf(&want)
	now.records = now.records[1:] // a is gone
	for names, fits := range map[string]bool{"abcd": true, "bc": true, "abc": false, "bcd": false} {
		cfg.InitialCluster = map[string]string{}
		for _, name := range strings.Split(names, "") {
			cfg.InitialCluster[name] = "x"
		}
		if _, err := identityFor(&cfg, found.Identity, now); (err == nil) != fits || !fits && !errors.Is(err, ErrWrongCluster) {
			t.Errorf("starts with %s again: %v", names, err)
		}
	}
}

// Without a member that knows better, the word of one that does not know this
// directory counts, once all have been asked.
func TestJoinNowhere(t *testing.T) {
	disk := NewMemoryStorage()
	if _, err := disk.Load(); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Name: "c", InitialCluster: map[string]string{"a": "x", "b": "y", "c": "z"}, Storage: disk}
	cfg.setDefaults()
	id, err := identityFor(&cfg, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	// One for whom it keeps a place knows better, also if that is not given yet.
	err = newAssembly(&cfg, id).round(t.Context(), func(_ context.Context, name string) (hello, error) {
		if name == "a" {
			return hello{}, fmt.Errorf("%w: says a", ErrDiskLost)
		}
		return hello{}, fmt.Errorf("%w, says b", errVacant)
	})
	if !errors.Is(err, errNotYet) {
		t.Errorf("with a place that waits: %v", err)
	}
	asked := 0
	err = newAssembly(&cfg, id).round(t.Context(), func(_ context.Context, name string) (hello, error) {
		asked++
		if name == "a" {
			return hello{}, fmt.Errorf("%w: says a", ErrDiskLost)
		}
		return hello{}, errors.New("not up")
	})
	if !errors.Is(err, ErrDiskLost) || asked != 2 {
		t.Errorf("%v, %d asked", err, asked)
	}
}

// A founder that is started again with a place in its configuration for one who has not
// come asks nobody: that one may never come.
func TestFounderWithAnEmptyPlaceStarts(t *testing.T) {
	cfg := Config{Name: "a", InitialCluster: map[string]string{"a": "x", "b": "y"}, Storage: NewMemoryStorage()}
	cfg.setDefaults()
	if _, err := cfg.Storage.Load(); err != nil {
		t.Fatal(err)
	}
	id, err := identityFor(&cfg, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	id.ClusterID, id.Members = 9, map[string]MemberID{"a": {id.Incarnation, id.Incarnation}}
	if err := cfg.Storage.Bootstrap(id); err != nil {
		t.Fatal(err)
	}
	founder := newAssembly(&cfg, id)
	err = founder.round(t.Context(), func(_ context.Context, name string) (hello, error) {
		t.Errorf("it asks %s", name)
		return hello{}, errors.New("not up")
	})
	if err != nil || !founder.identity().Started {
		t.Errorf("%v, it is %+v", err, founder.identity())
	}
}

// What a peer says of the members counts where the own log is behind, if the peer
// is one of them, of this very cluster, and so is this member.
func TestNews(t *testing.T) {
	members := func() map[string]MemberID {
		return map[string]MemberID{"a": {1, 1}, "b": {2, 2}, "c": {3, 3}}
	}
	self := Identity{Name: "a", ClusterName: "c", Incarnation: 1, ClusterID: 9, Members: members(), Started: true}
	// d, who has come since, with b gone and a place for e.
	newer := func() *hello {
		return &hello{
			Protocol: newestProtocol, Entries: int(newestFormat), Target: "a", MembersAt: 8,
			Identity: Identity{Name: "d", ClusterName: "c", Incarnation: 4, ClusterID: 9, Members: map[string]MemberID{
				"a": {1, 1}, "c": {3, 3}, "d": {4, 4}, "e": {},
			}},
			Addresses: map[string]string{"d": "there"},
		}
	}
	fresh := func() *assembly {
		a := newAssembly(&Config{InitialCluster: map[string]string{"a": "", "b": "", "c": ""}, newest: newestFormat}, self)
		a.learn(&roster{index: 5, records: rosterOf(&self).records})
		return a
	}
	a := fresh()
	theirs := newer()
	mine := a.greeting("d", asks)
	if err := mine.judge(theirs); !errors.Is(err, errRefused) {
		t.Fatalf("a stranger is judged %v", err)
	}
	told := a.news(theirs)
	if told == nil || told.index != 8 || told.find("d").address != "there" || told.find("d").node != 4 || told.voters() != 0 {
		t.Fatalf("what is told is taken as %+v", told)
	}
	a.learn(told)
	mine = a.greeting("d", asks)
	if err := mine.judge(theirs); err != nil {
		t.Errorf("one who was told of is judged %v", err)
	}
	if err := theirs.judge(&hello{
		Protocol: mine.Protocol, Entries: mine.Entries, Identity: mine.Identity, MembersAt: mine.MembersAt, Target: "d",
	}); err != nil {
		t.Errorf("who has heard of the others is judged %v", err)
	}
	if a.news(newer()) != nil {
		t.Error("the same is news twice")
	}

	for name, spoil := range map[string]func(h *hello){
		"as old as the own log":         func(h *hello) { h.MembersAt = 5 },
		"older than the own log":        func(h *hello) { h.MembersAt = 4 },
		"of another cluster":            func(h *hello) { h.ClusterID = 8 },
		"of another cluster's name":     func(h *hello) { h.ClusterName = "x" },
		"of one that has no members":    func(h *hello) { h.Members = nil },
		"of one that is no member":      func(h *hello) { delete(h.Members, "d") },
		"of one with another directory": func(h *hello) { h.Incarnation = 5 },
		"of a place that is empty":      func(h *hello) { h.Name, h.Incarnation = "e", 6 },
		"that leaves this member out":   func(h *hello) { delete(h.Members, "a") },
		"that names our successor":      func(h *hello) { h.Members["a"] = MemberID{7, 7} },
		"that empties our place":        func(h *hello) { h.Members["a"] = MemberID{} },
		"that says nobody's address":    func(h *hello) { h.Addresses = nil },
		"that lacks one's address":      func(h *hello) { h.Members["f"] = MemberID{6, 6} },
	} {
		h := newer()
		spoil(h)
		if told := fresh().news(h); told != nil {
			t.Errorf("%s: %+v", name, told)
		}
	}
	asleep := newAssembly(&Config{InitialCluster: map[string]string{"a": ""}, newest: newestFormat}, self)
	if asleep.news(newer()) != nil {
		t.Error("a member that does not know its own log yet listens to others")
	}
}

// A member speaks with whom it was told of only as long as its own log is behind.
func TestCompany(t *testing.T) {
	own, told := &roster{index: 5}, &roster{index: 8}
	for _, c := range []struct {
		r    replica
		want *roster
	}{
		{replica{roster: own}, own},
		{replica{roster: own, told: told}, told},
		{replica{roster: &roster{index: 8}, told: told}, nil},
		{replica{roster: &roster{index: 9}, told: told}, nil},
	} {
		if c.want == nil {
			c.want = c.r.roster
		}
		if got := c.r.company(); got != c.want {
			t.Errorf("at %d, told of %v: %+v", c.r.roster.index, c.r.told, got)
		}
	}
}

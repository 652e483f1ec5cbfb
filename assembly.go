package raftlock

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/raftlock/raftlock/internal/clock"
)

// assembly makes members into a cluster, once. A member whose storage is empty
// neither votes nor campaigns before it has met every initial member: if two of
// three had granted something, one of them were wiped and the other down, the
// wiped one and the fresh third would otherwise be a second, empty majority.
//
// The member with the smallest name, when it has met all and none is of a
// cluster yet, makes the cluster: its id and the map from names to node ids and
// incarnations, durable before anybody hears of it. The others take both from
// whoever has them, if they name all incarnations as they met them. Once all
// have them, each is Started, and from then on a majority is enough.
//
// A member that comes to a running cluster with an empty storage, to a place that
// was made for it, does not take part in that: one member that is started and
// names its incarnation tells it all there is to know, and it joins.
type assembly struct {
	clock   clock.Clock
	storage Storage
	hello   hello // without Identity

	mu struct {
		sync.Mutex
		identity Identity
		roster   *roster           // who belongs to the cluster by now; nil before the member runs
		told     map[string]string // peer addresses, as the member heard that admitted this one
	}
}

// errNotYet says that the members do not agree yet.
var errNotYet = errors.New("not all members are here")

func newAssembly(cfg *Config, id Identity) *assembly {
	a := &assembly{
		storage: cfg.Storage,
		hello: hello{
			Protocol: newestProtocol, Entries: int(cfg.newest),
			Initial: memberNames(cfg.InitialCluster), ClientAddress: cfg.ClientAddress,
		},
	}
	a.mu.identity = id
	return a
}

// identity is who this member is by now.
func (a *assembly) identity() Identity {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mu.identity
}

// greeting is this member's hello to target as of now.
func (a *assembly) greeting(target string, why errand) hello {
	h := a.hello
	a.mu.Lock()
	defer a.mu.Unlock()
	h.Identity, h.Target, h.Frames, h.Snapshot = a.mu.identity, target, why == sendsFrames, why == sendsSnapshot
	switch {
	case a.mu.roster != nil:
		h.Members, h.MembersAt = memberIDs(a.mu.roster), a.mu.roster.index
		h.Initial = memberNames(h.Members)
	case h.Members != nil:
		h.MembersAt = max(h.JoinedAt, firstIndex)
	}
	return h
}

// learn sets who belongs to the cluster by now.
func (a *assembly) learn(now *roster) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mu.roster = now
}

// news is who belongs to the cluster by a peer's word, when this member is there
// and the word is newer than what it knows; otherwise nil. A word that leaves it open
// where somebody is reached does not count: who believed it could not answer a leader
// whose address stands in the log that only that leader can send.
func (a *assembly) news(theirs *hello) *roster {
	a.mu.Lock()
	defer a.mu.Unlock()
	id := &a.mu.identity
	switch m, known := theirs.Members[theirs.Name]; {
	case a.mu.roster == nil || theirs.MembersAt <= a.mu.roster.index,
		theirs.ClusterName != id.ClusterName || theirs.ClusterID != id.ClusterID,
		!known || m.Incarnation != theirs.Incarnation || theirs.Members[id.Name] != id.Members[id.Name]:
		return nil
	}
	told := rosterOf(&Identity{Members: theirs.Members, Joined: true, JoinedAt: theirs.MembersAt})
	for i := range told.records {
		m := &told.records[i]
		m.address = theirs.Addresses[m.name]
		if m.address == "" && m.node != 0 && !slices.Contains(a.hello.Initial, m.name) {
			return nil
		}
	}
	return told
}

// asleep reports whether this member is one of a cluster, but does not know yet
// who belongs to that by now.
func (a *assembly) asleep() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mu.identity.Started && a.mu.roster == nil
}

// toldAddress is where this member was told that another one is reached.
func (a *assembly) toldAddress(name string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mu.told[name]
}

// memberIDs are the members as a hello says them; a place that waits has no numbers.
func memberIDs(t *roster) map[string]MemberID {
	ids := map[string]MemberID{}
	for i := range t.records {
		r := &t.records[i]
		ids[r.name] = MemberID{NodeID: r.node, Incarnation: r.incarnation}
	}
	return ids
}

// rosterOf is the roster that an identity has the members of: all initial
// members, or what a joined one was told, before it has heard of the log.
func rosterOf(id *Identity) *roster {
	t := &roster{index: max(id.JoinedAt, firstIndex)}
	for _, name := range memberNames(id.Members) {
		m := id.Members[name]
		t.records = append(t.records, record{
			name: name, since: firstIndex, node: m.NodeID, incarnation: m.Incarnation, voter: !id.Joined,
		})
	}
	return t
}

// identityFor returns the identity in a storage, or makes one where it is
// empty, and refuses a storage that is not for this configuration. now is who
// belongs to the cluster as the storage's log knows it, nil if that knows nothing.
func identityFor(cfg *Config, found *Identity, now *roster) (Identity, error) {
	if found == nil {
		id := Identity{Name: cfg.Name, ClusterName: cfg.ClusterName, Incarnation: randomID()}
		if err := cfg.Storage.SaveIdentity(id); err != nil {
			return Identity{}, fmt.Errorf("save identity: %w", err)
		}
		return id, nil
	}
	switch id := *found; {
	case id.Name != cfg.Name || id.ClusterName != cfg.ClusterName:
		return Identity{}, fmt.Errorf("%w: the data directory is of member %q of cluster %q, the configuration is of %q of %q",
			ErrWrongCluster, id.Name, id.ClusterName, cfg.Name, cfg.ClusterName)
	case now != nil && now.byNode(id.Members[id.Name].NodeID) == nil:
		return Identity{}, fmt.Errorf("%w, as its own log says: %s", ErrRemoved, removedRemedy)
	case now != nil && !namesFit(cfg, &id, now):
		return Identity{}, fmt.Errorf("%w: InitialCluster names %s, the member was first started with %s, and the cluster has %s by now, as far as this member knows",
			ErrWrongCluster, nameList(memberNames(cfg.InitialCluster)), nameList(id.firstNames()), nameList(memberNames(memberIDs(now))))
	default:
		return id, nil
	}
}

// namesFit reports whether the configuration names the members of the first
// start, or the present ones: one that was away during a change has the old list.
func namesFit(cfg *Config, id *Identity, now *roster) bool {
	names := memberNames(cfg.InitialCluster)
	return slices.Equal(names, id.firstNames()) || slices.Equal(names, memberNames(memberIDs(now)))
}

// randomID returns a random number other than 0, raft's "nobody", and in the
// lower half, for raft keeps the highest numbers for its own threads.
func randomID() uint64 {
	for {
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails, says its doc
		if id := binary.BigEndian.Uint64(b[:]) >> 1; id != 0 {
			return id
		}
	}
}

// assemble asks every member until all agree and this one is Started. It
// returns early when ctx ends, or this member finds that it lost its disk.
func (a *assembly) assemble(ctx context.Context, pause time.Duration, ask func(ctx context.Context, name string) (hello, error)) error {
	wait := a.clock.NewTimer(a.doubt())
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-wait.C:
		}
		err := a.round(ctx, ask)
		if err == nil && a.identity().Started {
			return nil
		}
		if err != nil && !errors.Is(err, errNotYet) {
			return err
		}
		wait.Reset(pause)
	}
}

// splitPause is how long a member that was found to be a second cluster listens before
// it serves again: whoever dials it, at least every maxRedial and for at most
// handshakeTimeout, has said so again by then. Otherwise a supervisor that starts it
// again and again would have it grant locks in between.
const splitPause = 2 * handshakeTimeout

// doubt is how long this member listens before it asks anybody. One that is alone has
// been started as it got its cluster, so if it is not, that was taken back: see unstart.
func (a *assembly) doubt() time.Duration {
	if id := a.identity(); len(id.Members) == 1 && !id.Started {
		return splitPause
	}
	return 0
}

// unstart notes that this member was found to be a second cluster, for its next start.
// Nothing else writes to the storage any more.
func (a *assembly) unstart() error {
	id := a.identity()
	id.Started = false
	return a.save(id, a.storage.SaveIdentity)
}

// round meets the others once and takes the next step, if there is one.
func (a *assembly) round(ctx context.Context, ask func(context.Context, string) (hello, error)) error {
	mine := a.identity()
	met := map[string]hello{}
	missing, vacant := false, false
	var lost error
	names := a.hello.Initial
	if mine.Members != nil {
		names = memberNames(mine.Members) // not those who have a place, and may never come
	}
	for _, name := range names {
		if name == mine.Name {
			continue
		}
		theirs, err := ask(ctx, name)
		switch {
		case errors.Is(err, ErrDiskLost), errors.Is(err, ErrRemoved):
			lost = err // unless another one knows better
		case errors.Is(err, errVacant):
			vacant = true
		case err != nil:
			missing = true
		case mine.Members == nil && theirs.Started && theirs.Members[mine.Name].Incarnation == mine.Incarnation:
			return a.join(mine, &theirs)
		default:
			met[name] = theirs
		}
	}
	switch {
	case vacant:
		return errNotYet // who does not know of the place is behind
	case lost != nil:
		return lost
	}
	if mine.Members != nil {
		return a.conclude(mine, met, missing)
	}
	if missing {
		return errNotYet
	}
	return a.form(mine, met)
}

// form gives this member the cluster: that of a member that has one, or a new
// one if it is for this member to make it.
func (a *assembly) form(mine Identity, met map[string]hello) error {
	formed := mine
	formed.Members = map[string]MemberID{mine.Name: {NodeID: mine.Incarnation, Incarnation: mine.Incarnation}}
	for name, theirs := range met {
		formed.Members[name] = MemberID{NodeID: theirs.Incarnation, Incarnation: theirs.Incarnation}
	}
	for _, name := range memberNames(met) {
		theirs := met[name]
		if theirs.Members == nil {
			continue
		}
		if !sameMembers(theirs.Members, formed.Members) {
			return errNotYet // somebody lost its disk; it will be told
		}
		formed.ClusterID = theirs.ClusterID
	}
	if formed.ClusterID == 0 {
		if mine.Name != a.hello.Initial[0] {
			return errNotYet
		}
		formed.ClusterID = randomID()
	}
	formed.Started = len(met) == 0
	return a.save(formed, a.storage.Bootstrap)
}

// join makes this member one of a running cluster, which has given it a place.
func (a *assembly) join(mine Identity, theirs *hello) error {
	joined := mine
	joined.ClusterID, joined.Members = theirs.ClusterID, map[string]MemberID{}
	for name, m := range theirs.Members {
		if m.NodeID != 0 {
			joined.Members[name] = m
		}
	}
	joined.Joined, joined.JoinedAt, joined.Started, joined.Configured = true, theirs.MembersAt, true, a.hello.Initial
	a.mu.Lock()
	a.mu.told = theirs.Addresses
	a.mu.Unlock()
	return a.save(joined, a.storage.Join)
}

// conclude starts this member when all have the cluster, or one is started.
func (a *assembly) conclude(mine Identity, met map[string]hello, missing bool) error {
	all := !missing
	for _, theirs := range met {
		if theirs.Started {
			all = true
			break
		}
		all = all && theirs.Members != nil
	}
	if !all {
		return errNotYet
	}
	mine.Started = true
	return a.save(mine, a.storage.SaveIdentity)
}

func (a *assembly) save(id Identity, save func(Identity) error) error {
	if err := save(id); err != nil {
		return fmt.Errorf("save identity: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mu.identity = id
	return nil
}

func sameMembers(a, b map[string]MemberID) bool {
	if len(a) != len(b) {
		return false
	}
	for name, m := range a {
		if b[name] != m {
			return false
		}
	}
	return true
}

package testcluster_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/testcluster"
)

// nemesis is what befalls a cluster and its clients.
type nemesis struct {
	lab     *lab
	c       *testcluster.Cluster
	dice    *rand.Rand
	deck    []int // faults that are still to come before all are shuffled again
	struck  counts
	changed counts

	members []int        // those that belong to the cluster, by number; 0 always does
	ever    int          // how many there have been
	gone    []int        // those that were removed, and must hear of it
	leaving int          // the one that is being removed, or −1
	joined  map[int]bool // have been members on the disk that they have: an empty one is not told
	down    map[int]bool
	paused  map[int]bool
	lost    int     // the one whose disk is lost, or −1
	cut     []*desk // machines that are never heard of again

	change struct {
		sync.Mutex
		busy bool     // one is under way
		then []func() // what follows from those that are done
	}
}

func newNemesis(l *lab, size int) *nemesis {
	n := &nemesis{lab: l, c: l.c, dice: l.dice, joined: map[int]bool{}, down: map[int]bool{}, paused: map[int]bool{}, lost: -1, leaving: -1, ever: size}
	for i := range size {
		n.members = append(n.members, i)
		n.joined[i] = true
	}
	return n
}

// fault is one thing that can happen. It reports whether it did.
type fault struct {
	kind string
	do   func(n *nemesis) bool
}

func done(f func(n *nemesis)) func(n *nemesis) bool {
	return func(n *nemesis) bool { f(n); return true }
}

// plagues are all that testcluster knows, and several together.
func plagues() []fault {
	return []fault{
		{"crash", func(n *nemesis) bool { return n.stop(n.member(), n.c.Crash) }},
		{"crash of the leader", func(n *nemesis) bool { return n.stop(n.leader(), n.c.Crash) }},
		{"lost unsynced writes", func(n *nemesis) bool { return n.stop(n.member(), n.c.LoseUnsynced) }},
		{"restart of all", done((*nemesis).restartAll)},
		{"pause", (*nemesis).pause},
		{"isolation", done(func(n *nemesis) { n.c.Isolate(n.member()) })},
		{"partition", done((*nemesis).partition)},
		{"cut link", done((*nemesis).cutLink)},
		{"delay", done(func(n *nemesis) { n.c.Delay(testcluster.Everyone, n.member(), n.short(), n.short()) })},
		{"drop", done(func(n *nemesis) { n.c.Drop(n.member(), testcluster.Everyone, 0.02) })},
		{"duplicate", done(func(n *nemesis) { n.c.Duplicate(n.member(), testcluster.Everyone, 0.02) })},
		{"reorder", done(func(n *nemesis) { n.c.Reorder(n.member(), testcluster.Everyone, 0.02, n.short()) })},
		{"slow disk", done(func(n *nemesis) { n.c.DelayDisk(n.member(), n.short(), n.short()) })},
		{"hanging disk", done(func(n *nemesis) { n.c.HangDisk(n.member()) })},
		{"failing disk", done(func(n *nemesis) { n.c.FailDisk(n.member()) })},
		{"lost disk", (*nemesis).loseDisk},
		{"clock of a member", done(func(n *nemesis) { n.c.SkewRate(n.member(), n.ppm()) })},
		{"client cut off", done(func(n *nemesis) { n.desk().machine.Cut() })},
		{"answers dropped", done(func(n *nemesis) { n.desk().machine.DropAnswers() })},
		{"client paused", done(func(n *nemesis) { n.desk().pause() })},
		{"client suspended", done(func(n *nemesis) { n.suspend() })},
		{"clock of a client", done(func(n *nemesis) { n.desk().machine.SkewRate(n.ppm()) })},
		{"client vanishes", done((*nemesis).vanish)},
		{"transfer", (*nemesis).transfer},
		{"add", (*nemesis).add},
		{"remove", (*nemesis).remove},
	}
}

func changeKinds() []string { return []string{"transfer", "add", "remove", "replace"} }

// faultKinds are those that are counted when they strike; changes are when they are
// made.
func faultKinds() (kinds []string) {
	for _, f := range plagues() {
		if !slices.Contains(changeKinds(), f.kind) {
			kinds = append(kinds, f.kind)
		}
	}
	return kinds
}

// rage strikes for a while. After some strikes there is peace for a moment, or
// nothing would be granted that could be broken.
func (n *nemesis) rage() {
	for step := range 72 {
		time.Sleep(time.Duration(n.dice.Int64N(int64(300 * time.Millisecond))))
		n.follow()
		switch {
		case step%12 == 11:
			n.relent()
			time.Sleep(300 * time.Millisecond)
		case n.dice.IntN(3) == 0:
			n.ease()
		default:
			n.strike()
		}
	}
}

// strike does the next thing to somebody.
func (n *nemesis) strike() {
	all := plagues()
	if len(n.deck) == 0 {
		n.deck = n.dice.Perm(len(all))
	}
	f := all[n.deck[0]]
	n.deck = n.deck[1:]
	if f.do(n) && !slices.Contains(changeKinds(), f.kind) {
		n.struck.add(f.kind, 1)
	}
}

// ease ends something.
func (n *nemesis) ease() {
	i, d := n.member(), n.desk()
	switch n.dice.IntN(5) {
	case 0:
		n.c.Heal()
	case 1:
		n.c.MendDisk(i)
	case 2:
		n.resume(i)
	case 3:
		d.machine.Mend()
		d.resume()
	case 4:
		n.restartOne()
	}
}

func (n *nemesis) member() int  { return n.members[n.dice.IntN(len(n.members))] }
func (n *nemesis) desk() *desk  { return n.lab.desks[n.dice.IntN(len(n.lab.desks))] }
func (n *nemesis) ppm() float64 { return n.dice.Float64()*1000 - 500 }
func (n *nemesis) short() time.Duration {
	return time.Duration(n.dice.Int64N(int64(30 * time.Millisecond)))
}

// leader is the one that leads by its own word, or anyone.
func (n *nemesis) leader() int {
	for _, i := range n.members {
		if r := n.c.Running(i); r != nil && r.IsLeader() {
			return i
		}
	}
	return n.member()
}

// stop takes a member down that runs.
func (n *nemesis) stop(i int, how func(int)) bool {
	if n.down[i] {
		return false
	}
	how(i)
	n.down[i] = true
	delete(n.paused, i)
	return true
}

func (n *nemesis) pause() bool {
	i := n.member()
	if n.down[i] {
		return false
	}
	n.c.Pause(i)
	n.paused[i] = true
	return true
}

func (n *nemesis) resume(i int) {
	n.c.Resume(i)
	delete(n.paused, i)
}

// restart starts a member that is down or has ended, on a disk that is whole. One
// whose own log says that it was removed cannot be started. The cluster looks at what
// ended it; who was removed, or has lost a disk, it does not know.
func (n *nemesis) restart(i int) bool {
	r := n.c.Running(i)
	if i == n.leaving || r != nil && !isOver(r) {
		return false
	}
	if r != nil && (errors.Is(r.Err(), raftlock.ErrRemoved) || n.joined[i] && errors.Is(r.Err(), raftlock.ErrDiskLost)) && !slices.Contains(n.gone, i) {
		n.lab.t.Errorf("member %s has ended by itself, at %v: %v", memberName(i), time.Since(n.lab.begun), r.Err())
	}
	n.c.MendDisk(i)
	n.c.Restart(i)
	delete(n.down, i)
	delete(n.paused, i)
	return true
}

func isOver(r *raftlock.Node) bool {
	select {
	case <-r.Done():
		return true
	default:
		return false
	}
}

func (n *nemesis) restartOne() {
	for _, i := range n.members {
		if n.restart(i) {
			return
		}
	}
}

// restartAll restarts all members, each before the one before is back.
func (n *nemesis) restartAll() {
	for _, i := range n.members {
		n.stop(i, n.c.Crash)
		n.restart(i)
	}
}

func (n *nemesis) cutLink() {
	ends := n.dice.Perm(len(n.members))
	n.c.Cut(n.members[ends[0]], n.members[ends[1]])
}

func (n *nemesis) partition() {
	order := n.dice.Perm(len(n.members))
	var one, other []int
	for k, p := range order {
		if k <= len(order)/2 {
			one = append(one, n.members[p])
		} else {
			other = append(other, n.members[p])
		}
	}
	n.c.Partition(one, other)
}

func (n *nemesis) suspend() {
	d := n.desk()
	d.pause()
	time.Sleep(time.Duration(n.dice.Int64N(int64(time.Second))))
	d.wake()
}

// vanish has a client take a lock, or wait for one, and never be heard of again.
func (n *nemesis) vanish() {
	d := n.lab.newDesk(fmt.Sprint("vanished ", len(n.cut)), n.member(), n.dice.IntN(2) == 0)
	for i := range 2 { // a worker is not for two at a time
		own := rand.New(rand.NewPCG(n.lab.seed, 200+2*uint64(len(n.cut))+uint64(i)))
		w := &worker{lab: n.lab, name: fmt.Sprintf("%s.%d", d.name, i), desk: d, dice: own}
		n.lab.work.Go(func() { w.wait() })
	}
	n.cut = append(n.cut, d)
	time.Sleep(time.Duration(n.dice.Int64N(int64(50 * time.Millisecond))))
	if n.dice.IntN(2) == 0 {
		d.machine.Cut()
	} else {
		d.pause()
	}
}

// release lets those that had vanished end what they do.
func (n *nemesis) release() {
	for _, d := range n.cut {
		d.machine.Mend()
		d.resume()
	}
}

// relent ends all of it, and waits until the members are what they shall be. It
// returns by when everything must work again.
func (n *nemesis) relent() (limit time.Time) {
	n.peace()
	limit = time.Now().Add(simRecovers)
	for {
		n.follow()
		for _, i := range n.members {
			n.restart(i)
		}
		if n.idle() && n.votes() {
			n.lost = -1
			for _, i := range n.members {
				n.joined[i] = true
			}
			return limit
		}
		if time.Now().After(limit) {
			n.lab.t.Fatalf("without faults the members are not what they shall be within %v: %v", simRecovers, n.members)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (n *nemesis) peace() {
	n.c.Heal()
	for i := range n.ever {
		n.c.MendDisk(i)
		n.resume(i)
		n.c.SkewRate(i, 0)
	}
	for _, d := range n.lab.desks {
		d.machine.Mend()
		d.resume()
		d.machine.SkewRate(0)
	}
}

// votes reports whether each member counts all of them as voters.
func (n *nemesis) votes() bool {
	ctx, cancel := context.WithTimeout(n.lab.ctx, 100*time.Millisecond)
	defer cancel()
	for _, i := range n.members {
		r := n.c.Running(i)
		if r == nil {
			return false
		}
		all, err := r.Members(ctx)
		if err != nil || len(all) != len(n.members) {
			return false
		}
		for _, m := range all {
			if !m.Voter {
				return false
			}
		}
	}
	return true
}

// idle reports whether no change is under way.
func (n *nemesis) idle() bool {
	n.change.Lock()
	defer n.change.Unlock()
	return !n.change.busy && len(n.change.then) == 0
}

// follow does what follows from changes that are made.
func (n *nemesis) follow() {
	n.change.Lock()
	then := n.change.then
	n.change.then = nil
	n.change.Unlock()
	for _, do := range then {
		do()
	}
}

// begin has an operator make a change, at any member that runs, until it is made or
// refused. Only one is made at a time. then is called by follow, and told whether it
// was made.
func (n *nemesis) begin(kind string, insists bool, do func(ctx context.Context, r *raftlock.Node) error, then func(made bool)) bool {
	n.change.Lock()
	defer n.change.Unlock()
	if n.change.busy {
		return false
	}
	n.change.busy = true
	members, dice := slices.Clone(n.members), rand.New(rand.NewPCG(n.lab.seed, n.dice.Uint64()))
	n.lab.work.Go(func() {
		made := n.make(kind, insists, members, dice, do)
		n.change.Lock()
		defer n.change.Unlock()
		n.change.busy = false
		n.change.then = append(n.change.then, func() { then(made) })
	})
	return true
}

func (n *nemesis) make(kind string, insists bool, members []int, dice *rand.Rand, do func(ctx context.Context, r *raftlock.Node) error) bool {
	for n.lab.ctx.Err() == nil {
		if r := n.c.Running(members[dice.IntN(len(members))]); r != nil {
			ctx, cancel := context.WithTimeout(n.lab.ctx, 2*time.Second)
			err := do(ctx, r)
			cancel()
			if err == nil {
				n.changed.add(kind, 1)
				return true
			}
			if errors.Is(err, raftlock.ErrChangeRefused) && !insists {
				return false
			}
		}
		pause(n.lab.ctx, 20*time.Millisecond)
	}
	return false
}

func (n *nemesis) transfer() bool {
	to := memberName(n.member())
	return n.begin("transfer", false, func(ctx context.Context, r *raftlock.Node) error { return r.TransferLeadership(ctx, to) }, func(bool) {})
}

// add asks for one more member, which starts when it was admitted.
func (n *nemesis) add() bool {
	if len(n.members) > 5 || n.ever > 12 || !n.idle() {
		return false
	}
	i, name, addr := n.c.Enter()
	n.ever++
	return n.begin("add", true, func(ctx context.Context, r *raftlock.Node) error { return r.AddMember(ctx, name, addr) }, func(bool) {
		n.members = append(n.members, i)
		n.restart(i)
	})
}

// remove takes a member away. One is always left whom those know that were removed.
func (n *nemesis) remove() bool {
	i := n.member()
	if i == 0 || len(n.members) < 4 || i == n.lost || !n.idle() {
		return false
	}
	name, wasDown := memberName(i), n.down[i]
	n.leaving = i
	tried := false
	return n.begin("remove", false, func(ctx context.Context, r *raftlock.Node) error {
		err := r.RemoveMember(ctx, name)
		if tried && errors.Is(err, raftlock.ErrNoSuchMember) {
			return nil
		}
		tried = true
		return err
	}, func(made bool) {
		n.leaving = -1
		if !made {
			return
		}
		n.members = slices.DeleteFunc(n.members, func(m int) bool { return m == i })
		switch {
		case !n.joined[i]:
			n.stop(i, n.c.Crash) // or it waits for ever to be let in
		case wasDown || !n.down[i]:
			n.gone = append(n.gone, i)
		}
	})
}

// loseDisk takes a member's disk while all others are well, and has it replaced in
// whatever comes then.
func (n *nemesis) loseDisk() bool {
	n.relent()
	i := n.member()
	name := memberName(i)
	n.c.LoseDisk(i)
	n.down[i], n.joined[i], n.lost = true, false, i
	return n.begin("replace", true, func(ctx context.Context, r *raftlock.Node) error { return r.ReplaceMember(ctx, name) }, func(bool) { n.restart(i) })
}

func memberName(i int) string { return fmt.Sprint("n", i+1) }

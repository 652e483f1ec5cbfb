package e2e

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/raftlock/raftlock"
)

var (
	tortureFlag = flag.Duration("e2e.torture", 0, "how long TestTorture and TestKillAll go on; 0 = seconds")
	noTraceFlag = flag.Bool("e2e.notrace", false, "no disk is slow, hangs or fails in TestTorture; without it a run of a minute or more needs strace")
)

// All processes are killed in the middle of their work, again and again, while
// they take snapshots all the time and send them to each other. What was
// acknowledged stands, and tokens never fall.
func TestKillAll(t *testing.T) {
	t.Parallel()
	d := dice(t)
	f := newFleet(t, "n1", "n2", "n3")
	f.ports, f.snapshots = map[string]string{}, raftlock.Snapshots{MinLogBytes: 4 << 10, KeepLogBytes: 1 << 10}
	f.choose(f.names(), f.ports)
	f.startAll()
	k := &killer{f: f, t: t, d: d, load: newLoad(f), snapshots: map[string]uint64{}}
	turns := takeTurns(t, k.load)
	defer turns.end()
	rounds, begun := 20, time.Now()
	switch {
	case testing.Short():
		rounds = 2
	case underRace:
		rounds = 6
	}
	for round := 0; !t.Failed() && (round < rounds || time.Since(begun) < *tortureFlag/4); round++ {
		k.round(round)
		if *tortureFlag > 0 && round%20 == 19 {
			k.report(turns)
		}
	}
	turns.end()
	k.report(turns)
	f.sameTables()
	if k.took < rounds || rounds == 20 && (k.installed == 0 || k.broken == 0) || turns.grants.Load() == 0 {
		t.Error("that was no torture")
	}
}

// killer is who kills the members and starts them again.
type killer struct {
	f    *fleet
	t    *testing.T
	d    *rand.Rand
	load *load

	rounds    int
	snapshots map[string]uint64 // by member: the newest one's index
	took      int               // how often a member had a newer one after a round
	broken    int               // snapshots that were being written at a kill
	installed int               // snapshots that came from the leader
}

// round lets the members work, kills them, and looks what they know when they
// are back.
func (k *killer) round(round int) {
	var callers sync.WaitGroup
	for w := range 4 {
		own := rand.New(rand.NewPCG(k.d.Uint64(), 0))
		callers.Go(func() { k.load.caller(fmt.Sprintf("round-%d-caller-%d", round, w), own) })
	}
	until := k.load.acks.Load() + 50 + k.d.Int64N(200)
	k.f.eventually("the callers have come far", func() bool { return k.load.acks.Load() >= until })
	if k.d.IntN(2) == 0 {
		k.awaitSnapshot()
	} else {
		pass(5*time.Millisecond, k.d)
	}
	k.kill()
	callers.Wait()
	before := k.load.max.Load()
	k.start()
	if k.d.IntN(4) == 0 { // and once more, when they have hardly begun
		pass(300*time.Millisecond, k.d)
		k.kill()
		k.start()
	}
	for _, name := range k.f.names() {
		p := k.f.at(name)
		p.await(eventReady)
		if index := p.must(request{Op: "status"}).Index; index > k.snapshots[name] {
			k.snapshots[name] = index
			k.took++
		} else if index < k.snapshots[name] {
			k.t.Errorf("round %d: %s stands on snapshot %d, had %d", round, name, index, k.snapshots[name])
		}
	}
	k.load.check(k.t, round)
	k.installed += k.f.log.forget("snapshot installed") // of a long run, nobody reads the rest either
	if a := k.f.at("n1").must(request{Op: "acquire", Lock: fmt.Sprint("after-", round), Client: "c", TTL: time.Second}); a.Version <= before {
		k.t.Errorf("round %d: token %d after %d", round, a.Version, before)
	}
	k.rounds++
}

// kill ends all members at once, as nearly as can be.
func (k *killer) kill() {
	for _, i := range k.d.Perm(3) {
		_ = k.f.at(k.f.names()[i]).cmd.Process.Kill()
	}
	for _, name := range k.f.names() {
		k.f.at(name).kill()
	}
	k.broken += len(k.unfinished())
}

// awaitSnapshot waits for a while until a member writes a snapshot.
func (k *killer) awaitSnapshot() {
	limit := time.NewTimer(time.Second)
	defer limit.Stop()
	ticker := time.NewTicker(100 * time.Microsecond)
	defer ticker.Stop()
	for len(k.unfinished()) == 0 {
		select {
		case <-ticker.C:
		case <-limit.C:
			return
		}
	}
}

// unfinished are the snapshots that are being written.
func (k *killer) unfinished() (files []string) {
	for _, name := range k.f.names() {
		parts, err := filepath.Glob(filepath.Join(k.f.dir, name, "snapshots", "*.tmp"))
		if err != nil {
			k.t.Fatal(err)
		}
		files = append(files, parts...)
	}
	return files
}

// start starts all members, at times one of them so late that it lacks what the
// others have cut off.
func (k *killer) start() {
	order := k.d.Perm(3)
	for i, member := range order {
		if i == 2 && k.d.IntN(4) == 0 {
			early := k.f.at(k.f.names()[order[0]])
			early.await(eventReady)
			begun := early.must(request{Op: "status"}).Index
			k.f.eventually("a newer snapshot, without the third member", func() bool {
				return early.must(request{Op: "status"}).Index > begun
			})
		}
		k.f.start(k.f.names()[member])
	}
}

func (k *killer) report(s *turns) {
	k.t.Logf("%d rounds, %d acknowledgements, %d grants over the network, %d locks held; members had a newer snapshot %d times, %d came from the leader, %d were being written at a kill",
		k.rounds, k.load.acks.Load(), s.grants.Load(), len(k.load.known), k.took, k.installed, k.broken)
}

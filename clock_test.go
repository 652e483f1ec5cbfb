package raftlock

import (
	"fmt"
	"testing"
	"time"

	"github.com/raftlock/raftlock/pb"
)

// The ten rules of cluster time, each by name. slack says how exact the lab
// is: one tick for the alarm, one for the commit.
const slack = 2 * labTick

func requireBetween(t *testing.T, what string, got, low, high time.Duration) {
	t.Helper()
	if got < low || got > high {
		t.Errorf("%s: %v, want %v to %v", what, got, low, high)
	}
}

// failover cuts the leader off and returns the next one and the span without a
// leader: from the last message that the successor got until its first entry.
func (l *lab) failover(old *labNode) (*labNode, time.Duration) {
	l.t.Helper()
	begun := l.now
	old.cut = true
	next := l.leader()
	return next, l.now.Sub(begun)
}

func TestRule1QuietClusterLosesNoTimeAtFailover(t *testing.T) {
	l := newLab(t, 3)
	l.elect(l.nodes[0])
	l.acquire(l.nodes[0], "a", "me", 30*time.Second)
	l.pass(20 * time.Second) // not one entry
	_, gap := l.failover(l.nodes[0])
	left := l.freedAfter("a", time.Minute)
	requireBetween(t, "lived", 20*time.Second+gap+left, 30*time.Second+gap-labTick, 30*time.Second+gap+slack)
}

func TestRule1TwoQuietFailovers(t *testing.T) {
	l := newLab(t, 5)
	l.elect(l.nodes[0])
	l.acquire(l.nodes[0], "a", "me", 30*time.Second)
	l.pass(8 * time.Second)
	second, gap1 := l.failover(l.nodes[0])
	l.pass(8 * time.Second)
	_, gap2 := l.failover(second)
	left := l.freedAfter("a", time.Minute)
	gaps := gap1 + gap2
	requireBetween(t, "lived", 16*time.Second+gaps+left, 30*time.Second+gaps-slack, 30*time.Second+gaps+slack)
}

func TestRule2LeaderlessGapIsNotCharged(t *testing.T) {
	l := newLab(t, 3)
	l.elect(l.nodes[0])
	l.acquire(l.nodes[0], "a", "me", 5*time.Second)
	l.pass(time.Second) // all have applied it: one that applies it later counts from then on anyway
	// Nobody leads for a minute: no two members reach each other.
	l.nodes[0].cut, l.nodes[1].cut, l.nodes[2].cut = true, true, true
	l.pass(time.Minute)
	l.nodes[1].cut, l.nodes[2].cut = false, false
	begun := l.now
	l.leader()
	left := l.now.Sub(begun) + l.freedAfter("a", time.Minute)
	requireBetween(t, "lived after the gap", left, 4*time.Second-slack, 4*time.Second+5*labElection)
}

func TestRule2JumpIsClamped(t *testing.T) {
	l := newLab(t, 3)
	n := l.nodes[0]
	l.elect(n)
	l.acquire(n, "a", "me", 10*time.Second)
	before := n.r.clock.now()
	l.jump(time.Hour) // all machines were suspended
	l.settle()
	if n.r.office != officeOpening && n.r.office != officeOpen {
		t.Fatal("the leader has left office")
	}
	counted := time.Duration(n.r.clock.now() - before)
	requireBetween(t, "counted", counted, 0, 2*labElection)
	left := l.freedAfter("a", time.Minute)
	requireBetween(t, "left", left, 10*time.Second-2*labElection-slack, 10*time.Second+slack)
}

func TestRule3NothingIsAnsweredAfterAJumpBeforeAnEntry(t *testing.T) {
	l := newLab(t, 3)
	n := l.nodes[0]
	l.elect(n)
	l.acquire(n, "a", "me", 10*time.Second)
	l.jump(time.Hour)
	n.diskHung, l.nodes[1].diskHung, l.nodes[2].diskHung = true, true, true
	read := &call{read: readLock, cmd: command{lock: "a"}, done: make(chan struct{}, 1), patience: holdLimit, arrived: l.now, since: l.now}
	n.r.begin(l.now)
	n.r.submit(read)
	l.settle()
	select {
	case <-read.done:
		t.Fatal("a read was answered before the entry was applied")
	default:
	}
	for _, m := range l.nodes {
		m.diskHung = false
		l.flush(m)
	}
	l.settle()
	l.pass(labTick)
	if rep := waitFor(read); rep.failure != nil || rep.result.lock.owner != "me" {
		t.Errorf("read: %+v", rep)
	}
}

func TestRule3NothingIsAnsweredBeforeTheFirstEntry(t *testing.T) {
	l := newLab(t, 3)
	l.elect(l.nodes[0])
	l.acquire(l.nodes[0], "a", "me", time.Minute)
	l.nodes[0].cut = true
	// The next leader's no-op commits, its first entry does not.
	var next *labNode
	for range 20 * labElectionTicks {
		l.pass(labTick)
		for _, n := range l.nodes[1:] {
			if n.r.leads() {
				next = n
			}
		}
		if next != nil {
			break
		}
	}
	if next == nil || next.r.office != officeOpen {
		t.Fatal("no next leader")
	}
	first, found := next.firstOfTerm()
	if !found || !first.first || first.floor == 0 {
		t.Errorf("the term's first entry is %+v", first)
	}
}

// firstOfTerm decodes the first entry with data of the leader's term.
func (n *labNode) firstOfTerm() (entry, bool) {
	last, _ := n.log.LastIndex()
	entries, _ := n.log.Entries(firstIndex+1, last+1, 1<<30)
	for _, e := range entries {
		if e.GetTerm() == n.r.term && len(e.GetData()) > 0 {
			ent, err := newestFormat.decodeEntry(e.GetData())
			return ent, err == nil
		}
	}
	return entry{}, false
}

func TestRule4OwnEntriesDoNotMoveTheBase(t *testing.T) {
	l := newLab(t, 3)
	n := l.nodes[0]
	l.elect(n)
	base := n.r.clock.base
	begun, stamp := l.now, n.r.clock.now()
	for i := range 100 {
		l.acquire(n, fmt.Sprint("lock", i), "me", time.Minute)
		l.pass(10 * labTick)
	}
	if n.r.clock.base != base {
		t.Error("the base has moved")
	}
	if got, want := time.Duration(n.r.clock.now()-stamp), l.now.Sub(begun); got != want {
		t.Errorf("counted %v of %v", got, want)
	}
}

func TestRule4BaseDiesWithTheTerm(t *testing.T) {
	l := newLab(t, 3)
	l.elect(l.nodes[0])
	l.acquire(l.nodes[0], "a", "me", 30*time.Second)
	l.pass(time.Second)
	second, gap1 := l.failover(l.nodes[0]) // L1 → L2
	l.nodes[0].cut = false
	l.pass(3 * time.Second)
	if l.nodes[0].r.clock.leading != clockFollows {
		t.Fatal("the deposed leader still has a base")
	}
	second.cut = true // L2 → L1
	l.pass(3 * labTick)
	l.elect(l.nodes[0])
	const gap2 = 3 * labTick
	left := l.freedAfter("a", time.Minute)
	gaps := gap1 + gap2
	lived := 4*time.Second + gaps + left
	requireBetween(t, "lived", lived, 30*time.Second+gaps-labElection, 30*time.Second+gaps+labElection)
}

// Who leads twice on end, and nobody in between, goes on from its own last entry:
// not from the one that it anchored on before, which may lie behind a gap.
func TestRule4LeaderElectedAgainGoesOnFromItsOwnEntries(t *testing.T) {
	l := newLab(t, 3)
	l.elect(l.nodes[0])
	l.acquire(l.nodes[0], "b", "me", time.Hour)
	l.pass(time.Second)
	cut := func(all bool) {
		for _, n := range l.nodes {
			n.cut = all
		}
	}
	cut(true)
	l.pass(time.Minute)
	cut(false)
	n := l.leader()
	l.acquire(n, "a", "me", 5*time.Second)
	l.pass(time.Second)
	for cut(true); n.r.leads(); {
		l.pass(labTick)
	}
	cut(false)
	begun := l.now
	l.elect(n)
	left := l.now.Sub(begun) + l.freedAfter("a", time.Minute)
	requireBetween(t, "lived after the second election", left, 4*time.Second-2*labElection-slack, 4*time.Second+labElection)
}

// A renewal that is left behind holds the stamp back, but not below one that was
// given.
func TestRule5StampIsNotBelowTheLast(t *testing.T) {
	l := newLab(t, 3)
	n := l.leader()
	n.limits.Pending = 2 * maxBatchCommands
	l.acquire(n, "a", "me", time.Minute)
	l.pass(time.Second)
	l.acquire(n, "b", "me", time.Minute)
	last := n.r.proposals.last
	l.pass(labTick)
	var late *call
	for range maxBatchCommands + 1 {
		late = l.submit(n, command{kind: cmdRenew, lock: "a", client: "me", version: 1, ttl: span(time.Minute)})
	}
	late.arrived = l.now.Add(-time.Second)
	b := n.r.proposals.newBatch(n.r.term)
	n.r.fill(b)
	if len(n.r.proposals.first) != 1 || b.entry.stamp != last {
		t.Errorf("stamped %d behind %d, %d renewals are left behind", b.entry.stamp, last, len(n.r.proposals.first))
	}
	n.r.putBack(b)
	l.settle()
}

func TestRule5StampsNeverFallWithinTheLog(t *testing.T) {
	l := newLab(t, 3)
	for round := range 6 {
		n := l.leader()
		for i := range 5 {
			l.acquire(n, fmt.Sprint(round, i), "me", time.Second)
			l.pass(7 * labTick)
		}
		l.failover(n)
		n.cut = false
		l.pass(2 * labTick) // it hears of its successor
	}
	n := l.leader()
	last, _ := n.log.LastIndex()
	entries, err := n.log.Entries(firstIndex+1, last+1, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	var stamp logTime
	for _, e := range entries {
		if len(e.GetData()) == 0 {
			continue
		}
		ent, err := newestFormat.decodeEntry(e.GetData())
		if err != nil {
			t.Fatal(err)
		}
		if ent.stamp < stamp {
			t.Errorf("entry %d of term %d: stamp %d after %d", e.GetIndex(), e.GetTerm(), ent.stamp, stamp)
		}
		stamp = ent.stamp
	}
}

// A leader that is cut off with an entry that only one follower has: the
// follower becomes leader and commits it much later. The grant in it counts from
// when it could first be answered, never from the old stamp in real time.
func TestRule6DeposedLeadersLateEntryLivesLonger(t *testing.T) {
	l := newLab(t, 3)
	l.elect(l.nodes[0])
	l.pass(time.Second)
	old, heir, other := l.nodes[0], l.nodes[1], l.nodes[2]
	other.cut = true
	// The heir has the entry on disk, but its answer never arrives.
	c := l.submit(old, command{kind: cmdAcquire, lock: "a", client: "me", attempt: 1, ttl: span(5 * time.Second)})
	l.turn(old, 0)
	old.deaf = true
	l.turn(heir, 0)
	l.turn(heir, 0)
	old.cut = true
	l.pass(4 * time.Second) // nobody leads
	other.cut = false
	begun := l.now
	next := l.leader()
	if next != heir {
		t.Fatal("the one without the entry leads")
	}
	if heir.owner("a") != "me" {
		t.Fatal("the late entry is not committed")
	}
	left := l.now.Sub(begun) + l.freedAfter("a", time.Minute)
	requireBetween(t, "lived after it was committed", left, 5*time.Second-labElection, 5*time.Second+10*labElection)
	select {
	case <-c.done:
		t.Errorf("the deposed leader answered: %+v", c.reply)
	default:
	}
	old.cut, old.deaf = false, false
	l.pass(time.Second)
	if rep := waitFor(c); rep.failure != nil || rep.result.code != pb.ErrorCode_OK || rep.timed {
		t.Errorf("when it sees its entry applied: %+v", rep)
	}
}

func TestOverwrittenCallIsMadeAgain(t *testing.T) {
	l := newLab(t, 3)
	l.elect(l.nodes[0])
	old := l.nodes[0]
	old.cut = true
	c := l.submit(old, command{kind: cmdAcquire, lock: "a", client: "me", attempt: 1})
	l.turn(old, 0) // in its log and nowhere else
	l.turn(old, 0)
	l.leader()
	old.cut = false
	l.pass(time.Second)
	if rep := waitFor(c); rep.failure != nil || rep.result.code != pb.ErrorCode_OK {
		t.Errorf("answer: %+v", rep)
	}
}

func TestRule7StampWhenAPeerComesUpAndBeforeAHandOver(t *testing.T) {
	l := newLab(t, 3)
	n := l.nodes[0]
	l.elect(n)
	l.acquire(n, "a", "me", 30*time.Second)
	l.pass(20 * time.Second)
	applied := n.r.applied
	n.r.peerUp(2)
	l.settle()
	if n.r.applied != applied+1 {
		t.Errorf("a peer's stream came up: %d entries, want one", n.r.applied-applied)
	}
	l.pass(5 * time.Second)
	n.r.handOver()
	l.settle()
	next := l.leader()
	if next == n {
		t.Fatal("the leadership was not handed over")
	}
	left := l.freedAfter("a", time.Minute)
	requireBetween(t, "lived", 25*time.Second+left, 30*time.Second-slack, 30*time.Second+slack+labElection)
}

func TestRule7HandOverToAMemberJustStarted(t *testing.T) {
	l := newLab(t, 3)
	n := l.nodes[0]
	l.elect(n)
	l.acquire(n, "a", "me", 30*time.Second)
	l.pass(20 * time.Second)
	l.boot(l.nodes[1])
	l.boot(l.nodes[2])
	n.r.handOver()
	l.settle()
	next := l.leader()
	if next == n {
		t.Fatal("the leadership was not handed over")
	}
	left := l.freedAfter("a", time.Minute)
	requireBetween(t, "lived", 20*time.Second+left, 30*time.Second-slack, 30*time.Second+slack+labElection)
}

func TestRule7MemberJustStartedCatchesUpWithTime(t *testing.T) {
	l := newLab(t, 3)
	n := l.nodes[0]
	l.elect(n)
	l.acquire(n, "a", "me", 30*time.Second)
	l.pass(20 * time.Second)
	l.boot(l.nodes[1]) // its anchor is as old as the last entry, its count began now
	n.r.peerUp(2)      // the leader's stream to it comes up again
	l.settle()
	l.pass(2 * time.Second)
	l.nodes[2].cut = true // only the restarted one can follow
	n.cut = true
	l.nodes[2].cut = false
	begun := l.now
	l.leader()
	left := l.now.Sub(begun) + l.freedAfter("a", time.Minute)
	requireBetween(t, "lived", 22*time.Second+left, 30*time.Second-slack, 30*time.Second+5*labElection)
}

func TestWholeClusterDowntimeIsNotCharged(t *testing.T) {
	l := newLab(t, 3)
	l.elect(l.nodes[0])
	l.acquire(l.nodes[0], "a", "me", 10*time.Second)
	l.pass(4 * time.Second)
	for _, n := range l.nodes {
		n.r = nil
	}
	l.jump(time.Hour)
	for _, n := range l.nodes {
		n.stopped = true
	}
	for _, n := range l.nodes {
		l.boot(n)
	}
	for _, n := range l.nodes {
		n.stopped = false
	}
	begun := l.now
	l.leader()
	left := l.now.Sub(begun) + l.freedAfter("a", time.Minute)
	// The four quiet seconds before the end were in nobody's log.
	requireBetween(t, "lived after the restart", left, 10*time.Second-slack, 10*time.Second+10*labElection)
}

// The leader's disk hangs while a holder renews in time: the renewal's arrival
// decides, not the stamp under which it is at last proposed.
func TestRule10RenewalThatCameInTimeSurvivesASlowDisk(t *testing.T) {
	for _, renews := range []bool{true, false} {
		l := newLab(t, 3)
		n := l.nodes[0]
		l.elect(n)
		got := l.acquire(n, "a", "me", time.Second)
		l.pass(900 * time.Millisecond)
		for _, m := range l.nodes {
			m.diskHung = true
		}
		l.submit(n, command{kind: cmdAcquire, lock: "b", client: "other", attempt: 1}) // in flight when the renewal comes
		l.settle()
		var renewal *call
		if renews {
			renewal = l.submit(n, command{kind: cmdRenew, lock: "a", client: "me", version: got.result.lock.version, ttl: span(time.Second)})
		}
		l.pass(150 * time.Millisecond) // past the end
		for _, m := range l.nodes {
			m.diskHung = false
			l.flush(m)
		}
		l.settle()
		l.pass(2 * labTick)
		if held := n.owner("a") == "me"; held != renews {
			t.Errorf("renews=%v: held=%v", renews, held)
		}
		if renews {
			if rep := waitFor(renewal); rep.failure != nil || rep.result.code != pb.ErrorCode_OK {
				t.Errorf("renewal: %+v", rep)
			}
		}
	}
}

// More renewals than an entry holds, with the pipeline full: the stamp of an
// entry must not be later than the arrival of the oldest renewal left behind.
func TestRule10RenewalsLeftBehindAreNotExpired(t *testing.T) {
	const locks = 3 * maxBatchCommands
	l := newLab(t, 3)
	n := l.nodes[0]
	l.elect(n)
	tokens := make([]int64, locks)
	calls := make([]*call, locks)
	for i := range calls {
		calls[i] = l.submit(n, command{kind: cmdAcquire, lock: fmt.Sprint(i), client: "me", attempt: 1, ttl: span(time.Second)})
	}
	l.settle()
	for i, c := range calls {
		tokens[i] = waitFor(c).result.lock.version
	}
	l.pass(980 * time.Millisecond)
	for _, m := range l.nodes {
		m.diskHung = true
	}
	for i := range (maxInflight + 1) * maxBatchCommands {
		l.submit(n, command{kind: cmdAcquire, lock: fmt.Sprint("other", i), client: "other", attempt: 1})
	}
	l.settle()
	if got := len(n.r.proposals.flight); got != maxInflight {
		t.Fatalf("%d entries are in flight", got)
	}
	for i := range calls {
		calls[i] = l.submit(n, command{kind: cmdRenew, lock: fmt.Sprint(i), client: "me", version: tokens[i], ttl: span(time.Second)})
	}
	l.pass(100 * time.Millisecond)
	for _, m := range l.nodes {
		m.diskHung = false
		l.flush(m)
	}
	l.settle()
	for i, c := range calls {
		if rep := waitFor(c); rep.failure != nil || rep.result.code != pb.ErrorCode_OK {
			t.Fatalf("renewal %d: %+v", i, rep)
		}
	}
}

// A stalled leader: what was promoted after the stall has its whole TTL from then.
func TestPromotionAfterAStallCountsFromItsOwnStamp(t *testing.T) {
	l := newLab(t, 3)
	n := l.nodes[0]
	l.elect(n)
	l.acquire(n, "a", "me", time.Second)
	waiting := l.submit(n, command{kind: cmdAcquire, lock: "a", client: "you", attempt: 1, wait: true, ttl: span(3 * time.Second)})
	l.settle()
	l.pass(900 * time.Millisecond)
	for _, m := range l.nodes {
		m.diskHung = true
	}
	l.pass(150 * time.Millisecond)
	for _, m := range l.nodes {
		m.diskHung = false
		l.flush(m)
	}
	l.settle()
	l.pass(labTick)
	rep := waitFor(waiting)
	if rep.failure != nil || !rep.timed {
		t.Fatalf("promotion: %+v", rep)
	}
	begun := l.now
	told := rep.at.Add(time.Duration(rep.remaining)).Sub(begun)
	// The stamp is of when the end came, in the middle of the stall.
	requireBetween(t, "told", told, 3*time.Second-60*time.Millisecond-slack, 3*time.Second)
	requireBetween(t, "lived", l.freedAfter("a", time.Minute), told, told+slack)
}

func TestSweepOfTenThousandEnds(t *testing.T) {
	const locks = 10_000
	l := newLab(t, 3)
	n := l.nodes[0]
	l.elect(n)
	for i := range locks {
		l.submit(n, command{kind: cmdAcquire, lock: fmt.Sprint(i), client: "me", attempt: 1, ttl: span(time.Second)})
	}
	l.settle()
	if got := n.r.table.heldCount(); got != locks {
		t.Fatalf("%d locks are held", got)
	}
	before := n.r.applied
	l.pass(time.Second + labTick)
	if got := n.r.table.heldCount(); got != 0 {
		t.Errorf("%d of %d ends are late", got, locks)
	}
	if entries := n.r.applied - before; entries > locks/1000+2 {
		t.Errorf("%d entries for the sweep", entries)
	}
	before = n.r.applied
	l.pass(time.Minute)
	if n.r.applied != before {
		t.Errorf("an idle log has grown by %d entries", n.r.applied-before)
	}
}

func TestClusterClockUnit(t *testing.T) {
	c := clusterClock{maxJump: time.Second}
	begun := time.Unix(500, 0)
	c.turn(begun)
	if c.turn(begun.Add(-time.Minute)) || c.counted != 0 {
		t.Error("a clock that goes back must count nothing")
	}
	c.turn(begun)
	if !c.turn(begun.Add(5*time.Second)) || c.counted != time.Second {
		t.Errorf("a jump counts %v", c.counted)
	}
	c.applied(100)
	c.heard()
	if stamp := c.rebase(); stamp != 100 {
		t.Errorf("rebase at the anchor: %d", stamp)
	}
	c.turn(begun.Add(5*time.Second + time.Millisecond))
	if c.now() != 100 {
		t.Error("time must stand still until the first entry is applied")
	}
	c.start()
	c.turn(begun.Add(5*time.Second + 3*time.Millisecond))
	if got := c.now(); got != 100+logTime(2*time.Millisecond) {
		t.Errorf("now is %d", got)
	}
	if got := c.at(begun); got != 100 {
		t.Errorf("an instant before the base is %d", got)
	}
	if got := c.at(begun.Add(5*time.Second + 2*time.Millisecond)); got != 100+logTime(time.Millisecond) {
		t.Errorf("an instant of a moment ago is %d", got)
	}
	if got := c.until(c.now().plus(7)); got != 7 {
		t.Errorf("until is %v", got)
	}
	if got := c.until(0); got != 0 {
		t.Errorf("until what has passed is %v", got)
	}
}

package raftlock

import (
	"errors"
	"testing"
	"time"
)

// lastFormat is the format of the newest entry with data in a node's log.
func (n *labNode) lastFormat(t *testing.T) format {
	t.Helper()
	first, _ := n.log.FirstIndex()
	last, _ := n.log.LastIndex()
	entries, err := n.log.Entries(first, last+1, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	for i := len(entries) - 1; i >= 0; i-- {
		if data := entries[i].GetData(); len(data) > 0 {
			return format(data[0])
		}
	}
	t.Fatal("no entry")
	return 0
}

// Members are upgraded one after the other to a build that writes a newer
// format: nobody writes it before all read it, and no upgrade costs a lock.
func TestRollingUpgrade(t *testing.T) {
	l := newLab(t, 3)
	kept := l.acquire(l.leader(), "kept", "me", time.Hour).result.lock.version
	write := func(want format) {
		t.Helper()
		n := l.leader()
		l.acquire(n, "probe", "me", time.Hour)
		l.pass(labTick)
		for _, m := range l.nodes {
			if got := m.lastFormat(t); got != want {
				t.Errorf("leader %d of format %d: member %d of format %d has an entry of format %d, want %d",
					n.id, n.newest(), m.id, m.newest(), got, want)
			}
		}
	}
	write(1)
	for i, n := range l.nodes {
		n.build = newestFormat + 1
		n.cut = true // down for a while: another leads
		l.pass(3 * labElection)
		write1 := l.leader()
		if write1.r.formats.writes != 1 {
			t.Errorf("a leader writes format %d while %d members are of the older build", write1.r.formats.writes, 2-i)
		}
		n.cut = false
		l.boot(n)
		l.pass(3 * labElection)
		if i < 2 {
			write(1)
		}
	}
	write(newestFormat + 1)
	for _, n := range l.nodes { // whoever leads, old build or new
		l.elect(n)
		write(newestFormat + 1)
		if v := lockOn(n, "kept"); v.version != kept || v.owner != "me" {
			t.Errorf("the lock from before the upgrade: %+v", v)
		}
	}
	// A member goes back, and is met again.
	leader := l.leader()
	leader.r.peerReads(l.nodes[leader.id%3].id, oldestFormat)
	l.acquire(leader, "probe", "me", time.Hour)
	if got := leader.lastFormat(t); got != 1 {
		t.Errorf("after a member went back, format %d is written", got)
	}
}

// A leader that has not met a member since its start takes it for the oldest.
func TestFormatOfAMemberThatWasNotMet(t *testing.T) {
	l := newLab(t, 3)
	n := l.leader()
	n.r.formats = newFormats(newestFormat + 1)
	n.r.peerReads(n.id%3+1, newestFormat+1)
	if n.r.formats.writes != oldestFormat {
		t.Errorf("format %d is written with a member unmet", n.r.formats.writes)
	}
	n.r.peerReads((n.id+1)%3+1, newestFormat+7)
	if n.r.formats.writes != newestFormat+1 {
		t.Errorf("format %d is written when all read it", n.r.formats.writes)
	}
}

// What a newer build wrote is refused before it is applied, and says which
// format; what an older one wrote is read.
func TestFormatsThatAreRead(t *testing.T) {
	e := entry{stamp: 5, commands: []command{{kind: cmdRelease, lock: "a", client: "me"}}}
	newer := newestFormat + 1
	if _, err := newestFormat.decodeEntry(newer.appendEntry(nil, &e)); !errors.Is(err, errUnknownFormat) {
		t.Errorf("a newer entry: %v", err)
	}
	if got, err := newer.decodeEntry(newestFormat.appendEntry(nil, &e)); err != nil || len(got.commands) != 1 {
		t.Errorf("an older entry: %+v, %v", got, err)
	}
	f := frame{forwards: []forward{{kind: forwardCall, id: 1, cmd: e.commands[0]}}}
	b, err := f.encode(newer)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decodeFrame(b, newestFormat); !errors.Is(err, errUnknownFormat) {
		t.Errorf("a frame for a newer member: %v", err)
	}
	if _, err := decodeFrame(b, newer); err != nil {
		t.Errorf("a frame: %v", err)
	}
}

// Neighbouring builds meet; what is too old for this one is told to upgrade.
func TestBuildsThatMeet(t *testing.T) {
	names := []string{"n1", "n2"}
	mine := hello{Protocol: newestProtocol, Entries: int(newestFormat), Identity: Identity{Name: "n1", ClusterName: "c", Incarnation: 1}, Initial: names, Target: "n2"}
	theirs := hello{Protocol: newestProtocol + 1, Entries: int(newestFormat) + 1, Identity: Identity{Name: "n2", ClusterName: "c", Incarnation: 2}, Initial: names, Target: "n1"}
	if err := mine.judge(&theirs); err != nil {
		t.Errorf("a newer build: %v", err)
	}
	if theirs.newest() != newestFormat+1 || (&hello{Entries: 1 << 20}).newest() != 255 {
		t.Error("what a hello announces is misread")
	}
	for _, old := range []func(*hello){
		func(h *hello) { h.Protocol = oldestProtocol - 1 },
		func(h *hello) { h.Entries = int(oldestFormat) - 1 },
	} {
		h := theirs
		old(&h)
		if err := mine.judge(&h); !errors.Is(err, errRefused) {
			t.Errorf("a build that is too old: %v", err)
		}
	}
}

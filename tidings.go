package raftlock

import (
	"maps"
	"slices"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

// tidings are what raft wants told and nobody waits for: that entries are
// committed, to peers as an append without entries, to the disk as a hard state
// in which only the commit index is new. Sent at once they would double the
// messages of every commit. They wait a moment for something to ride with: the
// next append to the same peer says the same and more, and makes them needless.
type tidings struct {
	peers map[uint64]*raftpb.Message
	disk  *raftpb.Message
	since time.Time // when the oldest began to wait; zero when none does
}

// maxTidingsWait is how late a follower may hear of a commit while its leader
// is idle.
const maxTidingsWait = time.Millisecond

// toPeer takes a message to a peer: it waits, or goes out.
func (r *replica) toPeer(m *raftpb.Message) {
	if r.withholds(m) {
		if m.GetType() == raftpb.MsgSnap { // raft would wait for its end for ever
			r.reportSnapshot(m.GetTo(), errWithheld)
		}
		return
	}
	if m.GetType() == raftpb.MsgSnap {
		r.toSend(m)
		return
	}
	if m.GetType() != raftpb.MsgApp {
		r.out.messages = append(r.out.messages, m)
		return
	}
	if len(m.GetEntries()) > 0 {
		delete(r.tidings.peers, m.GetTo())
		r.out.messages = append(r.out.messages, m)
		return
	}
	r.tidings.peers[m.GetTo()] = m
	r.tidings.wait(r.now)
}

// toDisk takes an append message: it waits, or goes out behind the one that does.
func (r *replica) toDisk(m *raftpb.Message) {
	if len(m.GetEntries()) == 0 && len(m.GetResponses()) == 0 && m.GetTerm() == r.diskTerm && m.GetVote() == r.diskVote {
		r.tidings.disk = m // its hard state is newer than that of one that waits
		r.tidings.wait(r.now)
		return
	}
	if m.Term != nil {
		r.diskTerm, r.diskVote = m.GetTerm(), m.GetVote()
	} else if r.tidings.disk != nil {
		r.out.appends = append(r.out.appends, r.tidings.disk)
	}
	r.tidings.disk = nil
	r.out.appends = append(r.out.appends, m)
}

func (t *tidings) wait(now time.Time) {
	if t.since.IsZero() {
		t.since = now
	}
}

// deliverTidings sends what has waited long enough.
func (r *replica) deliverTidings() {
	t := &r.tidings
	if t.since.IsZero() || r.now.Sub(t.since) < maxTidingsWait {
		return
	}
	for _, peer := range slices.Sorted(maps.Keys(t.peers)) {
		r.out.messages = append(r.out.messages, t.peers[peer])
	}
	clear(t.peers)
	if t.disk != nil {
		r.out.appends = append(r.out.appends, t.disk)
	}
	t.disk, t.since = nil, time.Time{}
}

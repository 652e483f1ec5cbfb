package raftlock

import (
	"hash/crc32"
	"slices"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

// simOracle sees everything, and knows what must be so: one leader in a term, one
// entry at an index, one state after it, and cluster time that never runs faster
// than true time.
type simOracle struct {
	s        *sim
	entries  map[uint64]simEntry
	states   map[uint64]uint64 // hashes, by the index of the entry that made them
	leaders  map[uint64]uint64 // nodes, by term
	stamped  map[simPlace]time.Duration
	removed  map[uint64]bool // nodes
	slowest  time.Duration   // the least that a stamp was ahead of true time
	stamps   int
	ended    map[uint64]time.Duration // when the leader of a term died or was stopped
	stamper  simStamp                 // of the last entry
	last     uint64
	compared int
	gaps     int
}

type simPlace struct{ term, index uint64 }

// simStamp is an entry with a stamp, and when it was stamped.
type simStamp struct {
	term  uint64
	stamp logTime
	at    time.Duration
}

type simEntry struct {
	term uint64
	sum  uint32
}

// simLastWord is how long a message of a leader may be on its way after its end.
const simLastWord = 300 * time.Millisecond

// simFastest is how much faster than true time a clock may go, in ppm.
const simFastest = 500

func newSimOracle(s *sim) *simOracle {
	return &simOracle{
		s: s, entries: map[uint64]simEntry{}, states: map[uint64]uint64{}, leaders: map[uint64]uint64{},
		stamped: map[simPlace]time.Duration{}, removed: map[uint64]bool{},
		ended: map[uint64]time.Duration{},
	}
}

func (o *simOracle) wasRemoved(node uint64) bool { return o.removed[node] }

// leads looks at a member after its turn.
func (o *simOracle) leads(m *simMember) {
	if !m.r.leads() {
		return
	}
	node, known := o.leaders[m.r.term]
	if !known {
		o.leaders[m.r.term] = m.node
		o.s.tally.Terms++
	} else if node != m.node {
		o.s.fail("two leaders in term %d: nodes %d and %d", m.r.term, node, m.node)
	}
}

// proposes notes when a leader stamped what it writes.
func (o *simOracle) proposes(m *simMember, appends []*raftpb.Message) {
	if !m.r.leads() {
		return
	}
	for _, a := range appends {
		for _, e := range a.GetEntries() {
			at := simPlace{e.GetTerm(), e.GetIndex()}
			if _, known := o.stamped[at]; !known && e.GetTerm() == m.r.term {
				o.stamped[at] = o.s.now
			}
		}
	}
}

// stops notes that a member dies or is stopped: when it leads, nobody does from
// then on, but for what a cut network holds back.
func (o *simOracle) stops(m *simMember) {
	if len(o.s.faults.blocked) > 0 {
		return
	}
	if _, old := o.ended[m.r.term]; m.r.leads() && !old {
		o.ended[m.r.term] = o.s.now
	}
}

// goesOn notes that a member runs again that was stopped: if nobody has taken its
// place yet, it leads as if nothing had been.
func (o *simOracle) goesOn(m *simMember) {
	for term := range o.leaders {
		if term > m.r.term {
			return
		}
	}
	if m.r.leads() {
		delete(o.ended, m.r.term)
	}
}

// applies looks at an entry that a member is about to apply.
func (o *simOracle) applies(m *simMember, e *raftpb.Entry) {
	entry := simEntry{e.GetTerm(), crc32.ChecksumIEEE(e.GetData())}
	known, old := o.entries[e.GetIndex()]
	if !old {
		if e.GetIndex() <= o.last {
			o.s.fail("%s applies entry %d for the first time after entry %d", m.name, e.GetIndex(), o.last)
		}
		o.entries[e.GetIndex()], o.last = entry, e.GetIndex()
		o.first(m, e)
	} else if known != entry {
		o.s.fail("%s applies entry %d of term %d and sum %x, others applied term %d and sum %x", m.name, e.GetIndex(), entry.term, entry.sum, known.term, known.sum)
	}
}

// first looks at an entry that nobody has applied before.
func (o *simOracle) first(m *simMember, e *raftpb.Entry) {
	switch {
	case e.GetType() == raftpb.EntryConfChangeV2:
		if c, _, err := changeIn(e); err == nil && c.node != 0 && (c.kind == changeRemove || c.kind == changeReplace) {
			o.removed[c.node] = true
		}
	case len(e.GetData()) > 0:
		var decoded entry
		if err := newestFormat.decodeEntryInto(e.GetData(), &decoded); err != nil {
			o.s.fail("%s: entry %d: %w", m.name, e.GetIndex(), err)
			return
		}
		o.stamp(e, &decoded)
	}
}

// stamp holds an entry's stamp against those before it: between two of them no
// more time may lie than between their stampings, by the fastest clock there is.
func (o *simOracle) stamp(e *raftpb.Entry, decoded *entry) {
	at, known := o.stamped[simPlace{e.GetTerm(), e.GetIndex()}]
	if !known {
		o.s.fail("entry %d of term %d was never proposed", e.GetIndex(), e.GetTerm())
		return
	}
	ahead := time.Duration(decoded.stamp) - at - at/1_000_000*simFastest
	o.stamps++
	if o.stamps > 1 && ahead > o.slowest+10*time.Microsecond {
		o.s.fail("cluster time runs ahead: entry %d of term %d, stamped %v at %v, is %v ahead of an earlier one", e.GetIndex(), e.GetTerm(), time.Duration(decoded.stamp), at, ahead-o.slowest)
	}
	if o.stamps == 1 || ahead < o.slowest {
		o.slowest = ahead
	}
	o.gap(e, decoded, at)
	o.stamper = simStamp{e.GetTerm(), decoded.stamp, at}
}

// gap holds that time without a leader does not count: a new leader goes on where
// the last one's last message left off.
func (o *simOracle) gap(e *raftpb.Entry, decoded *entry, at time.Duration) {
	last := o.stamper
	died, dead := o.ended[last.term]
	if !dead || e.GetTerm() == last.term || died < last.at {
		return
	}
	for term := last.term + 1; term < e.GetTerm(); term++ {
		if _, led := o.leaders[term]; led {
			return // in between another one may have counted
		}
	}
	counted := time.Duration(decoded.stamp - last.stamp)
	alive := died - last.at
	if late := counted - alive - alive/1_000_000*simFastest; late > simLastWord {
		o.s.fail("time without a leader counts: entry %d of term %d, stamped %v at %v, counts %v since the last entry of term %d at %v, whose leader ended at %v",
			e.GetIndex(), e.GetTerm(), time.Duration(decoded.stamp), at, counted, last.term, last.at, died)
	}
	o.gaps++
}

// electorate holds that raft, and the member's next snapshot, have those vote who do
// by the roster, and those learn who have come and do not vote.
func (o *simOracle) electorate(m *simMember) {
	var want snapshotConf
	for i := range m.r.roster.records {
		switch rec := &m.r.roster.records[i]; {
		case rec.voter:
			want.voters = append(want.voters, rec.node)
		case rec.node != 0:
			want.learners = append(want.learners, rec.node)
		}
	}
	want.voters, want.learners = sorted(want.voters), sorted(want.learners)
	if got := confOf(m.r.conf); !slices.Equal(got.voters, want.voters) || !slices.Equal(got.learners, want.learners) || len(got.outgoing)+len(got.next) > 0 || got.autoLeave {
		o.s.fail("%s has the voters %v after entry %d, the members have %v", m.name, got, m.r.applied, want)
	}
}

// compare holds a member's state against that of the others after the same entry.
func (o *simOracle) compare(m *simMember) {
	index := m.r.applied
	if index <= firstIndex || index == m.compared {
		return
	}
	m.compared = index
	o.electorate(m)
	hash := m.r.table.hash() + m.r.roster.hash()
	known, old := o.states[index]
	if !old {
		o.states[index] = hash
		return
	}
	o.compared++
	if known != hash {
		o.s.fail("%s has state %x after entry %d, another has %x", m.name, hash, index, known)
	}
}

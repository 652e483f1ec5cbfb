package walstore

import (
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
)

// ledger follows a log record by record and says which record may come next.
// Reading and writing keep the same one, so that nothing is written that would
// be refused at the next start, and nothing read on which raft would panic.
//
// A log whose first segments are gone begins in the middle: with a state, and
// with no word about which entries there are (runs is empty). The first entry
// then says where the known part begins, and one below it moves that down; both
// are above what the state commits.
//
// Invariant: commit <= last, terms in runs rise, the newest is at most term.
// Where the log began with a snapshot, runs begin with its index, and
// that is committed.
type ledger struct {
	last uint64
	runs []run // of which terms the known indexes are, up to last; empty: none is known

	term, vote, commit uint64 // the hard state; term 0: none yet
}

// run says that entries from an index on have a term, up to the next run. A
// term per entry would be 8 bytes for each one that was ever written.
type run struct{ from, term uint64 }

// begin makes the log begin at an index.
func (l *ledger) begin(index, term uint64) {
	l.last, l.runs = index, []run{{from: index, term: term}}
}

// known tells whether the ledger knows which entries there are.
func (l *ledger) known() bool { return len(l.runs) > 0 }

// from is the first index whose term is known.
func (l *ledger) from() uint64 { return l.runs[0].from }

// has tells whether the log goes through an index with a term.
func (l *ledger) has(index, term uint64) bool {
	return l.known() && l.from() <= index && index <= l.last && l.termOf(index) == term
}

// carries tells whether the log has every entry behind an index, which is that
// of a snapshot that the log once had.
func (l *ledger) carries(index uint64) bool {
	if !l.known() {
		return index == l.commit
	}
	return l.from() <= index+1
}

// standOn forgets what lies before a snapshot that the log carries.
func (l *ledger) standOn(index, term uint64) {
	if !l.known() {
		l.begin(index, term)
		return
	}
	rest := []run{{from: index, term: term}}
	for _, r := range l.runs {
		if r.from > index && r.term != rest[len(rest)-1].term {
			rest = append(rest, r)
		}
	}
	l.runs = rest
}

// entry puts an entry at the end, or in place of one that was not committed and
// all after it.
func (l *ledger) entry(kind raftpb.EntryType, term, index uint64) error {
	switch {
	case l.term == 0:
		return fmt.Errorf("entry %d before any state", index)
	case index <= l.commit:
		return fmt.Errorf("entry %d once more, after index %d was committed", index, l.commit)
	case term > l.term:
		return fmt.Errorf("entry %d of term %d in term %d", index, term, l.term)
	case raftpb.EntryType_name[int32(kind)] == "":
		return fmt.Errorf("entry %d of type %d", index, kind)
	case !l.known() || index <= l.from():
		l.begin(index, term)
		return nil
	case index > l.last+1:
		return fmt.Errorf("entry %d after %d", index, l.last)
	case l.from() == 0:
		return fmt.Errorf("entry %d before the first snapshot", index)
	case term < l.termOf(index-1):
		return fmt.Errorf("entry %d of term %d after term %d", index, term, l.termOf(index-1))
	}
	for l.runs[len(l.runs)-1].from >= index {
		l.runs = l.runs[:len(l.runs)-1] // never the first, see above
	}
	if term != l.runs[len(l.runs)-1].term {
		l.runs = append(l.runs, run{from: index, term: term})
	}
	l.last = index
	return nil
}

// state is a hard state; neither term nor commit ever fall.
func (l *ledger) state(term, vote, commit uint64) error {
	least := l.commit
	if l.term == 0 && l.known() {
		least = l.from()
	}
	switch {
	case term == 0 || term < l.term || term < l.termOf(l.last):
		return fmt.Errorf("state of term %d after term %d", term, max(l.term, l.termOf(l.last)))
	case commit < least:
		return fmt.Errorf("state commits %d after %d", commit, least)
	case l.known() && commit > l.last:
		return fmt.Errorf("state commits %d, the last entry is %d", commit, l.last)
	}
	l.term, l.vote, l.commit = term, vote, commit
	return nil
}

// installed returns the ledger after a snapshot that is not of this log took its
// place, or, where the log has its entry, was put into it; and a state that
// commits it.
func (l ledger) installed(index, term uint64, hard [3]uint64) (ledger, error) {
	if hard[2] < index {
		return l, fmt.Errorf("state commits %d, the snapshot before it is at %d", hard[2], index)
	}
	if !l.has(index, term) {
		l.begin(index, term)
	}
	return l, l.state(hard[0], hard[1], hard[2])
}

// hard returns the hard state in its full form, nil before the first.
func (l *ledger) hard() *raftpb.HardState {
	if l.term == 0 {
		return nil
	}
	return fullState(l.term, l.vote, l.commit)
}

// termOf returns the term of an index that is known, else 0.
func (l *ledger) termOf(index uint64) uint64 {
	for i := len(l.runs) - 1; i >= 0; i-- {
		if l.runs[i].from <= index {
			return l.runs[i].term
		}
	}
	return 0
}

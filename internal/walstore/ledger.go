package walstore

import (
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
)

// ledger follows a log record by record and says which record may come next.
// Reading and writing keep the same one, so that nothing is written that would
// be refused at the next start, and nothing read on which raft would panic.
//
// Invariant: base <= commit <= last, but before the first state; terms in runs
// rise, the newest is at most term.
type ledger struct {
	base uint64 // index of the snapshot that the log stands on
	last uint64
	runs []run // of which terms the indexes from base to last are

	term, vote, commit uint64 // the hard state; term 0: none yet
}

// run says that entries from an index on have a term, up to the next run. A
// term per entry would be 8 bytes for each one that was ever written.
type run struct{ from, term uint64 }

// snapshot is the record that the log begins with.
func (l *ledger) snapshot(index, term uint64) error {
	if l.term != 0 || l.last != l.base || index < l.base {
		return fmt.Errorf("a snapshot at index %d within the log", index)
	}
	*l = ledger{base: index, last: index, runs: []run{{from: index, term: term}}}
	return nil
}

// entry puts an entry at the end, or in place of one that was not committed and
// all after it.
func (l *ledger) entry(kind raftpb.EntryType, term, index uint64) error {
	switch {
	case l.term == 0:
		return fmt.Errorf("entry %d before any state", index)
	case index > l.last+1:
		return fmt.Errorf("entry %d after %d", index, l.last)
	case index <= l.commit:
		return fmt.Errorf("entry %d once more, after index %d was committed", index, l.commit)
	case term > l.term:
		return fmt.Errorf("entry %d of term %d in term %d", index, term, l.term)
	case term < l.termOf(index-1):
		return fmt.Errorf("entry %d of term %d after term %d", index, term, l.termOf(index-1))
	case raftpb.EntryType_name[int32(kind)] == "":
		return fmt.Errorf("entry %d of type %d", index, kind)
	}
	for l.runs[len(l.runs)-1].from >= index {
		l.runs = l.runs[:len(l.runs)-1] // never the first: its from is base, which is committed
	}
	if term != l.runs[len(l.runs)-1].term {
		l.runs = append(l.runs, run{from: index, term: term})
	}
	l.last = index
	return nil
}

// state is a hard state; neither term nor commit ever fall.
func (l *ledger) state(term, vote, commit uint64) error {
	switch {
	case term == 0 || term < l.term || term < l.termOf(l.last):
		return fmt.Errorf("state of term %d after term %d", term, max(l.term, l.termOf(l.last)))
	case commit < l.base || commit < l.commit:
		return fmt.Errorf("state commits %d after %d", commit, max(l.base, l.commit))
	case commit > l.last:
		return fmt.Errorf("state commits %d, the last entry is %d", commit, l.last)
	}
	l.term, l.vote, l.commit = term, vote, commit
	return nil
}

// hard returns the hard state in its full form, nil before the first.
func (l *ledger) hard() *raftpb.HardState {
	if l.term == 0 {
		return nil
	}
	return fullState(l.term, l.vote, l.commit)
}

// termOf returns the term of an index between base and last.
func (l *ledger) termOf(index uint64) uint64 {
	for i := len(l.runs) - 1; i >= 0; i-- {
		if l.runs[i].from <= index {
			return l.runs[i].term
		}
	}
	return 0
}

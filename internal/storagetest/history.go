package storagetest

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftlock/raftlock"
)

// twin is what a disk should hold, in a slice.
type twin struct {
	rng                *rand.Rand
	term, vote, commit uint64
	meta               *raftpb.SnapshotMetadata // nil: the first state
	log                []*raftpb.Entry          // behind meta
}

func (w *twin) base() uint64 {
	if w.meta == nil {
		return 1
	}
	return w.meta.GetIndex()
}

func (w *twin) last() uint64 { return w.base() + uint64(len(w.log)) }

func (w *twin) want() raftlock.Recovered {
	found := state(Hard(w.term, w.vote, w.commit), w.log...)
	if w.meta != nil {
		found.Snapshot = w.meta
	}
	return found
}

// randomSnapshots does what raft may do, with snapshots in between, in some
// order.
func randomSnapshots(t *testing.T, disk Disk) {
	const seed = 20260102
	t.Logf("seed %d", seed)
	w := &twin{rng: rand.New(rand.NewPCG(seed, seed)), term: 1, commit: 1}
	s := Started(t, disk)
	for range 250 {
		switch w.rng.IntN(12) {
		case 0, 1:
			w.save(t, s)
		case 2:
			if w.rng.IntN(3) == 0 {
				w.install(t, s)
			}
		default:
			w.append(t, s)
		}
		if w.rng.IntN(10) == 0 {
			s = reload(t, s, disk, w.want())
		}
	}
	reload(t, s, disk, w.want())
}

func (w *twin) append(t *testing.T, s raftlock.Storage) {
	var entries []*raftpb.Entry
	if w.rng.IntN(8) == 0 {
		w.term, w.vote = w.term+w.rng.Uint64N(3)+1, w.rng.Uint64()
	}
	if w.rng.IntN(4) > 0 {
		from := w.last() + 1
		if w.rng.IntN(5) == 0 {
			from = w.commit + 1 + w.rng.Uint64N(w.last()-w.commit+1)
		}
		keep := from - w.base() - 1
		w.log = w.log[:keep:keep]
		for i := range 1 + w.rng.Uint64N(4) {
			entries = append(entries, Entries(w.term, from+i, strings.Repeat("x", w.rng.IntN(2000)))...)
		}
		w.log = append(w.log, entries...)
	}
	w.commit += w.rng.Uint64N(w.last() - w.commit + 1)
	must(t, "Append", s.Append(Hard(w.term, w.vote, w.commit), entries))
}

// save makes a snapshot of something that is committed, most often not of the
// last of it.
func (w *twin) save(t *testing.T, s raftlock.Storage) {
	if w.commit == w.base() {
		return
	}
	index := w.base() + 1 + w.rng.Uint64N(w.commit-w.base())
	behind := index - w.base()
	meta := Meta(index, w.log[behind-1].GetTerm())
	Commit(t, s, meta, fmt.Sprint("state ", index))
	must(t, "SaveSnapshot", s.SaveSnapshot(meta))
	w.meta, w.log = meta, w.log[behind:]
}

// install puts a snapshot over what is not committed, or over all.
func (w *twin) install(t *testing.T, s raftlock.Storage) {
	w.term, w.vote = w.term+1, 0
	index := w.commit + 1 + w.rng.Uint64N(w.last()-w.commit+5)
	meta := Meta(index, w.term)
	Commit(t, s, meta, "of the leader")
	must(t, "InstallSnapshot", s.InstallSnapshot(meta, Hard(w.term, w.vote, index)))
	w.meta, w.log, w.commit = meta, nil, index
}

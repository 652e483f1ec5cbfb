package raftlock

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// bytesSource is randomness that bytes decide: two of them each draw, by its
// upper bits, which are those that show. The lower ones go on when no bytes are
// left, or what draws again until it likes a number would do so for ever.
type bytesSource struct {
	rest  []byte
	count uint64
}

func (s *bytesSource) Uint64() uint64 {
	s.count++
	drawn := s.count * 0x9e3779b97f4a7c15 >> 16
	for i := range min(2, len(s.rest)) {
		drawn |= uint64(s.rest[i]) << (56 - 8*i)
	}
	s.rest = s.rest[min(2, len(s.rest)):]
	return drawn
}

// FuzzTwin: whatever sequence of entries the bytes make, the table and its twin
// agree on every result and event, on what reads and listings say, and on what
// ends next; tables that were restored on the way from a clone, or from the bytes
// of a snapshot, go on as the one that was not, to the last bit of the hash.
func FuzzTwin(f *testing.F) {
	for seed := range uint64(6) {
		rng := rand.New(rand.NewPCG(seed, 4))
		b := make([]byte, 1200)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		source := &bytesSource{rest: b[:min(len(b), 6000)]}
		m := drawLogs(rand.New(source))
		r := restored{t: t, twin: newTwin(), through: newTable(), again: newTable()}
		for len(source.rest) > 0 && len(m.log) < 150 {
			m.add(m.entry())
			if way := m.rng.IntN(8); way < 2 {
				r.restore(way == 0)
			}
			if d := r.apply(&m.log[len(m.log)-1]); d != "" {
				t.Fatalf("entry %d: %s\n%s", len(m.log)-1, d, logText(m.log))
			}
		}
	})
}

// restored is a twin, a table that runs through, and one that is made anew.
type restored struct {
	t              *testing.T
	twin           *twin
	through, again *table
}

func (r *restored) restore(fromBytes bool) {
	if !fromBytes {
		r.again = restore(r.again.clone())
		return
	}
	raw := snapshotBytes(r.t, snapshotOf(r.again))
	_, table, err := loadSnapshot(strings.NewReader(string(raw)))
	if err != nil {
		r.t.Fatalf("load a snapshot just taken: %v", err)
	}
	r.again = table
}

// apply applies an entry to all three and tells where they first differ.
func (r *restored) apply(e *entry) string {
	want := r.twin.apply(e)
	was := recordLog(r.through, []entry{*e})[0]
	if d := outcomeDiff(want, was.out); d != "" {
		return d
	}
	if d := stateDiff(r.twin, r.through, e, true); d != "" {
		return d
	}
	if d := recordedDiff(was, recordLog(r.again, []entry{*e})[0]); d != "" {
		return "restored: " + d
	}
	if err := check(r.through); err != nil {
		return err.Error()
	}
	return r.listings()
}

// listings compares what listings say: page by page, and with filters.
func (r *restored) listings() string {
	for _, filter := range []lockFilter{
		{}, {onlyHeld: true}, {onlyContested: true}, {owner: "A"}, {owner: "*B"}, {id: "?"}, {id: "b*"},
		{before: r.twin.time.plus(5 * twinSecond), hasBefore: true}, {after: r.twin.time.plus(twinSecond), hasAfter: true},
	} {
		want := r.twin.list(filter)
		for _, table := range []*table{r.through, r.again} {
			got, view := []listedLock(nil), table.clone()
			for q := (lockQuery{filter: filter, limit: 2, waiters: true}); ; {
				page := view.list(&q)
				if page.total != len(want) {
					return fmt.Sprintf("listing with %+v: %d in all, the twin has %d", filter, page.total, len(want))
				}
				got = append(got, page.locks...)
				if !page.more {
					break
				}
				q.startAfter = got[len(got)-1].id
			}
			if len(got) != len(want) || len(got) > 0 && !reflect.DeepEqual(want, got) {
				return fmt.Sprintf("listing with %+v:\n twin  %+v\n table %+v", filter, want, got)
			}
		}
	}
	return ""
}

// list is all that meets a filter, by id. A pattern is a name with one wildcard
// at an end, or nothing.
func (m *twin) list(f lockFilter) (all []listedLock) {
	for _, l := range m.locks {
		v := m.read(l.id)
		held, queue := v.owner != "", m.waiters(l.id)
		switch {
		case f.onlyHeld && !held, f.onlyContested && len(queue) == 0:
		case f.hasBefore && (!held || v.end > f.before), f.hasAfter && (!held || v.end < f.after):
		case f.owner == "A" && v.owner != "A", f.owner == "*B" && !strings.HasSuffix(v.owner, "B"):
		case f.id == "?" && len(v.id) != 1, f.id == "b*" && !strings.HasPrefix(v.id, "b"):
		default:
			all = append(all, listedLock{lockView: v, queue: queue})
		}
	}
	slices.SortFunc(all, func(a, b listedLock) int { return strings.Compare(a.id, b.id) })
	return all
}

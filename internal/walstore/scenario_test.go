package walstore

import (
	"context"
	"fmt"
	"hash/crc32"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/internal/storagetest"
)

// A scenario is a member's life: start, appends of which some are big, own
// snapshots that let go of segments, and a snapshot from the leader. The tests
// that break it anywhere hold what is found then against what was acknowledged.
type scenario struct {
	ops   []operation
	after []string // what Load answers after so many operations, condensed
}

type operation struct {
	name string
	do   func(raftlock.Storage) error
}

// bigEntry makes four of them fill a segment of the tests.
const bigEntry = testSegmentSize / 4

// newScenario makes one of a number of appends before the leader's snapshot.
func newScenario(tb testing.TB, appends int) *scenario {
	tb.Helper()
	c := &scenario{}
	c.addLife(appends)
	disk := raftlock.NewMemoryStorage()
	for n := 0; ; n++ {
		disk = disk.Reopen()
		found, err := disk.Load()
		must(tb, err)
		c.after = append(c.after, condense(found))
		if n == len(c.ops) {
			return c
		}
		if err := c.ops[n].do(disk); err != nil {
			tb.Fatalf("%s: %v", c.ops[n].name, err)
		}
	}
}

func (c *scenario) add(name string, do func(raftlock.Storage) error) {
	c.ops = append(c.ops, operation{name: name, do: do})
}

func (c *scenario) addLife(appends int) {
	c.add("save identity", func(s raftlock.Storage) error { return s.SaveIdentity(storagetest.Bare()) })
	c.add("bootstrap", func(s raftlock.Storage) error { return s.Bootstrap(storagetest.ID()) })
	c.add("begin term", func(s raftlock.Storage) error { return s.Append(storagetest.Hard(2, 7, 1), nil) })
	third := uint64(appends / 3)
	for i := uint64(2); i < uint64(appends)+2; i++ {
		c.addAppend(2, i)
		if i%third == third-1 {
			c.addSnapshot(2, i-third/2)
		}
	}
	last := uint64(appends) + 1
	c.addInstall(3, last+1000)
	for i := last + 1001; i < last+1011; i++ {
		c.addAppend(3, i)
	}
	c.addSnapshot(3, last+1008)
}

func (c *scenario) addAppend(term, i uint64) {
	size := 20 + int(i%7)
	if i%12 == 0 {
		size = bigEntry + int(i)
	}
	c.add(fmt.Sprint("append ", i), func(s raftlock.Storage) error {
		return s.Append(storagetest.Hard(term, 7, i-1), storagetest.Entries(term, i, strings.Repeat("x", size)))
	})
}

func (c *scenario) addSnapshot(term, i uint64) {
	c.add(fmt.Sprint("snapshot ", i), func(s raftlock.Storage) error {
		meta := storagetest.Meta(i, term)
		if err := writeCommitted(s, meta); err != nil {
			return err
		}
		return s.SaveSnapshot(meta)
	})
}

func (c *scenario) addInstall(term, i uint64) {
	c.add(fmt.Sprint("install ", i), func(s raftlock.Storage) error {
		meta := storagetest.Meta(i, term)
		if err := writeCommitted(s, meta); err != nil {
			return err
		}
		return s.InstallSnapshot(meta, storagetest.Hard(term, 7, i))
	})
}

// writeCommitted writes a snapshot in a few pieces. It returns errAside when
// that fails, which is not final.
func writeCommitted(s raftlock.Storage, meta *raftpb.SnapshotMetadata) error {
	sink, err := s.CreateSnapshot(meta)
	if err != nil {
		return fmt.Errorf("%w: %w", errAside, err)
	}
	defer sink.Discard() // after an error, which has been reported
	all := storagetest.SnapshotBytes(meta, strings.Repeat("state", 2000))
	for _, part := range [][]byte{all[:10], all[10:5000], all[5000:]} {
		if _, err := sink.Write(part); err != nil {
			return fmt.Errorf("%w: %w", errAside, err)
		}
	}
	if err := sink.Commit(context.Background()); err != nil {
		return fmt.Errorf("%w: %w", errAside, err)
	}
	return nil
}

var errAside = fmt.Errorf("a snapshot could not be written aside")

func condense(found raftlock.Recovered) string {
	sum := crc32.New(castagnoli)
	for _, e := range found.Entries {
		fmt.Fprint(sum, e.GetTerm(), e.GetIndex(), e.GetType(), len(e.GetData()))
		_, _ = sum.Write(e.GetData()) // which never fails
	}
	found.Entries = nil
	return fmt.Sprintf("%sentries %08x", storagetest.Text(found), sum.Sum32())
}

// check loads a directory after so many acknowledged operations, one more of
// which may have been begun, and goes on from there.
func (c *scenario) check(tb testing.TB, dir string, done int) {
	tb.Helper()
	s := open(tb, dir)
	defer func() { must(tb, s.Close()) }()
	found, err := s.Load()
	if err != nil {
		tb.Fatalf("after %d operations: Load: %v", done, err)
	}
	got := condense(found)
	if got != c.after[done] && (done == len(c.ops) || got != c.after[done+1]) {
		tb.Fatalf("after %d operations, within %q: loaded\n%s\nwant\n%s", done, c.ops[min(done, len(c.ops)-1)].name, got, c.after[done])
	}
	bounded(tb, s)
	if found.Snapshot == nil {
		return
	}
	if found.Snapshot.GetIndex() > firstIndex {
		file, err := s.OpenSnapshot(found.Snapshot.GetIndex())
		must(tb, err)
		must(tb, file.Close())
	}
	next := found.Snapshot.GetIndex() + uint64(len(found.Entries)) + 1
	term := max(found.Hard.GetTerm(), 2)
	if err := s.Append(storagetest.Hard(term, 7, found.Hard.GetCommit()), storagetest.Entries(term, next, "on it goes")); err != nil {
		tb.Fatalf("after %d operations: Append: %v", done, err)
	}
	must(tb, s.Close())
	again, err := tryLoad(tb, dir)
	if err != nil || len(again.Entries) != len(found.Entries)+1 {
		tb.Fatalf("after %d operations and one more entry: %d entries, %v", done, len(again.Entries), err)
	}
}

// bounded checks that a directory that was just loaded holds no more than it
// needs: two snapshots, no unfinished file, and no segment before the one that
// the older snapshot needs.
func bounded(tb testing.TB, s *Store) {
	tb.Helper()
	snapshots := 0
	for name := range readDir(tb, s.dir) {
		switch {
		case strings.HasSuffix(name, snapshotSuffix):
			snapshots++
		case strings.HasPrefix(name, snapshotsName):
			tb.Errorf("%s was left behind", name)
		}
	}
	if snapshots > keptSnapshots {
		tb.Errorf("%d snapshots", snapshots)
	}
	if len(s.kept) == 0 {
		return
	}
	segments, err := listSegments(s.walDir())
	must(tb, err)
	if oldest := s.kept[0]; len(segments) > 1 && segments[1].index <= oldest.index && segments[1].seq <= oldest.seq {
		tb.Errorf("segment %d is not needed for snapshot %d", segments[0].seq, oldest.index)
	}
}

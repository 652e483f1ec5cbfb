package raftlock

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftlock/raftlock/client"
)

// bornDisk is the disk of n1 when cluster 0xc1 has just been made, of these members.
func bornDisk(t *testing.T, members map[string]MemberID) *MemoryStorage {
	t.Helper()
	disk := NewMemoryStorage()
	if _, err := disk.Load(); err != nil {
		t.Fatal(err)
	}
	id := Identity{Name: "n1", ClusterName: "c", Incarnation: 1}
	if err := disk.SaveIdentity(id); err != nil {
		t.Fatal(err)
	}
	id.ClusterID, id.Members = 0xc1, members
	if err := disk.Bootstrap(id); err != nil {
		t.Fatal(err)
	}
	return disk
}

// storedDisk is a disk with the sample table as its snapshot, as a member of
// cluster 0xc1 left it; change spoils what the snapshot says of itself.
func storedDisk(t *testing.T, change func(*snapshotHeader)) *MemoryStorage {
	t.Helper()
	disk := bornDisk(t, map[string]MemberID{"n1": {NodeID: 1, Incarnation: 1}})
	s := snapshotOf(sampleTable())
	meta := metaOf(&s.header)
	if err := disk.Append(&raftpb.HardState{Term: new(uint64(5)), Vote: new(uint64(1)), Commit: new(uint64(78))}, entriesOf(5, 2, 78)); err != nil {
		t.Fatal(err)
	}
	change(&s.header)
	sink, err := disk.CreateSnapshot(meta)
	if err == nil {
		err = s.writeTo(sink)
	}
	if err == nil {
		err = sink.Commit(t.Context())
	}
	if err == nil {
		err = disk.SaveSnapshot(meta)
	}
	if err != nil {
		t.Fatal(err)
	}
	return disk
}

// recalledFrom starts on such a disk.
func recalledFrom(t *testing.T, change func(*snapshotHeader)) error {
	t.Helper()
	disk := storedDisk(t, change).Reopen()
	found, err := disk.Load()
	if err != nil {
		t.Fatal(err)
	}
	_, err = recall(&Config{Storage: disk, newest: newestFormat}, found)
	return err
}

// What a member cannot go on from is refused at its start, with the right error.
func TestSnapshotsThatAreRefusedAtTheStart(t *testing.T) {
	for what, c := range map[string]struct {
		change func(*snapshotHeader)
		want   error
	}{
		"as it should be":           {func(*snapshotHeader) {}, nil},
		"entries of a newer format": {func(h *snapshotHeader) { h.format = newestFormat + 1 }, ErrUnknownFormat},
		"of another cluster":        {func(h *snapshotHeader) { h.cluster = 0xc2 }, ErrCorrupt},
		"of another entry":          {func(h *snapshotHeader) { h.index++ }, ErrCorrupt},
	} {
		if err := recalledFrom(t, c.change); !errors.Is(err, c.want) || (c.want == nil) != (err == nil) {
			t.Errorf("%s: %v, want %v", what, err, c.want)
		}
	}
}

// A snapshot that is being loaded does not hold up the end of a member.
func TestLoadingEndsWithTheMember(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	disk := storedDisk(t, func(*snapshotHeader) {})
	if _, err := loadFrom(ctx, disk, 77); !errors.Is(err, context.Canceled) {
		t.Errorf("load: %v", err)
	}
	if _, err := loadFrom(context.Background(), disk, 78); err == nil {
		t.Error("a snapshot was loaded that there is not")
	}
}

// slowDisk is a disk whose snapshots take for ever to be read back.
type slowDisk struct {
	*MemoryStorage
	reads chan struct{} // one for each that has begun
}

func (d *slowDisk) CreateSnapshot(meta *raftpb.SnapshotMetadata) (SnapshotSink, error) {
	sink, err := d.MemoryStorage.CreateSnapshot(meta)
	return &slowSink{sink, d.reads}, err
}

type slowSink struct {
	SnapshotSink
	reads chan struct{}
}

func (s *slowSink) Commit(ctx context.Context) error {
	s.reads <- struct{}{}
	<-ctx.Done()
	return ctx.Err()
}

// oneChunk is a leader that sends a snapshot of one chunk.
type oneChunk struct{ PeerStream }

func (oneChunk) Send([]byte) error     { return nil }
func (oneChunk) Recv() ([]byte, error) { return []byte("snapshot"), nil }

// A large snapshot that is read back, an own one or one from the leader, does not
// hold up the end of a member.
func TestCloseEndsTheReadingBack(t *testing.T) {
	disk := &slowDisk{NewMemoryStorage(), make(chan struct{}, 10)}
	n, err := Open(Config{Name: "n1", Storage: disk, Snapshots: Snapshots{MinLogBytes: smallestSnapshot}})
	if err != nil {
		t.Fatal(err)
	}
	<-n.Ready()
	received := make(chan error, 1)
	go func() {
		s := &snapshotReceiver{stream: oneChunk{}, offer: &offer{size: 8}, progress: func() {}}
		_, err := n.receiveState(s, metaOf(&snapshotOf(sampleTable()).header))
		received <- err
	}()
	<-disk.reads
	for i := 0; len(disk.reads) == 0; i++ { // until an own one is due
		_, err := n.Client().Acquire(t.Context(), &client.AcquireRequest{LockID: fmt.Sprint(i), ClientID: "me"})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if err := <-received; !errors.Is(err, context.Canceled) {
		t.Errorf("the one from the leader: %v", err)
	}
}

// A snapshot that is offered to a member that is about to end does not wait for
// that end, which waits for it: the loop may have had its last turn.
func TestOffersDoNotHoldUpTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, err := Open(Config{Name: "n1", Storage: NewMemoryStorage()})
		if err != nil {
			t.Fatal(err)
		}
		<-n.Ready()
		leave := make(chan struct{})
		n.inbox.request(func(*replica) { <-leave }) // the last turn
		synctest.Wait()
		judged := make(chan error, 1)
		go func() { judged <- n.judgeOffer(new(raftpb.Message)) }()
		synctest.Wait()
		n.cancel(ErrClosed)
		synctest.Wait()
		select {
		case err := <-judged:
			if !errors.Is(err, ErrClosed) {
				t.Error(err)
			}
		default:
			t.Error("the offer waits for the member's end")
		}
		close(leave)
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
}

// A member that has taken a snapshot in has its members, for the log and to raft: its
// own next snapshot says who votes.
func TestInstalledSnapshotBringsItsMembers(t *testing.T) {
	l := newLab(t, 3)
	n := l.leader()
	state := snapshotOf(sampleTable())
	if err := n.log.ApplySnapshot(&raftpb.Snapshot{Metadata: metaOf(&state.header)}); err != nil {
		t.Fatal(err)
	}
	_, table, err := loadSnapshot(bytes.NewReader(snapshotBytes(t, state)))
	if err != nil {
		t.Fatal(err)
	}
	n.r.begin(l.now)
	n.r.adopt(&loaded{header: &state.header, table: table})
	next, err := n.r.freeze()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprintf("%+v %+v", next.header.conf, next.header.members), fmt.Sprintf("%+v %+v", state.header.conf, state.header.members); got != want {
		t.Errorf("the next snapshot has the members\n%s, want\n%s", got, want)
	}
}

package raftlock

import (
	"context"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftlock/raftlock/pb"
)

// Bugs that were found once, each with the interleaving that showed it.

// A follower's calls and its rounds of reads had numbers of their own, which met
// at the leader: the answer to round k made it forget the waiting call k.
func TestReadsDoNotMakeTheLeaderForgetWaits(t *testing.T) {
	l := newLab(t, 3)
	leader, follower := l.nodes[0], l.nodes[1]
	l.elect(leader)
	l.acquire(leader, "a", "holder", time.Minute)
	var waits []*call
	for _, name := range []string{"w1", "w2", "w3"} {
		waits = append(waits, l.submit(follower, command{kind: cmdAcquire, lock: "a", client: name, attempt: 1, wait: true}))
	}
	l.settle()
	for range 5 {
		read := &call{read: readLock, cmd: command{lock: "a"}, done: make(chan struct{}, 1), patience: holdLimit, arrived: l.now, since: l.now}
		follower.r.submit(read)
		l.settle()
		<-read.done
	}
	for _, c := range waits {
		follower.r.leave(c, gaveUp)
	}
	l.settle()
	l.pass(labTick)
	if got := leader.r.table.waiterCount(); got != 0 {
		t.Errorf("%d waits are left of callers that have gone", got)
	}
}

// A leader that dies before its first entry is applied has not led: the span up
// to it was charged to holders.
func TestSignOfALeaderCountsFromItsFirstEntryOn(t *testing.T) {
	l := newLab(t, 3)
	l.elect(l.nodes[0])
	l.acquire(l.nodes[0], "a", "me", time.Minute)
	l.pass(time.Second)
	n := l.nodes[1]
	n.cut = true
	before := n.r.clock.contact
	l.now = l.now.Add(labTick)
	n.r.begin(l.now)
	beat := &raftpb.Message{
		Type: raftpb.MsgHeartbeat.Enum(), From: new(uint64(3)), To: new(n.id),
		Term: new(n.r.term + 1), Commit: new(uint64(firstIndex)),
	}
	if err := n.r.step(beat); err != nil {
		t.Fatal(err)
	}
	if n.r.lead != 3 {
		t.Fatal("the new leader is not followed")
	}
	if n.r.clock.contact != before {
		t.Error("a leader without an entry was counted")
	}
}

// An alarm that was due while nothing could be proposed made the loop spin.
func TestAlarmIsSilentWhileNothingCanBeProposed(t *testing.T) {
	l := newLab(t, 3)
	n := l.nodes[0]
	l.elect(n)
	l.acquire(n, "a", "me", 200*time.Millisecond)
	n.r.handingOver = true
	l.now = l.now.Add(time.Second / 4)
	n.r.begin(l.now)
	if wait, ok := n.r.nextEnd(); ok {
		t.Errorf("the alarm is due in %v, and nothing may be proposed", wait)
	}
}

// The call of another member was proposed again, for nobody, by a leader that
// was deposed and came back before it knew what had become of its entry.
func TestOverwrittenGuestGoesBackToItsMember(t *testing.T) {
	l := newLab(t, 3)
	n := l.nodes[0]
	l.elect(n)
	c := &call{cmd: command{kind: cmdAcquire, lock: "a", client: "me", attempt: 1}, from: 2, session: 1, id: 77, lane: laneNormal, place: placeProposed}
	c.state.Store(callTaken)
	n.r.load[laneNormal].add(c, 1)
	n.r.out.forwards = nil
	n.r.overwritten(&batch{calls: []*call{c}, entry: entry{commands: make([]command, 1)}})
	out := n.r.out.forwards
	if len(out) != 1 || out[0].to != 2 || out[0].msg.kind != forwardFailed || !out[0].msg.failure.again {
		t.Errorf("sent %+v", out)
	}
	if n.r.proposals.waiting() != 0 || n.r.load[laneNormal] != (load{}) {
		t.Error("it waits to be proposed again")
	}
}

// What a peer answers reached a division in the caller's own goroutine.
func TestAnswerWithImpossibleNumbersIsRefused(t *testing.T) {
	for _, res := range []result{
		{code: pb.ErrorCode_OK, queued: true, position: -1},
		{code: pb.ErrorCode_OK, lock: lockView{id: "a", waiters: -1}},
	} {
		f := frame{forwards: []forward{{kind: forwardResult, id: 1, result: res}}}
		b, err := f.encode(newestFormat)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeFrame(b, newestFormat); err == nil {
			t.Errorf("%+v was let through", res)
		}
	}
}

// A stream that is dialled again while the loop takes nothing in is up in the
// end: the loop hears of the end of the stream before first.
func TestStreamThatComesBackWhileTheLoopIsBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, 3)
		r, peer := l.nodes[0].r, l.nodes[1].id
		n := &Node{inbox: newInbox(), ctx: t.Context()}
		o := newOutbox(n, "n2", peer)
		ctx, cancel := context.WithCancel(t.Context())
		var serving sync.WaitGroup
		serve := func() *silentStream {
			s := &silentStream{closed: make(chan struct{})}
			serving.Go(func() { _ = o.serve(ctx, s) }) // it ends as it is made to
			synctest.Wait()
			return s
		}
		_ = serve().Close()
		synctest.Wait()
		serve()
		in, now := n.inbox.take(arrivals{})
		r.begin(now)
		if err := n.handIn(r, &in); err != nil {
			t.Fatal(err)
		}
		if !r.up[peer] {
			t.Error("the stream is up, and its member is taken for unreachable")
		}
		cancel()
		serving.Wait()
	})
}

// silentStream is a stream that takes everything and says nothing.
type silentStream struct {
	closed chan struct{}
	once   sync.Once
}

func (s *silentStream) Send([]byte) error { return nil }

func (s *silentStream) Recv() ([]byte, error) {
	<-s.closed
	return nil, io.EOF
}

func (s *silentStream) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

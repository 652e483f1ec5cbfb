package raftlock

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

func sampleOffer() offer {
	return offer{size: 300, message: &raftpb.Message{
		Type: raftpb.MsgSnap.Enum(), From: new(uint64(1)), To: new(uint64(2)), Term: new(uint64(5)),
		Snapshot: &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
			Index: new(uint64(77)), Term: new(uint64(4)), ConfState: &raftpb.ConfState{Voters: []uint64{1, 2}},
		}},
	}}
}

// TestGoldenOffer pins what members say to each other about a snapshot.
func TestGoldenOffer(t *testing.T) {
	o := sampleOffer()
	b, err := o.encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := hex.EncodeToString(b), "08ac02121608071002180120054a0c120a0a0408010802104d1804"; got != want {
		t.Errorf("an offer is %s, want %s", got, want)
	}
	back, err := decodeOffer(b)
	if err != nil || back.size != 300 || back.check(1, 2) != nil || back.message.GetSnapshot().GetMetadata().GetIndex() != 77 {
		t.Errorf("read back as %+v, %v", back, err)
	}
	for want, a := range map[string]snapshotAnswer{"": {}, "0801": {done: true}, "12026e6f": {refusal: "no"}} {
		if got := hex.EncodeToString(a.encode()); got != want {
			t.Errorf("%+v is %s, want %s", a, got, want)
		}
		if back, err := decodeSnapshotAnswer(a.encode()); err != nil || back != a {
			t.Errorf("%+v is read back as %+v, %v", a, back, err)
		}
	}
}

func TestOffersThatAreRefused(t *testing.T) {
	for what, spoil := range map[string]func(*offer){
		"of another":     func(o *offer) { o.message.From = new(uint64(3)) },
		"to another":     func(o *offer) { o.message.To = new(uint64(3)) },
		"another type":   func(o *offer) { o.message.Type = raftpb.MsgApp.Enum() },
		"no term":        func(o *offer) { o.message.Term = nil },
		"no snapshot":    func(o *offer) { o.message.Snapshot = nil },
		"first state":    func(o *offer) { o.message.Snapshot.Metadata.Index = new(uint64(1)) },
		"a later term":   func(o *offer) { o.message.Snapshot.Metadata.Term = new(uint64(6)) },
		"nothing":        func(o *offer) { o.size = 0 },
		"entries":        func(o *offer) { o.message.Entries = entriesOf(1, 2, 3) },
		"with responses": func(o *offer) { o.message.Responses = []*raftpb.Message{{}} },
	} {
		o := sampleOffer()
		spoil(&o)
		if err := o.check(1, 2); !errors.Is(err, errMalformed) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// FuzzOffer: nothing that a peer says of a snapshot panics.
func FuzzOffer(f *testing.F) {
	o := sampleOffer()
	b, _ := o.encode()
	f.Add(b)
	f.Add((&snapshotAnswer{done: true, refusal: "why"}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if o, err := decodeOffer(b); err == nil {
			_ = o.check(1, 2)
			written, err := o.encode()
			if err != nil {
				t.Fatalf("%+v was read and cannot be written: %v", o, err)
			}
			if back, err := decodeOffer(written); err != nil || back.size != o.size || !proto.Equal(back.message, o.message) {
				t.Fatalf("%+v comes back as %+v, %v", o, back, err)
			}
		}
		if a, err := decodeSnapshotAnswer(b); err == nil {
			if back, err := decodeSnapshotAnswer(a.encode()); err != nil || back != a {
				t.Fatalf("%+v comes back as %+v, %v", a, back, err)
			}
		}
	})
}

// scriptedPeer is the receiver's end of a stream in the test's own goroutine: it
// answers what it is asked for, never before something is open.
type scriptedPeer struct {
	t       *testing.T
	got     bytes.Buffer
	size    int
	offered bool
	open    int
	most    int
	refuse  string
}

func (p *scriptedPeer) Send(frame []byte) error {
	p.open++
	p.most = max(p.most, p.open)
	if !p.offered {
		p.offered = true
		return nil
	}
	if len(frame) > snapshotChunk {
		p.t.Errorf("chunk of %d bytes", len(frame))
	}
	p.got.Write(frame)
	return nil
}

func (p *scriptedPeer) Recv() ([]byte, error) {
	if p.open == 0 {
		return nil, errors.New("nothing is open")
	}
	p.open--
	a := snapshotAnswer{done: p.got.Len() == p.size && p.open == 0, refusal: p.refuse}
	return a.encode(), nil
}

func (p *scriptedPeer) Close() error { return nil }

// A sender keeps a window of chunks under way, no more, and sends every byte.
func TestSnapshotSender(t *testing.T) {
	for _, size := range []int{1, snapshotChunk - 1, snapshotChunk, snapshotChunk + 1, 40 * snapshotChunk, 40*snapshotChunk + 7} {
		data := bytes.Repeat([]byte("snapshot"), size/8+1)[:size]
		peer := &scriptedPeer{t: t, size: size}
		progress := 0
		s := &snapshotSender{stream: peer, progress: func() { progress++ }}
		if err := s.run([]byte("offer"), bytes.NewReader(data)); err != nil {
			t.Errorf("%d bytes: %v", size, err)
		}
		if !bytes.Equal(peer.got.Bytes(), data) {
			t.Errorf("%d bytes: %d have come, or others", size, peer.got.Len())
		}
		chunks := (size + snapshotChunk - 1) / snapshotChunk
		if want := min(chunks, snapshotWindow); peer.most != want {
			t.Errorf("%d bytes: %d chunks were open, want %d", size, peer.most, want)
		}
		if progress != chunks+1 {
			t.Errorf("%d bytes: progress was seen %d times, want %d", size, progress, chunks+1)
		}
	}
}

func TestSnapshotSenderFails(t *testing.T) {
	none := func() {}
	peer := &scriptedPeer{t: t, size: 10, refuse: "no space left"}
	err := (&snapshotSender{stream: peer, progress: none}).run(nil, strings.NewReader("0123456789"))
	if !errors.Is(err, errRefused) || !strings.Contains(err.Error(), "no space left") || peer.got.Len() > 0 {
		t.Errorf("refused: %v, after %d bytes", err, peer.got.Len())
	}
	broken := fmt.Errorf("read error")
	peer = &scriptedPeer{t: t, size: 10}
	err = (&snapshotSender{stream: peer, progress: none}).run(nil, io.MultiReader(strings.NewReader("01234"), iotest.ErrReader(broken)))
	if !errors.Is(err, broken) {
		t.Errorf("disk: %v", err)
	}
	peer = &scriptedPeer{t: t, size: 11} // it never is done
	err = (&snapshotSender{stream: peer, progress: none}).run(nil, strings.NewReader("0123456789"))
	if !errors.Is(err, errMalformed) {
		t.Errorf("short: %v", err)
	}
}

// What becomes of a snapshot to a peer that was removed meanwhile is not kept: nobody
// would ever forget it.
func TestFailuresOfAPeerThatHasPartedAreForgotten(t *testing.T) {
	l := newLab(t, 3)
	n := l.leader()
	member, parted := l.nodes[0].id, uint64(99)
	if member == n.id {
		member = l.nodes[1].id
	}
	for range 2 {
		n.r.snapshotEnded(member, errParted)
		n.r.snapshotEnded(parted, errSpoilt)
	}
	if got := n.r.sendFailures; got[member] != 2 || len(got) != 1 {
		t.Errorf("failures by peer: %v", got)
	}
	n.r.snapshotEnded(member, nil)
	if got := n.r.sendFailures; len(got) != 0 {
		t.Errorf("failures by peer after a success: %v", got)
	}
}

package raftlock

import (
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftlock/raftlock/client"
)

// recited is a peer's end of a stream that says its frames and goes.
type recited struct{ frames [][]byte }

func (r *recited) Send([]byte) error { return nil }
func (r *recited) Close() error      { return nil }
func (r *recited) Recv() ([]byte, error) {
	if len(r.frames) == 0 {
		return nil, io.EOF
	}
	frame := r.frames[0]
	r.frames = r.frames[1:]
	return frame, nil
}

// besieged is a member alone, to whose cluster n2 has been admitted, for which the
// test speaks.
type besieged struct {
	node *Node
	n2   hello
	id   uint64 // of n2 in raft
	log  lastWords
}

// lastWords is a log of which only the last lines are kept.
type lastWords struct {
	mu    sync.Mutex
	lines []string
}

func (l *lastWords) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines[max(0, len(l.lines)-50):], string(b))
	return len(b), nil
}

// count is how many lines have a text in them.
func (l *lastWords) count(text string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		n += strings.Count(line, text)
	}
	return n
}

// panics are the lines that tell of a panic, which a member survives.
func (l *lastWords) panics() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(slices.DeleteFunc(slices.Clone(l.lines), func(line string) bool { return !strings.Contains(line, "msg=panic ") }), "")
}

func newBesieged(tb testing.TB) *besieged {
	tb.Helper()
	b := &besieged{}
	n, err := Open(Config{Name: "n1", Storage: NewMemoryStorage(), Transport: nowhere{}, Logger: slog.New(slog.NewTextHandler(&b.log, nil))})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := n.Close(); err != nil {
			tb.Error(err)
		}
	})
	<-n.Ready()
	if err := n.AddMember(tb.Context(), "n2", "somewhere"); err != nil {
		tb.Fatal(err)
	}
	b.node, b.n2 = n, hello{
		Protocol: newestProtocol, Entries: int(newestFormat), Target: "n1",
		Identity: Identity{Name: "n2", Incarnation: 7, ClusterName: n.assembly.identity().ClusterName},
	}
	n.accept(&recited{frames: b.says(asks)}) // it comes to its place
	way := n.directory.Load().byName["n2"]
	if way == nil {
		tb.Fatalf("n2 was not admitted: %q", b.log.lines)
	}
	b.id = way.id
	id := n.assembly.identity()
	b.n2.ClusterID, b.n2.Members = id.ClusterID, id.Members
	return b
}

// says is the frames of a stream of n2: its hello for an errand, then others.
func (b *besieged) says(why errand, frames ...[]byte) [][]byte {
	h := b.n2
	h.Frames, h.Snapshot = why == sendsFrames, why == sendsSnapshot
	first, err := h.encode()
	if err != nil {
		panic(err) // strings and numbers
	}
	return append([][]byte{first}, frames...)
}

// harmless reports whether a frame is none that a member in its right mind must
// believe: a peer that was admitted is trusted in what it says of raft's present
// and of who shall be a member.
func (b *besieged) harmless(frame []byte) bool {
	present := func(m *raftpb.Message) bool { return m.GetTerm() > 1 }
	if o, err := decodeOffer(frame); err == nil && present(o.message) {
		return false
	}
	f, err := decodeFrame(frame, newestFormat)
	if err != nil {
		return true
	}
	for _, m := range f.messages {
		if present(m) {
			return false
		}
	}
	for _, m := range f.forwards {
		if m.kind == forwardWish {
			return false
		}
	}
	return true
}

// sign makes a frame's raft messages those of n2 to n1, or none would be taken.
func (b *besieged) sign(frame []byte) []byte {
	f, err := decodeFrame(frame, newestFormat)
	if err != nil || len(f.messages) == 0 {
		return frame
	}
	for _, m := range f.messages {
		m.From, m.To = new(b.id), new(b.node.assembly.identity().nodeID())
	}
	signed, err := f.encode(newestFormat)
	if err != nil {
		return frame
	}
	return signed
}

// overheard is a network on which nobody answers, and what was said there by those who
// bring something.
type overheard struct {
	nowhere
	said chan hello
}

func (o overheard) Dial(context.Context, string) (PeerStream, error) {
	return &monologue{said: o.said}, nil
}

// monologue is a dialler's end of such a stream.
type monologue struct{ said chan hello }

func (m *monologue) Recv() ([]byte, error) { return nil, io.EOF }
func (m *monologue) Close() error          { return nil }
func (m *monologue) Send(b []byte) error {
	h, err := decodeHello(b)
	if err == nil && h.brings() {
		m.said <- h
	}
	return err
}

// Whoever brings something says where everybody is reached: the peer may hear of
// some for the first time, and have to answer one of them before its log says more.
func TestWhoBringsSomethingSaysAddresses(t *testing.T) {
	network := overheard{said: make(chan hello, 1)}
	n, err := Open(Config{Name: "n1", InitialCluster: map[string]string{"n1": "here"}, Storage: NewMemoryStorage(), Transport: network})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}()
	<-n.Ready()
	if err := n.AddMember(t.Context(), "n2", "there"); err != nil {
		t.Fatal(err)
	}
	for _, why := range []errand{sendsFrames, sendsSnapshot} {
		if _, _, err := n.greet(t.Context(), "n2", why); err == nil {
			t.Fatal("nobody has answered")
		}
		h := <-network.said
		if want := map[string]string{"n1": "here", "n2": "there"}; !maps.Equal(h.Addresses, want) {
			t.Errorf("errand %d: the addresses are %v, want %v", why, h.Addresses, want)
		}
	}
}

// requireService checks that the member lives and grants.
func (b *besieged) requireService(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if said := b.log.panics(); said != "" {
		t.Fatal(said)
	}
	got, err := b.node.Client().Acquire(ctx, &client.AcquireRequest{LockID: "the member's own", ClientID: "me"})
	if err != nil {
		t.Fatalf("the member does not serve: %v; %v", err, b.node.Err())
	}
	if _, err := b.node.Client().Release(ctx, &client.ReleaseRequest{LockID: "the member's own", ClientID: "me", Version: got.Lock.Version}); err != nil {
		t.Fatalf("the member does not serve: %v; %v", err, b.node.Err())
	}
}

// cutFrames reads frames out of bytes, each behind its length in two bytes; the
// last one is as long as it is.
func cutFrames(b []byte) (frames [][]byte) {
	for len(b) > 2 {
		size := min(int(binary.BigEndian.Uint16(b)), len(b)-2)
		frames, b = append(frames, b[2:2+size]), b[2+size:]
	}
	return frames
}

func joinFrames(frames ...[]byte) (b []byte) {
	for _, frame := range frames {
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(frame))), frame...)
	}
	return b
}

// FuzzPeer: whatever a peer says on a stream, from its first word on, or after a
// hello for frames or for a snapshot, ends the stream at most: the goroutine that
// serves it comes back, and the member goes on.
func FuzzPeer(f *testing.F) {
	b := newBesieged(f)
	first := b.says(sendsFrames)[0]
	f.Add(byte(0), joinFrames(first, []byte("what is this")))
	f.Add(byte(0), joinFrames([]byte(`{"protocol":1,"entries":1,"name":"n2","target":"n1","members_at":"9","refusal":{"vacant":true}}`)))
	for _, sample := range sampleFrames() {
		frame, err := sample.encode(newestFormat)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(1), joinFrames(frame, frame[:len(frame)/2]))
		f.Add(byte(130), joinFrames(frame)) // signed
	}
	for kind := range raftpb.MessageType_name { // none of which says of when it is
		frame, err := (&frame{messages: []*raftpb.Message{{Type: new(raftpb.MessageType(kind))}}}).encode(newestFormat)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(130), joinFrames(frame))
	}
	o := sampleOffer()
	o.message.Term = new(uint64)
	offered, err := o.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(byte(2), joinFrames(offered, []byte("chunk"), nil))
	f.Fuzz(func(t *testing.T, errandByte byte, said []byte) {
		frames := cutFrames(said)
		for i := range frames {
			if errandByte >= 128 {
				frames[i] = b.sign(frames[i])
			}
			if !b.harmless(frames[i]) {
				return
			}
		}
		switch errandByte % 3 {
		case 1:
			frames = b.says(sendsFrames, frames...)
		case 2:
			frames = b.says(sendsSnapshot, frames...)
		}
		b.node.accept(&recited{frames: frames})
		b.requireService(t)
	})
}

package raftlock

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raftlock/raftlock/pb"
)

var rewriteFrames = flag.Bool("rewrite-frames", false, "write testdata/frames.txt anew")

// sampleFrames are one frame of every kind, each with every field set.
func sampleFrames() map[string]frame {
	view := lockView{
		id: "lock", owner: "owner", request: "req", version: 7, end: 8, acquired: 9, modified: 10, waiters: 11,
		metadata: metadata{{"k", "v"}},
	}
	full := result{code: pb.ErrorCode_LOCK_HELD, queued: true, promoted: true, waiter: 1, claim: 2, position: 3, limit: 4, lock: view}
	cmd := command{
		kind: cmdAcquire, wait: true, attempt: 2, priority: -3, lock: "lock", client: "client", request: "req",
		version: 4, ttl: 5, timeout: 6, claim: 7, metadata: metadata{{"a", "b"}}, // the leader sets the arrival
	}
	one := func(m forward) frame { return frame{forwards: []forward{m}} }
	return map[string]frame{
		"raft": {messages: []*raftpb.Message{{
			Type: raftpb.MsgApp.Enum(), From: new(uint64(1)), To: new(uint64(2)), Term: new(uint64(3)),
			LogTerm: new(uint64(3)), Index: new(uint64(4)), Commit: new(uint64(4)),
			Entries: []*raftpb.Entry{{Term: new(uint64(3)), Index: new(uint64(5)), Data: []byte("data")}},
		}}},
		"call":   one(forward{kind: forwardCall, id: 1, cmd: cmd}),
		"read":   one(forward{kind: forwardRead, id: 2}),
		"change": one(forward{kind: forwardWish, id: 8, wish: &wish{change: change{kind: changeRemove, name: "n2", since: 3}}}),
		"lead":   one(forward{kind: forwardWish, id: 9, wish: &wish{transfer: "n2"}}),
		"leave":  one(forward{kind: forwardLeave, id: 3, how: lostTouch}),
		"queued": one(forward{kind: forwardQueued, id: 4}),
		"result": one(forward{kind: forwardResult, id: 5, result: full, remaining: 6, timed: true}),
		"index":  one(forward{kind: forwardIndex, id: 6, index: 7, now: 8}),
		"failed": one(forward{kind: forwardFailed, id: 7, failure: &failure{
			code: pb.ErrorCode_NO_LEADER, message: "text", details: map[string]string{"b": "2", "a": "1"}, again: true, interrupted: true,
		}}),
	}
}

// What members say to each other is a contract between versions.
func TestGoldenFrames(t *testing.T) {
	samples := sampleFrames()
	var got strings.Builder
	for _, name := range memberNames(samples) {
		f := samples[name]
		b, err := f.encode(newestFormat)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&got, "%s %s\n", name, hex.EncodeToString(b))
	}
	path := filepath.Join("testdata", "frames.txt")
	if *rewriteFrames {
		if err := os.WriteFile(path, []byte(got.String()), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("frames have changed:\n%s\nwant:\n%s", got.String(), want)
	}
}

func TestFrameRoundTrip(t *testing.T) {
	for name, f := range sampleFrames() {
		b, err := f.encode(newestFormat)
		if err != nil {
			t.Fatal(err)
		}
		back, err := decodeFrame(b, newestFormat)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !reflect.DeepEqual(f.forwards, back.forwards) {
			t.Errorf("%s: %+v came back as %+v", name, f.forwards, back.forwards)
		}
		for i := range f.messages {
			if !proto.Equal(f.messages[i], back.messages[i]) {
				t.Errorf("%s: %v came back as %v", name, f.messages[i], back.messages[i])
			}
		}
	}
}

func TestFrameOfANewerVersionIsRefused(t *testing.T) {
	for name, f := range sampleFrames() {
		b, err := f.encode(newestFormat)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeFrame(appendUint(b, 9, 1), newestFormat); !errors.Is(err, errUnknownFormat) {
			t.Errorf("%s with a field that is not known: %v", name, err)
		}
	}
	unknown := frame{forwards: []forward{{kind: 99, id: 1}}}
	b, _ := unknown.encode(newestFormat)
	if _, err := decodeFrame(b, newestFormat); !errors.Is(err, errUnknownFormat) {
		t.Errorf("a kind that is not known: %v", err)
	}
}

func TestCutKeepsFramesSmall(t *testing.T) {
	var f frame
	for range 10 {
		f.messages = append(f.messages, &raftpb.Message{
			Type: raftpb.MsgApp.Enum(), Entries: []*raftpb.Entry{{Data: make([]byte, 1<<20)}},
		})
	}
	f.forwards = make([]forward, 100)
	frames, messages, forwards := 0, 0, 0
	for ; !f.empty(); frames++ {
		front := f.cut(maxFrameFill)
		messages, forwards = messages+len(front.messages), forwards+len(front.forwards)
		if b, err := front.encode(newestFormat); err != nil || len(b) > maxFrameFill+2<<20 || len(b) > MaxFrame {
			t.Errorf("a frame of %d bytes, %v", len(b), err)
		}
	}
	if messages != 10 || forwards != 100 || frames < 4 {
		t.Errorf("%d messages and %d forwards in %d frames", messages, forwards, frames)
	}
}

func TestCheckMessage(t *testing.T) {
	ok := func() *raftpb.Message {
		return &raftpb.Message{
			Type: raftpb.MsgApp.Enum(), From: new(uint64(1)), To: new(uint64(2)), Term: new(uint64(3)),
			LogTerm: new(uint64(2)), Index: new(uint64(4)),
			Entries: []*raftpb.Entry{{Term: new(uint64(3)), Index: new(uint64(5))}, {Term: new(uint64(3)), Index: new(uint64(6))}},
		}
	}
	if err := checkMessage(ok(), 1, 2); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(m *raftpb.Message){
		"of another sender":           func(m *raftpb.Message) { m.From = new(uint64(7)) },
		"for another member":          func(m *raftpb.Message) { m.To = new(uint64(7)) },
		"a proposal":                  func(m *raftpb.Message) { m.Type = raftpb.MsgProp.Enum() },
		"a local message":             func(m *raftpb.Message) { m.Type = raftpb.MsgHup.Enum() },
		"a disk's answer":             func(m *raftpb.Message) { m.Type = raftpb.MsgStorageAppendResp.Enum() },
		"a read":                      func(m *raftpb.Message) { m.Type = raftpb.MsgReadIndex.Enum() },
		"an order to transfer":        func(m *raftpb.Message) { m.Type = raftpb.MsgTransferLeader.Enum() },
		"a gap":                       func(m *raftpb.Message) { m.Entries[1].Index = new(uint64(8)) },
		"a falling term":              func(m *raftpb.Message) { m.Entries[1].Term = new(uint64(1)) },
		"an entry of a later term":    func(m *raftpb.Message) { m.Entries[1].Term = new(uint64(9)) },
		"a vote with entries":         func(m *raftpb.Message) { m.Type = raftpb.MsgVote.Enum() },
		"a heartbeat with a bad mark": func(m *raftpb.Message) { m.Type, m.Entries, m.Context = raftpb.MsgHeartbeat.Enum(), nil, []byte{1} },
		"an answer with a bad mark": func(m *raftpb.Message) {
			m.Type, m.Entries, m.Context = raftpb.MsgHeartbeatResp.Enum(), nil, []byte{1, 2, 3}
		},
		"a snapshot within an append": func(m *raftpb.Message) {
			m.Snapshot = &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: new(uint64(3))}}
		},
		"a snapshot where none is due": func(m *raftpb.Message) { m.Type = raftpb.MsgSnap.Enum() },
	} {
		m := ok()
		spoil(m)
		if err := checkMessage(m, 1, 2); !errors.Is(err, errMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDecodeFrame(f *testing.F) {
	for _, sample := range sampleFrames() {
		b, err := sample.encode(newestFormat)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := decodeFrame(b, newestFormat)
		if err != nil {
			if !errors.Is(err, errMalformed) && !errors.Is(err, errUnknownFormat) {
				t.Errorf("an error of no kind: %v", err)
			}
			return
		}
		for _, m := range got.messages {
			_ = checkMessage(m, 1, 2)
		}
		again, err := got.encode(newestFormat)
		if err != nil {
			t.Fatal(err)
		}
		back, err := decodeFrame(again, newestFormat)
		if err != nil {
			t.Fatalf("what was read cannot be read again: %v", err)
		}
		if third, _ := back.encode(newestFormat); !bytes.Equal(again, third) && len(got.messages) == 0 {
			t.Errorf("%x and %x", again, third)
		}
	})
}

func FuzzDecodeHello(f *testing.F) {
	h := hello{Protocol: 1, Entries: 1, Identity: Identity{Name: "n1", ClusterName: "c", Incarnation: 3, Members: map[string]MemberID{"n1": {1, 2}}}, Target: "n2"}
	b, err := h.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		theirs, err := decodeHello(b)
		if err != nil {
			return
		}
		written, err := theirs.encode()
		if err != nil {
			t.Fatalf("%+v was read and cannot be written: %v", theirs, err)
		}
		back, err := decodeHello(written)
		if err != nil && len(written) <= maxHello {
			t.Fatalf("%q was written and cannot be read: %v", written, err)
		}
		if again, _ := back.encode(); err == nil && !bytes.Equal(written, again) {
			t.Fatalf("%q comes back as %q", written, again)
		}
		mine := hello{Protocol: 1, Entries: 1, Identity: Identity{Name: "n2", ClusterName: "c", Incarnation: 9}, Initial: []string{"n1", "n2"}}
		answer, judged := mine.answer(&theirs)
		if (judged != nil) != (answer.Refusal != nil) {
			t.Errorf("judged %v, answered %+v", judged, answer.Refusal)
		}
		_ = mine.heed(&theirs, "n1")
	})
}

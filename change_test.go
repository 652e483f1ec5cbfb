package raftlock

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

func goldenChanges() map[string]change {
	return map[string]change{
		"add":     {kind: changeAdd, name: "n4", address: "10.0.0.4:7101"},
		"remove":  {kind: changeRemove, name: "n2", since: 7, node: 9},
		"vacant":  {kind: changeRemove, name: "n2", since: 7},
		"replace": {kind: changeReplace, name: "n2", since: 7, node: 9},
		"bind":    {kind: changeBind, name: "n4", since: 300, node: math.MaxUint64 >> 1},
		"promote": {kind: changePromote, name: "ä", since: 300, node: 1},
	}
}

func TestGoldenChanges(t *testing.T) {
	var cases []goldenCase
	for name, c := range goldenChanges() {
		cases = append(cases, goldenCase{name, c.encode(), func(b []byte) (any, error) { return decodeChange(b) }, c})
	}
	compareGolden(t, "changes.hex", cases)
}

func TestDecodeChangeRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		bytes []byte
		want  error
	}{
		"no bytes":            {nil, errMalformed},
		"format 2":            {[]byte{2}, errUnknownFormat},
		"no kind":             {[]byte{1, 0x12, 1, 'n'}, errMalformed},
		"no name":             {[]byte{1, 0x08, 1}, errMalformed},
		"kind 6":              {[]byte{1, 0x08, 6, 0x12, 1, 'n'}, errUnknownFormat},
		"kind above a byte":   {[]byte{1, 0x08, 0x81, 0x02, 0x12, 1, 'n'}, errUnknownFormat},
		"field 6":             {[]byte{1, 0x08, 1, 0x12, 1, 'n', 0x30, 1}, errUnknownFormat},
		"zero written out":    {[]byte{1, 0x08, 1, 0x12, 1, 'n', 0x18, 0}, errMalformed},
		"out of order":        {[]byte{1, 0x12, 1, 'n', 0x08, 1}, errMalformed},
		"cut off in the name": {[]byte{1, 0x08, 1, 0x12, 2, 'n'}, errMalformed},
	} {
		if _, err := decodeChange(c.bytes); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func FuzzDecodeChange(f *testing.F) {
	for _, c := range goldenChanges() {
		f.Add(c.encode())
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := decodeChange(raw)
		if err != nil {
			requireKnownError(t, err)
			return
		}
		if again := c.encode(); !bytes.Equal(again, raw) {
			t.Fatalf("%x is written as %x", raw, again)
		}
		// Whatever can stand in the log can be applied, or ignored.
		for _, was := range []*roster{{}, threeMembers()} {
			next, err := was.apply(&c, 1000)
			if err == nil && next.voters() == 0 && was.voters() > 0 {
				t.Fatalf("%+v leaves nobody who votes", c)
			}
		}
	})
}

// FuzzChangeIn: an entry that is taken for a change means to raft what it says.
func FuzzChangeIn(f *testing.F) {
	for _, c := range goldenChanges() {
		b, err := proto.Marshal(confChange(&c))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, cc, err := changeIn(&raftpb.Entry{Type: raftpb.EntryConfChangeV2.Enum(), Data: raw})
		if err != nil {
			if errors.Is(err, errMalformed) == errors.Is(err, ErrUnknownFormat) {
				t.Fatalf("neither malformed nor unknown: %v", err)
			}
			return
		}
		if again := confChange(&c); !proto.Equal(again, cc) {
			t.Fatalf("{%v} is written as {%v}", cc, again)
		}
	})
}

// What an entry says of raft's configuration must be what its change means:
// otherwise members could differ in the one and agree in the other.
func TestChangeInRefuses(t *testing.T) {
	c := goldenChanges()["bind"]
	for name, spoil := range map[string]func(cc *raftpb.ConfChangeV2){
		"another node":      func(cc *raftpb.ConfChangeV2) { cc.Changes[0].NodeId = new(uint64(5)) },
		"another kind":      func(cc *raftpb.ConfChangeV2) { cc.Changes[0].Type = raftpb.ConfChangeAddNode.Enum() },
		"no change":         func(cc *raftpb.ConfChangeV2) { cc.Changes = nil },
		"one more":          func(cc *raftpb.ConfChangeV2) { cc.Changes = append(cc.Changes, cc.Changes[0]) },
		"another context":   func(cc *raftpb.ConfChangeV2) { cc.Context = (&change{kind: changeAdd, name: "x"}).encode() },
		"a joint one":       func(cc *raftpb.ConfChangeV2) { cc.Transition = raftpb.ConfChangeTransitionJointExplicit.Enum() },
		"a context cut off": func(cc *raftpb.ConfChangeV2) { cc.Context = cc.Context[:3] },
	} {
		cc := confChange(&c)
		spoil(cc)
		b, err := proto.Marshal(cc)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := changeIn(&raftpb.Entry{Data: b}); !errors.Is(err, errMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b, err := proto.Marshal(confChange(&c))
	if err != nil {
		t.Fatal(err)
	}
	if got, _, err := changeIn(&raftpb.Entry{Data: b}); err != nil || got != c {
		t.Errorf("%+v, %v", got, err)
	}
	newer := confChange(&c)
	newer.Context[0] = 2
	if b, err = proto.Marshal(newer); err != nil {
		t.Fatal(err)
	}
	if _, _, err := changeIn(&raftpb.Entry{Data: b}); !errors.Is(err, ErrUnknownFormat) || !strings.Contains(err.Error(), "format 2") {
		t.Errorf("of a newer format: %v", err)
	}
}

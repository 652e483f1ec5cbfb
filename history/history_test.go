package history

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

// What is written is read again as it was.
func TestRoundTrip(t *testing.T) {
	for seed := range uint64(max(seedCount(20), 4)) {
		h := simulate(seed, sound)
		var text bytes.Buffer
		n, err := h.WriteTo(&text)
		if err != nil || n != int64(text.Len()) {
			t.Fatalf("wrote %d of %d: %v", n, text.Len(), err)
		}
		if lines := bytes.Count(text.Bytes(), []byte("\n")); lines != len(h.Ops)+1 {
			t.Errorf("%d operations in %d lines", len(h.Ops), lines)
		}
		again, err := Read(&text)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(h, again) {
			t.Fatalf("seed %d: not the same", seed)
		}
	}
}

const head = `{"format":"raftlock-history","version":1}` + "\n"

func TestMalformed(t *testing.T) {
	const good = `{"call":"look","from":1,"to":2,"outcome":"ok"}` + "\n"
	for text, want := range map[string]string{
		"":        "line 1: no header: the line is empty",
		"hello\n": "line 1: no header",
		good:      "line 1: no header",
		`{"format":"raftlock-history","version":2}`:                         "version 2",
		head + good + "\n" + good:                                           "line 3: the line is empty",
		head + good + `{"call":"look","outcome":"ok","x":1}`:                `unknown field "x"`,
		head + `{"call":"look","outcome":"ok"}{}`:                           "something follows",
		head + `{"call":"look"`:                                             "line 2",
		head + `{"call":"jump","outcome":"ok"}`:                             `no call "jump"`,
		head + `{"call":"look","outcome":"fine"}`:                           `no outcome "fine"`,
		head + `{"call":"look","from":2,"to":1,"outcome":"ok"}`:             "from 2 to 1",
		head + `{"call":"look","from":-1,"to":1,"outcome":"ok"}`:            "from -1 to 1",
		head + `{"call":"look","to":1,"outcome":"open"}`:                    "from 0 to 1",
		head + `{"call":"look","to":9e18,"outcome":"ok"}`:                   "line 2",
		head + `{"call":"renew","ttl":-9000000000000000000,"outcome":"ok"}`: "longer than",
		head + `null` + "\n":                                                `no call ""`,
	} {
		_, err := Read(strings.NewReader(text))
		if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	for _, text := range []string{head, head + good, strings.TrimSuffix(head+good, "\n"), strings.ReplaceAll(head+good, "\n", "\r\n")} {
		if _, err := Read(strings.NewReader(text)); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	broken := errors.New("broken")
	if _, err := Read(iotest.ErrReader(broken)); !errors.Is(err, broken) || errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
}

// No bytes are too much for reader and rules, and what they accept survives being
// written.
func FuzzRead(f *testing.F) {
	for seed := range uint64(3) {
		h := simulate(seed, sound)
		h.Ops = h.Ops[:60]
		var text bytes.Buffer
		if _, err := h.WriteTo(&text); err != nil {
			f.Fatal(err)
		}
		f.Add(text.Bytes())
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		h, err := Read(bytes.NewReader(text))
		if err != nil {
			return
		}
		if err := h.Check(Bounds{}).Err(); err != nil && err.Error() == "" {
			t.Error("a violation without words")
		}
		var again bytes.Buffer
		if _, err := h.WriteTo(&again); err != nil {
			t.Fatal(err)
		}
		written := again.String()
		back, err := Read(&again)
		if err != nil {
			t.Fatal(err)
		}
		again.Reset()
		if _, err := back.WriteTo(&again); err != nil || again.String() != written {
			t.Errorf("%q comes back as %q, %v", written, again.String(), err)
		}
	})
}

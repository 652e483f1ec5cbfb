package client

import (
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestNewClientIDIsFreshPerCall(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		id := NewClientID("worker")
		if seen[id] {
			t.Fatalf("%s came twice", id)
		}
		seen[id] = true
		if !strings.HasPrefix(id, "worker-") {
			t.Fatalf("%s does not begin with the prefix", id)
		}
	}
}

func TestClientIDText(t *testing.T) {
	for _, c := range []struct{ name, prefix, host, want string }{
		{"all parts", "billing", "web1", "billing-web1-42-R"},
		{"no prefix", "", "web1", "web1-42-R"},
		{"no host", "billing", "", "billing-42-R"},
		{"neither", "", "", "42-R"},
		{"control characters", "a\nb\x00c\u0085d", "h\t", "abcd-h-42-R"},
		{"broken UTF-8", "a\xffb", "\xc3", "ab-42-R"},
		{"nothing left of the prefix", "\n", "h", "h-42-R"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := joinID(c.prefix, c.host, 42, "R"); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestClientIDFitsTheBounds(t *testing.T) {
	for _, prefix := range []string{strings.Repeat("x", 1000), strings.Repeat("é", 500), "x" + strings.Repeat("日", 500)} {
		checkClientID(t, joinID(prefix, prefix, 1<<31-1, strings.Repeat("R", randomChars)))
	}
}

func FuzzNewClientID(f *testing.F) {
	for _, seed := range []string{"", "worker", "a\xffb", "\u2028", strings.Repeat("日", 60)} {
		f.Add(seed, seed, 1)
	}
	f.Fuzz(func(t *testing.T, prefix, host string, pid int) {
		checkClientID(t, joinID(prefix, host, pid, "R"))
		if id := joinID(prefix, host, pid, "R"); !strings.HasSuffix(id, strconv.Itoa(pid)+"-R") {
			t.Errorf("%q lost its end", id)
		}
	})
}

// checkClientID holds the id to what a cluster takes.
func checkClientID(t *testing.T, id string) {
	t.Helper()
	if len(id) == 0 || len(id) > 256 {
		t.Errorf("%d bytes", len(id))
	}
	if !utf8.ValidString(id) {
		t.Errorf("%q is not UTF-8", id)
	}
	if strings.ContainsFunc(id, unicode.IsControl) {
		t.Errorf("%q has control characters", id)
	}
}

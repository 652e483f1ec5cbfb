// Package input holds the bounds on a caller's input that no configuration
// moves: lengths, text, priorities. Both ends check them, a client before it
// sends and a member whoever sent, and say the same about what is wrong. Bounds
// that a cluster's configuration can move are the members' business alone.
//
// Nothing here depends on anything; it may be called concurrently.
package input

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The bounds, in bytes where they are lengths.
const (
	MaxID      = 256 // lock_id, client_id
	maxRequest = 128
	maxPattern = 1024

	maxPriority = 1000

	MaxEntries = 32
	maxKey     = 64
	MaxValue   = 256
)

// Fault is what is wrong with a field.
type Fault struct {
	Field string // by its name on the wire
	Value string // as Quoted gives it
	Why   string // what the field should be, its name included

	Min, Max string // empty where there are none
}

// ID checks a lock_id or client_id.
func ID(field, id string) *Fault {
	if len(id) < 1 || len(id) > MaxID {
		return OutOfRange(field, id, "1", strconv.Itoa(MaxID))
	}
	return text(field, id)
}

// Request checks a request_id.
func Request(id string) *Fault {
	if len(id) > maxRequest {
		return OutOfRange("request_id", id, "0", strconv.Itoa(maxRequest))
	}
	return text("request_id", id)
}

// Priority checks a priority.
func Priority(p int32) *Fault {
	if p < -maxPriority || p > maxPriority {
		return OutOfRange("priority", strconv.Itoa(int(p)), strconv.Itoa(-maxPriority), strconv.Itoa(maxPriority))
	}
	return nil
}

// Entries checks how many entries metadata has.
func Entries(n int) *Fault {
	if n > MaxEntries {
		return OutOfRange("metadata", strconv.Itoa(n), "0", strconv.Itoa(MaxEntries))
	}
	return nil
}

// Entry checks one entry of metadata.
func Entry(key, value string) *Fault {
	switch {
	case len(key) < 1 || len(key) > maxKey:
		return entryRange("has a key whose length", key, "1", strconv.Itoa(maxKey))
	case len(value) > MaxValue:
		return entryRange("has a value whose length", value, "0", strconv.Itoa(MaxValue))
	case !utf8.ValidString(key) || !utf8.ValidString(value):
		return Bad("metadata", key, "must be UTF-8")
	}
	return nil
}

func entryRange(what, value, low, high string) *Fault {
	f := OutOfRange("metadata", value, low, high)
	f.Why = "metadata " + what + " is not within " + low + " and " + high
	return f
}

// Pattern checks the length of a pattern of a listing.
func Pattern(field, pattern string) *Fault {
	if len(pattern) > maxPattern {
		return OutOfRange(field, pattern, "0", strconv.Itoa(maxPattern))
	}
	return nil
}

// StartAfter checks where a listing begins.
func StartAfter(id string) *Fault {
	if len(id) > MaxID {
		return OutOfRange("start_after", id, "0", strconv.Itoa(MaxID))
	}
	return nil
}

// Count checks a limit or an offset.
func Count(field string, n int32) *Fault {
	if n < 0 {
		return OutOfRange(field, strconv.Itoa(int(n)), "0", "2147483647")
	}
	return nil
}

// Bad is the fault of a field whose value is no number of anything.
func Bad(field, value, why string) *Fault {
	return &Fault{Field: field, Value: Quoted(value), Why: field + " " + why}
}

// OutOfRange is the fault of a field that has bounds.
func OutOfRange(field, value, low, high string) *Fault {
	f := Bad(field, value, "is not within "+low+" and "+high)
	f.Min, f.Max = low, high
	return f
}

func text(field, s string) *Fault {
	if !plain(s) {
		return Bad(field, s, "must be UTF-8 without control characters")
	}
	return nil
}

// plain reports whether s is UTF-8 without control characters. Nearly every id
// is printable ASCII, which the first loop settles.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
		}
	}
	return true
}

// maxQuoted is how many bytes of a bad value are given back.
const maxQuoted = 64

// Quoted is value in Go's quotes, at most maxQuoted bytes of it.
func Quoted(value string) string {
	q := strconv.QuoteToASCII(value)
	if len(q) <= maxQuoted {
		return q
	}
	// The quotes may grow each byte fourfold; cut the value, not the quoting.
	const keep = maxQuoted - len(`""...`)
	cut := 0
	for size := 0; cut < len(value); {
		_, width := utf8.DecodeRuneInString(value[cut:])
		size += len(strconv.QuoteToASCII(value[cut:cut+width])) - len(`""`)
		if size > keep {
			break
		}
		cut += width
	}
	return strconv.QuoteToASCII(value[:cut]) + "..."
}

package client

import (
	"crypto/rand"
	"os"
	"strconv"
	"strings"
	"unicode"
)

// NewClientID may not exceed what a cluster takes for a ClientID, 256 bytes;
// these leave room for the process id and the random part.
const (
	maxPrefixBytes = 128
	maxHostBytes   = 64
	randomChars    = 16 // 80 bits
)

// NewClientID returns a ClientID that no other process has, and no other call
// of this function: the prefix, the host, the process id and 80 random bits,
// joined by dashes. The prefix is for people who look at a lock and wonder who
// holds it. Control characters and broken UTF-8 are taken out of it, and what
// exceeds 128 bytes is cut off; it may be empty.
//
// Call it once when a process starts. An id that is stored and used again
// after a restart would share the locks of a predecessor that may still run.
func NewClientID(prefix string) string {
	host, _ := os.Hostname() // it is for people; the random part makes it unique
	return joinID(prefix, host, os.Getpid(), rand.Text()[:randomChars])
}

func joinID(prefix, host string, pid int, random string) string {
	parts := make([]string, 0, 4)
	for _, part := range []string{printable(prefix, maxPrefixBytes), printable(host, maxHostBytes)} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	return strings.Join(append(parts, strconv.Itoa(pid), random), "-")
}

// printable drops what a ClientID may not contain and keeps at most limit
// bytes of the rest, never a part of a character.
func printable(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "")
}

package testcluster

import (
	"errors"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/pb"
)

// What New and the methods say to a test that uses them wrongly.

// errOver is what the calls of clients return after the end of the test.
var errOver = errors.New("testcluster: the test has ended, and its cluster with it: wait for whatever uses the client before the test returns")

// overError is errOver as the error of a call.
func overError() error {
	return client.NewClientError("call", errors.Join(client.ErrUnavailable, errOver), pb.ErrorCode_UNAVAILABLE, nil)
}

// isOver reports whether the test has ended.
func (c *Cluster) isOver() bool {
	select {
	case <-c.over:
		return true
	default:
		return false
	}
}

// isAlive reports whether a method can be served, and complains if it is called
// after the end of the test.
func (c *Cluster) isAlive(method string) bool {
	c.tb.Helper()
	if !c.isOver() {
		return true
	}
	defer func() { _ = recover() }() // package testing panics when the test is over altogether: then nobody can be told
	c.tb.Errorf("testcluster: %s is called after the end of the test: its cluster is gone", method)
	return false
}

// checkBubble fails a test that gives the t of the test around a bubble to New
// within it: the cleanup would run outside, where it must not touch what the
// bubble has made.
func checkBubble(tb testing.TB) {
	tb.Helper()
	t, ok := tb.(interface{ Deadline() (time.Time, bool) })
	if ok && inBubble() && !ofBubble(t) {
		tb.Fatalf("testcluster: New is called in a synctest bubble with the t of the test around it: " +
			"give it the t that synctest.Test passes to its function")
	}
}

// inBubble reports whether the caller runs in a synctest bubble: package time
// leaves the monotonic reading out there.
func inBubble() bool {
	now := time.Now()
	return now == now.Round(0) //nolint:staticcheck // the monotonic reading is what is asked for
}

// ofBubble reports whether a *testing.T is one that synctest.Test has made: those
// refuse to tell a deadline.
func ofBubble(t interface{ Deadline() (time.Time, bool) }) (yes bool) {
	defer func() { yes = recover() != nil }()
	_, _ = t.Deadline()
	return false
}

// bubbled is a goroutine of a synctest bubble, as package runtime prints it.
type bubbled struct {
	state string // what it waits for
	text  string // the whole print
}

// header is what a goroutine of a bubble starts with when it is printed.
var header = regexp.MustCompile(`^goroutine \d+ \[(.*), (synctest bubble \d+)(?:, [^]]*)?\]:`)

// others returns the goroutines of the caller's bubble, but for the caller and
// those of package testing.
func others() (all []bubbled) {
	prints := make([]byte, 1<<20)
	prints = prints[:runtime.Stack(prints, true)]
	blocks := strings.Split(string(prints), "\n\n")
	own := header.FindStringSubmatch(blocks[0]) // the caller comes first
	if own == nil {
		return nil
	}
	for _, text := range blocks[1:] {
		m := header.FindStringSubmatch(text)
		if m == nil || m[2] != own[2] || strings.Contains(text, "\ntesting/synctest.") || strings.Contains(text, "\ninternal/synctest.") {
			continue
		}
		all = append(all, bubbled{state: m[1], text: text})
	}
	return all
}

// checkSockets fails a test in a bubble in which a goroutine waits for a real
// socket or pipe: virtual time stands still as long as it does, and the test would
// hang until go test ends it.
func checkSockets(tb testing.TB) {
	tb.Helper()
	if !inBubble() {
		return
	}
	for _, g := range others() {
		if strings.HasPrefix(g.state, "IO wait") {
			tb.Fatalf("testcluster: a goroutine of this synctest bubble waits for a real socket or pipe, so that virtual time stands still: "+
				"use a connection in memory (net.Pipe, bufconn, Cluster.Dial), or leave the bubble away\n%s", g.text)
		}
	}
}

// tellLeft names what still waits in a bubble when the test is over and its
// cluster gone. Cleanups that were registered before New may yet end it; what
// nothing ends, package synctest reports as a deadlock, without saying what for.
func tellLeft(tb testing.TB) {
	tb.Helper()
	if !inBubble() {
		return
	}
	var left []string
	for _, g := range others() {
		if strings.Contains(g.state, "(durable)") {
			left = append(left, g.text)
		}
	}
	if len(left) > 0 {
		tb.Logf("testcluster: the test is over, and %d goroutines of its bubble still wait: whatever the test starts must end "+
			"before it returns (release holds, cancel contexts, close clients)\n%s", len(left), strings.Join(left, "\n\n"))
	}
}

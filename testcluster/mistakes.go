package testcluster

import (
	"errors"
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
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.over
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

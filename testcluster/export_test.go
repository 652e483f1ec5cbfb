package testcluster

import (
	"crypto/tls"
	"testing"

	"github.com/raftlock/raftlock/client"
)

// WithTLS is WithGRPC for clients that use TLS.
func WithTLS(server *tls.Config) Option {
	return func(c *Cluster) {
		WithGRPC()(c)
		c.front.tls = server
	}
}

// Unseen is a client of member i that the cleanup does not know of.
func (c *Cluster) Unseen(i int) client.Client {
	if !c.isAlive("Unseen") {
		return nil
	}
	return c.node(i).Client()
}

// KeepDisk returns what puts the disk back that member i has now, after LoseDisk
// and whatever followed: the member starts on it with the next Restart.
func (c *Cluster) KeepDisk(i int) (putBack func()) {
	m := c.roll.list()[i]
	m.mu.Lock()
	defer m.mu.Unlock()
	disk, initial := m.mu.disk, m.mu.initial
	return func() {
		c.crash(i, (*faultyDisk).keep)
		m.mu.Lock()
		defer m.mu.Unlock()
		m.mu.disk, m.mu.initial = disk, initial
	}
}

// Journal is what keeps the members' log.
type Journal = journal

// NewJournal returns an empty one.
func NewJournal() *Journal { return &journal{} }

// Show is show.
func (j *journal) Show(tb testing.TB) { j.show(tb) }

// Logged is what is in the log of a member that is down: how many entries, and the
// term that it knows.
func (c *Cluster) Logged(i int) (entries int, term uint64) {
	c.tb.Helper()
	m := c.roll.list()[i]
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.disk = m.mu.disk.Reopen()
	found, err := m.mu.disk.Load()
	if err != nil {
		c.tb.Fatal(err)
	}
	return len(found.Entries), found.Hard.GetTerm()
}

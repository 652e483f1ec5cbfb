package testcluster

import (
	"crypto/tls"
	"testing"

	"github.com/raftlock/raftlock"
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

// FailDiskWith is FailDisk with an error that the faults do not explain.
func (c *Cluster) FailDiskWith(i int, err error) {
	if !c.isAlive("FailDiskWith") {
		return
	}
	c.roll.list()[i].faults.fail(err)
}

// RestartAlone is Restart of a member that LoseDisk has taken the disk of, and whose
// configuration names nobody else.
func (c *Cluster) RestartAlone(i int) {
	if !c.isAlive("RestartAlone") {
		return
	}
	m := c.roll.list()[i]
	m.mu.Lock()
	m.mu.initial = map[string]string{m.name: m.addr}
	m.mu.Unlock()
	c.start(i)
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

// ErrDiskFails is what ends a member whose disk FailDisk broke.
var ErrDiskFails = errDiskFails

// Running is member i as it runs, nil while it is down; to look at it, and to have
// it change the members, is no fault of the watch's sight.
func (c *Cluster) Running(i int) *raftlock.Node {
	if !c.isAlive("Running") {
		return nil
	}
	return c.running(i)
}

// Enter makes a place on the roll for one more member that is not yet asked for,
// and returns its number, name and address. Restart starts it.
func (c *Cluster) Enter() (i int, name, addr string) {
	if !c.isAlive("Enter") {
		return -1, "", ""
	}
	i = c.roll.enter(c.seed)
	m := c.roll.list()[i]
	return i, m.name, m.addr
}

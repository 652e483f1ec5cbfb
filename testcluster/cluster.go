package testcluster

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/history"
	"github.com/raftlock/raftlock/internal/clock"
	"github.com/raftlock/raftlock/internal/memnet"
)

const (
	// tick makes an election take a fifth of a second outside a bubble.
	tick = 10 * time.Millisecond
	// patience is how long a helper waits for what must come about.
	patience = 30 * time.Second
	// poll is how often it looks.
	poll = 2 * time.Millisecond
	// glance is how long a look at a member may take that could not answer.
	glance = 10 * tick
)

// Cluster is a lock cluster of one test. Its methods may be called
// concurrently; those that wait fail the test when what they wait for does not
// come, and must therefore be called from the test's own goroutine. Members are
// numbered from 0.
type Cluster struct {
	tb      testing.TB
	network *memnet.Network
	limits  raftlock.Limits
	snaps   raftlock.Snapshots
	roll    roll
	front   *front // nil unless WithGRPC
	journal journal
	watch   watch
	seed    uint64        // of the faults
	over    chan struct{} // closed, under mu, when the test has ended

	mu struct {
		sync.Mutex
		released bool           // it wants every lock released by then
		work     sync.WaitGroup // what clients do behind their callers' backs
		clients  []*Client
	}
}

// behind does something beside the test, and before its cleanup ends; it reports
// false, and does nothing, after that.
func (c *Cluster) behind(do func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isOver() {
		return false
	}
	c.mu.work.Go(do)
	return true
}

// adopt has the cleanup see to a client.
func (c *Cluster) adopt(cl *Client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.clients = append(c.mu.clients, cl)
}

// member is one of the cluster's machines.
type member struct {
	name, addr string
	faults     faults
	warp       *clock.Warp

	mu struct {
		sync.Mutex
		disk      *raftlock.MemoryStorage
		hold      *faultyDisk // the running member's
		transport *memnet.Transport
		node      *raftlock.Node    // nil while it is down
		former    *raftlock.Node    // the same, and stays
		initial   map[string]string // its InitialCluster, as of its first start on this disk
		lost      bool              // it has had a disk that LoseDisk took
		removed   bool              // it was down when last looked at, and had been removed before
	}
}

// Option changes what New makes.
type Option func(*Cluster)

// WithLimits gives the members limits of your own.
func WithLimits(limits raftlock.Limits) Option {
	return func(c *Cluster) { c.limits = limits }
}

// WithSnapshots lets the members take snapshots, and cut their logs, by measures of
// your own: kilobytes make both happen within a test.
func WithSnapshots(s raftlock.Snapshots) Option {
	return func(c *Cluster) { c.snaps = s }
}

// New starts a cluster of size members (1 to 9) for the test and returns when
// it has a leader. The test's cleanup compares the members' tables and stops
// them.
func New(tb testing.TB, size int, opts ...Option) *Cluster {
	tb.Helper()
	if size < 1 || size > 9 {
		tb.Fatalf("testcluster: size is %d, must be 1 to 9", size)
	}
	checkBubble(tb)
	checkSockets(tb)
	c := &Cluster{tb: tb, network: memnet.New(), seed: rand.Uint64(), over: make(chan struct{})}
	for _, opt := range opts {
		opt(c)
	}
	c.network.Seed = c.seed
	c.watch.recorder = history.New()
	for range size {
		c.roll.enter(c.seed)
	}
	c.makeDisks()
	tb.Cleanup(c.cleanup)
	for i := range c.roll.list() {
		c.start(i)
	}
	c.Leader()
	return c
}

// makeDisks gives every member a disk on which the cluster is already formed:
// the meeting of empty members takes a while and is not what is tested here.
func (c *Cluster) makeDisks() {
	ids := map[string]raftlock.MemberID{}
	for _, m := range c.roll.list() {
		id := rand.Uint64() >> 1
		ids[m.name] = raftlock.MemberID{NodeID: id, Incarnation: id}
	}
	clusterID := rand.Uint64() >> 1
	for _, m := range c.roll.list() {
		born := raftlock.Identity{Name: m.name, ClusterName: clusterName, Incarnation: ids[m.name].Incarnation}
		formed := born
		formed.ClusterID, formed.Members = clusterID, ids
		started := formed
		started.Started = true
		disk := raftlock.NewMemoryStorage()
		_, err := disk.Load()
		for _, step := range []func() error{
			func() error { return disk.SaveIdentity(born) },
			func() error { return disk.Bootstrap(formed) },
			func() error { return disk.SaveIdentity(started) },
		} {
			if err == nil {
				err = step()
			}
		}
		if err != nil {
			c.tb.Fatalf("testcluster: make disk of %s: %v", m.name, err)
		}
		m.mu.disk = disk
	}
}

const clusterName = "testcluster"

// start starts a member that is down on the disk that it left.
func (c *Cluster) start(i int) {
	c.tb.Helper()
	m := c.roll.list()[i]
	if n := c.running(i); n != nil && hasEnded(n) {
		c.crash(i, (*faultyDisk).keep) // it ended by itself
	}
	present := c.present()
	present[m.name] = m.addr
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.node != nil {
		c.tb.Fatalf("testcluster: member %d runs already", i)
	}
	m.mu.disk = m.mu.disk.Reopen()
	m.mu.hold = newFaultyDisk(m.mu.disk, &m.faults, m.warp.Clock())
	m.mu.transport = c.network.Transport(m.addr)
	if m.mu.initial == nil {
		m.mu.initial = present
	}
	node, err := raftlock.Open(raftlock.Config{
		Name: m.name, ClusterName: clusterName, InitialCluster: m.mu.initial,
		Storage: m.mu.hold, Transport: nic{m.mu.transport, m.mu.hold.process},
		Logger:        slog.New(slog.NewTextHandler(&c.journal, nil)),
		ClientAddress: c.clientAddress(i), TickInterval: tick, Limits: c.limits, Snapshots: c.snaps,
	})
	if err != nil {
		c.tb.Fatalf("testcluster: start member %d: %v", i, err)
	}
	m.mu.node, m.mu.former, m.mu.removed = node, node, false
	if c.front != nil {
		c.front.open(clientAddress(i), node, m.mu.hold.process)
	}
}

// clientAddress is where member i serves clients, "" if it does not.
func (c *Cluster) clientAddress(i int) string {
	if c.front == nil {
		return ""
	}
	return clientAddress(i)
}

// Node returns member i; it fails the test when the member is down.
func (c *Cluster) Node(i int) *raftlock.Node {
	c.tb.Helper()
	if !c.isAlive("Node") {
		return c.roll.list()[i].last()
	}
	c.watch.partial.Store(true) // what the test does with its client, nobody sees
	return c.node(i)
}

// node is Node for this package.
func (c *Cluster) node(i int) *raftlock.Node {
	c.tb.Helper()
	n := c.running(i)
	if n == nil {
		c.tb.Fatalf("testcluster: member %d is down", i)
	}
	return n
}

// last returns the member as it ran last, nil if it never did.
func (m *member) last() *raftlock.Node {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.former
}

// running returns member i, nil when it is down.
func (c *Cluster) running(i int) *raftlock.Node {
	m := c.roll.list()[i]
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.node
}

// Leader waits for a leader that a majority follows and returns its number.
func (c *Cluster) Leader() int {
	c.tb.Helper()
	if !c.isAlive("Leader") {
		return -1
	}
	leader := -1
	c.wait("a leader", func() bool {
		leader = c.leader()
		return leader >= 0
	})
	return leader
}

// leader returns the member that leads by its own word and that of a majority.
func (c *Cluster) leader() int {
	follows := map[string]string{}
	for i, m := range c.roll.list() {
		if n := c.awake(i); n != nil {
			follows[m.name], _ = n.Leader()
		}
	}
	for i, m := range c.roll.list() {
		n := c.awake(i)
		if n != nil && n.IsLeader() && isReady(n) && c.elected(n, m.name, follows) {
			return i
		}
	}
	return -1
}

// elected reports whether most of those who vote follow node n, which says so.
func (c *Cluster) elected(n *raftlock.Node, name string, follows map[string]string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), glance)
	defer cancel()
	members, err := n.Members(ctx)
	voters, votes := 0, 0
	for _, m := range members {
		if m.Voter {
			voters++
		}
		if m.Voter && follows[m.Name] == name {
			votes++
		}
	}
	return err == nil && votes > voters/2
}

// belong counts the members that have not been removed.
func (c *Cluster) belong() int { return len(c.present()) }

// wasRemoved reports whether member i has ended because it was removed.
func (c *Cluster) wasRemoved(i int) bool {
	m := c.roll.list()[i]
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := m.mu.node; n != nil {
		return endedWith(n, raftlock.ErrRemoved)
	}
	return m.mu.removed
}

func endedWith(n *raftlock.Node, err error) bool { return hasEnded(n) && errors.Is(n.Err(), err) }

func isReady(n *raftlock.Node) bool {
	select {
	case <-n.Ready():
		return true
	default:
		return false
	}
}

// wait waits until holds does, and fails the test if it never does.
func (c *Cluster) wait(what string, holds func() bool) {
	c.tb.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	for !holds() {
		select {
		case <-ticker.C:
		case <-limit.C:
			c.tb.Fatalf("testcluster: no %s within %v", what, patience)
		}
	}
}

// Crash stops member i as a power cut would: nobody is told, nothing is handed
// over; its disk keeps what was durable.
func (c *Cluster) Crash(i int) {
	c.tb.Helper()
	if !c.isAlive("Crash") {
		return
	}
	if !c.crash(i, (*faultyDisk).keep) {
		c.tb.Fatalf("testcluster: member %d is down already", i)
	}
}

// checkEnd fails the test if a member ends by itself and nothing explains it that
// the test has done: a panic, above all, is recovered into Err.
func (c *Cluster) checkEnd(name string, n *raftlock.Node, lost bool) {
	c.tb.Helper()
	if err := n.Err(); err != nil && !explained(err, lost) { // it may be unable to let go of its disk, and never be done
		c.tb.Errorf("testcluster: member %s has ended by itself: %v", name, err)
	}
}

// explained reports whether FailDisk, LoseDisk or RemoveMember ends members so.
func explained(err error, lost bool) bool {
	return errors.Is(err, errDiskFails) || errors.Is(err, raftlock.ErrRemoved) || lost && errors.Is(err, raftlock.ErrDiskLost)
}

// crash stops a member; take leaves its disk as it will find it.
func (c *Cluster) crash(i int, take func(*faultyDisk) *raftlock.MemoryStorage) bool {
	m := c.roll.list()[i]
	m.mu.Lock()
	node, transport := m.mu.node, m.mu.transport
	m.mu.node = nil
	if node != nil {
		c.checkEnd(m.name, node, m.mu.lost)
		m.mu.removed = endedWith(node, raftlock.ErrRemoved)
		m.mu.disk = take(m.mu.hold) // from now on the old member writes nothing
		m.mu.hold.pull()            // and sends nothing
	}
	m.mu.Unlock()
	if node == nil {
		return false
	}
	if c.front != nil {
		defer c.front.shut(clientAddress(i)).stop()
	}
	m.warp.Resume()       // so that it can end
	_ = transport.Close() // the network in memory has no error to tell
	_ = node.Close()      // what the disk says to a member that has lost it is no news
	return true
}

// CrashLeader crashes the leader and returns its number.
func (c *Cluster) CrashLeader() int {
	c.tb.Helper()
	if !c.isAlive("CrashLeader") {
		return -1
	}
	i := c.Leader()
	c.Crash(i)
	return i
}

// Restart starts member i, which is down, again with the disk that it had. It
// does not wait for it.
func (c *Cluster) Restart(i int) {
	c.tb.Helper()
	if !c.isAlive("Restart") {
		return
	}
	c.start(i)
}

// Isolate cuts member i off from all others, until Heal.
func (c *Cluster) Isolate(i int) {
	if !c.isAlive("Isolate") {
		return
	}
	c.network.Isolate(c.roll.list()[i].addr)
}

// Partition cuts the members into groups that do not reach each other, until
// Heal. A member that is in no group is alone.
func (c *Cluster) Partition(groups ...[]int) {
	if !c.isAlive("Partition") {
		return
	}
	var addrs [][]string
	for _, m := range c.roll.list() {
		addrs = append(addrs, []string{m.addr})
	}
	for _, group := range groups {
		var names []string
		for _, i := range group {
			names = append(names, c.roll.list()[i].addr)
		}
		addrs = append(addrs, names)
	}
	c.network.Partition(addrs...)
}

// Heal ends all faults of the network. What is under way arrives when it would
// have.
func (c *Cluster) Heal() {
	if !c.isAlive("Heal") {
		return
	}
	c.network.Heal()
}

// cleanup compares the members' tables and stops them.
func (c *Cluster) cleanup() {
	c.tb.Helper()
	defer c.tellSeed()
	c.Heal()
	for i := range c.roll.list() {
		c.MendDisk(i)
		c.SkewRate(i, 0)
		c.Resume(i)
	}
	defer c.journal.show(c.tb)
	defer tellLeft(c.tb)
	defer c.end()
	c.mu.Lock()
	clients := c.mu.clients
	c.mu.Unlock()
	for _, cl := range clients {
		cl.machine.free()
	}
	if !c.tb.Failed() {
		c.compare()
		c.checkReleased()
		c.judge()
	}
}

// end ends whatever runs for the test, and waits for it.
func (c *Cluster) end() {
	c.mu.Lock()
	close(c.over)
	clients := c.mu.clients
	c.mu.Unlock()
	for _, cl := range clients {
		cl.machine.free()
		if cl.remote != nil {
			_ = cl.remote.Close() // always nil
		}
	}
	for i := range c.roll.list() {
		c.crash(i, (*faultyDisk).keep)
	}
	c.mu.work.Wait()
}

// compare waits until all running members stand at one index, and compares
// their tables there.
func (c *Cluster) compare() {
	c.tb.Helper()
	if c.countRunning() <= c.belong()/2 && !c.serves() {
		return // no quorum: they need not have the same log
	}
	var hashes map[string]uint64
	c.wait("common index of all members", func() bool {
		var same bool
		hashes, same = c.hashes()
		return same
	})
	first, set := uint64(0), false
	for _, m := range c.roll.list() {
		hash, ok := hashes[m.name]
		if ok && set && hash != first {
			c.tb.Errorf("testcluster: the lock tables differ: %x", hashes)
			return
		}
		if ok {
			first, set = hash, true
		}
	}
}

// serves reports whether a member can speak for a majority: some of those that
// are down may belong to the cluster no more.
func (c *Cluster) serves() bool {
	for i := range c.roll.list() {
		n := c.running(i)
		if n == nil || hasEnded(n) {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), glance)
		_, err := n.Members(ctx)
		cancel()
		if err == nil {
			return true
		}
	}
	return false
}

func (c *Cluster) countRunning() (n int) {
	for i := range c.roll.list() {
		if node := c.running(i); node != nil && !c.hasGone(i, node) {
			n++
		}
	}
	return n
}

// hasGone reports whether a member has ended because FailDisk broke its disk,
// LoseDisk took it, or it was removed.
func (c *Cluster) hasGone(i int, n *raftlock.Node) bool {
	m := c.roll.list()[i]
	m.mu.Lock()
	lost := m.mu.lost
	m.mu.Unlock()
	return hasEnded(n) && explained(n.Err(), lost)
}

// hashes reads the running members' hashes and whether they are of one index.
func (c *Cluster) hashes() (map[string]uint64, bool) {
	hashes := map[string]uint64{}
	var common uint64
	for i, m := range c.roll.list() {
		n := c.running(i)
		if n == nil || c.hasGone(i, n) {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), glance)
		index, hash, err := n.StateHash(ctx)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			return nil, false // it has not found the others yet
		}
		if errors.Is(err, raftlock.ErrClosed) {
			<-n.Done()
			if c.hasGone(i, n) {
				continue // it has heard just now
			}
		}
		if err != nil {
			c.tb.Errorf("testcluster: member %d has failed: %v, %v", i, err, n.Err())
			return nil, true
		}
		if common != 0 && index != common {
			return nil, false
		}
		common, hashes[m.name] = index, hash
	}
	return hashes, true
}

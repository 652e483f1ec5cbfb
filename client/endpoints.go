package client

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/connectivity"

	"github.com/raftlock/raftlock/internal/clock"
)

// endpoints are all places where the cluster may be met, and what answers have
// told about it: its id, its leader.
type endpoints struct {
	cfg   *Config
	tap   *wiretap
	clock clock.Clock
	begun time.Time
	hosts *hosts

	mu struct {
		sync.Mutex
		list    []*endpoint
		leader  string // as last heard, a name; "" when unknown
		cluster string // the id that is pinned; "" before the first answer
		teacher string // the endpoint that told it
		closed  bool
		gone    []*endpoint // to be closed when the lock is given back
	}
}

const (
	// wakeInterval is how often at most a dead endpoint's reconnecting is hurried.
	wakeInterval = 100 * time.Millisecond
	// suspicion is how long an endpoint comes last that let a call run out of
	// time, or said that it cannot serve: one that is cut off from the others
	// keeps each call for seconds.
	suspicion = 10 * time.Second
)

// newEndpoints makes the endpoints of a configuration. Each name is one endpoint
// until it has been looked up.
func newEndpoints(cfg *Config, tap *wiretap, lookup lookupFunc) (*endpoints, error) {
	p := &endpoints{cfg: cfg, tap: tap}
	p.begun = p.clock.Now()
	p.hosts = newHosts(cfg.Endpoints, lookup)
	for _, name := range cfg.Endpoints {
		if slices.ContainsFunc(p.mu.list, func(e *endpoint) bool { return e.name == name }) {
			continue
		}
		e, err := newEndpoint(cfg, tap, name, name)
		if err != nil {
			p.close()
			return nil, err
		}
		p.mu.list = append(p.mu.list, e)
	}
	return p, nil
}

// choose returns the endpoints in the order in which a call should try them. It
// waits, no longer than ctx and the time of one attempt to connect, until one of
// them is connected or none can be. With itself set only configured endpoints
// count, the leader like any other.
func (p *endpoints) choose(ctx context.Context, l lane, itself, again bool) []*endpoint {
	p.hosts.lookUp(ctx, p.clock, p.cfg.DialTimeout, again, p.spread)
	list := p.snapshot()
	for _, e := range list {
		e.connect()
	}
	if !slices.ContainsFunc(list, func(e *endpoint) bool { return e.ready(l) }) {
		p.settle(ctx, list, l)
	}
	leader := p.leader()
	if itself {
		leader = ""
		list = slices.DeleteFunc(list, func(e *endpoint) bool { return !p.hosts.configured(e.name) })
	}
	p.rank(list, l, leader)
	return list
}

func (p *endpoints) snapshot() []*endpoint {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.mu.list)
}

// settle waits until one of the list is connected, or all have failed to.
func (p *endpoints) settle(ctx context.Context, list []*endpoint, l lane) {
	ctx, cancel := p.clock.WithTimeout(ctx, p.cfg.DialTimeout)
	defer cancel()
	for ctx.Err() == nil {
		var watched sync.WaitGroup
		round, stop := context.WithCancel(ctx)
		waiting := false
		for _, e := range list {
			state := e.conn(l).GetState()
			if state == connectivity.Ready {
				waiting = false
				break
			}
			if state == connectivity.Idle || state == connectivity.Connecting {
				waiting = true
				watched.Go(func() {
					e.conn(l).WaitForStateChange(round, state)
					stop()
				})
			}
		}
		if waiting {
			<-round.Done()
		}
		stop()
		watched.Wait()
		if !waiting {
			return
		}
	}
}

// rank sorts the list: who is connected before who is not, the leader first
// among equals, then as configured.
func (p *endpoints) rank(list []*endpoint, l lane, leader string) {
	now := p.since()
	ranks := make(map[*endpoint]int, len(list))
	for _, e := range list {
		rank := 2
		switch e.conn(l).GetState() {
		case connectivity.Ready:
			rank = 0
		case connectivity.TransientFailure, connectivity.Shutdown:
			rank = 4
		}
		if e.name != leader {
			rank++
		}
		if now < e.suspectUntil.Load() {
			rank += 10
		}
		if e.alien.Load() {
			rank += 20
		}
		ranks[e] = rank
	}
	slices.SortStableFunc(list, func(a, b *endpoint) int { return cmp.Compare(ranks[a], ranks[b]) })
}

// hurry has endpoints that are down try again to connect, instead of waiting for
// their turn: a call is about to repeat itself.
func (p *endpoints) hurry() {
	now := p.since()
	for _, e := range p.snapshot() {
		last := e.woken.Load()
		if now-last < int64(wakeInterval) || !e.woken.CompareAndSwap(last, now) {
			continue
		}
		for _, conn := range e.conns {
			if conn.GetState() == connectivity.TransientFailure {
				conn.ResetConnectBackoff()
			}
		}
	}
}

// suspect has an endpoint come last for a while.
func (p *endpoints) suspect(e *endpoint) { e.suspectUntil.Store(p.since() + int64(suspicion)) }

// since is the time since the client was made, never 0.
func (p *endpoints) since() int64 { return int64(p.clock.Now().Sub(p.begun)) + int64(wakeInterval) }

// use holds an endpoint open for an attempt; done lets go of it. It reports
// false when the endpoint is closed.
func (p *endpoints) use(e *endpoint) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.closed || e.retired && e.users == 0 {
		return false
	}
	e.users++
	return true
}

func (p *endpoints) done(e *endpoint) {
	p.mu.Lock()
	e.users--
	last := e.retired && e.users == 0
	p.mu.Unlock()
	if last {
		e.close()
	}
}

// heard takes in what the headers of an answer say, and reports why the answer
// must not be believed, "" if nothing speaks against it.
func (p *endpoints) heard(e *endpoint, cluster, leader string) string {
	p.mu.Lock()
	defer p.unlock()
	if cluster != "" && p.mu.cluster == "" {
		p.mu.cluster, p.mu.teacher = cluster, e.label()
	}
	alien := cluster != "" && cluster != p.mu.cluster
	e.alien.Store(alien)
	if alien {
		return fmt.Sprintf("it belongs to cluster %q, this client to cluster %q (told by %s)", printable(cluster, maxShown), p.mu.cluster, p.mu.teacher)
	}
	e.suspectUntil.Store(0)
	if leader != "" && leader != p.mu.leader && faultOfAddress(leader) == "" {
		p.follow(leader)
	}
	return ""
}

// maxShown is how much of what a server says goes into an error.
const maxShown = 256

// at returns the endpoints of an address that an answer has named, and makes one
// if there is none.
func (p *endpoints) at(address string) []*endpoint {
	p.mu.Lock()
	defer p.unlock()
	if p.mu.closed || faultOfAddress(address) != "" {
		return nil
	}
	p.follow(address)
	var found []*endpoint
	for _, e := range p.mu.list {
		if e.name == address {
			found = append(found, e)
		}
	}
	return found
}

// follow notes a new leader. One that was not configured gets an endpoint, and
// the one before it, if that was not configured either, goes. p.mu is held.
func (p *endpoints) follow(leader string) {
	p.mu.leader = leader
	if p.mu.closed {
		return
	}
	known := false
	var kept, gone []*endpoint
	for _, e := range p.mu.list {
		if e.name == leader {
			known = true
			e.suspectUntil.Store(0) // whatever it was, it leads now
		}
		if e.name == leader || p.hosts.configured(e.name) {
			kept = append(kept, e)
		} else {
			gone = append(gone, e)
		}
	}
	if !known {
		e, err := newEndpoint(p.cfg, p.tap, leader, leader)
		if err != nil {
			return // the options fit the other addresses: it cannot but fit
		}
		kept = append(kept, e)
		e.connect()
	}
	p.mu.list = kept
	p.retire(gone)
}

// retire has unlock close endpoints that nobody uses; the others are closed when
// their last attempt is over. p.mu is held.
func (p *endpoints) retire(gone []*endpoint) {
	for _, e := range gone {
		e.retired = true
		if e.users == 0 {
			p.mu.gone = append(p.mu.gone, e)
		}
	}
}

// unlock gives p.mu back and closes what was retired under it. gRPC may take
// seconds to close a connection whose other side reads nothing, and every call
// needs the lock.
func (p *endpoints) unlock() {
	gone := p.mu.gone
	p.mu.gone = nil
	p.mu.Unlock()
	closeAll(gone)
}

// closeAll closes endpoints side by side and waits until all are closed.
func closeAll(list []*endpoint) {
	var closing sync.WaitGroup
	for _, e := range list {
		closing.Go(e.close)
	}
	closing.Wait()
}

// spread replaces the endpoints of a name by one for each address behind it.
func (p *endpoints) spread(name string, addrs []string) {
	p.mu.Lock()
	defer p.unlock()
	if p.mu.closed {
		return
	}
	place := slices.IndexFunc(p.mu.list, func(e *endpoint) bool { return e.name == name })
	old := map[string]*endpoint{}
	p.mu.list = slices.DeleteFunc(slices.Clone(p.mu.list), func(e *endpoint) bool {
		if e.name == name {
			old[e.addr] = e
		}
		return e.name == name
	})
	var now []*endpoint
	for _, addr := range addrs {
		e, err := old[addr], error(nil)
		if e == nil {
			e, err = newEndpoint(p.cfg, p.tap, name, addr)
		}
		if err == nil { // the options fit the name itself: an address cannot but fit
			now = append(now, e)
		}
		delete(old, addr)
	}
	p.mu.list = slices.Insert(p.mu.list, max(place, 0), now...)
	p.retire(slices.Collect(maps.Values(old)))
}

func (p *endpoints) leader() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.leader
}

// connected reports whether any endpoint is connected.
func (p *endpoints) connected() bool {
	return slices.ContainsFunc(p.snapshot(), func(e *endpoint) bool { return e.ready(laneCalls) })
}

// close closes all connections, also those that are in use.
func (p *endpoints) close() {
	p.mu.Lock()
	list := p.mu.list
	p.mu.list, p.mu.closed = nil, true
	p.mu.Unlock()
	closeAll(list)
}

// label names an endpoint in an error.
func (e *endpoint) label() string {
	if e.addr == e.name {
		return e.name
	}
	return e.name + " (" + e.addr + ")"
}

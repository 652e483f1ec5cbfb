package memnet

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"syscall"
	"time"
)

// DefaultStallTimeout is how long a stream on a cut link stays silent before
// both its ends learn that it is broken. Keepalive on a real connection takes
// about as long.
const DefaultStallTimeout = 3 * time.Second

// Network connects the transports of one test. All methods may be called
// concurrently and none of them blocks.
type Network struct {
	// StallTimeout is how long after a cut the streams on the link break.
	// Zero means DefaultStallTimeout. Set it before the first cut.
	StallTimeout time.Duration
	// Seed decides what becomes of frames in foul weather. Set it before the
	// first stream is dialled.
	Seed uint64

	mu struct {
		sync.Mutex
		topology topology
		skies    map[link]*sky
		// listeners holds who serves at which address.
		listeners map[string]*Transport
		// wires holds every stream of which an end may still learn
		// something, by the order of dialling.
		wires    map[uint64]*wire
		lastWire uint64
		// changed is closed, and replaced, whenever links change: it wakes
		// the dials that hang on one.
		changed chan struct{}
	}
}

// New returns a network without members and without faults.
func New() *Network {
	n := &Network{}
	n.mu.topology.heal()
	n.mu.skies = make(map[link]*sky)
	n.mu.listeners = make(map[string]*Transport)
	n.mu.wires = make(map[uint64]*wire)
	n.mu.changed = make(chan struct{})
	return n
}

// Transport returns a machine of its own at addr: its dials come from there,
// and its Serve listens there. Any number may share an address, but only one
// can serve at a time; the next may once that one is closed.
func (n *Network) Transport(addr string) *Transport {
	return &Transport{network: n, addr: addr, done: make(chan struct{})}
}

// Cut loses everything that is sent from one address to another, in that
// direction only. Dialling needs both directions.
func (n *Network) Cut(from, to string) {
	n.change(func(t *topology) { t.cuts[link{from, to}] = true })
}

// Mend undoes Cut of the same direction.
func (n *Network) Mend(from, to string) {
	n.change(func(t *topology) { delete(t.cuts, link{from, to}) })
}

// Isolate cuts addr off from every other address, also from those that appear
// later, in both directions.
func (n *Network) Isolate(addr string) {
	n.change(func(t *topology) { t.isolated[addr] = true })
}

// Rejoin undoes Isolate.
func (n *Network) Rejoin(addr string) {
	n.change(func(t *topology) { delete(t.isolated, addr) })
}

// Partition lets an address of one group reach only those of its groups. An
// address that is in no group still reaches all; one in two groups bridges
// them. A later Partition takes the place of this one; without groups it ends
// it.
func (n *Network) Partition(groups ...[]string) {
	kept := make([][]string, len(groups))
	for i, group := range groups {
		kept[i] = slices.Clone(group)
	}
	n.change(func(t *topology) { t.groups = kept })
}

// SetWeather changes what befalls the frames that are sent from one address to
// another from now on, in that direction only.
func (n *Network) SetWeather(from, to string, w Weather) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sky(link{from, to}).set(w)
}

// Weather returns what SetWeather has set.
func (n *Network) Weather(from, to string) Weather {
	n.mu.Lock()
	defer n.mu.Unlock()
	if w := n.sky(link{from, to}).weather.Load(); w != nil {
		return *w
	}
	return Weather{}
}

// sky is the one over a link. Caller holds mu.
func (n *Network) sky(l link) *sky {
	s := n.mu.skies[l]
	if s == nil {
		s = newSky(n.Seed, l)
		n.mu.skies[l] = s
	}
	return s
}

// roundTrip is how long it takes to open a stream.
func (n *Network) roundTrip(from, to string) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	there := link{from, to}
	return n.sky(there).crossing() + n.sky(there.back()).crossing()
}

// Heal undoes every Cut, Isolate and Partition, and lets the weather be fair
// everywhere. What is under way arrives when it would have.
func (n *Network) Heal() {
	n.mu.Lock()
	for _, s := range n.mu.skies {
		s.set(Weather{})
	}
	n.mu.Unlock()
	n.change((*topology).heal)
}

// change edits the links, then lets the streams and the hanging dials feel it.
func (n *Network) change(edit func(*topology)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	edit(&n.mu.topology)
	for _, id := range slices.Sorted(maps.Keys(n.mu.wires)) {
		n.reroute(n.mu.wires[id])
	}
	close(n.mu.changed)
	n.mu.changed = make(chan struct{})
}

// reroute brings a stream into line with the links: it stalls in a direction
// that is newly cut, and breaks when a direction is mended in which it may
// have lost something. Caller holds mu.
func (n *Network) reroute(w *wire) {
	for _, end := range w.ends {
		cut := n.mu.topology.cut(end.link())
		switch {
		case cut && !end.stalled:
			end.stalled = true
			end.out.stall()
			n.expect(w)
		case !cut && end.stalled:
			n.breakWire(w, errors.New("the link was cut"))
			return
		}
	}
}

// expect starts the clock of a stream's first stall. Caller holds mu.
func (n *Network) expect(w *wire) {
	if w.timer != nil {
		return
	}
	timeout := n.StallTimeout
	if timeout == 0 {
		timeout = DefaultStallTimeout
	}
	w.timer = time.AfterFunc(timeout, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.breakWire(w, fmt.Errorf("no answer for %v: %w", timeout, syscall.ETIMEDOUT))
	})
}

// breakWire tells both ends and forgets the stream. Caller holds mu.
func (n *Network) breakWire(w *wire, cause error) {
	for _, end := range w.ends {
		end.fail(cause)
	}
	n.forget(w)
}

// hangUp ends a stream at one end. The other end learns of it, unless the
// news is lost on the way: then what stalled the stream breaks it later.
func (n *Network) hangUp(end *stream) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hangUpLocked(end)
}

func (n *Network) hangUpLocked(end *stream) {
	end.close()
	if end.stalled || end.parted {
		return
	}
	end.out.delayEnd(end.sky.crossing())
	end.other.fail(errors.New("closed by the peer"))
	n.forget(end.wire)
}

// lose breaks a stream of which a frame got lost. On a cut link that shows later.
func (n *Network) lose(end *stream) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !end.stalled {
		n.breakWire(end.wire, errors.New("a frame was lost"))
	}
}

// part breaks a stream for the end that sends. To the other one arrives what is
// under way, late, and then the end.
func (n *Network) part(end *stream, late time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case end.stalled || end.parted:
	case end.other.parted:
		n.breakWire(end.wire, errParted)
	default:
		end.parted = true
		end.out.hold(late)
		end.out.endRecv(errParted)
		end.fail(errParted)
	}
}

// errParted is what both ends are told, one of them later.
var errParted = errors.New("the stream broke")

// forget drops a stream of which both ends know that it is over. Caller holds
// mu.
func (n *Network) forget(w *wire) {
	if w.timer != nil {
		w.timer.Stop()
	}
	delete(n.mu.wires, w.id)
}

// connect opens a stream, or returns a channel that closes when it is worth
// another try.
func (n *Network) connect(from *Transport, to string) (*stream, <-chan struct{}, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	there := link{from.addr, to}
	switch target := n.mu.listeners[to]; {
	case from.closed:
		return nil, nil, errClosed
	case n.mu.topology.cut(there) || n.mu.topology.cut(there.back()):
		return nil, n.mu.changed, nil
	case target == nil:
		return nil, nil, syscall.ECONNREFUSED
	default:
		n.mu.lastWire++
		w := newWire(n.mu.lastWire, from, target, n.sky(there), n.sky(there.back()))
		n.mu.wires[w.id] = w
		// Under mu, so that it cannot race with the wait in target's Close.
		target.acceptors.Go(func() { target.receive(w.ends[1]) })
		return w.ends[0], nil, nil
	}
}

// listen gives t its address.
func (n *Network) listen(t *Transport, accept acceptFunc) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case t.closed:
		return errClosed
	case t.accept != nil:
		return errors.New("already serving")
	case n.mu.listeners[t.addr] != nil:
		return syscall.EADDRINUSE
	}
	t.accept = accept
	n.mu.listeners[t.addr] = t
	return nil
}

// remove takes t off the network and hangs up its streams.
func (n *Network) remove(t *Transport) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if t.closed {
		return
	}
	t.closed = true
	close(t.done)
	if n.mu.listeners[t.addr] == t {
		delete(n.mu.listeners, t.addr)
	}
	for _, id := range slices.Sorted(maps.Keys(n.mu.wires)) {
		for _, end := range n.mu.wires[id].ends {
			if end.owner == t {
				n.hangUpLocked(end)
			}
		}
	}
}

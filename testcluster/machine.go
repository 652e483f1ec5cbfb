package testcluster

import (
	"context"
	"sync"
	"time"

	"github.com/raftlock/raftlock/internal/callctx"
	"github.com/raftlock/raftlock/internal/clock"
	"github.com/raftlock/raftlock/internal/memnet"
)

const (
	// stall is how long a cut line stays silent before both its ends take it for
	// broken, as on the members' network.
	stall = memnet.DefaultStallTimeout
	// unanswered is how long a member keeps the line of a machine that answers
	// nothing: a ping, and the patience with it.
	unanswered = 15 * time.Second
)

// Cut cuts the client's machine off, until Mend: what it sends does not arrive,
// and what is sent to it does not either. Like a real network it says nothing. A
// call that is under way may be applied; its answer is lost. For 3 s more calls
// go into the dead connection: they are not applied, but their caller cannot know
// (client.ErrOutcomeUnknown, around client.ErrUnavailable). Then both sides take
// the connection for broken, and a member lets go of what waited over it; from
// now on calls try to connect, for 5 s at a time, and when the retry policy
// allows no more attempts they end with client.ErrUnavailable, nothing proposed.
// A context that ends comes first, as ever.
//
// What is held through the client cannot be renewed: client.Hold and its kin end
// before the cluster may grant the lock to another.
func (c *Client) Cut() {
	if c.cluster.isAlive("Client.Cut") {
		c.machine.cut()
	}
}

// Mend ends what Cut and DropAnswers did. Calls that lost their connection make
// their next attempt, with the same identity.
func (c *Client) Mend() {
	if c.cluster.isAlive("Client.Mend") {
		c.machine.mend()
	}
}

// DropAnswers loses every answer to the client, until Mend: its calls are applied,
// and their connection breaks before it hears of it. A call that changes
// something ends, after the attempts of the retry policy, with
// client.ErrOutcomeUnknown around client.ErrUnavailable, one that reads with
// client.ErrUnavailable alone.
func (c *Client) DropAnswers() {
	if c.cluster.isAlive("Client.DropAnswers") {
		c.machine.drop(true)
	}
}

// Pause stops the client's machine as SIGSTOP stops a process and a hypervisor a
// machine, until Resume or Wake. Its clock stands still: no renewal is made, no
// hold ends. Calls neither begin nor return, whatever becomes of their contexts. The
// cluster's time goes on. After 15 s a member takes the connection for broken
// and lets go of what waited over it.
//
// The code of the test and of the service runs on, and is what a real machine
// would not run: until Resume, it believes in every lock that it held.
func (c *Client) Pause() {
	if c.cluster.isAlive("Client.Pause") {
		c.cluster.watch.partial.Store(true) // its ends are not what it believes
		c.machine.pause()
	}
}

// Resume ends a pause as SIGCONT does: the time has passed for the machine, too,
// and what was due meanwhile happens at once. A hold whose time was over in the
// pause ends now, with client.ErrLockLost.
func (c *Client) Resume() {
	if c.cluster.isAlive("Client.Resume") {
		c.machine.resume((*clock.Warp).Resume)
	}
}

// Wake ends a pause as a suspended machine wakes up: its monotonic clock has
// stood still, so that timers fire as much later. Holds end all the same, since
// they count the time that the machine has slept.
func (c *Client) Wake() {
	if c.cluster.isAlive("Client.Wake") {
		c.machine.resume((*clock.Warp).Wake)
	}
}

// SkewRate lets the client's clock gain ppm microseconds in each second from now
// on, or lose them if it is negative. What is held through the client counts by
// that clock; real machines keep within 500.
func (c *Client) SkewRate(ppm float64) {
	if c.cluster.isAlive("Client.SkewRate") {
		c.cluster.watch.skewed(ppm)
		c.machine.warp.SkewRate(ppm)
	}
}

// machine is where a client runs: its clock, and its way to the cluster.
type machine struct {
	warp *clock.Warp

	mu struct {
		sync.Mutex
		line    *line         // to the cluster; a new one when it has broken
		mended  chan struct{} // nil while the network is whole; closed by mend
		resumed chan struct{} // nil while the machine runs; closed by resume
		silence *time.Timer   // breaks the line of a machine that is paused
		drops   bool          // answers are lost
	}
}

func newMachine() *machine {
	m := &machine{warp: clock.NewWarp()}
	m.mu.line = newLine()
	return m
}

func (m *machine) cut() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.mended == nil {
		m.mu.mended = make(chan struct{})
		m.mu.line.cut()
	}
}

// mend gives the machine a new line: one that may have lost something never
// comes back.
func (m *machine) mend() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.drops = false
	if m.mu.mended != nil {
		m.mu.line.end()
		m.mu.line = newLine()
		close(m.mu.mended)
		m.mu.mended = nil
	}
}

func (m *machine) drop(drops bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.drops = drops
}

func (m *machine) dropsAnswers() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.drops
}

func (m *machine) pause() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.resumed == nil {
		m.mu.resumed = make(chan struct{})
		l := m.mu.line
		m.mu.silence = time.AfterFunc(unanswered, l.end)
		m.warp.Pause()
	}
}

func (m *machine) resume(clock func(*clock.Warp)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.resumed == nil {
		return
	}
	m.mu.silence.Stop()
	if m.mu.mended == nil && m.mu.line.isBroken() {
		m.mu.line = newLine()
	}
	clock(m.warp)
	close(m.mu.resumed)
	m.mu.resumed = nil
}

// free ends all that the machine suffers, for the end of the test.
func (m *machine) free() {
	m.mend()
	m.resume((*clock.Warp).Resume)
}

// stand returns when the machine is not paused: its code does not run before.
func (m *machine) stand() {
	for resumed := m.paused(); resumed != nil; resumed = m.paused() {
		<-resumed
	}
}

// paused returns what is closed when the machine runs again, nil while it does.
func (m *machine) paused() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.resumed
}

// way returns the machine's line, and what is closed when the next one stands,
// nil if this one can be used.
func (m *machine) way() (*line, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.line.isBroken() {
		return m.mu.line, m.mu.mended
	}
	return m.mu.line, nil
}

// open is way for something new: it reports what is to be waited for while nothing
// comes through.
func (m *machine) open() (*line, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.resumed != nil {
		return m.mu.line, m.mu.resumed
	}
	return m.mu.line, m.mu.mended
}

// line is a machine's connections to the cluster, all in one: a fault of the
// machine is all that breaks them.
type line struct {
	dead   chan struct{} // closed when nothing comes through any more
	broken chan struct{} // closed when both sides know

	mu struct {
		sync.Mutex
		timer  *time.Timer // from the cut to the break
		onEnd  map[uint64]func()
		lastID uint64
	}
}

func newLine() *line {
	l := &line{dead: make(chan struct{}), broken: make(chan struct{})}
	l.mu.onEnd = map[uint64]func(){}
	return l
}

// cut lets nothing through any more. The machine calls it once, under its mutex.
func (l *line) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !isClosed(l.dead) {
		close(l.dead)
		l.mu.timer = time.AfterFunc(stall, l.end)
	}
}

// end breaks the line, and what stands on it.
func (l *line) end() {
	l.mu.Lock()
	if l.isBroken() {
		l.mu.Unlock()
		return
	}
	if !isClosed(l.dead) {
		close(l.dead)
	}
	if l.mu.timer != nil {
		l.mu.timer.Stop()
	}
	close(l.broken)
	ends := l.mu.onEnd
	l.mu.onEnd = nil
	l.mu.Unlock()
	for _, end := range ends {
		end()
	}
}

// attach has end called when the line breaks, at once if it has broken, unless
// detach is called before. end must not block.
func (l *line) attach(end func()) (detach func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isBroken() {
		end()
		return func() {}
	}
	l.mu.lastID++
	id := l.mu.lastID
	l.mu.onEnd[id] = end
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.mu.onEnd, id)
	}
}

func (l *line) isDead() bool   { return isClosed(l.dead) }
func (l *line) isBroken() bool { return isClosed(l.broken) }

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// tether is the context of a call at its member: it ends when the caller hangs
// up, and by callctx.ErrConnectionLost when the caller is lost. Package context
// has none that ends with an error of our choice, and can outlive its parent.
type tether struct {
	context.Context // has the caller's values, and the cause of the end
	cancel          context.CancelCauseFunc
	done            chan struct{} // closed with the end

	mu struct {
		sync.Mutex
		err error
	}
}

func newTether(caller context.Context) *tether {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(caller))
	return &tether{Context: ctx, cancel: cancel, done: make(chan struct{})}
}

func (t *tether) Done() <-chan struct{} { return t.done }

func (t *tether) Err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.err
}

func (t *tether) end(err, cause error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.err == nil {
		t.mu.err = err
		t.cancel(cause)
		close(t.done)
	}
}

// lose ends the call of a caller that is lost.
func (t *tether) lose() { t.end(context.Canceled, callctx.ErrConnectionLost) }

package raftlock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

// simLink is the way from one member to another: a stream that is opened again
// and again. What goes over one comes in order, late, or, when it breaks, not at
// all. A network that is cut keeps what was sent until it is mended or breaks.
type simLink struct {
	s    *sim
	from *simMember
	to   uint64
	name string

	epoch    int // counts the streams, and their ends
	up       bool
	greeting bool
	parted   bool
	peer     *simMember // at the other end of the stream
	session  uint64
	reads    format
	pause    time.Duration
	queue    frame         // while it is greeting
	last     time.Duration // when the last frame comes
	flight   []simFlight
}

type simFlight struct {
	at    time.Duration
	bytes []byte
}

// delay is how long a message takes.
func (s *sim) delay() time.Duration {
	d := 30*time.Microsecond + s.draw(200*time.Microsecond)
	if s.faults.weather > 0 && s.one(4) {
		d += s.draw(s.faults.weather)
	}
	return d
}

// dial opens a stream, and goes on trying.
func (l *simLink) dial() {
	l.epoch++
	epoch := l.epoch
	l.greeting = true
	l.from.after(2*l.s.delay(), func() {
		if l.epoch != epoch || l.parted {
			return
		}
		if err := l.greet(); err != nil {
			if errors.Is(err, ErrRemoved) || errors.Is(err, ErrDiskLost) {
				l.from.end(err)
				return
			}
			l.greeting, l.queue = false, frame{}
			l.redial()
			return
		}
		l.pause = 0
	})
}

func (l *simLink) redial() {
	l.pause = min(max(2*l.pause, minRedial), maxRedial)
	l.from.after(l.pause, func() {
		if !l.up && !l.greeting && !l.parted {
			l.dial()
		}
	})
}

// greet shakes hands, as Node.greet and Node.reply do.
func (l *simLink) greet() error {
	a, b := l.from, l.s.byNode(l.to)
	if b == nil || !b.alive || b.stopped || l.s.faults.cut(a, b) || l.s.faults.cut(b, a) {
		return errors.New("nobody answers")
	}
	theirs, err := a.meets(b, sendsFrames)
	if err != nil {
		return err
	}
	if b.links[a.node] == nil {
		return refused("%q is not a member", a.name)
	}
	b.sessions++
	session := b.sessions
	b.inOrder(func(r *replica) error {
		r.peerReads(a.node, a.cfg.newest)
		r.sessionUp(a.node, session)
		return nil
	})
	l.up, l.greeting, l.session, l.peer, l.reads = true, false, session, b, min(theirs.newest(), a.cfg.newest)
	a.inOrder(func(r *replica) error {
		r.peerReads(l.to, l.reads)
		r.peerUp(l.to)
		return nil
	})
	queue := l.queue
	l.queue = frame{}
	if !queue.empty() {
		l.transmit(queue)
	}
	return nil
}

// meets is the exchange of hellos between two members that run.
func (m *simMember) meets(b *simMember, why errand) (hello, error) {
	mine := m.assembly.greeting(b.name, why)
	mine.Addresses = m.addresses()
	b.hear(&mine)
	theirs := b.assembly.greeting(m.name, asks)
	answer, judged := theirs.answer(&mine)
	answer.Addresses = b.addresses()
	if errors.Is(judged, ErrRemoved) || errors.Is(judged, ErrDiskLost) {
		b.after(0, func() { b.end(judged) })
	}
	if err := mine.heed(&answer, b.name); err != nil {
		return answer, err
	}
	m.hear(&answer)
	return answer, nil
}

// addresses are those that the log has; the initial members need none here.
func (m *simMember) addresses() map[string]string {
	all := map[string]string{}
	for _, r := range m.r.company().records {
		all[r.name] = r.address
	}
	return all
}

// hear is Node.hear: the loop has taken the news when the hello goes on.
func (m *simMember) hear(theirs *hello) {
	if told := m.assembly.news(theirs); told != nil && told.index > m.r.company().index {
		m.r.told = told
		for _, l := range m.enroll(m.r.company()) {
			l.part()
		}
	}
}

// send takes what is to go over the stream.
func (l *simLink) send(messages []*raftpb.Message, forwards []forward) {
	if !l.up {
		if unsent := callsIn(forwards); len(unsent) > 0 {
			l.from.request(func(r *replica) {
				for _, id := range unsent {
					r.unsent(id)
				}
			})
		}
		if l.greeting {
			l.queue.messages = append(l.queue.messages, messages...)
			for _, f := range forwards {
				if f.kind != forwardCall && f.kind != forwardWish {
					l.queue.forwards = append(l.queue.forwards, f)
				}
			}
		}
		return
	}
	l.transmit(frame{messages, forwards})
}

func (l *simLink) transmit(f frame) {
	b, err := f.encode(l.reads)
	if err != nil {
		l.s.fail("encode: %w", err)
		return
	}
	l.last = max(l.last+1, l.s.now+l.s.delay())
	l.flight = append(l.flight, simFlight{l.last, b})
	epoch := l.epoch
	l.s.after(l.last-l.s.now, func() {
		if l.epoch == epoch {
			l.pump()
		}
	})
	if l.s.faults.unlucky() {
		l.s.tally.Faults["broken stream"]++
		l.s.after(l.s.draw(time.Millisecond), func() {
			if l.epoch == epoch {
				l.breakStream()
			}
		})
	}
}

// pump delivers what has come by now.
func (l *simLink) pump() {
	for len(l.flight) > 0 && l.flight[0].at <= l.s.now && !l.s.faults.cut(l.from, l.peer) {
		b := l.flight[0].bytes
		l.flight = l.flight[1:]
		l.arrive(b)
	}
}

func (l *simLink) arrive(b []byte) {
	a, to, session := l.from.node, l.peer, l.session
	f, err := decodeFrame(b, to.cfg.newest)
	if err != nil {
		l.s.fail("frame from %s to %s: %w", l.from.name, to.name, err)
		return
	}
	l.s.trace.note(uint64(l.s.now), a, to.node, uint64(len(b)))
	for _, msg := range f.messages {
		if err := checkMessage(msg, a, to.node); err != nil {
			l.s.fail("frame from %s to %s: %w", l.from.name, to.name, err)
			return
		}
	}
	to.inOrder(func(r *replica) error {
		for _, msg := range f.messages {
			if err := r.step(msg); err != nil {
				return err
			}
		}
		for _, msg := range f.forwards {
			r.receive(a, session, msg)
		}
		return nil
	})
}

// breakStream ends the stream; what is under way is lost. Both ends notice, in
// time.
func (l *simLink) breakStream() {
	if !l.up && !l.greeting {
		return
	}
	was, peer, session := l.up, l.peer, l.session
	l.epoch++
	l.up, l.greeting, l.flight, l.queue = false, false, nil, frame{}
	if !was {
		l.redial()
		return
	}
	life, from := peer.life, l.from
	node := from.node
	l.s.after(l.s.draw(20*time.Millisecond), func() {
		if peer.alive && peer.life == life {
			peer.inOrder(func(r *replica) error { r.sessionLost(node, session); return nil })
		}
	})
	// The one end that opens the next stream has noticed before that this one ended.
	from.inOrder(func(r *replica) error { r.peerDown(l.to); return nil })
	l.redial()
}

// part ends the way to a peer that is no member any more, when it has taken what
// is under way, and the stream that comes from there.
func (l *simLink) part() {
	l.parted = true
	l.from.after(l.s.draw(20*time.Millisecond), func() {
		l.epoch++
		l.up, l.flight = false, nil
		if m := l.s.byNode(l.to); m != nil && m.alive {
			if back := m.links[l.from.node]; back != nil && back.up && back.peer == l.from {
				back.breakStream()
			}
		}
	})
}

// breakLinks ends all streams from and to a member that has died.
func (s *sim) breakLinks(m *simMember) {
	for _, l := range s.linksOf(m) {
		if l.from != m {
			l.breakStream()
			continue
		}
		peer, session, life := l.peer, l.session, 0
		if was := l.up; was {
			life = peer.life
			node := m.node
			s.after(s.draw(20*time.Millisecond), func() {
				if peer.alive && peer.life == life {
					peer.inOrder(func(r *replica) error { r.sessionLost(node, session); return nil })
				}
			})
		}
		l.epoch++
		l.up, l.greeting, l.flight, l.parted = false, false, nil, true
	}
}

// linksOf are the links from and to a member, in order.
func (s *sim) linksOf(m *simMember) (list []*simLink) {
	for _, from := range s.members {
		if from.r == nil {
			continue
		}
		var nodes []uint64
		for node := range from.links {
			nodes = append(nodes, node)
		}
		slices.Sort(nodes)
		for _, node := range nodes {
			if l := from.links[node]; from == m || l.peer == m || node == m.node {
				list = append(list, l)
			}
		}
	}
	return list
}

// simTransfer is a snapshot on its way.
type simTransfer struct {
	s        *sim
	from, to *simMember
	message  *raftpb.Message
	failures int
	lives    [2]int
	bytes    []byte
	over     bool
}

// sendSnapshot sends a snapshot to a peer on a stream of its own.
func (m *simMember) sendSnapshot(o sendOrder) {
	t := &simTransfer{s: m.s, from: m, to: m.s.byNode(o.message.GetTo()), message: o.message, failures: o.failures}
	m.after(2*m.s.delay(), t.begin)
}

func (t *simTransfer) begin() {
	s, a, b := t.s, t.from, t.to
	meta := t.message.GetSnapshot().GetMetadata()
	if b == nil || !b.alive || b.stopped || s.faults.cut(a, b) || s.faults.cut(b, a) {
		t.end(errors.New("nobody answers"))
		return
	}
	if _, err := a.meets(b, sendsSnapshot); err != nil {
		t.end(err)
		return
	}
	if b.links[a.node] == nil || t.message.GetTerm() < b.r.term {
		t.end(errors.New("refused"))
		return
	}
	file, err := a.disk.hold.OpenSnapshot(meta.GetIndex())
	if err != nil {
		t.end(fmt.Errorf("%w: %w", errSpoilt, err))
		return
	}
	t.bytes, err = io.ReadAll(io.NewSectionReader(file, 0, file.Size()))
	a.check(err)
	o := offer{size: uint64(len(t.bytes)), message: t.message}
	encoded, err := o.encode()
	a.check(err)
	got, err := decodeOffer(encoded)
	a.check(err)
	a.check(got.check(a.node, b.node))
	t.message = got.message
	if old := b.coming; old != nil {
		old.end(errors.New("in favour of a newer one"))
	}
	b.coming, t.lives = t, [2]int{a.life, b.life}
	b.inOrder(func(r *replica) error {
		if meta.GetIndex() <= r.commit {
			t.offer(nil)
			return nil
		}
		s.after(s.draw(50*time.Millisecond), t.received)
		return nil
	})
}

// received is when all chunks have come.
func (t *simTransfer) received() {
	s, b := t.s, t.to
	switch {
	case t.over:
		return
	case !t.stands() || s.faults.cut(t.from, b) || s.faults.cut(b, t.from) || s.faults.unluckySnapshot():
		t.end(errors.New("broken off"))
		return
	case b.stopped:
		b.late = append(b.late, t.received)
		return
	}
	meta := t.message.GetSnapshot().GetMetadata()
	state, err := keepState(context.Background(), b.disk.hold, meta, func(to io.Writer) error {
		_, err := to.Write(t.bytes)
		return err
	})
	if err == nil {
		err = state.fits(b.assembly.identity().ClusterID, b.cfg.newest)
	}
	if err != nil {
		s.fail("snapshot from %s to %s: %w", t.from.name, b.name, err)
		return
	}
	s.tally.Installs++
	b.inOrder(func(*replica) error { t.offer(state); return nil })
}

// offer gives the message to raft, in the loop of the receiver.
func (t *simTransfer) offer(state *loaded) {
	t.to.r.offered(t.message, state)
	t.end(nil)
}

func (t *simTransfer) stands() bool {
	return t.from.alive && t.from.life == t.lives[0] && t.to.alive && t.to.life == t.lives[1]
}

// end tells the sender.
func (t *simTransfer) end(err error) {
	if t.over {
		return
	}
	t.over = true
	if t.to != nil && t.to.coming == t {
		t.to.coming = nil
	}
	to, pause := t.message.GetTo(), time.Duration(0)
	a := t.from
	if err != nil {
		t.s.tally.Faults["broken snapshot"]++
		pause = resendPause * time.Duration(a.cfg.ElectionTicks) * simTick << min(t.failures, 4)
	}
	a.after(t.s.delay(), func() { a.request(func(r *replica) { r.snapshotEnded(to, err) }) })
	a.after(t.s.delay()+pause, func() { a.request(func(r *replica) { r.reportSnapshot(to, err) }) })
}

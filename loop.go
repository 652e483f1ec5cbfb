package raftlock

import (
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

// The loop of a Node: it brings the replica what has come, and carries out what it
// wants done.

// loop takes turns until the member is to end: take all that has come, let the
// replica work, carry out what it wants done, sleep.
func (n *Node) loop(r *replica) error {
	defer r.close()
	alarm := n.clock.NewTimer(0)
	defer alarm.Stop()
	ticks := metronome{interval: n.cfg.TickInterval, last: n.inbox.clock.Now(), rest: 1}
	var in arrivals
	for {
		n.clock.Await(n.ctx.Done())
		if !r.quiet() || n.inbox.waiting() > 0 {
			n.inbox.gather()
		}
		var now time.Time
		in, now = n.inbox.take(in.reset())
		r.begin(now)
		for due := ticks.due(now); due > 0; due-- {
			r.disk.observe(n.appender.progress())
			r.tick()
		}
		if err := n.turn(r, &in); err != nil {
			return err
		}
		wait := ticks.next(now, r.rest())
		if end, ok := r.nextAlarm(); ok {
			wait = min(wait, end)
		}
		alarm.Reset(wait)
		if r.wantsTurn() && n.ctx.Err() == nil {
			continue
		}
		select {
		case <-n.inbox.wake:
		case <-alarm.C:
		case <-n.ctx.Done():
			return nil
		}
	}
}

// turn hands what has come to the replica and carries out what it wants done.
func (n *Node) turn(r *replica, in *arrivals) error {
	if err := n.handIn(r, in); err != nil {
		for _, c := range in.calls {
			c.finish(&reply{failure: memberGone})
		}
		return err
	}
	for _, c := range in.calls {
		r.submit(c)
	}
	if err := r.advance(func() { n.carryOut(r) }); err != nil {
		return err
	}
	n.publish(r)
	return nil
}

// handIn hands in all that has come but the calls.
func (n *Node) handIn(r *replica, in *arrivals) error {
	for _, request := range in.requests {
		request(r)
	}
	for _, m := range in.messages {
		if err := r.step(m); err != nil {
			return err
		}
	}
	for i := range in.frames {
		if err := n.feed(r, &in.frames[i]); err != nil {
			return err
		}
	}
	return nil
}

func (n *Node) feed(r *replica, f *received) error {
	if f.do != nil {
		f.do(r)
		return nil
	}
	for _, m := range f.frame.messages {
		if err := r.step(m); err != nil {
			return err
		}
	}
	for _, m := range f.frame.forwards {
		r.receive(f.from, f.session, m)
	}
	return nil
}

// carryOut does what the replica wants done. Messages to peers leave beside the
// write of the same entries; what must wait for the write rides with it.
func (n *Node) carryOut(r *replica) {
	out := &r.out
	if now := r.company(); now != n.directory.Load().roster {
		gone := n.enroll(now, r.self)
		defer n.dismiss(gone)
	}
	n.deliverPeers(out.messages)
	if len(out.appends) > 0 {
		n.appender.append(out.appends)
	}
	for len(out.forwards) > 0 {
		to, msgs := out.forwards[0].to, []forward(nil)
		rest := out.forwards[:0]
		for _, o := range out.forwards {
			if o.to == to {
				msgs = append(msgs, o.msg)
			} else {
				rest = append(rest, o)
			}
		}
		out.forwards = rest
		n.sendForwards(to, msgs)
	}
	for _, m := range out.sends {
		n.sendSnapshot(m)
	}
	if out.snapshot != nil {
		n.takeSnapshot(out.snapshot)
	}
	out.sends, out.snapshot = nil, nil
	clear(out.messages)
	clear(out.appends)
	out.messages, out.appends = out.messages[:0], out.appends[:0]
}

func (n *Node) sendForwards(to uint64, msgs []forward) {
	o := n.directory.Load().byNode[to]
	if o == nil {
		return
	}
	if unsent := o.send(nil, msgs); len(unsent) > 0 {
		n.inbox.request(func(r *replica) {
			for _, id := range unsent {
				r.unsent(id)
			}
		})
	}
}

// deliver takes the responses of a durable write to where they belong.
func (n *Node) deliver(responses []*raftpb.Message) {
	var own, others []*raftpb.Message
	self := n.assembly.identity().nodeID()
	for _, m := range responses {
		if m.GetTo() != self {
			others = append(others, m)
		} else {
			own = append(own, m)
		}
	}
	n.deliverPeers(others)
	n.inbox.answers(own)
}

// deliverPeers queues messages at their outboxes, each peer's together.
func (n *Node) deliverPeers(messages []*raftpb.Message) {
	byNode := n.directory.Load().byNode
	for len(messages) > 0 {
		to, end := messages[0].GetTo(), 1
		for end < len(messages) && messages[end].GetTo() == to {
			end++
		}
		if o := byNode[to]; o != nil {
			o.send(messages[:end], nil)
		}
		messages = messages[end:]
	}
}

// publish tells the world outside the loop what has changed, and finds out
// whether this member can serve.
func (n *Node) publish(r *replica) {
	old := n.view.Load()
	if old.term != r.term || old.lead != r.lead || old.leads != r.leads() || old.office != r.office || old.going != r.handingOver {
		n.view.Store(&standing{
			term: r.term, lead: r.lead, leads: r.leads(), going: r.handingOver, office: r.office,
			changed: make(chan struct{}),
		})
		close(old.changed)
	}
	n.probe(r)
}

// probe asks the leader how far this member must have applied; the answer comes
// when it has, and then it is ready.
func (n *Node) probe(r *replica) {
	select {
	case <-n.ready:
		return
	default:
	}
	if r.probe != nil {
		select {
		case <-r.probe.done:
			failed := r.probe.reply.failure != nil
			r.probe = nil
			if !failed {
				close(n.ready)
				return
			}
		default:
			return
		}
	}
	if r.lead == 0 || r.disk.hangs {
		return
	}
	r.probe = &call{read: readIndex, lane: laneNone, done: make(chan struct{}, 1), patience: holdLimit}
	n.inbox.call(r.probe)
}

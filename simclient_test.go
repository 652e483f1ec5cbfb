package raftlock

import (
	"fmt"
	"time"

	"github.com/raftlock/raftlock/history"
	"github.com/raftlock/raftlock/pb"
)

// simClient is a program on a machine of its own that takes, renews and gives back
// locks through members that it reaches over a network. It repeats its calls, at
// other members too, as the client libraries do, and records what it sees.
type simClient struct {
	s       *sim
	number  int
	name    string
	counter int
	cut     bool // no answer reaches it, and no request gets out
	deaf    bool // no answer reaches it
	at      int  // the member that it asks at present
	ops     []history.Op
	long    *simRun // its last call that waits for long

	lives int // how often it vanished and came back as another
	// served are the members that have granted it something since the last fault.
	served map[*simMember]bool
	doing  string
}

func newSimClient(s *sim, number int) *simClient {
	return &simClient{s: s, number: number, name: fmt.Sprintf("c%d", number), at: s.dice.IntN(len(s.members)), served: map[*simMember]bool{}}
}

func (c *simClient) String() string {
	text := fmt.Sprintf("%s: %s", c.name, c.doing)
	if m := c.unserved(); m != nil {
		text += ", not served by " + m.name
	}
	return text
}

// content reports whether it was served by all since the last fault.
func (c *simClient) content() bool { return c.unserved() == nil }

// unserved is the first member that has not served it since the last fault, nil when
// all have.
func (c *simClient) unserved() *simMember {
	for _, m := range c.s.living() {
		if !c.served[m] {
			return m
		}
	}
	return nil
}

// next decides what to do, after a while.
func (c *simClient) next() {
	s := c.s
	c.doing = "nothing"
	if s.calm {
		s.after(s.draw(2*s.shape.think), c.visit)
		return
	}
	s.after(s.draw(2*s.shape.think), func() {
		switch {
		case s.calm:
			c.visit()
		case s.one(5):
			c.look(c.lock(), c.next)
		case s.one(40):
			c.enqueue()
		default:
			c.acquire()
		}
	})
}

func (c *simClient) lock() string { return simLock(c.s.dice.IntN(c.s.shape.locks)) }

func simLock(n int) string { return fmt.Sprintf("lock%d", n) }

// visit takes and gives back a lock of its own at each member in turn. What another
// member answers, which it asks when one is silent, does not count.
func (c *simClient) visit() {
	s := c.s
	m := c.unserved()
	if m == nil {
		s.after(5*simTick, c.next)
		return
	}
	c.at = m.number
	c.counter++
	r := c.run(history.Op{Call: history.Acquire, Lock: c.name + "-own", RequestID: fmt.Sprint(c.counter), TTL: time.Second},
		command{kind: cmdAcquire, ttl: span(time.Second)})
	r.then = func() {
		if !r.granted() {
			c.next()
			return
		}
		c.served[m] = c.served[m] || r.call.m == m
		c.release(r.op().Lock, r.op().Token, c.next)
	}
	r.try()
}

// simTTLs are what clients ask for; some want less than a failover takes.
var simTTLs = []time.Duration{
	40 * time.Millisecond, 150 * time.Millisecond, 400 * time.Millisecond, time.Second, 3 * time.Second, 30 * time.Second,
}

func (c *simClient) acquire() {
	s := c.s
	op := history.Op{Call: history.Acquire, Lock: c.lock(), TTL: simTTLs[s.dice.IntN(len(simTTLs))], Priority: int32(s.dice.IntN(3))}
	if op.TTL > 5*time.Second && !s.one(10) {
		op.TTL = time.Second
	}
	if s.last() {
		op.TTL = 30 * time.Second
	}
	c.counter++
	if !s.one(4) {
		op.RequestID = fmt.Sprint(c.counter)
	}
	cmd := command{kind: cmdAcquire, ttl: span(op.TTL), priority: op.Priority}
	if !s.one(3) {
		op.Wait, op.Timeout = true, []time.Duration{30 * time.Millisecond, 300 * time.Millisecond, 2 * time.Second, 8 * time.Second}[s.dice.IntN(4)]
		cmd.wait, cmd.timeout = true, span(op.Timeout)
	}
	if s.one(5) {
		cmd.metadata = metadata{{"host", c.name}, {"note", fmt.Sprint(c.counter)}}
	}
	if op.RequestID != "" && s.one(12) {
		c.twice(op, cmd)
		return
	}
	if op.Wait && op.RequestID != "" && s.one(15) { // without one it may prolong an enqueued wait, which stays
		op.Timeout = time.Minute
		cmd.timeout = span(op.Timeout)
	}
	r := c.run(op, cmd)
	r.then = func() { c.acquired(r) }
	r.try()
	if op.Timeout > 10*time.Second {
		c.long = r
		if s.one(2) {
			s.after(s.draw(400*time.Millisecond), func() { c.vanish(r) })
		}
	}
	if op.Wait && s.one(5) {
		s.after(s.draw(400*time.Millisecond), r.giveUp)
	}
	if s.one(300) {
		s.after(s.draw(200*time.Millisecond), func() { c.vanish(r) })
	}
}

// hurry gives up a wait that could last until long after the faults.
func (c *simClient) hurry() {
	if c.long != nil {
		c.s.after(c.s.draw(time.Second), c.long.giveUp)
	}
}

// twice makes the same call at two members at once.
func (c *simClient) twice(op history.Op, cmd command) {
	c.s.tally.Faults["same call twice"]++
	a, b := c.run(op, cmd), c.run(op, cmd)
	left := 2
	both := func() {
		if left--; left > 0 {
			return
		}
		if a.granted() {
			c.acquired(a)
		} else {
			c.acquired(b)
		}
	}
	a.then, b.then = both, both
	a.try()
	c.at = c.s.dice.IntN(len(c.s.members))
	b.try()
}

// acquired goes on after an Acquire.
func (c *simClient) acquired(r *simRun) {
	s := c.s
	if !r.granted() {
		if r.op().Outcome == history.Unknown && r.op().RequestID != "" && s.one(2) {
			c.withdraw(r)
			return
		}
		c.next()
		return
	}
	c.hold(r.op().Lock, r.op().Token)
}

func (c *simClient) hold(lock string, token int64) {
	s := c.s
	c.doing = "holds " + lock
	s.after(s.draw(s.shape.think*2), func() {
		switch {
		case s.one(3):
			ttl := simTTLs[s.dice.IntN(5)]
			r := c.run(history.Op{Call: history.Renew, Lock: lock, Token: token, TTL: ttl}, command{kind: cmdRenew, version: token, ttl: span(ttl)})
			r.then = func() { c.hold(lock, token) }
			r.try()
		case s.one(25) || s.last():
			c.next() // forgotten: it ends by itself
		default:
			c.release(lock, token, c.next)
		}
	})
}

func (c *simClient) release(lock string, token int64, then func()) {
	r := c.run(history.Op{Call: history.Release, Lock: lock, Token: token}, command{kind: cmdRelease, version: token})
	r.then = then
	r.try()
}

func (c *simClient) look(lock string, then func()) {
	r := c.run(history.Op{Call: history.Look, Lock: lock}, command{})
	r.read, r.then = readLock, then
	r.try()
}

// withdraw takes back an Acquire whose outcome is not known.
func (c *simClient) withdraw(acquire *simRun) {
	op := acquire.op()
	r := c.run(history.Op{Call: history.Cancel, Lock: op.Lock, RequestID: op.RequestID}, command{kind: cmdWithdraw})
	r.patient, r.then = true, c.next
	r.try()
}

// enqueue joins a queue without waiting, and leaves it again, or not.
func (c *simClient) enqueue() {
	lock := c.lock()
	r := c.run(history.Op{Call: history.Enqueue, Lock: lock, Wait: true, Timeout: time.Second}, command{kind: cmdEnqueue, timeout: span(time.Second)})
	r.then = func() {
		if c.s.one(2) {
			c.next()
			return
		}
		leave := c.run(history.Op{Call: history.Cancel, Lock: lock}, command{kind: cmdCancel})
		leave.then = c.next
		leave.try()
	}
	r.try()
}

// vanish is the end of a program in the midst of a call; another takes its place.
func (c *simClient) vanish(r *simRun) {
	if r.over || r.call == nil {
		return
	}
	c.s.tally.Faults["client vanishes"]++
	r.over = true
	r.call.drop(lostTouch)
	c.lives++
	c.name = fmt.Sprintf("c%d.%d", c.number, c.lives)
	c.next()
}

// simRun is one call of a client with its repeats.
type simRun struct {
	c       *simClient
	place   int // of its operation
	cmd     command
	read    readKind
	begun   time.Duration
	timeout span
	patient bool // it is repeated until it is answered
	unsure  bool
	again   bool // its wait was interrupted
	over    bool
	call    *simCall
	then    func()
}

func (c *simClient) run(op history.Op, cmd command) *simRun {
	op.Client, op.ClientID, op.From, op.Outcome = fmt.Sprint(c.number), c.name, c.s.now, history.Open
	if op.Call == history.Look {
		op.ClientID = ""
	}
	cmd.lock, cmd.client, cmd.request, cmd.attempt = op.Lock, c.name, op.RequestID, 1
	c.ops = append(c.ops, op)
	c.doing = fmt.Sprintf("%s %s since %v", op.Call, op.Lock, c.s.now)
	return &simRun{c: c, place: len(c.ops) - 1, cmd: cmd, begun: c.s.now, timeout: cmd.timeout}
}

func (r *simRun) op() *history.Op { return &r.c.ops[r.place] }

func (r *simRun) granted() bool { return r.op().Outcome == history.OK }

// finish ends the operation and lets its client go on.
func (r *simRun) finish(outcome history.Outcome, code string) {
	if r.over {
		return
	}
	r.over = true
	s, op := r.c.s, r.op()
	op.Outcome, op.Code, op.To = outcome, code, s.now
	switch outcome {
	case history.OK, history.Refused:
		s.tally.Answers++
		r.count()
	case history.Unknown:
		s.tally.Unknown++
	}
	r.then()
}

// count counts what was made.
func (r *simRun) count() {
	t, op := &r.c.s.tally, r.op()
	switch {
	case op.Code == pb.ErrorCode_WAIT_QUEUE_FULL.String():
		t.QueueFull++
	case op.Outcome != history.OK:
	case op.Call == history.Renew:
		t.Renewals++
	case op.Call == history.Enqueue:
		t.Enqueues++
	case op.Call == history.Cancel && op.RequestID != "":
		t.Withdrawals++
	}
}

// try makes one attempt.
func (r *simRun) try() {
	if r.over {
		return
	}
	s := r.c.s
	if !s.calm && s.one(4) {
		r.c.at = s.dice.IntN(len(s.members))
	}
	m := s.members[r.c.at]
	c := &call{cmd: r.cmd, read: r.read, withWaiters: r.read == readLock, done: make(chan struct{}, 1), patience: holdLimit}
	limit := time.Second
	if r.cmd.wait {
		waited := s.now - r.begun
		c.cmd.timeout = max(r.timeout-span(waited), minWait)
		limit += time.Duration(c.cmd.timeout)
		if r.again {
			c.patience = time.Duration(c.cmd.timeout) + 10*time.Second
		}
	}
	if r.read == readNone {
		c.refusal = s.shape.limits.check(&c.cmd)
	}
	r.call = &simCall{s: s, run: r, m: m, c: c}
	r.call.send(limit)
}

// lost is an attempt of which no answer comes.
func (r *simRun) lost() {
	r.unsure = r.unsure || r.read == readNone
	r.cmd.attempt++
	r.c.at = r.c.s.dice.IntN(len(r.c.s.members))
	r.repeat(r.c.s.draw(30 * time.Millisecond))
}

func (r *simRun) repeat(pause time.Duration) {
	s := r.c.s
	limit := 6 * time.Second
	if r.cmd.wait {
		limit += time.Duration(r.timeout)
	}
	switch {
	case s.now-r.begun <= limit || r.patient && s.now-r.begun <= withdrawLimit:
		s.after(pause, r.try)
	case r.unsure:
		r.finish(history.Unknown, "")
	default:
		r.finish(history.Failed, "")
	}
}

// failed is an answer that is none of the table's.
func (r *simRun) failed(f *failure) {
	if f.code == pb.ErrorCode_RATE_LIMITED {
		r.c.s.tally.Limited++
	}
	if f.outcome() == outcomeUnknown {
		r.unsure = true
		r.cmd.attempt++
	}
	switch {
	case f.interrupted:
		r.again = true
		r.repeat(0)
	case f.code == pb.ErrorCode_INVALID_ARGUMENT || f.code == pb.ErrorCode_INVALID_TTL:
		r.c.s.fail("%s: %v %v", r.op().Call, f.code, f.message)
	case f.code == pb.ErrorCode_RATE_LIMITED && !r.unsure && !r.patient:
		r.finish(history.Failed, f.code.String())
	default:
		r.repeat(r.c.s.draw(50 * time.Millisecond))
	}
}

// answered is an answer of the table; at is when what it says was so.
func (r *simRun) answered(rep *reply, at time.Duration) {
	op, res := r.op(), &rep.result
	switch {
	case r.read != readNone && !rep.found:
		r.finish(history.Refused, pb.ErrorCode_LOCK_NOT_FOUND.String())
	case r.read != readNone:
		op.Seen = []history.Sight{simSight(rep)}
		r.finish(history.OK, "")
	case res.code == pb.ErrorCode_OK:
		r.succeeded(rep, at)
	case op.Call == history.Release && r.unsure && isOver(res, op.Token),
		op.Call == history.Enqueue && r.unsure && grantedBefore(&r.cmd, res),
		op.Call == history.Cancel && r.unsure && res.code == pb.ErrorCode_NOT_WAITING:
		r.finish(history.OK, "")
	case res.code == pb.ErrorCode_RATE_LIMITED:
		r.finish(history.Failed, res.code.String())
	default:
		op.Seen = simHolder(op, res)
		r.finish(history.Refused, res.code.String())
	}
}

func (r *simRun) succeeded(rep *reply, at time.Duration) {
	op, res, s := r.op(), &rep.result, r.c.s
	switch op.Call {
	case history.Acquire:
		op.Token = res.lock.version
		s.tally.Grants++
	case history.Release:
		op.Promoted = res.promoted
		if res.promoted {
			s.tally.Handed++
		}
	}
	if rep.timed && (op.Call == history.Acquire || op.Call == history.Renew) {
		op.Expires = at + time.Duration(rep.remaining)
	}
	r.finish(history.OK, "")
}

// giveUp ends a wait by its caller, which takes it back.
func (r *simRun) giveUp() {
	if r.over || r.call == nil {
		return
	}
	s := r.c.s
	s.tally.Faults["call given up"]++
	r.call.drop(gaveUp)
	op, c := r.op(), r.c
	r.then = func() {
		if op := &c.ops[r.place]; op.RequestID != "" {
			c.withdraw(r)
			return
		}
		c.next()
	}
	op.Code = ""
	r.finish(history.Unknown, "")
}

func simSight(rep *reply) history.Sight {
	info := infoOf(&rep.result.lock, rep.waiters, rep)
	sight := history.Sight{Lock: info.LockID, Owner: info.OwnerID, Held: info.OwnerID != "", Token: info.Version, Waiters: info.WaiterCount}
	for _, w := range info.WaitersInfo {
		sight.Queue = append(sight.Queue, history.Place{ClientID: w.ClientID})
	}
	return sight
}

// simHolder is what a refusal says about the lock.
func simHolder(op *history.Op, res *result) []history.Sight {
	sight := history.Sight{Lock: op.Lock, Held: true, Token: res.lock.version}
	switch {
	case op.Call == history.Cancel || sight.Token <= 0:
		return nil
	case res.code == pb.ErrorCode_LOCK_HELD:
		sight.Owner = res.lock.owner
	case res.code == pb.ErrorCode_VERSION_MISMATCH:
		sight.Owner = op.ClientID
	case res.code == pb.ErrorCode_NOT_LOCK_OWNER:
	case res.code == pb.ErrorCode_LOCK_NOT_HELD:
		sight.Held = false
	default:
		return nil
	}
	return []history.Sight{sight}
}

// simCall is one attempt on its way to a member and back.
type simCall struct {
	s    *sim
	run  *simRun // nil for one of nobody
	m    *simMember
	life int
	c    *call
	sent bool
	over bool
	// answer is for a call that no client makes.
	answer func(f *failure)
}

// send brings the call to its member; limit is how long its caller waits.
func (k *simCall) send(limit time.Duration) {
	s := k.s
	s.after(s.delay(), k.arrive)
	s.after(limit, func() {
		if !k.over {
			k.drop(gaveUp)
			k.run.lost()
		}
	})
}

func (k *simCall) arrive() {
	m := k.m
	switch {
	case k.over:
	case k.run != nil && k.run.c.cut:
		// it is lost
	case !m.alive:
		k.lost()
	case m.stopped:
		m.late = append(m.late, k.arrive)
	default:
		k.life, k.sent = m.life, true
		k.c.arrived = m.local()
		k.c.since = k.c.arrived
		k.c.lane = laneOf(k.c)
		m.calls = append(m.calls, k.c)
		m.open = append(m.open, k)
		m.wake()
	}
}

// answer hands out the replies of a turn.
func (m *simMember) answer() {
	kept := m.open[:0]
	for _, k := range m.open {
		if len(k.c.done) == 0 {
			kept = append(kept, k)
			continue
		}
		<-k.c.done
		k.reply(m)
	}
	clear(m.open[len(kept):])
	m.open = kept
}

func (k *simCall) reply(m *simMember) {
	if k.over {
		return
	}
	if k.answer != nil {
		k.over = true
		k.answer(k.c.reply.failure)
		return
	}
	if k.run.c.cut || k.run.c.deaf {
		return
	}
	rep := k.c.reply
	at := m.s.now - m.clock.back(m.s.now, rep.at)
	m.s.after(m.s.delay(), func() {
		switch {
		case k.over || k.run.over:
		case rep.failure != nil:
			k.over = true
			k.run.failed(rep.failure)
		default:
			k.over = true
			k.run.answered(&rep, at)
		}
	})
}

// lost tells the caller that its connection broke.
func (k *simCall) lost() {
	if k.over {
		return
	}
	k.over = true
	k.s.after(k.s.draw(5*time.Millisecond), func() {
		switch {
		case k.answer != nil:
			k.answer(leaderLost)
		case !k.run.over:
			k.run.lost()
		}
	})
}

// drop is the end of the call by its caller. The member hears of it.
func (k *simCall) drop(how departure) {
	k.over = true
	if !k.sent {
		return
	}
	m, life := k.m, k.life
	m.s.after(m.s.delay(), func() {
		if m.alive && m.life == life && !k.c.state.CompareAndSwap(callWaits, callLeft) && k.c.state.CompareAndSwap(callTaken, callLeft) {
			m.request(func(r *replica) { r.leave(k.c, how) })
		}
	})
}

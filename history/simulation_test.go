package history

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// fault is what a simulated table does wrong; the zero value is none.
type fault int

const (
	sound          fault = iota
	grantsTwice          // an Acquire is granted now and then although the lock is held
	repeatsTokens        // a token is used again for another lock
	shrinksTokens        // the counter falls back
	expiresEarly         // a grant ends after half its TTL
	expiresLate          // a grant ends 5 s late
	revives              // a renewal of a grant that is over is accepted
	readsOld             // a look shows the state before the last
	servesBackward       // the last of the queue comes first
	forgetsWaiters       // a release grants nobody
	forgetsRequest       // a repeated Acquire gets another grant beside its first
	foresees             // an Acquire is granted before it is called
)

// simulation is a lock cluster and its clients in one goroutine, from one seed:
// a table that keeps to the rules, latencies, answers that are lost, commands that
// come late or never, times without a leader, callers that are cut off and lose
// their places, waits that run out, holders that let their grants expire.
type simulation struct {
	rng    *rand.Rand
	fault  fault
	now    time.Duration
	events events
	seq    int
	ops    []Op

	outages [][2]time.Duration // times without a leader, in order
	token   int64
	tables  []*simLock
	end     time.Duration
}

type simLock struct {
	name    string
	owner   identity
	token   int64
	end     time.Duration // cluster time
	ttl     time.Duration
	queue   []*simWaiter
	earlier Sight // what a look showed before the last change
	shown   Sight
	dead    map[identity]bool // withdrawn
}

type simWaiter struct {
	who      identity
	priority int32
	seq      int
	ttl      time.Duration
	granted  func()
	gone     bool
}

type event struct {
	at  time.Duration
	seq int
	do  func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// simulate returns what the clients of a table with this fault saw.
func simulate(seed uint64, f fault) *History {
	s := &simulation{rng: rand.New(rand.NewPCG(seed, 1)), fault: f, token: 1000, end: 20 * time.Second}
	for i := range 1 + s.rng.IntN(3) {
		s.tables = append(s.tables, &simLock{name: fmt.Sprintf("lock%d", i), dead: map[identity]bool{}})
	}
	for at := time.Duration(0); s.rng.IntN(3) > 0; {
		at += time.Second + s.upTo(10*time.Second)
		to := at + 100*time.Millisecond + s.upTo(4*time.Second)
		s.outages = append(s.outages, [2]time.Duration{at, to})
		at = to
	}
	for i := range 3 + s.rng.IntN(4) {
		s.in(s.upTo(time.Second), func() { s.live(fmt.Sprintf("client%d", i)) })
	}
	s.in(0, s.watch)
	s.in(0, s.beat)
	for len(s.events) > 0 {
		e := heap.Pop(&s.events).(event)
		s.now = e.at
		e.do()
	}
	return &History{Ops: s.ops}
}

func (s *simulation) upTo(d time.Duration) time.Duration {
	return time.Duration(s.rng.Int64N(int64(d)))
}

func (s *simulation) in(d time.Duration, do func()) {
	s.seq++
	heap.Push(&s.events, event{s.now + d, s.seq, do})
}

// clusterTime stands still without a leader.
func (s *simulation) clusterTime() time.Duration {
	t := s.now
	for _, o := range s.outages {
		if s.now > o[0] {
			t -= min(s.now, o[1]) - o[0]
		}
	}
	return t
}

// served calls do at an instant at which there is a leader.
func (s *simulation) served(do func()) {
	for _, o := range s.outages {
		if s.now >= o[0] && s.now < o[1] {
			s.in(o[1]-s.now, func() { s.served(do) })
			return
		}
	}
	do()
}

// call makes a command: it reaches the table after a while, is answered after
// another, or loses its answer, comes late, twice, or never. then goes on with the client.
func (s *simulation) call(op Op, apply func(o *Op), then func(o *Op)) {
	op.From, op.Outcome = s.now, Open
	s.ops = append(s.ops, op)
	i := len(s.ops) - 1
	answer := func() {
		late := s.upTo(5 * time.Millisecond)
		if s.fault == foresees && op.Call == Acquire {
			late = 50 * time.Millisecond
		}
		s.in(late, func() {
			if s.fault == foresees && op.Call == Acquire {
				s.ops[i].From = s.now
			}
			s.ops[i].To = s.now
			then(&s.ops[i])
		})
	}
	switch lost := s.rng.IntN(40); {
	case lost == 0 && op.Call != Look: // it comes, and its answer does not
		s.in(s.upTo(3*time.Second), func() { s.served(func() { apply(&Op{From: op.From}) }) })
		fallthrough
	case lost == 1: // neither comes
		s.in(s.upTo(time.Second), func() { s.ops[i].Outcome = Unknown; answer() })
	case lost < 6 && op.RequestID == "" && (op.Call == Acquire || op.Call == Renew):
		// The attempt that is answered is the second one. The first comes late.
		s.in(s.upTo(5*time.Second), func() { s.served(func() { apply(&Op{From: op.From}) }) })
		fallthrough
	default:
		s.in(s.upTo(10*time.Millisecond), func() { s.served(func() { apply(&s.ops[i]); answer() }) })
	}
}

// beat keeps a lock of its own: in a cluster that is used something always changes.
func (s *simulation) beat() {
	op := Op{Call: Acquire, Client: "beat", ClientID: "beat", RequestID: "r", Lock: "beat", TTL: time.Hour}
	grant := func(o *Op) { o.Outcome, o.Token, o.Expires = OK, 1, o.From+time.Hour }
	if s.now > 0 {
		op.Call, op.RequestID, op.Token = Renew, "", 1
	}
	if s.now < s.end {
		s.call(op, grant, func(*Op) { s.in(100*time.Millisecond, s.beat) })
	}
}

// live is a client's life, one deed after the other.
func (s *simulation) live(name string) {
	if s.now > s.end {
		return
	}
	next := func() { s.in(s.upTo(300*time.Millisecond), func() { s.live(name) }) }
	l := s.tables[s.rng.IntN(len(s.tables))]
	who := identity{clientID: name}
	if s.rng.IntN(3) > 0 {
		s.seq++
		who.requestID = fmt.Sprintf("r%d", s.seq)
	}
	ttl := time.Duration(100+s.rng.IntN(3000)) * time.Millisecond
	if s.fault == revives || s.fault == expiresLate {
		ttl = time.Duration(100+s.rng.IntN(300)) * time.Millisecond
	}
	s.acquire(l, who, ttl, s.rng.IntN(4) > 0, 1+s.rng.IntN(2), next)
}

func (s *simulation) acquire(l *simLock, who identity, ttl time.Duration, wait bool, tries int, next func()) {
	op := Op{
		Call: Acquire, Client: who.clientID, Lock: l.name, ClientID: who.clientID, RequestID: who.requestID,
		TTL: ttl, Wait: wait, Priority: int32(s.rng.IntN(2)),
	}
	if wait {
		op.Timeout = time.Duration(1+s.rng.IntN(4000)) * time.Millisecond
		s.acquireWaiting(l, who, op, next)
		return
	}
	s.call(op, func(o *Op) { s.ask(l, who, ttl, o) }, func(o *Op) {
		switch {
		case o.Outcome == OK && who.requestID != "" && tries == 1 && (s.rng.IntN(6) == 0 || s.fault == forgetsRequest):
			s.acquire(l, who, ttl, false, 0, next) // once more, with the same identity
		case o.Outcome == OK:
			s.hold(l, who.clientID, o.Token, s.rng.IntN(5), next)
		case o.Outcome == Unknown && tries > 1:
			s.acquire(l, who, ttl, false, tries-1, next)
		default:
			next()
		}
	})
}

// ask is an Acquire without a wait, at the table.
func (s *simulation) ask(l *simLock, who identity, ttl time.Duration, o *Op) {
	s.expire(l)
	switch {
	case l.dead[who]:
		o.Outcome, o.Code = Refused, "NOT_WAITING"
	case l.token != 0 && l.end != 0 && l.owner == who && s.fault != forgetsRequest:
		if who.requestID == "" {
			s.prolong(l, s.clusterTime()+ttl)
		}
		s.answerGrant(l, o)
	case l.end != 0 && (s.fault != grantsTwice || s.rng.IntN(10) > 0) && (s.fault != forgetsRequest || l.owner != who):
		o.Outcome, o.Code = Refused, "LOCK_HELD"
		o.Seen = []Sight{{Lock: l.name, Owner: l.owner.clientID, Held: true, Token: l.token}}
	default:
		s.grant(l, who, ttl)
		s.answerGrant(l, o)
	}
}

func (s *simulation) answerGrant(l *simLock, o *Op) {
	o.Outcome, o.Token = OK, l.token
	o.Expires = o.From + max(l.end-s.clusterTime(), 0)
	if s.fault == expiresEarly {
		o.Expires = o.From + l.ttl
	}
}

// acquireWaiting stands in the queue; its caller may be cut off there, lose its
// place, and come again.
func (s *simulation) acquireWaiting(l *simLock, who identity, op Op, next func()) {
	op.From, op.Outcome = s.now, Open
	s.ops = append(s.ops, op)
	i := len(s.ops) - 1
	done := false
	answer := func(fill func(o *Op)) {
		done = true
		s.in(s.upTo(5*time.Millisecond), func() {
			fill(&s.ops[i])
			s.ops[i].To = s.now
			if o := &s.ops[i]; o.Outcome == OK {
				s.hold(l, who.clientID, o.Token, s.rng.IntN(5), next)
				return
			}
			next()
		})
	}
	// Cut off: out of the queue after 2 s, or when the wait is over there, and
	// back later, before the caller knows of either.
	lapse, late := time.Duration(0), time.Duration(0)
	if s.rng.IntN(4) == 0 {
		lapse, late = min(s.upTo(500*time.Millisecond)+2*time.Second, op.Timeout), 4*time.Second
	}
	var join func()
	join = func() {
		if done {
			return
		}
		w := &simWaiter{who: who, priority: op.Priority, ttl: op.TTL}
		w.granted = func() {
			if done { // nobody hears of it
				return
			}
			done = true
			s.in(s.upTo(10*time.Millisecond), func() { s.confirm(l, i, answer) })
		}
		s.enqueue(l, w)
		if lapse > 0 {
			s.in(lapse, func() {
				if l.leave(w) {
					s.in(s.upTo(time.Second), func() { s.served(join) })
				}
			})
			lapse = 0
		}
	}
	s.in(s.upTo(10*time.Millisecond), func() { s.served(join) })
	s.in(op.Timeout+late, func() {
		s.served(func() {
			if done {
				return
			}
			l.leaveAll(who)
			if s.rng.IntN(8) == 0 { // cancelled rather than over: withdrawn, and its answer is unknown
				l.dead[who] = who.requestID != ""
				answer(func(o *Op) { o.Outcome = Unknown })
				return
			}
			answer(func(o *Op) { o.Outcome, o.Code = Refused, "TIMEOUT" })
		})
	})
}

// confirm is what a client does when it was granted a lock in the queue.
func (s *simulation) confirm(l *simLock, i int, answer func(func(o *Op))) {
	sent, token := s.now, l.token
	if l.owner.clientID != s.ops[i].ClientID || l.end == 0 {
		answer(func(o *Op) { o.Outcome = Unknown }) // it is over already
		return
	}
	s.in(s.upTo(5*time.Millisecond), func() {
		s.served(func() {
			expires := sent + max(l.end-s.clusterTime(), 0)
			if l.token != token || l.end == 0 {
				expires = sent
			}
			answer(func(o *Op) { o.Outcome, o.Token, o.Expires = OK, token, expires })
		})
	})
}

// hold is what a client does with a grant, step by step.
func (s *simulation) hold(l *simLock, client string, token int64, steps int, next func()) {
	pause := s.upTo(400 * time.Millisecond)
	if s.fault == expiresEarly {
		pause = s.upTo(3 * time.Second)
	}
	s.in(pause, func() {
		op := Op{Client: client, Lock: l.name, ClientID: client, Token: token}
		switch {
		case steps == 0 && s.rng.IntN(5) == 0:
			next() // and lets it expire
		case steps == 0:
			op.Call = Release
			s.call(op, func(o *Op) { s.giveBack(l, o, client, token) }, func(o *Op) {
				if o.Outcome == Unknown && s.rng.IntN(2) == 0 {
					s.hold(l, client, token, 0, next)
					return
				}
				next()
			})
		default:
			op.Call, op.TTL = Renew, time.Duration(100+s.rng.IntN(2000))*time.Millisecond
			s.call(op, func(o *Op) { s.renew(l, o, client, token, op.TTL) }, func(o *Op) {
				if o.Outcome == Refused && s.fault != revives {
					next()
					return
				}
				s.hold(l, client, token, steps-1, next)
			})
		}
	})
}

func (s *simulation) refuse(l *simLock, o *Op, client string, token int64) bool {
	s.expire(l)
	if l.end != 0 && l.owner.clientID == client && l.token == token {
		return false
	}
	o.Outcome, o.Code = Refused, "NOT_LOCK_OWNER"
	o.Seen = []Sight{{Lock: l.name, Held: true, Token: l.token}}
	switch {
	case l.end == 0:
		o.Code = "LOCK_NOT_HELD"
		o.Seen[0].Held = false
	case l.owner.clientID == client:
		o.Code = "VERSION_MISMATCH"
		o.Seen[0].Owner = client
	}
	return true
}

func (s *simulation) renew(l *simLock, o *Op, client string, token int64, ttl time.Duration) {
	if s.refuse(l, o, client, token) {
		if s.fault == revives {
			o.Outcome, o.Code, o.Seen = OK, "", nil
		}
		return
	}
	s.prolong(l, s.clusterTime()+ttl)
	s.answerGrant(l, o)
	o.Token = token
}

func (s *simulation) giveBack(l *simLock, o *Op, client string, token int64) {
	if s.refuse(l, o, client, token) {
		return
	}
	o.Promoted = len(l.queue) > 0 && s.fault != forgetsWaiters
	s.free(l)
	o.Outcome = OK
}

// The table.

func (s *simulation) grant(l *simLock, who identity, ttl time.Duration) {
	s.token += 1 + s.rng.Int64N(5)
	switch {
	case s.fault == repeatsTokens && s.rng.IntN(4) == 0:
		s.token = max(s.token-5, 1)
	case s.fault == shrinksTokens && s.rng.IntN(10) == 0:
		s.token -= 200
	}
	l.owner, l.token, l.ttl, l.end = who, s.token, ttl, s.clusterTime()+ttl
	s.changed(l)
	s.alarm(l)
}

func (s *simulation) prolong(l *simLock, end time.Duration) {
	if end > l.end {
		l.end = end
		s.alarm(l)
	}
}

// alarm ends a grant in time, at most 20 ms late.
func (s *simulation) alarm(l *simLock) {
	token, end := l.token, l.end
	wait := end - s.clusterTime()
	switch s.fault {
	case expiresEarly:
		wait /= 2
	case expiresLate:
		wait += 5 * time.Second
	}
	s.in(wait+s.upTo(20*time.Millisecond), func() {
		s.served(func() {
			switch {
			case l.token != token || l.end != end:
			case s.fault == expiresEarly:
				s.free(l)
			case s.clusterTime() < end:
				s.alarm(l)
			default:
				s.free(l)
			}
		})
	})
}

// expire is what every command does first.
func (s *simulation) expire(l *simLock) {
	if l.end != 0 && l.end <= s.clusterTime() && s.fault != expiresLate {
		s.free(l)
	}
}

func (s *simulation) free(l *simLock) {
	l.owner, l.end = identity{}, 0
	s.changed(l)
	if len(l.queue) == 0 || s.fault == forgetsWaiters {
		return
	}
	first := 0
	if s.fault == servesBackward {
		first = len(l.queue) - 1
	}
	w := l.queue[first]
	l.queue = slices.Delete(l.queue, first, first+1)
	w.gone = true
	s.grant(l, w.who, w.ttl)
	w.granted()
}

func (s *simulation) enqueue(l *simLock, w *simWaiter) {
	s.expire(l)
	if l.end == 0 {
		w.gone = true
		s.grant(l, w.who, w.ttl)
		w.granted()
		return
	}
	s.seq++
	w.seq = s.seq
	at := slices.IndexFunc(l.queue, func(o *simWaiter) bool { return o.priority < w.priority })
	if at < 0 {
		at = len(l.queue)
	}
	l.queue = slices.Insert(l.queue, at, w)
}

func (l *simLock) leave(w *simWaiter) bool {
	if w.gone {
		return false
	}
	w.gone = true
	l.queue = slices.DeleteFunc(l.queue, func(o *simWaiter) bool { return o == w })
	return true
}

func (l *simLock) leaveAll(who identity) {
	for _, w := range slices.Clone(l.queue) {
		if w.who == who {
			l.leave(w)
		}
	}
}

func (s *simulation) changed(l *simLock) {
	l.earlier = l.shown
	l.shown = Sight{Lock: l.name, Owner: l.owner.clientID, Held: l.end != 0, Token: l.token}
}

// watch looks at the locks, often enough to see the cluster serve.
func (s *simulation) watch() {
	if s.now > s.end+10*time.Second {
		return
	}
	op := Op{Call: Look, Client: "watcher"}
	s.call(op, func(o *Op) {
		o.Outcome = OK
		for _, l := range s.tables {
			if l.token != 0 {
				o.Seen = append(o.Seen, s.look(l))
			}
		}
	}, func(*Op) {})
	s.in(10*time.Millisecond+s.upTo(20*time.Millisecond), s.watch)
}

func (s *simulation) look(l *simLock) Sight {
	shown := l.shown
	if s.fault == readsOld && s.rng.IntN(4) == 0 && l.earlier.Token != 0 {
		shown = l.earlier
	}
	if l.end != 0 && l.end <= s.clusterTime() && s.fault != expiresLate {
		shown.Held, shown.Owner = false, "" // overdue
	}
	shown.Waiters = int32(len(l.queue))
	for _, w := range l.queue {
		shown.Queue = append(shown.Queue, Place{w.who.clientID})
	}
	return shown
}

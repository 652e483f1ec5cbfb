package raftlock

import (
	"time"
)

// simFaults is what befalls the members, their network, disks and clocks, and the
// clients.
type simFaults struct {
	s       *sim
	blocked map[[2]int]bool
	weather time.Duration // how much later a message may come
	breaks  int           // one of so many frames breaks its stream; 0: none does
	strikes int
}

// cut reports whether nothing gets from one member to another.
func (f *simFaults) cut(from, to *simMember) bool {
	return f.blocked[[2]int{from.number, to.number}]
}

func (f *simFaults) unlucky() bool         { return f.breaks > 0 && f.s.one(f.breaks) }
func (f *simFaults) unluckySnapshot() bool { return f.breaks > 0 && f.s.one(3) }

func (f *simFaults) begin() {
	f.blocked = map[[2]int]bool{}
	f.s.after(f.s.draw(300*time.Millisecond), f.step)
}

func (f *simFaults) step() {
	if f.s.calm {
		return
	}
	f.strikes++
	if f.strikes%8 == 0 { // or nothing would be granted that could be broken
		f.relent()
	} else {
		f.strike()
	}
	f.s.after(f.s.draw(500*time.Millisecond), f.step)
}

func (f *simFaults) note(kind string) { f.s.tally.Faults[kind]++ }

// strike does one thing to somebody.
func (f *simFaults) strike() {
	s := f.s
	m, o := s.members[s.dice.IntN(len(s.members))], s.members[s.dice.IntN(len(s.members))]
	if leader := s.leader(); leader != nil && s.one(3) {
		m = leader
	}
	switch s.dice.IntN(20) {
	case 0, 1:
		f.stop(m, false)
	case 2, 3:
		if s.one(4) {
			f.strikeAll()
		} else {
			f.stop(m, true)
		}
	case 4, 5, 6, 7:
		f.restart()
	case 8, 9:
		if m.alive && !m.stopped {
			f.note("pause")
			m.pause()
			s.after(s.draw(2*time.Second), m.resume)
		}
	case 10:
		f.note("isolation")
		for _, other := range s.members {
			f.blocked[[2]int{m.number, other.number}], f.blocked[[2]int{other.number, m.number}] = true, true
		}
	case 11:
		f.note("one-way cut")
		f.blocked[[2]int{m.number, o.number}] = true
	case 12:
		f.heal()
	case 13:
		f.note("delays")
		f.weather = s.draw(30 * time.Millisecond)
	case 14:
		f.note("breaking streams")
		f.breaks = 20 + s.dice.IntN(400)
	case 15:
		f.note("slow disk")
		m.disk.slow = s.draw(40 * time.Millisecond)
	case 16:
		f.note("hanging disk")
		m.disk.hung = true
		s.after(s.draw(2*time.Second), m.disk.mend)
	case 17:
		f.note("failing disk")
		m.disk.failing = true
		s.after(s.draw(500*time.Millisecond), m.disk.mend)
	case 18:
		f.note("clock rate")
		m.clock.skew(s.now, s.dice.Int64N(2*simFastest+1)-simFastest)
	case 19:
		f.strikeClient(s.clients[s.dice.IntN(len(s.clients))])
	}
}

func (f *simFaults) strikeClient(c *simClient) {
	if f.s.one(2) {
		f.note("answers lost")
		c.deaf = true
		f.s.after(f.s.draw(time.Second), func() { c.deaf = false })
		return
	}
	f.note("client cut off")
	c.cut = true
	f.s.after(f.s.draw(3*time.Second), func() { c.cut = false })
}

// strikeAll takes all members down at once, by a power cut or not, and starts them
// again.
func (f *simFaults) strikeAll() {
	f.note("restart of all")
	torn := f.s.one(2)
	for _, m := range f.s.living() {
		m.crash(torn)
	}
	f.s.after(f.s.draw(200*time.Millisecond), f.restartAll)
}

func (f *simFaults) restartAll() {
	for range f.s.members {
		f.restart()
	}
}

// stop takes a member down.
func (f *simFaults) stop(m *simMember, torn bool) {
	if !m.alive {
		return
	}
	if torn {
		f.note("power cut")
	} else {
		f.note("crash")
	}
	m.crash(torn)
}

func (f *simFaults) restart() {
	for _, m := range f.s.members {
		if !m.alive && !m.gone && m.node != 0 {
			m.disk.mend()
			m.boot()
			return
		}
	}
}

// heal mends the network.
func (f *simFaults) heal() {
	clear(f.blocked)
	f.weather, f.breaks = 0, 0
	for _, m := range f.s.living() {
		for _, l := range f.s.linksOf(m) {
			if l.from == m && l.up {
				l.pump()
			}
		}
	}
}

// relent ends all of it.
func (f *simFaults) relent() {
	f.heal()
	for _, m := range f.s.members {
		m.disk.mend()
		m.resume()
	}
	f.restartAll()
	for _, c := range f.s.clients {
		c.cut, c.deaf = false, false
	}
}

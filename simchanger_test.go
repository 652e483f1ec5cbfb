package raftlock

import (
	"fmt"
	"time"
)

// simChanger is an operator: members are added, removed, lose their disks and are
// replaced, and hand over the leadership.
type simChanger struct {
	s     *sim
	busy  bool
	added int
}

func (g *simChanger) begin() { g.s.after(g.s.draw(time.Second), g.step) }

func (g *simChanger) step() {
	if g.s.calm {
		return
	}
	if !g.busy && g.s.united() {
		g.change()
	}
	g.s.after(g.s.draw(500*time.Millisecond), g.step)
}

// change begins one change of a cluster in which all is well: a disk must not be
// lost while others do not know yet who votes.
func (g *simChanger) change() {
	s := g.s
	leader := s.leader()
	records := leader.r.roster.records
	rec := records[s.dice.IntN(len(records))]
	m := s.byNode(rec.node)
	switch kind := s.dice.IntN(4); {
	case kind == 0 && len(records) < 6:
		g.added++
		name := fmt.Sprintf("a%d", g.added)
		g.wish("add", &wish{change: change{kind: changeAdd, name: name, address: name + ":1"}}, func() { g.admit(s.newMember(name)) })
	case kind == 1 && len(records) > 3:
		g.wish("remove", &wish{change: change{kind: changeRemove, name: rec.name, since: rec.since}}, nil)
	case kind == 2:
		m.crash(true)
		m.empty()
		s.tally.Faults["lost disk"]++
		g.wish("replace", &wish{change: change{kind: changeReplace, name: rec.name, since: rec.since}}, func() { g.admit(m) })
	default:
		s.tally.Faults["transfer"]++
		g.ask(&wish{transfer: rec.name}, func(*failure) {})
	}
}

// wish asks for a change until it is made.
func (g *simChanger) wish(kind string, w *wish, then func()) {
	g.busy = true
	g.ask(w, func(f *failure) {
		if f != nil {
			g.s.after(g.s.draw(200*time.Millisecond), func() { g.wish(kind, w, then) })
			return
		}
		g.s.tally.Changes++
		g.s.tally.Faults["member: "+kind]++
		g.busy = then != nil
		if then != nil {
			then()
		}
	})
}

// ask brings a wish to a member.
func (g *simChanger) ask(w *wish, then func(*failure)) {
	s := g.s
	living := s.living()
	if len(living) == 0 {
		s.after(simTick, func() { then(noLeader) })
		return
	}
	m := living[s.dice.IntN(len(living))]
	k := &simCall{s: s, m: m, answer: then, c: &call{wish: w, done: make(chan struct{}, 1), patience: 5 * time.Second}}
	s.after(s.delay(), k.arrive)
	s.after(6*time.Second, func() {
		if !k.over {
			k.drop(gaveUp)
			then(timedOut)
		}
	})
}

// admit has a member come to the place that was made for it, as assembly does: it
// asks who knows it, is bound, and joins.
func (g *simChanger) admit(m *simMember) {
	s := g.s
	incarnation := s.dice.Uint64()>>1 | 1
	var come func()
	come = func() {
		living := s.living()
		if len(living) == 0 {
			s.after(simTick, come)
			return
		}
		host := living[s.dice.IntN(len(living))]
		rec := host.r.roster.find(m.name)
		switch {
		case host.stopped || rec == nil || rec.node != 0 && rec.incarnation != incarnation:
			s.after(s.draw(100*time.Millisecond), come)
		case rec.node == 0:
			g.ask(&wish{change: change{kind: changeBind, name: m.name, node: incarnation}}, func(*failure) { s.after(s.draw(20*time.Millisecond), come) })
		default:
			m.join(host, incarnation)
			g.busy = false
		}
	}
	come()
}

// join makes an empty member one of a running cluster, by what its host tells it.
func (m *simMember) join(host *simMember, incarnation uint64) {
	theirs := host.assembly.greeting(m.name, asks)
	m.configure(memberNames(theirs.Members))
	m.write(Identity{Name: m.name, ClusterName: m.cfg.ClusterName, Incarnation: incarnation}, func(id Identity) error {
		return newAssembly(&m.cfg, id).join(id, &theirs)
	})
	m.node = incarnation
	m.boot()
}

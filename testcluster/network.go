package testcluster

import (
	"time"

	"github.com/raftlock/raftlock/internal/memnet"
)

// Everyone stands for every member where a fault of the network asks for one:
// Cut(Everyone, 2) lets nobody reach member 2, which still reaches all.
const Everyone = -1

// Cut loses all that member from sends to member to, until Mend or Heal. The
// other direction works on, but neither opens a new connection to the other:
// that takes both.
func (c *Cluster) Cut(from, to int) { c.links("Cut", from, to, c.network.Cut) }

// Mend ends what Cut, Delay, Drop, Duplicate and Reorder did to one direction of
// a link.
func (c *Cluster) Mend(from, to int) {
	c.links("Mend", from, to, func(a, b string) {
		c.network.Mend(a, b)
		c.network.SetWeather(a, b, memnet.Weather{})
	})
}

// Delay has whatever member from sends to member to take delay, and up to jitter
// more, until Mend or Heal. Frames of one connection stay in their order. Above
// half an election time-out, which is 100 ms, leaders are deposed for it. Zeros end
// it.
func (c *Cluster) Delay(from, to int, delay, jitter time.Duration) {
	c.weather("Delay", from, to, func(w *memnet.Weather) { w.Delay, w.Jitter = max(0, delay), max(0, jitter) })
}

// Drop loses a frame from member from to member to with probability p, until Mend
// or Heal. Members speak over connections that lose nothing in between: so it
// breaks there, with all that would have come behind, and they connect anew. Cut is
// what to use for silence. Zero ends it.
func (c *Cluster) Drop(from, to int, p float64) {
	c.weather("Drop", from, to, func(w *memnet.Weather) { w.Drop = p })
}

// Duplicate lets a frame from member from to member to arrive, with probability p,
// while the sender is told that the connection broke, until Mend or Heal. It cannot
// know what has arrived, and what it sends again comes twice. Zero ends it.
func (c *Cluster) Duplicate(from, to int, p float64) {
	c.weather("Duplicate", from, to, func(w *memnet.Weather) { w.Duplicate = p })
}

// Reorder is Duplicate, but what is under way arrives up to late later: behind much
// of what is sent over the next connection. Zero ends it.
func (c *Cluster) Reorder(from, to int, p float64, late time.Duration) {
	c.weather("Reorder", from, to, func(w *memnet.Weather) { w.Reorder, w.Late = p, max(0, late) })
}

func (c *Cluster) weather(method string, from, to int, change func(*memnet.Weather)) {
	c.links(method, from, to, func(a, b string) {
		w := c.network.Weather(a, b)
		change(&w)
		c.network.SetWeather(a, b, w)
	})
}

// links does something to the links that a fault names.
func (c *Cluster) links(method string, from, to int, do func(a, b string)) {
	if !c.isAlive(method) {
		return
	}
	for i, a := range c.roll.list() {
		for j, b := range c.roll.list() {
			if i != j && (from == Everyone || from == i) && (to == Everyone || to == j) {
				do(a.addr, b.addr)
			}
		}
	}
}

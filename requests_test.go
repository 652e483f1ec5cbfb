package raftlock

import (
	"fmt"
	"testing"
)

func TestMemoryForgetsTheEarliest(t *testing.T) {
	m := newRequestMemory()
	id := func(i int) identity { return identity{"client", fmt.Sprint(i)} }
	for i := range maxRemembered {
		m.add("L", id(i), logTime(10+i))
	}
	// Among equal ends the smallest (lock, client, request) goes first: here
	// the new one itself, as lock K comes before L and its end is the first.
	m.add("K", id(0), 10)
	if m.has("K", id(0)) || !m.has("L", id(0)) || m.len() != maxRemembered {
		t.Fatalf("remembers %d, K %v, L %v", m.len(), m.has("K", id(0)), m.has("L", id(0)))
	}
	// A request that is remembered already takes no place.
	m.add("L", id(0), 1_000_000)
	if m.len() != maxRemembered || !m.has("L", id(1)) {
		t.Fatal("something was forgotten for nothing")
	}
	m.add("M", id(0), 1_000_000)
	if m.has("L", id(1)) || !m.has("L", id(0)) || !m.has("M", id(0)) {
		t.Fatal("the earliest end was kept")
	}
	m.forget(10 + maxRemembered)
	if m.len() != 2 {
		t.Fatalf("remembers %d", m.len())
	}
	m.forget(1_000_000)
	if m.len() != 0 || m.sum != 0 || m.tree.Len() != 0 {
		t.Fatal("not empty")
	}
}

func TestMemoryCloneStandsStill(t *testing.T) {
	m := newRequestMemory()
	for i := range 1000 {
		m.add("L", identity{"A", fmt.Sprint(i)}, logTime(i))
	}
	c := m.tree.clone()
	m.forget(600)
	m.add("L", identity{"A", "999"}, 5000)
	n := 0
	c.Ascend(func(r request) bool {
		if r.end != logTime(n) || r.id.request != fmt.Sprint(n) {
			t.Fatalf("request %d reads %v", n, r)
		}
		n++
		return true
	})
	if n != 1000 {
		t.Fatalf("%d requests", n)
	}
}

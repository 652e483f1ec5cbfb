package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/raftlock/raftlock/history"
)

// To explain a history piece after piece finds what a search over all of it finds,
// of histories that can be explained and of such that can not.
func TestPieces(t *testing.T) {
	seeds := uint64(20_000)
	if testing.Short() {
		seeds = 2000
	}
	verdicts, pieces := map[bool]int{}, map[bool]int{}
	for seed := range seeds {
		h := turns(rand.New(rand.NewPCG(seed, 7)))
		answer, whole := searched(t, h, len(h.Ops))
		_, parts := searched(t, h, 1)
		if answer != porcupine.Ok || len(whole) != len(parts) {
			t.Fatalf("seed %d: %v: %v as a whole, %v in pieces", seed, answer, whole, parts)
		}
		verdicts[len(whole) == 0]++
		for _, list := range deedsOf(h) {
			pieces[len(whole) == 0] += len(cut(list, 1)) - 1
		}
	}
	t.Logf("explained, or not: %v, cut: %v", verdicts, pieces)
	for _, kept := range []bool{true, false} {
		if verdicts[kept] < int(seeds)/10 || pieces[kept] < int(seeds)/10 {
			t.Errorf("explained: %v, %d histories in %d pieces", kept, verdicts[kept], pieces[kept])
		}
	}
}

// turns is a short history of one lock, in which now and then an operation shows
// what it must not.
func turns(rng *rand.Rand) *history.History {
	h := &history.History{}
	at, overlap := time.Duration(0), 1+rng.IntN(60)
	op := func(o history.Op) {
		at += 10
		o.From, o.To, o.Lock = max(0, at-time.Duration(rng.IntN(overlap))), at+time.Duration(rng.IntN(overlap)), "l"
		if o.Outcome == "" {
			o.Outcome = history.OK
		}
		h.Ops = append(h.Ops, o)
	}
	look := func(owner string, token int64) {
		op(history.Op{Call: history.Look, Seen: []history.Sight{{Lock: "l", Owner: owner, Held: owner != "", Token: token}}})
	}
	wrong := rng.IntN(30)
	for token := int64(1); token < 6; token++ {
		me := fmt.Sprint("c", rng.IntN(2))
		ttl := time.Duration(1+rng.IntN(60)) * 1
		if rng.IntN(6) > 0 {
			op(history.Op{Call: history.Acquire, ClientID: me, RequestID: fmt.Sprint(token), Token: token, TTL: ttl})
		}
		for range rng.IntN(4) {
			switch rng.IntN(5) {
			case 0:
				op(history.Op{Call: history.Renew, ClientID: me, Token: token, TTL: ttl})
			case 1:
				op(history.Op{Call: history.Renew, ClientID: me, Token: token - int64(rng.IntN(2)), Outcome: history.Refused})
			default:
				look(me, token)
			}
		}
		switch rng.IntN(4) {
		case 0:
			at += 100
			look("", token)
		case 1:
			op(history.Op{Call: history.Look, Outcome: history.Refused})
		default:
			op(history.Op{Call: history.Release, ClientID: me, Token: token})
		}
	}
	if wrong < len(h.Ops) {
		i := rng.IntN(len(h.Ops))
		h.Ops[wrong].Token, h.Ops[wrong].Seen = h.Ops[i].Token, h.Ops[i].Seen
	}
	return h
}

// sequence is one client that takes one lock and gives it back, n times, and looks
// at it in between; or that renews it n times.
func sequence(n int, renews bool) *history.History {
	h := &history.History{}
	for i := range time.Duration(n) {
		at, token := i*time.Millisecond, int64(i)+1
		if renews {
			token = 1
		}
		if !renews || i == 0 {
			h.Ops = append(h.Ops, history.Op{
				Call: history.Acquire, ClientID: "a", RequestID: fmt.Sprint(i), Lock: "l", Token: token, From: at, To: at + 10, Outcome: history.OK, TTL: time.Second,
			})
		}
		op := history.Op{Call: history.Release, ClientID: "a", Lock: "l", Token: token, From: at + 20, To: at + 30, Outcome: history.OK, TTL: time.Second}
		if renews {
			op.Call = history.Renew
		}
		h.Ops = append(h.Ops, op)
	}
	return h
}

// The room that a search takes does not grow with the history, where it can be cut.
func TestSearchRoom(t *testing.T) {
	const n, room = 10_000, 2 << 20
	for _, renews := range []bool{false, true} {
		h := sequence(n, renews)
		e := &effort{ctx: t.Context(), deadline: time.Now().Add(time.Minute), room: room, least: leastPiece}
		if answer, found := e.search(h); answer != porcupine.Ok || len(found) > 0 || e.large {
			t.Errorf("renews %v: %v %v, large: %v", renews, answer, found, e.large)
		}
		e.least = len(h.Ops)
		if answer, found := e.search(h); answer != porcupine.Unknown || len(found) > 0 || !e.large {
			t.Errorf("renews %v, in one piece: %v %v, large: %v", renews, answer, found, e.large)
		}
		for _, list := range deedsOf(h) {
			for _, p := range cut(list, leastPiece) {
				if len(p.deeds) > 2*leastPiece {
					t.Errorf("renews %v: a piece of %d", renews, len(p.deeds))
				}
			}
		}
	}
}

// A check that has no room for what is known of a lock says so, and nothing else.
func TestCheckLarge(t *testing.T) {
	h := sequence(200, false)
	for i, o := range slices.Clone(h.Ops) { // somebody always waits
		if i%2 == 0 {
			o.ClientID, o.Token, o.Outcome, o.Code = "b", 0, history.Refused, "TIMEOUT"
			o.To = h.Ops[len(h.Ops)-1].To
			o.Seen = []history.Sight{{Lock: "l", Token: int64(len(h.Ops) / 2)}}
			h.Ops = append(h.Ops, o)
		}
	}
	c := checking{timeout: time.Minute, room: 64 << 10}
	v, err := c.judge(t.Context(), h)
	if err != nil || v.Verdict != "large" || v.code != exitThin || !strings.Contains(v.why, "given up") {
		t.Errorf("%v: %+v", err, v)
	}
	c.room = mostRoom
	if v, err = c.judge(t.Context(), h); err != nil || v.Verdict != "kept" {
		t.Errorf("%v: %+v", err, v)
	}
}

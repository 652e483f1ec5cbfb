package history

import (
	"slices"
	"testing"
	"time"
)

// What each operation guarantees: to the end that its answer promised, less 0.1 %
// for clocks, or for its TTL since it was called, if that is later and it is known
// which call the TTL counts from; and not beyond the call of what may have ended
// the grant.
func TestGuarantees(t *testing.T) {
	const s = time.Second
	acquire := func(request string, outcome Outcome, from, to, expires time.Duration) Op {
		op := Op{Call: Acquire, From: from, To: to, Outcome: outcome, Lock: "a", ClientID: "A", RequestID: request, TTL: 10 * s}
		if outcome == OK {
			op.Token, op.Expires = 5, expires
		}
		return op
	}
	of := func(call Call, outcome Outcome, from, to time.Duration) Op {
		op := Op{Call: call, From: from, To: to, Outcome: outcome, Lock: "a", ClientID: "A", Token: 5}
		if call == Renew {
			op.TTL, op.Expires = 10*s, from+10*s
		}
		return op
	}
	// What is left of 10 s another clock may have measured since all 10 s were left.
	promised := func(expires time.Duration) time.Duration { return expires - 10*s/drift }
	first := acquire("r", OK, 0, s, 10*s)
	withdrawal := Op{Call: Cancel, From: 3 * s, To: 4 * s, Outcome: OK, Lock: "a", ClientID: "A", RequestID: "r"}
	otherWithdrawal := withdrawal
	otherWithdrawal.RequestID = "another"
	for name, c := range map[string]struct {
		ops  []Op
		want []time.Duration
	}{
		"nothing": {nil, []time.Duration{}},
		"a grant": {[]Op{first}, []time.Duration{promised(10 * s)}},
		"one that had to wait lasts as long as its answer says": {
			[]Op{acquire("r", OK, 0, 20*s, 30*s)}, []time.Duration{promised(30 * s)},
		},
		"one whose answer promises nothing lasts for its TTL": {
			[]Op{acquire("r", OK, 0, s, 0)}, []time.Duration{atLeast(10 * s)},
		},
		"of two calls nobody knows which the TTL counts from": {
			[]Op{acquire("r", OK, 0, s, 0), acquire("r", OK, 2*s, 3*s, 0)}, []time.Duration{0, 2 * s},
		},
		"a renewal": {
			[]Op{first, of(Renew, OK, 5*s, 6*s)}, []time.Duration{promised(10 * s), promised(15 * s)},
		},
		"a renewal that was refused, and one that is open": {
			[]Op{first, of(Renew, Refused, 5*s, 6*s), of(Renew, Open, 5*s, 0)}, []time.Duration{promised(10 * s), 0, 0},
		},
		"released": {
			[]Op{first, of(Release, OK, 3*s, 4*s)}, []time.Duration{3 * s, 0},
		},
		"perhaps released, and renewed after that": {
			[]Op{first, of(Renew, OK, 2*s, 3*s), of(Release, Unknown, 4*s, 5*s)}, []time.Duration{4 * s, 4 * s, 0},
		},
		"a release that was refused ends nothing": {
			[]Op{first, of(Release, Refused, 3*s, 4*s)}, []time.Duration{promised(10 * s), 0},
		},
		"withdrawn": {[]Op{first, withdrawal}, []time.Duration{3 * s, 0}},
		"another call withdrawn": {
			[]Op{first, otherWithdrawal}, []time.Duration{promised(10 * s), 0},
		},
		"asked for again, and perhaps withdrawn with that": {
			[]Op{first, acquire("r", Unknown, 2*s, 3*s, 0)}, []time.Duration{2 * s, 0},
		},
		"a plain call is never withdrawn": {
			[]Op{acquire("", OK, 0, s, 10*s), acquire("", Unknown, 2*s, 3*s, 0)}, []time.Duration{promised(10 * s), 0},
		},
		"a look": {
			[]Op{{Call: Look, From: 0, To: s, Outcome: OK, Lock: "a", Seen: []Sight{{Lock: "a", Owner: "A", Held: true, Token: 5}}}},
			[]time.Duration{0},
		},
	} {
		h := &History{Ops: c.ops}
		if got := h.Guarantees(); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// A guarantee lies within its operation's own words, in whatever history; no other
// operation has one.
func TestGuaranteesAreBounded(t *testing.T) {
	for seed := range uint64(20) {
		h := simulate(seed, sound)
		ends := h.Guarantees()
		if len(ends) != len(h.Ops) {
			t.Fatalf("%d guarantees for %d operations", len(ends), len(h.Ops))
		}
		some := 0
		for i := range h.Ops {
			o := &h.Ops[i]
			if !o.extends() {
				if ends[i] != 0 {
					t.Errorf("seed %d: operation %d guarantees until %v", seed, i+1, ends[i])
				}
				continue
			}
			if ends[i] > o.From {
				some++
			}
			if most := max(o.Expires, o.From+o.TTL); ends[i] > most {
				t.Errorf("seed %d: operation %d guarantees until %v, and promises %v", seed, i+1, ends[i], most)
			}
		}
		if some == 0 {
			t.Errorf("seed %d: nothing is guaranteed", seed)
		}
	}
}

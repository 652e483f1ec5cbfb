package history

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkCheck checks histories of different lengths: the time for one operation
// must not grow with them but for a logarithm. All are of one lock: one with
// renewals, looks at its queue, and holders that come one after the other; and
// those of one identity that wins it over and over, in the ways in which its calls
// may mean something for each of its grants.
func BenchmarkCheck(b *testing.B) {
	for _, of := range []struct {
		name string
		make func(n int) *History
	}{{"relay", relay}, {"plain", plain}, {"unknown", unknown}, {"withdrawn", withdrawn}} {
		for _, n := range []int{1e3, 1e4, 2e4, 4e4, 1e5} {
			b.Run(fmt.Sprint(of.name, "/", n), func(b *testing.B) {
				h := of.make(n)
				if err := h.Check(Bounds{}).Err(); err != nil {
					b.Fatal(err)
				}
				b.ReportAllocs()
				for b.Loop() {
					h.Check(Bounds{})
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/operation")
			})
		}
	}
}

// plain is a history of n operations in which one identity takes one lock and
// gives it back.
func plain(n int) *History {
	h := &History{}
	for token := int64(1); len(h.Ops) < n; token++ {
		at := time.Duration(token) * time.Millisecond
		h.Ops = append(h.Ops,
			Op{Call: Acquire, From: at, To: at + 10, Outcome: OK, Lock: "a", ClientID: "c", TTL: time.Second, Token: token},
			Op{Call: Release, From: at + 20, To: at + 30, Outcome: OK, Lock: "a", ClientID: "c", Token: token})
	}
	return h
}

// unknown is plain with a call that has no answer beside each.
func unknown(n int) *History {
	h := plain(n / 3 * 2)
	for _, o := range h.Ops {
		if o.Call == Acquire {
			o.Outcome, o.Token = Unknown, 0
			h.Ops = append(h.Ops, o)
		}
	}
	return h
}

// withdrawn is plain with a RequestID that is used again for each, and withdrawn.
func withdrawn(n int) *History {
	h := plain(n)
	for i := range h.Ops {
		o := &h.Ops[i]
		o.RequestID = "r"
		if o.Call == Release {
			o.Call, o.Token = Cancel, 0
		}
	}
	return h
}

// relay is a history of n operations in which holders hand one lock on.
func relay(n int) *History {
	h := &History{}
	const ms = time.Millisecond
	for token := int64(1); len(h.Ops) < n; token++ {
		at := time.Duration(token) * 10 * ms
		me, next := fmt.Sprint("c", token), fmt.Sprint("c", token+1)
		h.Ops = append(h.Ops,
			Op{Call: Acquire, From: at - 9*ms, To: at + ms, Outcome: OK, Lock: "a", ClientID: me, RequestID: "r", TTL: time.Second, Wait: true, Token: token, Expires: at + time.Second},
			Op{Call: Renew, From: at + 2*ms, To: at + 3*ms, Outcome: OK, Lock: "a", ClientID: me, TTL: time.Second, Token: token, Expires: at + time.Second},
			Op{Call: Look, From: at + 4*ms, To: at + 5*ms, Outcome: OK, Lock: "a", Seen: []Sight{
				{Lock: "a", Owner: me, Held: true, Token: token, Waiters: 1, Queue: []Place{{next}}}}},
			Op{Call: Write, From: at + 5*ms, To: at + 6*ms, Outcome: OK, Lock: "a", Token: token},
			Op{Call: Release, From: at + 7*ms, To: at + 8*ms, Outcome: OK, Lock: "a", ClientID: me, Token: token, Promoted: true},
		)
	}
	return h
}

package history

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkCheck checks histories of different lengths: the time for one operation
// must not grow with them but for a logarithm. All are of one lock, with renewals,
// looks at its queue, and holders that come one after the other.
func BenchmarkCheck(b *testing.B) {
	for _, n := range []int{1e3, 1e4, 1e5} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			h := relay(n)
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

package history

import (
	"testing"
	"time"
)

// A call whose turn comes while its caller is cut off wins a grant that nobody
// hears of. When that has lapsed, the call is served again, behind others that stood
// behind it. Until then nobody may be.
func TestUnheardGrantEndsAPlace(t *testing.T) {
	const ms = time.Millisecond
	for served, want := range map[time.Duration]int{140 * ms: 1, 500 * ms: 0} {
		queue := []Place{{ClientID: "a"}, {ClientID: "b"}}
		h := History{Ops: []Op{
			{Call: Acquire, To: ms, Outcome: OK, Lock: "x", ClientID: "holder", TTL: 30 * ms, Token: 1, Expires: 30 * ms},
			{Call: Acquire, From: 2 * ms, To: 900 * ms, Outcome: OK, Lock: "x", ClientID: "a", RequestID: "r", TTL: 200 * ms, Wait: true, Timeout: time.Minute, Token: 4, Expires: 1000 * ms},
			{Call: Acquire, From: 3 * ms, To: served, Outcome: OK, Lock: "x", ClientID: "b", RequestID: "r", TTL: 100 * ms, Wait: true, Timeout: time.Minute, Token: 3, Expires: served + 90*ms},
			{Call: Look, From: 5 * ms, To: 6 * ms, Outcome: OK, Seen: []Sight{{Lock: "x", Owner: "holder", Held: true, Token: 1, Waiters: 2, Queue: queue}}},
		}}
		report := h.Check(Bounds{})
		if report.Compared[QueueOrder] == 0 || len(report.Violations) != report.Broken[QueueOrder] || report.Broken[QueueOrder] != want {
			t.Errorf("the second served by %v: %d violations, want %d: %v", served, report.Broken[QueueOrder], want, report.Err())
		}
	}
}

// The same for who was asked for when the first was seen in the queue.
func TestUnheardGrantLetsOthersPass(t *testing.T) {
	const ms = time.Millisecond
	for served, want := range map[time.Duration]int{140 * ms: 1, 500 * ms: 0} {
		h := History{Ops: []Op{
			{Call: Acquire, To: ms, Outcome: OK, Lock: "x", ClientID: "holder", TTL: 30 * ms, Token: 1, Expires: 30 * ms},
			{Call: Acquire, From: 2 * ms, To: 900 * ms, Outcome: OK, Lock: "x", ClientID: "a", RequestID: "r", TTL: 200 * ms, Wait: true, Timeout: time.Minute, Token: 4, Expires: 1000 * ms},
			{Call: Look, From: 5 * ms, To: 6 * ms, Outcome: OK, Seen: []Sight{{Lock: "x", Owner: "holder", Held: true, Token: 1, Waiters: 1, Queue: []Place{{ClientID: "a"}}}}},
			{Call: Acquire, From: 7 * ms, To: served, Outcome: OK, Lock: "x", ClientID: "b", RequestID: "r", TTL: 100 * ms, Wait: true, Timeout: time.Minute, Token: 3, Expires: served + 90*ms},
		}}
		report := h.Check(Bounds{})
		if report.Compared[QueueOrder] == 0 && want > 0 || len(report.Violations) != report.Broken[QueueOrder] || report.Broken[QueueOrder] != want {
			t.Errorf("the second served by %v: %d violations, want %d: %v", served, report.Broken[QueueOrder], want, report.Err())
		}
	}
}

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

// A wait without a RequestID is over, and an attempt of it comes late and stands in
// the queue, when its caller waits again: the place is not that of the second call,
// which comes behind others.
func TestLateAttemptStandsInTheQueue(t *testing.T) {
	const ms = time.Millisecond
	for request, want := range map[string]int{"": 0, "r": 1} {
		queue := []Place{{ClientID: "a"}}
		h := History{Ops: []Op{
			{Call: Acquire, To: ms, Outcome: OK, Lock: "x", ClientID: "holder", RequestID: "h", TTL: 1400 * ms, Token: 1, Expires: 1400 * ms},
			{Call: Acquire, From: 2 * ms, To: 1000 * ms, Outcome: Refused, Code: "TIMEOUT", Lock: "x", ClientID: "a", RequestID: request, TTL: 9000 * ms, Wait: true, Timeout: 998 * ms},
			{Call: Acquire, From: 1200 * ms, To: 1900 * ms, Outcome: OK, Lock: "x", ClientID: "a", TTL: 9000 * ms, Wait: true, Timeout: time.Minute, Token: 4, Expires: 9000 * ms},
			{Call: Look, From: 1300 * ms, To: 1301 * ms, Outcome: OK, Seen: []Sight{{Lock: "x", Owner: "holder", Held: true, Token: 1, Waiters: 1, Queue: queue}}},
			{Call: Acquire, From: 1400 * ms, To: 1500 * ms, Outcome: OK, Lock: "x", ClientID: "b", RequestID: "b", TTL: 10 * ms, Token: 3, Expires: 1510 * ms},
		}}
		if report := h.Check(Bounds{}); len(report.Violations) != want || report.Broken[QueueOrder] != want {
			t.Errorf("with RequestID %q: %v", request, report.Err())
		}
	}
}

// Nor is it that of the call which is over: others may be ahead of it, though they
// were served after that one.
func TestLateAttemptStandsBehindOthers(t *testing.T) {
	const ms = time.Millisecond
	h := History{Ops: []Op{
		{Call: Acquire, To: 10 * ms, Outcome: OK, Lock: "x", ClientID: "a", TTL: 1000 * ms, Wait: true, Timeout: time.Minute, Token: 1, Expires: 1000 * ms},
		{Call: Release, From: 20 * ms, To: 21 * ms, Outcome: OK, Lock: "x", ClientID: "a", Token: 1},
		{Call: Acquire, From: 22 * ms, To: 23 * ms, Outcome: OK, Lock: "x", ClientID: "c", RequestID: "c", TTL: 9000 * ms, Token: 2, Expires: 9000 * ms},
		{Call: Acquire, From: 5 * ms, To: 500 * ms, Outcome: OK, Lock: "x", ClientID: "b", RequestID: "b", TTL: 9000 * ms, Wait: true, Timeout: time.Minute, Token: 3, Expires: 9000 * ms},
		{Call: Look, From: 30 * ms, To: 31 * ms, Outcome: OK, Seen: []Sight{{Lock: "x", Owner: "c", Held: true, Token: 2, Waiters: 2, Queue: []Place{{ClientID: "b"}, {ClientID: "a"}}}}},
		{Call: Release, From: 400 * ms, To: 401 * ms, Outcome: OK, Lock: "x", ClientID: "c", Token: 2, Promoted: true},
	}}
	if err := h.Check(Bounds{}).Err(); err != nil {
		t.Error(err)
	}
}

// A late attempt of a wait is served in its turn, for nobody, while another waits in
// vain. One with a RequestID would have been refused.
func TestLateAttemptIsServed(t *testing.T) {
	const ms = time.Millisecond
	for request, want := range map[string]int{"": 0, "r": 1} {
		queue := []Place{{ClientID: "a"}, {ClientID: "b"}}
		h := &History{Ops: []Op{
			{Call: Acquire, To: ms, Outcome: OK, Lock: "x", ClientID: "holder", RequestID: "h", TTL: 9000 * ms, Token: 1, Expires: 9000 * ms},
			{Call: Acquire, From: 2 * ms, To: 5 * ms, Outcome: Refused, Code: "TIMEOUT", Lock: "x", ClientID: "a", RequestID: request, TTL: 9000 * ms, Wait: true, Timeout: 3 * ms},
			{Call: Acquire, From: 6 * ms, To: 3000 * ms, Outcome: Refused, Code: "TIMEOUT", Lock: "x", ClientID: "b", RequestID: "b", TTL: 9000 * ms, Wait: true, Timeout: 2994 * ms},
			{Call: Look, From: 10 * ms, To: 11 * ms, Outcome: OK, Seen: []Sight{{Lock: "x", Owner: "holder", Held: true, Token: 1, Waiters: 2, Queue: queue}}},
			{Call: Release, From: 20 * ms, To: 21 * ms, Outcome: OK, Lock: "x", ClientID: "holder", Token: 1, Promoted: true},
		}}
		for at := time.Duration(0); at < 4000*ms; at += 10 * ms {
			h.Ops = append(h.Ops, change(at))
		}
		if report := h.Check(Bounds{}); len(report.Violations) != want || report.Broken[WaitersServed] != want {
			t.Errorf("with RequestID %q: %v", request, report.Err())
		}
	}
}

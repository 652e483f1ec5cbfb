package history

import (
	"testing"
	"time"
)

// What clients saw of a correct cluster, and the rules once held against it.
func TestSilence(t *testing.T) {
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	acquire := func(who string, from, to time.Duration, ttl time.Duration, token int64) Op {
		return Op{Call: Acquire, Outcome: OK, Lock: "a", ClientID: who, RequestID: "r", From: from, To: to, TTL: ttl, Expires: to + ttl, Wait: true, Timeout: time.Minute, Token: token}
	}
	queue := Op{Call: Look, Outcome: OK, Lock: "a", From: ms(20), To: ms(21), Seen: []Sight{{Lock: "a", Owner: "first", Held: true, Token: 1, Waiters: 2, Queue: []Place{{"away"}, {"next"}}}}}
	late := acquire("away", ms(10), ms(900), ms(50), 2)
	late.Expires = ms(500)
	for name, ops := range map[string][]Op{
		"a waiter's first grant ends before it hears of it, and it asks again": {
			acquire("first", 0, 1, ms(30), 1), acquire("away", ms(10), ms(300), ms(50), 4), acquire("next", ms(11), ms(90), ms(100), 3), queue,
		},
		"of two calls of a request one is cancelled before it is proposed, and takes the other's grant with it": {
			acquire("first", 0, 1, time.Minute, 1),
			{Call: Acquire, Outcome: Failed, Code: "TIMEOUT", Lock: "a", ClientID: "first", RequestID: "r", From: 0, To: ms(100), TTL: time.Minute},
			acquire("next", ms(11), ms(101), time.Minute, 2),
		},
		"a clock that goes wrong measures how long a grant has been over": {
			late, acquire("next", ms(400), ms(500)-1, ms(50), 3),
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := (&History{Ops: ops}).Check(Bounds{}).Err(); err != nil {
				t.Error(err)
			}
		})
	}
}

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
	var looks []Op // often enough to show that the cluster serves
	for at := ms(50); at < ms(3000); at += ms(50) {
		looks = append(looks, Op{Call: Look, Outcome: OK, Lock: "a", From: at, To: at + 1, Seen: []Sight{{Lock: "a", Owner: "first", Held: true, Token: 1}}})
	}
	for name, ops := range map[string][]Op{
		"a waiter's first grant ends before it hears of it, and it asks again": {
			acquire("first", 0, 1, ms(30), 1), acquire("away", ms(10), ms(300), ms(50), 4), acquire("next", ms(11), ms(90), ms(100), 3), queue,
		},
		"a release that is proposed before a look and made after it lets a waiter win unheard": {
			acquire("first", 0, 1, time.Minute, 1), acquire("away", ms(10), ms(300), ms(50), 4), acquire("next", ms(11), ms(68), ms(100), 3), queue,
			{Call: Release, Outcome: OK, Lock: "a", ClientID: "first", Token: 1, From: ms(15), To: ms(30)},
		},
		"reads are served while a majority of the disks hangs, and the end of a grant is not made": append([]Op{
			acquire("first", 0, 1, ms(50), 1),
		}, looks...),
		"of two calls of a request one is cancelled before it is proposed, and takes the other's grant with it": {
			acquire("first", 0, 1, time.Minute, 1),
			{Call: Acquire, Outcome: Failed, Code: "TIMEOUT", Lock: "a", ClientID: "first", RequestID: "r", From: 0, To: ms(100), TTL: time.Minute},
			acquire("next", ms(11), ms(101), time.Minute, 2),
		},
		"a renewal is made, its answer lost, and made again too late": append([]Op{
			acquire("first", 0, 1, ms(50), 1),
			{Call: Renew, Outcome: Refused, Code: "LOCK_NOT_HELD", Lock: "a", ClientID: "first", Token: 1, From: ms(40), To: ms(9000), TTL: 8 * time.Second},
		}, looks...),
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

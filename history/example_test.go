package history_test

import (
	"context"
	"fmt"
	"strings"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/history"
)

// A history that somebody sent: two grants of one lock that cannot both be right.
func ExampleHistory_Check() {
	h, err := history.Read(strings.NewReader(`{"format":"raftlock-history","version":1}
{"call":"acquire","client":"left","from":0,"to":2000000,"outcome":"ok","lock":"a","client_id":"A","ttl":10000000000,"token":7}
{"call":"acquire","client":"right","from":5000000,"to":8000000,"outcome":"ok","lock":"a","client_id":"B","ttl":10000000000,"token":8}
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, v := range h.Check(history.Bounds{}).Violations {
		fmt.Println(v.Rule)
		fmt.Println(strings.ReplaceAll(v.Text, "; ", "\n"))
	}
	// Output:
	// mutual exclusion
	// operation 1 of left, at 0s to 2ms: "A" acquires lock "a" with token 7
	// operation 2 of right, at 5ms to 8ms: "B" acquires lock "a" with token 8
	// the first has lock "a" under token 7 until 9.99s at least, and token 8 was granted by 8ms
}

// Recording what goes through a client, and what the lock protects.
func ExampleRecorder() {
	node, err := raftlock.Open(raftlock.Config{Name: "n1", Storage: raftlock.NewMemoryStorage()})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = node.Close() }()

	rec := history.New()
	for _, name := range []string{"left", "right"} {
		c := rec.Client(node.Client(), name)
		err := client.Do(context.Background(), c, "invoices", func(_ context.Context, token int64) error {
			return rec.Write("invoices", token, func() error { return nil }) // the write goes here
		})
		if err != nil {
			fmt.Println(err)
		}
	}
	report := rec.History().Check(history.Bounds{})
	fmt.Println("wrong:", report.Err())
	fmt.Println("too thin to tell:", report.Thin())
	// Output:
	// wrong: <nil>
	// too thin to tell: false
}

package memnet_test

import (
	"context"
	"fmt"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/internal/memnet"
)

func ExampleNetwork() {
	network := memnet.New()
	a, b := network.Transport("a"), network.Transport("b")
	_ = b.Serve(func(s raftlock.PeerStream) {
		frame, _ := s.Recv()
		_ = s.Send(append(frame, '!'))
	})

	stream, _ := a.Dial(context.Background(), "b")
	_ = stream.Send([]byte("hello"))
	frame, _ := stream.Recv()
	fmt.Printf("%s\n", frame)

	_ = b.Close()
	_, err := a.Dial(context.Background(), "b")
	fmt.Println(err)
	_ = a.Close()
	// Output:
	// hello!
	// memnet: dial b from a: connection refused
}

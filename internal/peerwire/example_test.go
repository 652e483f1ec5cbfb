package peerwire_test

import (
	"context"
	"fmt"
	"net"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/internal/peerwire"
)

func ExampleNew() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	addr := listener.Addr().String()
	transport, err := peerwire.New(peerwire.Config{Listener: listener})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer transport.Close() //nolint:errcheck // an example

	_ = transport.Serve(func(s raftlock.PeerStream) {
		frame, _ := s.Recv()
		_ = s.Send(append(frame, '!'))
	})
	stream, err := transport.Dial(context.Background(), addr)
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = stream.Send([]byte("hello"))
	frame, _ := stream.Recv()
	fmt.Printf("%s\n", frame)
	// Output: hello!
}

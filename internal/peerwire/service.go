package peerwire

import "google.golang.org/grpc"

// Names on the wire; part of the protocol, see the package comment.
const (
	serviceName = "raftlock.Peer1"
	streamName  = "Frames"
	fullMethod  = "/" + serviceName + "/" + streamName
)

// framesDesc describes the one call to both ends. There is no .proto behind
// it, as a frame has no structure here.
var framesDesc = grpc.StreamDesc{
	StreamName:    streamName,
	Handler:       serveFrames,
	ServerStreams: true,
	ClientStreams: true,
}

// frameServer is what gRPC checks the service's implementation against.
type frameServer interface {
	receive(grpc.ServerStream) error
}

var serviceDesc = grpc.ServiceDesc{
	ServiceName: serviceName,
	HandlerType: (*frameServer)(nil),
	Streams:     []grpc.StreamDesc{framesDesc},
}

func serveFrames(server any, call grpc.ServerStream) error {
	return server.(frameServer).receive(call)
}

// Package peerwire carries frames between members over gRPC: the
// raftlock.Transport of a cluster that spans processes.
//
//	transport, err := peerwire.New(peerwire.Config{Listener: listener, TLS: tlsConfig})
//
// From then on the transport owns the listener; the node that it is given to
// owns the transport.
//
// # On the wire
//
// Part of the protocol between members of different releases; do not change.
//
//	connection  TCP, in it TLS with ALPN "h2" when configured, in it HTTP/2
//	call        POST /raftlock.Peer1/Frames, a gRPC call that streams both ways
//	headers     content-type application/grpc+raftlock; the acceptor's are sent
//	            at once, before its first frame: they tell the dialler that the
//	            stream is up
//	message     one frame, as it is: byte 0 (never compressed), its length as
//	            four bytes big endian, the frame
//	end         trailers when accept has returned, else the end of the connection
//
// What a frame means is the node's affair. Should the layout above ever have
// to change, the new one gets a new service name (Peer2) that is served beside
// this one: an older member answers it with UNIMPLEMENTED.
//
// # One connection per stream
//
// Each stream has a TCP connection of its own. So closing a stream can close
// the connection, which is at once, does not wait for a peer that reads
// nothing, and reaches both ends whatever fills the buffers (a gRPC server
// cannot reset a single stream); and a snapshot on one stream does not stand
// in the way of a heartbeat on another. Members open few streams and keep them,
// so the handshakes do not count.
//
// # A peer that is gone
//
// A closed, reset or refused connection is noticed at once. A connection that
// has gone silent (the machine lost, the network cut) is broken by both ends:
//
//	something was sent        after 4 s without acknowledgement (TCP_USER_TIMEOUT; Linux only)
//	nothing was sent          after about 5 s (TCP keepalive: 2 s idle, probes 1 s apart)
//	the peer's process hangs  after 5 s at the accepting end, 14 s at the dialling
//	                          end (HTTP/2 pings; gRPC refuses to dial with less
//	                          than 10 s between them)
//
// A peer that is alive but receives nothing is not gone: Send waits for it, as
// soon as the window of 8 MiB is full.
//
// # What it refuses
//
// Frames above raftlock.MaxFrame, both ways, before any memory is spent on
// them. Connections above 256 accepted ones at a time. Connections that have
// not opened their stream within 10 s, or stay 1 s after its end. Headers above
// 8 KiB, a second call on a connection, other methods, compression. Proxies
// from the environment are not used. Who may connect is decided by the TLS
// config alone; what a peer may say, by the node.
package peerwire

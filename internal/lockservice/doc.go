// Package lockservice is the gRPC face of a member: it serves pb.RaftLock, and
// grpc.health.v1 and reflection beside it, with any value that has the methods
// of client.Client; and pb.Members, if it is given who can change them. It knows
// nothing of raft.
//
//	service := lockservice.New(lockservice.Config{Client: node.Client(), Cluster: node.ClusterID, Leader: node.Leader})
//	server := lockservice.NewServer(service, tlsConfig)
//	go server.Serve(listener)
//
// # Answers
//
// What the table of locks decides is part of the answer, with gRPC status OK;
// everything else is a status with a pb.ErrorDetail attached. Every answer, errors
// included, carries the headers raftlock-cluster and raftlock-leader. A message
// that cannot be decoded, or has a Duration or Timestamp that is none, is an
// INVALID_ARGUMENT that names the field. A panic of a call is an INTERNAL_ERROR.
//
// # Lost and leaving
//
// gRPC does not tell a server whether a caller has cancelled or its connection
// broke. So no call is cancelled by the end of its RPC: its wait is detached
// (callctx.ErrConnectionLost), keeps its place, and is claimed by the caller's
// next attempt. Who really wants to leave sends a CancelWait. Drain detaches all
// waits in the same way, so that their callers go on at another member.
package lockservice

package lockservice

import (
	"crypto/tls"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
)

const (
	// maxReceived is how large a request may be for gRPC to take it at all: one
	// that is larger than allowed, but not much, gets an answer that says so.
	maxReceived = 2 * maxMessage
	// maxStreams is how many calls one connection may have under way. A client
	// that uses one connection for all waits on one: its releases must find a
	// place beside them, so that this is more than the longest queue.
	maxStreams = 16_384

	// Callers in the field ping every 30 s, calls or not; more often than every
	// minPing is abuse.
	minPing = 5 * time.Second
	// ping is how often a silent connection is asked whether it lives, and
	// pingPatience how long it may take to say so: the waits of a caller that is
	// lost are not detached before.
	ping         = 10 * time.Second
	pingPatience = 5 * time.Second
)

// NewServer returns a gRPC server that serves the service, grpc.health.v1 and
// reflection. config is nil for a server without TLS. The options come after its
// own ones, and win.
func NewServer(s *Service, config *tls.Config, options ...grpc.ServerOption) *grpc.Server {
	own := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxReceived),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPing, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: ping, Timeout: pingPatience}),
	}
	if config != nil {
		own = append(own, grpc.Creds(credentials.NewTLS(config)))
	}
	server := grpc.NewServer(slices.Concat(own, options)...)
	s.Register(server)
	healthpb.RegisterHealthServer(server, healthService{service: s})
	reflection.Register(server)
	return server
}

package peerwire

import (
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/raftlock/raftlock"
)

const (
	// window is how many bytes may be on their way in one stream: at 1 ms
	// round trip it carries 8 GB/s, at 80 ms still 100 MB/s. It is also what
	// a peer can make a member hold that does not receive. Fixed, since
	// gRPC's estimate starts at 64 KB and spends pings to grow.
	window = 8 << 20
	// ioBuffer is what one system call reads or writes at most.
	ioBuffer      = 64 << 10
	maxHeaderList = 8 << 10

	// How long silence may last. Long enough for a machine that is short of
	// processor time, short enough to matter beside an election time-out.
	ackTimeout         = 4 * time.Second
	acceptorPingAfter  = 2 * time.Second
	acceptorPingAnswer = 3 * time.Second
	diallerPingAfter   = 10 * time.Second // the least that gRPC permits
	diallerPingAnswer  = 4 * time.Second
)

// tcpKeepAlive probes connections on which nobody says anything.
var tcpKeepAlive = net.KeepAliveConfig{
	Enable:   true,
	Idle:     2 * time.Second,
	Interval: time.Second,
	Count:    3,
}

func serverOptions(creds credentials.TransportCredentials, limits limits) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(creds),
		grpc.ForceServerCodecV2(codec{}),
		grpc.MaxRecvMsgSize(raftlock.MaxFrame),
		grpc.MaxSendMsgSize(raftlock.MaxFrame),
		grpc.MaxConcurrentStreams(1),
		grpc.MaxHeaderListSize(maxHeaderList),
		grpc.ConnectionTimeout(limits.opening),
		grpc.StaticStreamWindowSize(window),
		grpc.StaticConnWindowSize(window),
		grpc.ReadBufferSize(ioBuffer),
		grpc.WriteBufferSize(ioBuffer),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time:    acceptorPingAfter,
			Timeout: acceptorPingAnswer,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime:             diallerPingAfter / 2,
			PermitWithoutStream: true,
		}),
		// Stop is to return when every accept has.
		grpc.WaitForHandlers(true),
	}
}

// dialOptions leave gRPC one connection, which is already made and encrypted,
// and no way to look for another.
func dialOptions(dial dialFunc, addr string) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithContextDialer(dial),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority(addr),
		grpc.WithUserAgent("raftlock"),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableHealthCheck(),
		grpc.WithDisableRetry(),
		grpc.WithIdleTimeout(0),
		grpc.WithMaxHeaderListSize(maxHeaderList),
		grpc.WithStaticStreamWindowSize(window),
		grpc.WithStaticConnWindowSize(window),
		grpc.WithReadBufferSize(ioBuffer),
		grpc.WithWriteBufferSize(ioBuffer),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time:    diallerPingAfter,
			Timeout: diallerPingAnswer,
		}),
		grpc.WithDefaultCallOptions(
			grpc.ForceCodecV2(codec{}),
			grpc.MaxCallRecvMsgSize(raftlock.MaxFrame),
			grpc.MaxCallSendMsgSize(raftlock.MaxFrame),
			grpc.WaitForReady(false),
		),
	}
}

package lockservice

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/internal/callctx"
	"github.com/raftlock/raftlock/internal/clock"
	"github.com/raftlock/raftlock/pb"
)

// Every answer, errors included, carries these headers: the id of the cluster,
// and where its leader serves clients. One that is not known is left out.
const (
	ClusterHeader = "raftlock-cluster"
	LeaderHeader  = "raftlock-leader"
)

// Config is what a service serves.
type Config struct {
	// Client carries out the calls. The service sets its retry policy, because a
	// remote caller repeats its calls itself; it does not close it.
	Client client.Client

	// Cluster returns the id of the cluster, "" while it has none. It must not
	// block.
	Cluster func() string

	// Leader returns the leader's name and where it serves clients, both empty
	// while none is known. It must not block.
	Leader func() (name, clientAddress string)

	// Members, unless it is nil, is served as pb.Members beside the locks.
	Members Membership

	// Logger gets what no caller can mend: panics. nil is silent.
	Logger *slog.Logger
}

// Service answers the RPCs of pb.RaftLock. All methods may be called
// concurrently.
type Service struct {
	pb.UnimplementedRaftLockServer

	cfg   Config
	locks client.Client
	clock clock.Clock

	logger *slog.Logger

	// leaving ends when the member is about to close: the waits of callers go
	// elsewhere.
	leaving context.Context
	leave   context.CancelFunc

	mu struct {
		sync.Mutex
		running int
		// drained is nil until Drain; closed when no call runs any more.
		drained chan struct{}
	}
}

// New returns a service. It starts nothing.
func New(cfg Config) *Service {
	s := &Service{cfg: cfg, locks: cfg.Client, clock: clock.Of(cfg.Client), logger: cfg.Logger}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	s.leaving, s.leave = context.WithCancel(context.Background())
	policy := client.DefaultRetryPolicy()
	policy.MaxRetries = 0
	s.locks.SetRetryPolicy(policy)
	return s
}

// Register registers the service with a gRPC server, which may be the host's
// own. Register before the server serves.
func (s *Service) Register(registrar grpc.ServiceRegistrar) {
	registrar.RegisterService(s.wrap(pb.RaftLock_ServiceDesc), s)
	if s.cfg.Members != nil {
		registrar.RegisterService(s.wrap(pb.Members_ServiceDesc), membersFace{service: s, members: s.cfg.Members})
	}
}

// wrap gives each method of a service what no interceptor could: a decoder that
// says what is wrong with a message, and headers on every answer.
func (s *Service) wrap(desc grpc.ServiceDesc) *grpc.ServiceDesc {
	methods := make([]grpc.MethodDesc, len(desc.Methods))
	for i, method := range desc.Methods {
		methods[i] = grpc.MethodDesc{MethodName: method.MethodName, Handler: s.wrapMethod(method.Handler)}
	}
	desc.Methods = methods
	return &desc
}

func (s *Service) wrapMethod(handle grpc.MethodHandler) grpc.MethodHandler {
	return func(srv any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (answer any, err error) {
		defer func() {
			if p := recover(); p != nil {
				s.logger.Error("panic in a call", "value", p, "stack", string(debug.Stack()))
				answer, err = nil, statusOf(&pb.ErrorDetail{
					Code: pb.ErrorCode_INTERNAL_ERROR, Message: fmt.Sprintf("panic: %v", p),
					Details: map[string]string{detailOutcome: outcomeUnknown},
				})
			}
			s.sign(ctx)
		}()
		return handle(srv, ctx, decoder(decode), interceptor)
	}
}

// sign puts the headers on an answer that is about to be sent.
func (s *Service) sign(ctx context.Context) {
	header := metadata.MD{}
	if id := s.cfg.Cluster(); id != "" {
		header.Set(ClusterHeader, id)
	}
	if _, address := s.cfg.Leader(); address != "" {
		header.Set(LeaderHeader, address)
	}
	_ = grpc.SetHeader(ctx, header) // it fails when the caller is gone
}

// Drain prepares the end of the member: calls that come from now on are refused
// with UNAVAILABLE, those that wait in a queue end the same way and keep their
// places for a while, so that their callers claim them at another member. Drain
// returns when all calls have been answered, or with ctx's error. It may be
// called again.
func (s *Service) Drain(ctx context.Context) error {
	s.mu.Lock()
	if s.mu.drained == nil {
		s.mu.drained = make(chan struct{})
		if s.mu.running == 0 {
			close(s.mu.drained)
		}
	}
	drained := s.mu.drained
	s.mu.Unlock()
	s.leave()
	select {
	case <-drained:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for calls that run: %w", ctx.Err())
	}
}

// begin admits a call; whoever is admitted calls end.
func (s *Service) begin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.drained != nil {
		return statusOf(&pb.ErrorDetail{
			Code: pb.ErrorCode_UNAVAILABLE, Message: "the member is closing",
			Details: map[string]string{detailOutcome: outcomeNotProposed},
		})
	}
	s.mu.running++
	return nil
}

func (s *Service) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.running--
	if s.mu.drained != nil && s.mu.running == 0 {
		close(s.mu.drained)
	}
}

// carry runs a call. The context that it gets does not end as gRPC's does: that
// one ends for a caller who cancels as well as for a connection that breaks, and
// the member must take both for the latter. A wait ends when the member is about
// to close, too.
func (s *Service) carry(ctx context.Context, waits bool, run func(context.Context) error) error {
	if err := s.begin(); err != nil {
		return err
	}
	defer s.end()
	call, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	lose := func() { cancel(callctx.ErrConnectionLost) }
	defer context.AfterFunc(ctx, lose)()
	if waits {
		defer context.AfterFunc(s.leaving, lose)()
	}
	if err := run(call); err != nil {
		detail := s.detailOf(err)
		s.explain(ctx, call, detail)
		return refusal{detail}
	}
	return nil
}

// explain corrects a detail by what only the service knows: why the call's
// context ended, and where the leader is.
func (s *Service) explain(ctx, call context.Context, detail *pb.ErrorDetail) {
	_, unsettled := detail.Details[detailOutcome]
	switch {
	case detail.Code == pb.ErrorCode_NOT_LEADER:
		s.pointToLeader(detail)
	case call.Err() == nil || !unsettled || inBand(detail):
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		detail.Code = pb.ErrorCode_TIMEOUT
		detail.Message = client.ErrTimeout.Error() + ": the deadline of the call has passed"
	case ctx.Err() == nil:
		detail.Code = pb.ErrorCode_UNAVAILABLE
		detail.Message = client.ErrUnavailable.Error() + ": the member is closing; a wait keeps its place for the same call at another member"
	}
}

// pointToLeader names the leader in a NOT_LEADER: clients go where it says, so
// that it says nothing rather than something wrong.
func (s *Service) pointToLeader(detail *pb.ErrorDetail) {
	name, address := s.cfg.Leader()
	delete(detail.Details, "leader_id")
	delete(detail.Details, "leader_address")
	if name != "" {
		detail.Details["leader_id"] = name
	}
	if address != "" {
		detail.Details["leader_address"] = address
	}
}

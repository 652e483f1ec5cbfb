package lockservice

import (
	"context"
	"net/http"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/pb"
)

const (
	// healthPatience is how long a member may take to say how it is.
	healthPatience = time.Second
	// healthInterval is how often a watched member is looked at.
	healthInterval = 200 * time.Millisecond
)

// look asks the member how it is. It always has an answer.
func (s *Service) look(ctx context.Context) *client.HealthStatus {
	if s.leaving.Err() != nil {
		return &client.HealthStatus{
			Status: client.HealthStatusNotServing, Message: "this member is closing", LastHealthCheckAt: s.clock.Now(),
		}
	}
	ctx, cancel := s.clock.WithTimeout(ctx, healthPatience)
	defer cancel()
	found, err := s.locks.Health(ctx, &client.HealthRequest{})
	if found == nil {
		found = &client.HealthStatus{Status: client.HealthStatusNotServing}
	}
	if err != nil && found.Status != client.HealthStatusNotServing {
		found.Status = client.HealthStatusNotServing
	}
	if err != nil && found.Message == "" {
		found.Message = err.Error()
	}
	if found.LastHealthCheckAt.IsZero() {
		found.LastHealthCheckAt = s.clock.Now()
	}
	return found
}

// HealthHandler answers every request with what the member's health is: status
// 200 when it serves, otherwise 503, and the reason as text.
func (s *Service) HealthHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		found := s.look(r.Context())
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		if found.Status != client.HealthStatusServing {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = w.Write([]byte(found.Message + "\n")) // who asked may be gone
	})
}

// healthService is grpc.health.v1 as the member really is: nothing keeps a
// status that somebody would have to keep up to date.
type healthService struct {
	healthpb.UnimplementedHealthServer
	service *Service
}

// knows reports whether there is a service of that name; "" is the whole server.
func (h healthService) knows(name string) bool {
	return name == "" || name == pb.RaftLock_ServiceDesc.ServiceName
}

func (h healthService) serving(ctx context.Context) healthpb.HealthCheckResponse_ServingStatus {
	if h.service.look(ctx).Status == client.HealthStatusServing {
		return healthpb.HealthCheckResponse_SERVING
	}
	return healthpb.HealthCheckResponse_NOT_SERVING
}

// Check implements healthpb.HealthServer.
func (h healthService) Check(ctx context.Context, req *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	if !h.knows(req.GetService()) {
		return nil, status.Error(codes.NotFound, "unknown service")
	}
	return &healthpb.HealthCheckResponse{Status: h.serving(ctx)}, nil
}

// List implements healthpb.HealthServer.
func (h healthService) List(ctx context.Context, _ *healthpb.HealthListRequest) (*healthpb.HealthListResponse, error) {
	now := &healthpb.HealthCheckResponse{Status: h.serving(ctx)}
	return &healthpb.HealthListResponse{Statuses: map[string]*healthpb.HealthCheckResponse{
		"": now, pb.RaftLock_ServiceDesc.ServiceName: now,
	}}, nil
}

// Watch implements healthpb.HealthServer. It ends, after a last NOT_SERVING, when
// the member is about to close.
func (h healthService) Watch(req *healthpb.HealthCheckRequest, stream healthpb.Health_WatchServer) error {
	ctx := stream.Context()
	ticker := h.service.clock.NewTicker(healthInterval)
	defer ticker.Stop()
	last := healthpb.HealthCheckResponse_UNKNOWN
	for {
		now := healthpb.HealthCheckResponse_SERVICE_UNKNOWN
		if h.knows(req.GetService()) {
			now = h.serving(ctx)
		}
		if ctx.Err() != nil {
			return status.FromContextError(ctx.Err()).Err()
		}
		if now != last {
			if err := stream.Send(&healthpb.HealthCheckResponse{Status: now}); err != nil {
				return err
			}
			last = now
		}
		if h.service.leaving.Err() != nil {
			return status.Error(codes.Unavailable, "the member is closing")
		}
		select {
		case <-ticker.C:
		case <-h.service.leaving.Done():
		case <-ctx.Done():
		}
	}
}

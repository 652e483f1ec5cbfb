package lockservice_test

import (
	"context"
	"io"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/raftlock/raftlock/testcluster"
)

// gRPC's health service tells what the member's health really is.
func TestHealthService(t *testing.T) {
	c := testcluster.New(t, 3)
	i := (c.Leader() + 1) % 3
	d := openDesk(t, at(c, i))
	health := healthpb.NewHealthClient(d.conn)
	is := func(want healthpb.HealthCheckResponse_ServingStatus) bool {
		for _, service := range []string{"", "raftlock.RaftLock"} {
			got, err := health.Check(within(t), &healthpb.HealthCheckRequest{Service: service})
			if err != nil {
				t.Fatalf("%q: %v", service, err)
			}
			if got.GetStatus() != want {
				return false
			}
		}
		return true
	}
	eventually(t, "it serves", func() bool { return is(healthpb.HealthCheckResponse_SERVING) })
	watch, err := health.Watch(within(t), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	turns := func(want healthpb.HealthCheckResponse_ServingStatus) {
		t.Helper()
		got, err := watch.Recv()
		if err != nil || got.GetStatus() != want {
			t.Fatalf("the watch says %v, %v, want %v", got, err, want)
		}
	}
	turns(healthpb.HealthCheckResponse_SERVING)
	c.Isolate(i)
	turns(healthpb.HealthCheckResponse_NOT_SERVING)
	list, err := health.List(within(t), &healthpb.HealthListRequest{})
	if err != nil || len(list.GetStatuses()) != 2 || list.GetStatuses()["raftlock.RaftLock"].GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("the list is %v, %v", list, err)
	}
	c.Heal()
	turns(healthpb.HealthCheckResponse_SERVING)

	if _, err := health.Check(within(t), &healthpb.HealthCheckRequest{Service: "none"}); status.Code(err) != codes.NotFound {
		t.Errorf("a service that is not there: %v", err)
	}
	watch, err = health.Watch(within(t), &healthpb.HealthCheckRequest{Service: "none"})
	if err != nil {
		t.Fatal(err)
	}
	turns(healthpb.HealthCheckResponse_SERVICE_UNKNOWN)
}

// Tools can ask what is served.
func TestReflection(t *testing.T) {
	d := openDesk(t, at(testcluster.New(t, 1), 0))
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	stream, err := reflectionpb.NewServerReflectionClient(d.conn).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(req *reflectionpb.ServerReflectionRequest) *reflectionpb.ServerReflectionResponse {
		t.Helper()
		if err := stream.Send(req); err != nil {
			t.Fatal(err)
		}
		got, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	var names []string
	for _, s := range ask(&reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{},
	}).GetListServicesResponse().GetService() {
		names = append(names, s.GetName())
	}
	if !slices.Contains(names, "raftlock.RaftLock") || !slices.Contains(names, "grpc.health.v1.Health") {
		t.Errorf("served are %v", names)
	}
	files := ask(&reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "raftlock.RaftLock.Acquire"},
	}).GetFileDescriptorResponse().GetFileDescriptorProto()
	if len(files) == 0 || !strings.Contains(string(files[0]), "AcquireRequest") {
		t.Error("the service is not described")
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != io.EOF {
		t.Errorf("the stream ends with %v", err)
	}
}

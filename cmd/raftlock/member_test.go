package main

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/pb"
)

// register is a service raftlock.Members that only writes down what it is asked.
type register struct {
	pb.UnimplementedMembersServer
	asked  []string
	refuse error
}

func (r *register) note(words ...string) error {
	r.asked = append(r.asked, strings.Join(words, " "))
	return r.refuse
}

func (r *register) List(context.Context, *pb.ListMembersRequest) (*pb.ListMembersResponse, error) {
	return &pb.ListMembersResponse{Members: []*pb.Member{
		{Name: "n1", PeerAddress: "10.0.0.1:7101", ClientAddress: "10.0.0.1:7001", IsVoter: true},
		{Name: "n2", PeerAddress: "10.0.0.2:7101", ClientAddress: "10.0.0.2:7001", IsVoter: true, IsLeader: true},
		{Name: "n3", PeerAddress: "10.0.0.3:7101"},
	}}, r.note("list")
}

func (r *register) Add(_ context.Context, req *pb.AddMemberRequest) (*pb.AddMemberResponse, error) {
	return &pb.AddMemberResponse{}, r.note("add", req.GetName(), req.GetPeerAddress())
}

func (r *register) Remove(_ context.Context, req *pb.RemoveMemberRequest) (*pb.RemoveMemberResponse, error) {
	return &pb.RemoveMemberResponse{}, r.note("remove", req.GetName())
}

func (r *register) Replace(_ context.Context, req *pb.ReplaceMemberRequest) (*pb.ReplaceMemberResponse, error) {
	return &pb.ReplaceMemberResponse{}, r.note("replace", req.GetName())
}

func (r *register) Transfer(_ context.Context, req *pb.TransferLeadershipRequest) (*pb.TransferLeadershipResponse, error) {
	return &pb.TransferLeadershipResponse{}, r.note("transfer", req.GetName())
}

// serve runs a gRPC server with what add registers, and returns its address.
func serve(t *testing.T, add func(*grpc.Server)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	add(server)
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func TestMember(t *testing.T) {
	t.Parallel()
	r := &register{}
	// The first endpoint is down: any other will do.
	s := &session{t: t, endpoints: "127.0.0.1:1," + serve(t, func(server *grpc.Server) { pb.RegisterMembersServer(server, r) })}
	s.run("member", "list")
	s.run("member", "list", "--json")
	s.run("member", "add", "n4", "10.0.0.4:7101")
	s.run("member", "replace", "n3")
	s.run("member", "remove", "n1")
	s.run("member", "transfer", "n3")
	if got, want := strings.Join(r.asked, ", "), "list, list, add n4 10.0.0.4:7101, replace n3, remove n1, transfer n3"; got != want {
		t.Errorf("asked for %s, want %s", got, want)
	}
	r.refuse = status.Error(codes.InvalidArgument, `n9 is not a member`)
	s.run("member", "remove", "n9")
	r.refuse = status.Error(codes.FailedPrecondition, "another change is under way")
	s.run("member", "add", "n4", "10.0.0.4:7101")
	r.refuse = status.Error(codes.DeadlineExceeded, "no majority")
	s.run("member", "add", "n4", "10.0.0.4:7101")
	s.run("member", "add", "n4")
	s.run("member", "remove")
	s.endpoints = serve(t, func(*grpc.Server) {}) // a member that is not told to
	s.run("member", "list")
	s.endpoints = "127.0.0.1:1"
	s.run("member", "list")
	golden(t, "member.txt", calm(s.said.String()))
}

// partsOf are what `raftlock member list` says of each member, in order.
func partsOf(s *session) string {
	var list []memberEntry
	if code, out := s.run("member", "list", "--json"); code != exitDone || json.Unmarshal([]byte(out), &list) != nil {
		return ""
	}
	var parts []string
	for _, m := range list {
		part := m.Name + " learner"
		if m.Voter {
			part = m.Name + " voter"
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}

// A member of three loses its data directory: it says what to do, and that helps.
// The repaired cluster then bears the loss of another one.
func TestReplaceMember(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short")
	}
	c := newCrew(t, 3, "--allow-member-changes")
	names := []string{"n1", "n2", "n3"}
	for _, name := range names {
		c.start(name)
	}
	for _, name := range names {
		c.ready(name)
	}
	locks := c.dial()
	take := func(lock string) *client.Lock {
		got, err := locks.Acquire(t.Context(), &client.AcquireRequest{LockID: lock, ClientID: "c", TTL: time.Hour})
		if err != nil {
			t.Fatalf("acquire %s: %v", lock, err)
		}
		return got.Lock
	}
	first := take("first")

	c.stop("n3")
	if err := os.RemoveAll(filepath.Join(c.dir, "n3")); err != nil {
		t.Fatal(err)
	}
	c.start("n3")
	if code := c.runs["n3"].end(); code != exitFailed {
		t.Fatalf("without its data directory it ends with %d", code)
	}
	said := c.runs["n3"].err.String()
	for _, words := range []string{"data directory is not the one this cluster knows", "raftlock member replace n3"} {
		if !strings.Contains(said, words) {
			t.Errorf("it does not say %q:\n%s", words, said)
		}
	}
	s := &session{t: t, endpoints: c.clients["n1"]}
	if code, out := s.run("member", "replace", "n3"); code != exitDone {
		t.Fatalf("replace ends with %d: %s", code, out)
	}
	if got, want := partsOf(s), "n1 voter, n2 voter, n3 learner"; got != want {
		t.Errorf("the members are %s, want %s", got, want)
	}
	c.start("n3") // on the directory that the refused one has made, which counts as empty
	c.ready("n3")
	eventually(t, "all vote", func() bool { return partsOf(s) == "n1 voter, n2 voter, n3 voter" })
	second := take("second")

	if err := c.runs["n2"].Process.Kill(); err != nil {
		t.Fatal(err)
	}
	third := take("third")
	if second.Version <= first.Version || third.Version <= second.Version {
		t.Errorf("tokens %d, %d, %d", first.Version, second.Version, third.Version)
	}
	info, err := locks.GetLockInfo(t.Context(), &client.GetLockInfoRequest{LockID: "first"})
	if err != nil || info.Version != first.Version || info.OwnerID != "c" {
		t.Errorf("the lock from before: %+v, %v", info, err)
	}
}

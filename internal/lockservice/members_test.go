package lockservice_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/internal/lockservice"
	"github.com/raftlock/raftlock/pb"
	"github.com/raftlock/raftlock/testcluster"
)

// register is a membership that notes what it is asked.
type register struct {
	asked []string
	err   error
	stuck chan struct{} // unless nil, gets a token from a call that then waits for its end
}

func (r *register) note(ctx context.Context, what string) error {
	if len(r.asked) < 100 {
		r.asked = append(r.asked, what)
	}
	if r.stuck != nil {
		r.stuck <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	return r.err
}

func (r *register) List(ctx context.Context) ([]lockservice.Member, error) {
	return []lockservice.Member{
		{Name: "n1", PeerAddress: "p:1", ClientAddress: "c:1", Leader: true, Voter: true}, {Name: "n2", PeerAddress: "p:2"},
	}, r.note(ctx, "list")
}

func (r *register) Add(ctx context.Context, name, peerAddress string) error {
	return r.note(ctx, "add "+name+" at "+peerAddress)
}
func (r *register) Remove(ctx context.Context, name string) error { return r.note(ctx, "remove "+name) }
func (r *register) Replace(ctx context.Context, name string) error {
	return r.note(ctx, "replace "+name)
}
func (r *register) Transfer(ctx context.Context, name string) error {
	return r.note(ctx, "transfer to "+name)
}

func TestMembers(t *testing.T) {
	c := testcluster.New(t, 1)
	cfg, r := at(c, 0), &register{}
	cfg.Members = r
	d := openDesk(t, cfg)
	members := pb.NewMembersClient(d.conn)

	list, header, err := call(t, members.List, &pb.ListMembersRequest{})
	signed(t, c, header)
	got := list.GetMembers()
	if err != nil || len(got) != 2 || got[0].GetName() != "n1" || got[0].GetPeerAddress() != "p:1" || got[0].GetClientAddress() != "c:1" ||
		!got[0].GetIsLeader() || !got[0].GetIsVoter() || got[1].GetIsLeader() || got[1].GetIsVoter() {
		t.Errorf("List: %v, %v", list, err)
	}
	must(t, members.Add, &pb.AddMemberRequest{Name: "n3", PeerAddress: "p:3"})
	must(t, members.Remove, &pb.RemoveMemberRequest{Name: "n2"})
	must(t, members.Replace, &pb.ReplaceMemberRequest{Name: "n3"})
	must(t, members.Transfer, &pb.TransferLeadershipRequest{Name: "n1"})
	want := []string{"list", "add n3 at p:3", "remove n2", "replace n3", "transfer to n1"}
	if !slices.Equal(r.asked, want) {
		t.Errorf("asked for %q, want %q", r.asked, want)
	}

	r.asked = nil
	for field, refused := range map[string]func() error{
		"name":         func() error { _, _, err := call(t, members.Remove, &pb.RemoveMemberRequest{}); return err },
		"peer_address": func() error { _, _, err := call(t, members.Add, &pb.AddMemberRequest{Name: "n3"}); return err },
	} {
		err := refused()
		if got := detail(t, err); status.Code(err) != codes.InvalidArgument || got.GetDetails()["field"] != field {
			t.Errorf("no %s: %v", field, err)
		}
	}
	if len(r.asked) > 0 {
		t.Errorf("asked for %q", r.asked)
	}

	for _, refusal := range []struct {
		err  error
		code codes.Code
	}{
		{fmt.Errorf("%w: no member n9", client.ErrInvalidArgument), codes.InvalidArgument},
		{client.ErrLeaderUnavailable, codes.Unavailable},
		{errors.Join(client.ErrTimeout, client.ErrOutcomeUnknown), codes.DeadlineExceeded},
		{errors.New("odd"), codes.Internal},
	} {
		r.err = refusal.err
		_, header, err := call(t, members.Remove, &pb.RemoveMemberRequest{Name: "n9"})
		signed(t, c, header)
		if got := detail(t, err); status.Code(err) != refusal.code || got.GetMessage() != refusal.err.Error() {
			t.Errorf("%v travels as %v", refusal.err, err)
		}
	}

	// A caller that goes does not keep the member.
	r.stuck = make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(within(t))
	gone := make(chan error, 1)
	go func() {
		_, err := members.Remove(ctx, &pb.RemoveMemberRequest{Name: "n2"})
		gone <- err
	}()
	<-r.stuck
	cancel()
	if err := <-gone; status.Code(err) != codes.Canceled {
		t.Errorf("a call that was cancelled: %v", err)
	}
	if err := d.service.Drain(within(t)); err != nil {
		t.Errorf("a call goes on: %v", err)
	}
	if _, _, err := call(t, members.Remove, &pb.RemoveMemberRequest{Name: "n2"}); status.Code(err) != codes.Unavailable {
		t.Errorf("after Drain: %v", err)
	}
}

// Without being told to, a member lets nobody change members.
func TestMembersAreOff(t *testing.T) {
	d := openDesk(t, at(testcluster.New(t, 1), 0))
	_, err := pb.NewMembersClient(d.conn).Remove(within(t), &pb.RemoveMemberRequest{Name: "n1"})
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("Remove: %v", err)
	}
}

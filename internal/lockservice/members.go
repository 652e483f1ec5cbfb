package lockservice

import (
	"context"
	"errors"
	"fmt"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/pb"
)

// Member is one place in the cluster.
type Member struct {
	Name          string
	PeerAddress   string
	ClientAddress string // "" when it serves nobody, or is not known
	Leader        bool   // it leads
	Voter         bool   // it takes part in votes
}

// Membership shows and changes who belongs to the cluster. Its methods may be
// called concurrently, block until a majority has the change or ctx ends, and
// return errors of package client, or around them: ErrInvalidArgument for what
// cannot be, ErrOutcomeUnknown for what may have been done.
type Membership interface {
	List(ctx context.Context) ([]Member, error)
	Add(ctx context.Context, name, peerAddress string) error
	Remove(ctx context.Context, name string) error
	Replace(ctx context.Context, name string) error
	Transfer(ctx context.Context, name string) error
}

// membersFace answers the RPCs of pb.Members.
type membersFace struct {
	pb.UnimplementedMembersServer
	service *Service
	members Membership
}

// List implements pb.MembersServer.
func (f membersFace) List(ctx context.Context, _ *pb.ListMembersRequest) (*pb.ListMembersResponse, error) {
	answer := new(pb.ListMembersResponse)
	err := f.service.carry(ctx, false, func(ctx context.Context) error {
		list, err := f.members.List(ctx)
		for _, m := range list {
			answer.Members = append(answer.Members, &pb.Member{
				Name: m.Name, PeerAddress: m.PeerAddress, ClientAddress: m.ClientAddress, IsLeader: m.Leader, IsVoter: m.Voter,
			})
		}
		return err
	})
	return answer, err
}

// Add implements pb.MembersServer.
func (f membersFace) Add(ctx context.Context, req *pb.AddMemberRequest) (*pb.AddMemberResponse, error) {
	err := f.change(ctx, req.GetName(), func(ctx context.Context) error {
		if req.GetPeerAddress() == "" {
			return missing("peer_address")
		}
		return f.members.Add(ctx, req.GetName(), req.GetPeerAddress())
	})
	return new(pb.AddMemberResponse), err
}

// Remove implements pb.MembersServer.
func (f membersFace) Remove(ctx context.Context, req *pb.RemoveMemberRequest) (*pb.RemoveMemberResponse, error) {
	err := f.change(ctx, req.GetName(), func(ctx context.Context) error { return f.members.Remove(ctx, req.GetName()) })
	return new(pb.RemoveMemberResponse), err
}

// Replace implements pb.MembersServer.
func (f membersFace) Replace(ctx context.Context, req *pb.ReplaceMemberRequest) (*pb.ReplaceMemberResponse, error) {
	err := f.change(ctx, req.GetName(), func(ctx context.Context) error { return f.members.Replace(ctx, req.GetName()) })
	return new(pb.ReplaceMemberResponse), err
}

// Transfer implements pb.MembersServer.
func (f membersFace) Transfer(ctx context.Context, req *pb.TransferLeadershipRequest) (*pb.TransferLeadershipResponse, error) {
	err := f.change(ctx, req.GetName(), func(ctx context.Context) error { return f.members.Transfer(ctx, req.GetName()) })
	return new(pb.TransferLeadershipResponse), err
}

// change carries out a call that names a member.
func (f membersFace) change(ctx context.Context, name string, run func(context.Context) error) error {
	return f.service.carry(ctx, false, func(ctx context.Context) error {
		if name == "" {
			return missing("name")
		}
		err := run(ctx)
		if err != nil && ctx.Err() != nil && !errors.Is(err, client.ErrOutcomeUnknown) {
			// The caller is gone, or out of time, while the change was under way.
			return fmt.Errorf("%w: %w", client.ErrOutcomeUnknown, err)
		}
		return err
	})
}

// missing is the error of a field that is required.
func missing(field string) error {
	why := client.NewValidationError(field, "", field+" is required")
	return client.NewClientError("Members", fmt.Errorf("%w: %w", client.ErrInvalidArgument, why), pb.ErrorCode_INVALID_ARGUMENT, map[string]string{
		"field": field, "value": `""`, detailOutcome: outcomeNotProposed,
	})
}

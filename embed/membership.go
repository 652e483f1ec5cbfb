package embed

import (
	"context"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/internal/lockservice"
)

// membership shows a node to the service of the members.
type membership struct{ node *raftlock.Node }

var _ lockservice.Membership = membership{}

func (m membership) List(ctx context.Context) ([]lockservice.Member, error) {
	members, err := m.node.Members(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]lockservice.Member, len(members))
	for i, one := range members {
		list[i] = lockservice.Member{
			Name: one.Name, PeerAddress: one.PeerAddress, ClientAddress: one.ClientAddress,
			Leader: one.Leader, Voter: one.Voter,
		}
	}
	return list, nil
}

func (m membership) Add(ctx context.Context, name, peerAddress string) error {
	return m.node.AddMember(ctx, name, peerAddress)
}

func (m membership) Remove(ctx context.Context, name string) error {
	return m.node.RemoveMember(ctx, name)
}

func (m membership) Replace(ctx context.Context, name string) error {
	return m.node.ReplaceMember(ctx, name)
}

func (m membership) Transfer(ctx context.Context, name string) error {
	return m.node.TransferLeadership(ctx, name)
}

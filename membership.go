package raftlock

import (
	"context"
	"errors"
	"fmt"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/pb"
)

// Member is one place in the cluster.
type Member struct {
	Name string
	// NodeID is random and never used again: a member that was replaced comes
	// back with another one. 0: nobody has come to the place yet.
	NodeID uint64
	// PeerAddress is where the member that was asked reaches this one: where its
	// configuration says, otherwise where AddMember said.
	PeerAddress string
	// ClientAddress is where it serves programs that do not embed, as far as the
	// member that was asked has been told; empty when it serves nobody.
	ClientAddress string
	// Voter: it takes part in votes. A member that has come anew is a learner
	// until it has caught up, and is let vote by the leader then.
	Voter  bool
	Leader bool
	// Up: the member that was asked can send to it and receives from it.
	Up bool
}

// The errors of changes of the members. Each is together with an error of
// package client, which says whether a repeat makes sense; all of these mean that
// nothing was changed.
var (
	// ErrNoSuchMember is returned by RemoveMember, ReplaceMember and
	// TransferLeadership for a name that no member has, or has any more: a removal
	// whose outcome was unknown had been made. Around client.ErrInvalidArgument.
	ErrNoSuchMember = errors.New("raftlock: no such member")
	// ErrMemberExists is returned by AddMember for a name that a member has which
	// was not added with the same address. Around client.ErrInvalidArgument.
	ErrMemberExists = errors.New("raftlock: a member of this name exists")
	// ErrChangeRefused is returned when the change would leave the cluster
	// without a majority that can be reached, or the member that should lead
	// cannot. The text says what to do; a repeat after that makes sense. Around
	// client.ErrUnavailable.
	ErrChangeRefused = errors.New("raftlock: change of the members refused")
)

// admitLimit bounds the admission of a member within a handshake.
const admitLimit = handshakeTimeout / 2

// Members returns who belongs to the cluster, by name. The read is linearizable:
// it sees every change that was answered before. It blocks until a majority has
// confirmed it, or ctx ends, and returns errors as Client().GetLockInfo does.
func (n *Node) Members(ctx context.Context) ([]Member, error) {
	seen, err := n.seeMembers(ctx, "Members")
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := range seen {
		seen[i].ClientAddress = n.mu.addresses[seen[i].Name]
	}
	return seen, nil
}

func (n *Node) seeMembers(ctx context.Context, op string) ([]Member, error) {
	if err := n.confirmRead(ctx, op); err != nil {
		return nil, err
	}
	members, err := look(ctx, n, func(r *replica) []Member {
		list := make([]Member, 0, len(r.roster.records))
		for i := range r.roster.records {
			m := &r.roster.records[i]
			list = append(list, Member{
				Name: m.name, NodeID: m.node, Voter: m.voter,
				Leader: m.node != 0 && m.node == r.lead,
				Up:     m.node == r.self || r.up[m.node] && r.sessions[m.node] != 0,
			})
		}
		return list
	})
	if err != nil {
		return nil, endedLook(ctx, op, err)
	}
	for i := range members {
		members[i].PeerAddress, _ = n.address(members[i].Name) // empty when none is known
	}
	return members, nil
}

// confirmRead returns when this member has applied all that was committed when
// it was called.
func (n *Node) confirmRead(ctx context.Context, op string) error {
	_, err := newLocalClient(n).read(ctx, op, readIndex, "", false)
	return err
}

// endedLook is the error of a look into a member that has ended, or whose caller
// has gone.
func endedLook(ctx context.Context, op string, err error) error {
	if ctx.Err() != nil {
		return errorOf(op, endedBy(ctx.Err(), outcomeNotProposed), ctx.Err())
	}
	return errorOf(op, memberGone, nil)
}

// AddMember makes a place for a new member, which the others reach at
// peerAddress. It may be started then, with an empty storage and with the other
// members in its InitialCluster; it is a learner at first, and the leader lets it
// vote when it has caught up. Until it is there it counts for nothing.
//
// The name must be one that no member has; to add it once more with the same
// address is no error. Errors: ErrMemberExists, and those that are common to all
// changes:
//
// A change may be made at any member and is made by the leader, one at a time;
// others wait for their turn. It blocks until a majority has the change on disk,
// or until ctx or RequestTimeout ends: then, and when this member is closed
// meanwhile, client.ErrOutcomeUnknown is in the error if the change may have been
// made. To make the same change again is safe, and finds out.
func (n *Node) AddMember(ctx context.Context, name, peerAddress string) error {
	const op = "AddMember"
	if why := badName(name); why != "" {
		return changeFault(op, "name", name, why)
	}
	if peerAddress == "" || len(peerAddress) > maxAddressBytes {
		return changeFault(op, "peer_address", peerAddress, fmt.Sprintf("is required, of at most %d bytes", maxAddressBytes))
	}
	if n.cfg.Transport == nil {
		return fmt.Errorf("%w: %w: this member was opened without a Transport and reaches nobody", ErrChangeRefused, client.ErrUnavailable)
	}
	return n.ask(ctx, op, &wish{change: change{kind: changeAdd, name: name, address: peerAddress}})
}

// RemoveMember takes a member out of the cluster for good: the one that is there
// when it is called, under this name. If it runs it ends with ErrRemoved. A leader
// that is to be removed hands the leadership over first. Errors: ErrNoSuchMember,
// ErrChangeRefused if without it no majority could be reached, and those of
// AddMember that are common to all changes.
func (n *Node) RemoveMember(ctx context.Context, name string) error {
	const op = "RemoveMember"
	m, err := n.tenancy(ctx, op, name)
	if err != nil {
		return err
	}
	err = n.ask(ctx, op, &wish{change: change{kind: changeRemove, name: name, since: m.since}})
	if name == n.cfg.Name && errors.Is(err, ErrClosed) && errors.Is(context.Cause(n.ctx), ErrRemoved) {
		return nil // this member is what was removed
	}
	return err
}

// ReplaceMember lets a member come back that has lost its disk: it removes the
// one that is there when it is called, under this name, and keeps its place for
// the first one that comes with an empty storage. That one is a learner at first,
// as after AddMember. If the old one comes back instead, it ends with ErrRemoved.
// While the place is kept, to replace the member once more changes nothing; once
// somebody has come, it replaces that one. Errors as of RemoveMember.
func (n *Node) ReplaceMember(ctx context.Context, name string) error {
	const op = "ReplaceMember"
	m, err := n.tenancy(ctx, op, name)
	if err != nil || m.node == 0 {
		return err
	}
	err = n.ask(ctx, op, &wish{change: change{kind: changeReplace, name: name, since: m.since}})
	if name == n.cfg.Name && errors.Is(err, ErrClosed) && errors.Is(context.Cause(n.ctx), ErrRemoved) {
		return nil
	}
	return err
}

// TransferLeadership hands the leadership to a member that votes and can be
// reached, and returns when it leads. Calls wait meanwhile, for some milliseconds
// if it has caught up, otherwise for up to an election time-out. Errors:
// ErrNoSuchMember, ErrChangeRefused, and those of AddMember that are common.
func (n *Node) TransferLeadership(ctx context.Context, name string) error {
	const op = "TransferLeadership"
	if why := badName(name); why != "" {
		return changeFault(op, "name", name, why)
	}
	return n.ask(ctx, op, &wish{transfer: name})
}

// maxAddressBytes bounds a peer address.
const maxAddressBytes = 512

func changeFault(op, field, value, why string) error {
	f := failed(pb.ErrorCode_INVALID_ARGUMENT, outcomeNotProposed, "%s %s", field, why)
	f.details["field"], f.details["value"] = field, fmt.Sprintf("%.64q", value)
	return errorOf(op, f, nil)
}

// tenancy finds out who has a name now. What is removed or replaced is that one,
// however often the leader has to be asked.
func (n *Node) tenancy(ctx context.Context, op, name string) (record, error) {
	if err := n.confirmRead(ctx, op); err != nil {
		return record{}, err
	}
	m, err := look(ctx, n, func(r *replica) *record { return r.roster.find(name) })
	switch {
	case err != nil:
		return record{}, endedLook(ctx, op, err)
	case m == nil:
		return record{}, wishError(op, noSuchMember(name), nil)
	}
	return *m, nil
}

// ask takes a wish to the leader, and again as long as nobody knows what became
// of it and there is time.
func (n *Node) ask(ctx context.Context, op string, w *wish) error {
	begun, unsure := n.clock.Now(), false
	for {
		c := n.newCall(n.cfg.RequestTimeout)
		c.wish = w
		f, err := n.await(ctx, c)
		if f == nil {
			n.release(c)
			// Who comes to the place that was made must not find this member as it
			// was: the turn that applied the change here has told the streams then.
			_, _ = look(ctx, n, func(*replica) struct{} { return struct{}{} }) // the change is made, whatever ends this
			return nil
		}
		unsure = unsure || f.outcome() == outcomeUnknown
		over := err != nil || f.closed || f.details[detailChange] != "" || n.clock.Now().Sub(begun) >= n.cfg.RequestTimeout
		if over || f.code != pb.ErrorCode_UNAVAILABLE && f.code != pb.ErrorCode_NO_LEADER {
			if unsure && f.details[detailChange] == "" {
				f = stillUnknown(f)
			}
			return wishError(op, f, err)
		}
		if err := n.pause(ctx, n.cfg.TickInterval); err != nil {
			return wishError(op, f, err)
		}
	}
}

// wishError is the error that a failure of a wish means.
func wishError(op string, f *failure, cause error) error {
	err := errorOf(op, f, cause)
	switch f.details[detailChange] {
	case changeExists:
		return fmt.Errorf("%w: %s: %w", ErrMemberExists, f.message, err)
	case changeUnknown:
		return fmt.Errorf("%w: %s: %w", ErrNoSuchMember, f.message, err)
	case changeRefused:
		return fmt.Errorf("%w: %s: %w", ErrChangeRefused, f.message, err)
	case changeTaken:
		return fmt.Errorf("%w: %s: %w", ErrDiskLost, f.message, err)
	}
	return err
}

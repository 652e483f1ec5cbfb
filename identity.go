package raftlock

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// MemberID is what a cluster knows a member by besides its name. Both numbers
// are random, never 0 and never used again: a member that lost its disk comes
// back with another incarnation, and must not be taken for the old one.
type MemberID struct {
	NodeID      uint64 `json:"node_id,string"`     // the id in raft
	Incarnation uint64 `json:"incarnation,string"` // made with the data directory
}

// Identity is what a member's storage says about who it is. It grows in three
// steps, each durable before the member acts on it: the incarnation, made when
// the storage is empty; the cluster id and the members, agreed on by all the
// initial members; Started, once every one of them is known to have them.
type Identity struct {
	Name        string `json:"name"`
	ClusterName string `json:"cluster_name"`
	Incarnation uint64 `json:"incarnation,string"`

	// ClusterID is 0 until the cluster has one; it comes together with Members.
	ClusterID uint64 `json:"cluster_id,string"`
	// Members are the initial members by name; nil until they are agreed on.
	// What changed them later stands in the log.
	Members map[string]MemberID `json:"members,omitempty"`
	// Started: every initial member has made Members durable, so that from
	// now on a majority is enough to start. It is taken back when the member turns
	// out to have made a second cluster.
	Started bool `json:"started"`
	// Joined: the member was admitted to a running cluster. Its log began at
	// nothing, and Members are those that it was told of then.
	Joined bool `json:"joined,omitempty"`
	// JoinedAt is how far in the log Members reach that a joined member was told.
	JoinedAt uint64 `json:"joined_at,string,omitempty"`
	// Configured are the names in InitialCluster when a joined member came, which
	// may have been others than it was told of.
	Configured []string `json:"configured,omitempty"`
}

// firstNames are the names in InitialCluster at the member's first start.
func (id Identity) firstNames() []string {
	if len(id.Configured) > 0 {
		return id.Configured
	}
	return memberNames(id.Members)
}

// nodeID is the member's id in raft; 0 before there is a cluster.
func (id Identity) nodeID() uint64 { return id.Members[id.Name].NodeID }

// recalled is what a storage holds, with what it says of the members.
type recalled struct {
	Recovered
	state   *loaded // the snapshot's; nil for one that has no file
	members *roster // at the snapshot; nil before there is one
	// now is the members as of the last entry that is known to be committed; nil
	// when the log knows of none.
	now *roster
}

// recall finds out what a storage says of the members.
func recall(cfg *Config, found Recovered) (recalled, error) {
	r := recalled{Recovered: found}
	switch index := found.Snapshot.GetIndex(); {
	case found.Snapshot == nil:
		return r, nil
	case index > firstIndex:
		state, err := loadFrom(context.Background(), cfg.Storage, index)
		if err == nil {
			err = state.fits(found.Identity.ClusterID, cfg.newest)
		}
		if errors.Is(err, errMalformed) {
			err = fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		if err != nil {
			return r, fmt.Errorf("snapshot %d: %w", index, err)
		}
		r.state, r.members = state, rosterIn(state.header)
	default:
		r.members = rosterOf(found.Identity)
	}
	if found.Snapshot.GetIndex() == 0 {
		return r, nil
	}
	r.now = r.members
	for _, e := range found.Entries {
		if e.GetIndex() > found.Hard.GetCommit() || e.GetType() != raftpb.EntryConfChangeV2 {
			continue
		}
		c, _, err := changeIn(e)
		if err != nil {
			return r, fmt.Errorf("entry %d: %w", e.GetIndex(), err)
		}
		if next, err := r.now.apply(&c, e.GetIndex()); err == nil {
			r.now = next
		}
	}
	return r, nil
}

// fill brings a log that is still empty to where the storage is.
func (r *recalled) fill(log *raft.MemoryStorage) error {
	if r.Snapshot.GetIndex() > 0 { // else the log begins at nothing
		if err := log.ApplySnapshot(&raftpb.Snapshot{Metadata: r.Snapshot}); err != nil {
			return err
		}
	}
	if !raft.IsEmptyHardState(r.Hard) {
		if err := log.SetHardState(r.Hard); err != nil {
			return err
		}
	}
	return log.Append(r.Entries)
}

// begin is what a storage holds after Bootstrap or Join.
func begin(id Identity) recalled {
	if id.Joined {
		return recalled{Recovered: Recovered{Snapshot: nothing()}, members: rosterOf(&id)}
	}
	return recalled{Recovered: newborn(id), members: rosterOf(&id)}
}

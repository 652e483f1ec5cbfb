package raftlock

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
	// now on a majority is enough to start.
	Started bool `json:"started"`
	// Joined: the member was admitted to a running cluster. Its log began at
	// nothing, and Members are those that it was told of then.
	Joined bool `json:"joined,omitempty"`
}

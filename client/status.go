package client

import "time"

// ClusterStatus is what one member knows about itself and its cluster.
type ClusterStatus struct {
	// RaftStatus is the raft group as that member sees it.
	RaftStatus *RaftStatus

	// LockStats counts over the table of locks.
	LockStats *LockManagerStats

	// Health says whether that member can serve.
	Health *HealthStatus
}

// RaftStatus is the raft group as one member sees it. Members may differ by
// what has not reached them yet.
type RaftStatus struct {
	// NodeID names the member that answered.
	NodeID string

	// Role is Leader, Follower or Candidate.
	Role string

	// Term is its raft term.
	Term uint64

	// LeaderID names the leader that it knows, empty when it knows none.
	LeaderID string

	// LastLogIndex is the last entry of its log.
	LastLogIndex uint64

	// LastLogTerm is the term of that entry.
	LastLogTerm uint64

	// CommitIndex is the last entry that it knows to be committed.
	CommitIndex uint64

	// LastApplied is the last entry that went into its table.
	LastApplied uint64

	// SnapshotIndex is the last entry that its newest snapshot covers, 0 if
	// there is none.
	SnapshotIndex uint64

	// SnapshotTerm is the term of that entry.
	SnapshotTerm uint64

	// Replication is how far each peer has come, by the peer's name. Only the
	// leader fills it, and only when asked.
	Replication map[string]*PeerState
}

// PeerState is how the leader sees one peer.
type PeerState struct {
	// NextIndex is the next entry to send.
	NextIndex uint64

	// MatchIndex is the last entry that the peer is known to have. It is
	// smaller than NextIndex.
	MatchIndex uint64

	// IsActive says whether the peer answers.
	IsActive bool

	// LastActiveAt is when it last did, by the leader's wall clock.
	LastActiveAt time.Time

	// SnapshotInProgress says whether a snapshot is on its way.
	SnapshotInProgress bool

	// ReplicationLag is how many entries the peer is behind.
	ReplicationLag uint64
}

// LockManagerStats counts over the table of locks.
type LockManagerStats struct {
	// ActiveLocksCount is how many locks are held.
	ActiveLocksCount int32

	// TotalWaitersCount is how many identities wait, over all queues.
	TotalWaitersCount int32

	// ContestedLocksCount is how many locks somebody waits for.
	ContestedLocksCount int32

	// AverageHoldDuration is how long the grants that ended in the last minute
	// had stood, by the leaders' wall clocks; 0 when none did.
	AverageHoldDuration time.Duration

	// AcquisitionRatePerSecond is how many grants there were in the last minute,
	// divided by its seconds; by fewer for a member that has run for less.
	AcquisitionRatePerSecond float64

	// ReleaseRatePerSecond is the same for grants that were given back.
	ReleaseRatePerSecond float64

	// ExpiredLocksLastPeriod is how many grants ran out in the last minute instead of being
	// released: holders that died, stalled or forgot.
	ExpiredLocksLastPeriod int32
}

// HealthServingStatus says whether a member can serve.
type HealthServingStatus int

const (
	// HealthStatusUnknown says that nobody looked.
	HealthStatusUnknown HealthServingStatus = iota

	// HealthStatusServing says that the member knows a leader and has caught
	// up.
	HealthStatusServing

	// HealthStatusNotServing says that the member cannot serve now.
	HealthStatusNotServing
)

// HealthStatus says whether a member can serve, and the facts behind that.
type HealthStatus struct {
	// Status is the verdict.
	Status HealthServingStatus

	// Message is its reason, for people.
	Message string

	// IsRaftLeader says whether the member leads.
	IsRaftLeader bool

	// RaftLeaderAddress is the leader's address for clients, empty when
	// unknown.
	RaftLeaderAddress string

	// RaftTerm is the member's raft term.
	RaftTerm uint64

	// RaftLastApplied is the last entry that went into its table.
	RaftLastApplied uint64

	// CurrentActiveLocks is how many locks are held in that table.
	CurrentActiveLocks int32

	// CurrentTotalWaiters is how many identities wait in it.
	CurrentTotalWaiters int32

	// Uptime is how long the member has been running.
	Uptime time.Duration

	// LastHealthCheckAt is when the verdict was reached, by the member's wall
	// clock.
	LastHealthCheckAt time.Time
}

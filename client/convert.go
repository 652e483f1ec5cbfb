package client

import (
	"maps"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/raftlock/raftlock/pb"
)

// From the messages of package pb to the types of this package and back. What
// comes from the wire may be anything: nothing here relies on a field being set
// or sensible.

// longest is the longest span that is believed: instants that far away still
// have a place in time.Time's arithmetic.
const longest = 10 * 365 * 24 * time.Hour

// durationOf is a span from the wire, never negative.
func durationOf(d *durationpb.Duration) time.Duration {
	return min(max(d.AsDuration(), 0), longest)
}

// askDuration is a span for the wire. Zero is sent as well, as it always was.
func askDuration(d time.Duration) *durationpb.Duration { return durationpb.New(d) }

// timeOf is an instant of a member's wall clock, zero when there is none.
func timeOf(t *timestamppb.Timestamp) time.Time {
	if !t.IsValid() || t.GetSeconds() == 0 && t.GetNanos() == 0 {
		return time.Time{}
	}
	return t.AsTime().Local()
}

func askTime(t *time.Time) *timestamppb.Timestamp {
	if t == nil {
		return nil
	}
	return timestamppb.New(*t)
}

func remainingOf(l *pb.Lock) time.Duration { return durationOf(l.GetRemaining()) }

// lockOf is a grant. Its end counts from the instant before the answered attempt
// was sent: the member knew what was left only later.
func lockOf(l *pb.Lock, sent time.Time) *Lock {
	return &Lock{
		LockID:     l.GetLockId(),
		OwnerID:    l.GetOwnerId(),
		Version:    l.GetVersion(),
		AcquiredAt: timeOf(l.GetAcquiredAt()),
		ExpiresAt:  sent.Add(remainingOf(l)),
		Metadata:   maps.Clone(l.GetMetadata()),
	}
}

// infoOf is a lock as a read that was sent at an instant found it.
func infoOf(l *pb.LockInfo, sent time.Time) *LockInfo {
	info := &LockInfo{
		LockID:         l.GetLockId(),
		OwnerID:        l.GetOwnerId(),
		Version:        l.GetVersion(),
		WaiterCount:    l.GetWaiterCount(),
		Metadata:       maps.Clone(l.GetMetadata()),
		LastModifiedAt: timeOf(l.GetLastModifiedAt()),
	}
	local := timeOf
	if info.OwnerID != "" {
		left := durationOf(l.GetRemaining())
		info.AcquiredAt = timeOf(l.GetAcquiredAt())
		info.ExpiresAt = sent.Add(left)
		local = localClock(l.GetExpiresAt(), left, sent)
	}
	for _, w := range l.GetWaitersInfo() {
		info.WaitersInfo = append(info.WaitersInfo, &WaiterInfo{
			ClientID:   w.GetClientId(),
			EnqueuedAt: timeOf(w.GetEnqueuedAt()),
			TimeoutAt:  local(w.GetTimeoutAt()),
			Priority:   w.GetPriority(),
			Position:   w.GetPosition(),
		})
	}
	return info
}

// localClock turns the ends in an answer from the member's clock into ours. The
// wire has them as instants of the member's wall clock; that it has the end of
// the grant as such and as what is left of it tells what that clock showed.
func localClock(end *timestamppb.Timestamp, left time.Duration, sent time.Time) func(*timestamppb.Timestamp) time.Time {
	theirs := timeOf(end)
	if theirs.IsZero() {
		return timeOf
	}
	theirs = theirs.Add(-left)
	return func(t *timestamppb.Timestamp) time.Time {
		at := timeOf(t)
		if at.IsZero() {
			return at
		}
		return sent.Add(min(max(at.Sub(theirs), 0), longest))
	}
}

func adviceOf(a *pb.BackoffAdvice) *BackoffAdvice {
	if a == nil {
		return nil
	}
	return &BackoffAdvice{
		InitialBackoff: durationOf(a.GetInitialBackoff()),
		MaxBackoff:     durationOf(a.GetMaxBackoff()),
		Multiplier:     a.GetMultiplier(),
		JitterFactor:   a.GetJitterFactor(),
	}
}

func askFilter(f *LockFilter) *pb.LockFilter {
	if f == nil {
		return nil
	}
	return &pb.LockFilter{
		LockIdPattern:  f.LockIDPattern,
		OwnerIdPattern: f.OwnerIDPattern,
		OnlyHeld:       f.OnlyHeld,
		OnlyContested:  f.OnlyContested,
		ExpiresBefore:  askTime(f.ExpiresBefore),
		ExpiresAfter:   askTime(f.ExpiresAfter),
		MetadataFilter: f.MetadataFilter,
	}
}

func statusOf(r *pb.GetStatusResponse) *ClusterStatus {
	return &ClusterStatus{
		RaftStatus: raftOf(r.GetRaftStatus()),
		LockStats:  statsOf(r.GetLockStats()),
		Health:     healthOf(r.GetHealth()),
	}
}

func raftOf(r *pb.RaftStatus) *RaftStatus {
	if r == nil {
		return nil
	}
	raft := &RaftStatus{
		NodeID: r.GetNodeId(), Role: r.GetRole(), Term: r.GetTerm(), LeaderID: r.GetLeaderId(),
		LastLogIndex: r.GetLastLogIndex(), LastLogTerm: r.GetLastLogTerm(),
		CommitIndex: r.GetCommitIndex(), LastApplied: r.GetLastApplied(),
		SnapshotIndex: r.GetSnapshotIndex(), SnapshotTerm: r.GetSnapshotTerm(),
	}
	for name, p := range r.GetReplication() {
		if raft.Replication == nil {
			raft.Replication = map[string]*PeerState{}
		}
		raft.Replication[name] = &PeerState{
			NextIndex: p.GetNextIndex(), MatchIndex: p.GetMatchIndex(), IsActive: p.GetIsActive(),
			LastActiveAt: timeOf(p.GetLastActiveAt()), SnapshotInProgress: p.GetSnapshotInProgress(),
			ReplicationLag: p.GetReplicationLag(),
		}
	}
	return raft
}

func statsOf(s *pb.LockManagerStats) *LockManagerStats {
	if s == nil {
		return nil
	}
	return &LockManagerStats{
		ActiveLocksCount:         s.GetActiveLocksCount(),
		TotalWaitersCount:        s.GetTotalWaitersCount(),
		ContestedLocksCount:      s.GetContestedLocksCount(),
		AverageHoldDuration:      durationOf(s.GetAverageHoldDuration()),
		AcquisitionRatePerSecond: s.GetAcquisitionRatePerSecond(),
		ReleaseRatePerSecond:     s.GetReleaseRatePerSecond(),
		ExpiredLocksLastPeriod:   s.GetExpiredLocksLastPeriod(),
	}
}

func healthOf(h *pb.HealthStatus) *HealthStatus {
	if h == nil {
		return nil
	}
	return &HealthStatus{
		Status:              servingOf(h.GetStatus()),
		Message:             h.GetMessage(),
		IsRaftLeader:        h.GetIsRaftLeader(),
		RaftLeaderAddress:   h.GetRaftLeaderAddress(),
		RaftTerm:            h.GetRaftTerm(),
		RaftLastApplied:     h.GetRaftLastApplied(),
		CurrentActiveLocks:  h.GetCurrentActiveLocks(),
		CurrentTotalWaiters: h.GetCurrentTotalWaiters(),
		Uptime:              durationOf(h.GetUptime()),
		LastHealthCheckAt:   timeOf(h.GetLastHealthCheckAt()),
	}
}

func servingOf(s pb.HealthStatus_ServingStatus) HealthServingStatus {
	switch s {
	case pb.HealthStatus_SERVING:
		return HealthStatusServing
	case pb.HealthStatus_NOT_SERVING:
		return HealthStatusNotServing
	}
	return HealthStatusUnknown
}

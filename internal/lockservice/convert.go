package lockservice

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/pb"
)

// Between the messages of package pb and the types of package client. Instants
// of the client's own monotonic clock become what is left until then, and that
// on this process's wall clock.

// spanOf is a span of a request; none is zero, and one that is beyond what Go
// can hold the longest or shortest that it can.
func spanOf(field string, d *durationpb.Duration) (time.Duration, error) {
	if d == nil {
		return 0, nil
	}
	if err := d.CheckValid(); err != nil {
		return 0, badField(field, fmt.Sprintf("is not a duration: %d s and %d ns", d.GetSeconds(), d.GetNanos()))
	}
	return d.AsDuration(), nil
}

// instantOf is an instant of a request, nil when it has none.
func instantOf(field string, t *timestamppb.Timestamp) (*time.Time, error) {
	if t == nil {
		return nil, nil
	}
	if err := t.CheckValid(); err != nil {
		return nil, badField(field, fmt.Sprintf("is not a time: %d s and %d ns", t.GetSeconds(), t.GetNanos()))
	}
	instant := t.AsTime()
	return &instant, nil
}

func filterOf(f *pb.LockFilter) (*client.LockFilter, error) {
	if f == nil {
		return nil, nil
	}
	before, err := instantOf("expires_before", f.GetExpiresBefore())
	if err != nil {
		return nil, err
	}
	after, err := instantOf("expires_after", f.GetExpiresAfter())
	if err != nil {
		return nil, err
	}
	return &client.LockFilter{
		LockIDPattern: f.GetLockIdPattern(), OwnerIDPattern: f.GetOwnerIdPattern(),
		OnlyHeld: f.GetOnlyHeld(), OnlyContested: f.GetOnlyContested(),
		ExpiresBefore: before, ExpiresAfter: after, MetadataFilter: f.GetMetadataFilter(),
	}, nil
}

// ends are an instant of the client's clock, as the wire has it.
func (s *Service) ends(at time.Time) (*timestamppb.Timestamp, *durationpb.Duration) {
	if at.IsZero() {
		return nil, nil
	}
	now := s.clock.Now()
	left := max(0, at.Sub(now))
	return timestamppb.New(now.Add(left)), durationpb.New(left)
}

func wallTime(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func (s *Service) lock(l *client.Lock) *pb.Lock {
	if l == nil {
		return nil
	}
	end, left := s.ends(l.ExpiresAt)
	return &pb.Lock{
		LockId: l.LockID, OwnerId: l.OwnerID, Version: l.Version,
		AcquiredAt: wallTime(l.AcquiredAt), ExpiresAt: end, Metadata: l.Metadata, Remaining: left,
	}
}

func (s *Service) lockInfo(l *client.LockInfo) *pb.LockInfo {
	if l == nil {
		return nil
	}
	end, left := s.ends(l.ExpiresAt)
	info := &pb.LockInfo{
		LockId: l.LockID, OwnerId: l.OwnerID, Version: l.Version,
		AcquiredAt: wallTime(l.AcquiredAt), ExpiresAt: end, WaiterCount: l.WaiterCount,
		Metadata: l.Metadata, LastModifiedAt: wallTime(l.LastModifiedAt), Remaining: left,
	}
	for _, w := range l.WaitersInfo {
		timeout, _ := s.ends(w.TimeoutAt)
		info.WaitersInfo = append(info.WaitersInfo, &pb.WaiterInfo{
			ClientId: w.ClientID, EnqueuedAt: wallTime(w.EnqueuedAt), TimeoutAt: timeout,
			Priority: w.Priority, Position: w.Position,
		})
	}
	return info
}

func advice(a *client.BackoffAdvice) *pb.BackoffAdvice {
	if a == nil {
		return nil
	}
	return &pb.BackoffAdvice{
		InitialBackoff: durationpb.New(a.InitialBackoff), MaxBackoff: durationpb.New(a.MaxBackoff),
		Multiplier: a.Multiplier, JitterFactor: a.JitterFactor,
	}
}

func clusterStatus(c *client.ClusterStatus) *pb.GetStatusResponse {
	if c == nil {
		return new(pb.GetStatusResponse)
	}
	return &pb.GetStatusResponse{
		RaftStatus: raftStatus(c.RaftStatus), LockStats: lockStats(c.LockStats), Health: health(c.Health),
	}
}

func raftStatus(r *client.RaftStatus) *pb.RaftStatus {
	if r == nil {
		return nil
	}
	status := &pb.RaftStatus{
		NodeId: r.NodeID, Role: r.Role, Term: r.Term, LeaderId: r.LeaderID,
		LastLogIndex: r.LastLogIndex, LastLogTerm: r.LastLogTerm,
		CommitIndex: r.CommitIndex, LastApplied: r.LastApplied,
		SnapshotIndex: r.SnapshotIndex, SnapshotTerm: r.SnapshotTerm,
	}
	for name, p := range r.Replication {
		if p == nil {
			continue
		}
		if status.Replication == nil {
			status.Replication = map[string]*pb.PeerState{}
		}
		status.Replication[name] = &pb.PeerState{
			NextIndex: p.NextIndex, MatchIndex: p.MatchIndex, IsActive: p.IsActive,
			LastActiveAt: wallTime(p.LastActiveAt), SnapshotInProgress: p.SnapshotInProgress,
			ReplicationLag: p.ReplicationLag,
		}
	}
	return status
}

func lockStats(l *client.LockManagerStats) *pb.LockManagerStats {
	if l == nil {
		return nil
	}
	return &pb.LockManagerStats{
		ActiveLocksCount: l.ActiveLocksCount, TotalWaitersCount: l.TotalWaitersCount,
		ContestedLocksCount: l.ContestedLocksCount, AverageHoldDuration: durationpb.New(l.AverageHoldDuration),
		AcquisitionRatePerSecond: l.AcquisitionRatePerSecond, ReleaseRatePerSecond: l.ReleaseRatePerSecond,
		ExpiredLocksLastPeriod: l.ExpiredLocksLastPeriod,
	}
}

func health(h *client.HealthStatus) *pb.HealthStatus {
	if h == nil {
		return nil
	}
	return &pb.HealthStatus{
		Status: servingStatus(h.Status), Message: h.Message, IsRaftLeader: h.IsRaftLeader,
		RaftLeaderAddress: h.RaftLeaderAddress, RaftTerm: h.RaftTerm, RaftLastApplied: h.RaftLastApplied,
		CurrentActiveLocks: h.CurrentActiveLocks, CurrentTotalWaiters: h.CurrentTotalWaiters,
		Uptime: durationpb.New(h.Uptime), LastHealthCheckAt: wallTime(h.LastHealthCheckAt),
	}
}

func servingStatus(s client.HealthServingStatus) pb.HealthStatus_ServingStatus {
	switch s {
	case client.HealthStatusServing:
		return pb.HealthStatus_SERVING
	case client.HealthStatusNotServing:
		return pb.HealthStatus_NOT_SERVING
	}
	return pb.HealthStatus_UNKNOWN
}

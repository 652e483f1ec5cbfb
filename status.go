package raftlock

import (
	"context"
	"fmt"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/tracker"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/internal/input"
	"github.com/raftlock/raftlock/pb"
)

// What a member knows of itself: Health, GetStatus, GetBackoffAdvice. None of
// them asks another member.

// GetBackoffAdvice advises by this member's own table, which may be a moment
// behind the leader's.
func (c *localClient) GetBackoffAdvice(ctx context.Context, req *client.BackoffAdviceRequest) (*client.BackoffAdvice, error) {
	const op = "GetBackoffAdvice"
	if req == nil {
		_, err := c.refuse(op, nilRequest)
		return nil, err
	}
	if f := faulty(pb.ErrorCode_INVALID_ARGUMENT, input.ID("lock_id", req.LockID)); f != nil {
		_, err := c.refuse(op, f)
		return nil, err
	}
	return lookFor(ctx, c, op, func(r *replica) *client.BackoffAdvice {
		lock, _ := r.table.info(req.LockID)
		left := max(0, lock.end-r.clock.estimate())
		return adviceFor(&lock, &reply{remaining: span(left), usual: r.table.usualHold(req.LockID)})
	})
}

// GetStatus says what this member knows now.
func (c *localClient) GetStatus(ctx context.Context, req *client.GetStatusRequest) (*client.ClusterStatus, error) {
	const op = "GetStatus"
	if req == nil {
		_, err := c.refuse(op, nilRequest)
		return nil, err
	}
	return lookFor(ctx, c, op, func(r *replica) *client.ClusterStatus {
		status := &client.ClusterStatus{
			RaftStatus: c.node.raftStatus(r), LockStats: r.lockStats(), Health: c.node.health(r),
		}
		if req.IncludeReplicationDetails {
			status.RaftStatus.Replication = c.node.replication(r)
		}
		return status
	})
}

// Health says whether this member can serve now. When it cannot, the error is
// around client.ErrUnavailable and the status says NOT_SERVING.
func (c *localClient) Health(ctx context.Context, req *client.HealthRequest) (*client.HealthStatus, error) {
	const op = "Health"
	if req == nil {
		_, err := c.refuse(op, nilRequest)
		return nil, err
	}
	health, err := lookFor(ctx, c, op, c.node.health)
	if err != nil {
		return &client.HealthStatus{Status: client.HealthStatusNotServing, Message: err.Error()}, err
	}
	if health.Status == client.HealthStatusServing {
		return health, nil
	}
	f := failed(pb.ErrorCode_UNAVAILABLE, outcomeNotProposed, "%s", health.Message)
	return health, errorOf(op, f, fmt.Errorf("%s", health.Message))
}

// lookFor looks at the replica for a call.
func lookFor[T any](ctx context.Context, c *localClient, op string, see func(*replica) T) (T, error) {
	var none T
	if c.closed.Load() {
		return none, errorOf(op, clientClosed, nil)
	}
	if f, err := c.node.awaitFormed(ctx); f != nil {
		return none, errorOf(op, f, err)
	}
	seen, err := look(ctx, c.node, see)
	switch {
	case err == nil:
		return seen, nil
	case ctx.Err() != nil:
		return none, errorOf(op, endedBy(ctx.Err(), outcomeNotProposed), ctx.Err())
	default:
		return none, errorOf(op, memberGone, nil)
	}
}

func (n *Node) health(r *replica) *client.HealthStatus {
	_, address := n.Leader()
	now := n.clock.Now()
	health := &client.HealthStatus{
		Status:             client.HealthStatusServing,
		Message:            "serving",
		IsRaftLeader:       r.leads(),
		RaftLeaderAddress:  address,
		RaftTerm:           r.term,
		RaftLastApplied:    r.applied,
		CurrentActiveLocks: int32(r.table.heldCount()),

		CurrentTotalWaiters: int32(r.table.waiterCount()),
		Uptime:              now.Sub(n.started),
		LastHealthCheckAt:   now,
	}
	if why := n.notServing(r); why != "" {
		health.Status, health.Message = client.HealthStatusNotServing, why
	}
	return health
}

func (n *Node) notServing(r *replica) string {
	select {
	case <-n.ready:
	default:
		return "this member has not caught up yet"
	}
	switch {
	case r.disk.hangs:
		return "the disk does not answer: a write has not ended for more than two election time-outs"
	case r.lead == 0:
		return "no leader is known"
	case r.leads() && r.office != officeOpen:
		return "this member is about to lead"
	case !r.leads() && !r.up[r.lead]:
		return "the leader cannot be reached"
	}
	return ""
}

func (n *Node) raftStatus(r *replica) *client.RaftStatus {
	last, _ := n.log.LastIndex() // a log in memory has no error
	term, _ := n.log.Term(last)
	snapshot, _ := n.log.Snapshot()
	return &client.RaftStatus{
		NodeID:        n.cfg.Name,
		Role:          roleName(r.role),
		Term:          r.term,
		LeaderID:      r.nameOf(r.lead),
		LastLogIndex:  last,
		LastLogTerm:   term,
		CommitIndex:   r.commit,
		LastApplied:   r.applied,
		SnapshotIndex: snapshot.GetMetadata().GetIndex(),
		SnapshotTerm:  snapshot.GetMetadata().GetTerm(),
	}
}

// lockStats counts over the table as it is, and over the last minute.
func (r *replica) lockStats() *client.LockManagerStats {
	last, over := r.stats.last(max(r.table.now(), r.clock.estimate()))
	stats := &client.LockManagerStats{
		ActiveLocksCount:         int32(r.table.heldCount()),
		TotalWaitersCount:        int32(r.table.waiterCount()),
		ContestedLocksCount:      int32(r.table.contestedCount()),
		AcquisitionRatePerSecond: float64(last.granted) / over.Seconds(),
		ReleaseRatePerSecond:     float64(last.ended-last.expired) / over.Seconds(),
		ExpiredLocksLastPeriod:   int32(min(last.expired, 1<<31-1)),
	}
	if last.ended > 0 {
		stats.AverageHoldDuration = last.held / time.Duration(last.ended)
	}
	return stats
}

// replication is how far the peers have come, as a leader knows; nil elsewhere.
func (n *Node) replication(r *replica) map[string]*client.PeerState {
	if !r.leads() {
		return nil
	}
	last, _ := n.log.LastIndex() // what is durable here; a peer may have been sent more
	r.raw.WithProgress(func(_ uint64, _ raft.ProgressType, pr tracker.Progress) { last = max(last, pr.Next-1) })
	peers := map[string]*client.PeerState{}
	r.raw.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		if id == r.self {
			return
		}
		peer := &client.PeerState{
			NextIndex: pr.Next, MatchIndex: pr.Match,
			ReplicationLag:     last - min(last, pr.Match),
			SnapshotInProgress: r.sending[id] != 0,
		}
		if tick, ok := r.heard[id]; ok {
			silent := r.ticks - tick
			peer.IsActive = r.up[id] && silent <= r.electionTicks
			peer.LastActiveAt = r.now.Add(-time.Duration(silent) * n.cfg.TickInterval)
		}
		peers[r.nameOf(id)] = peer
	})
	return peers
}

func roleName(role raft.StateType) string {
	switch role {
	case raft.StateLeader:
		return "Leader"
	case raft.StateFollower:
		return "Follower"
	}
	return "Candidate"
}

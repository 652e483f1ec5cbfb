package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/raftlock/raftlock/pb"
)

// pages serves a list of locks, size at a time.
func pages(ids []string, size int) script {
	return func(_ context.Context, _ string, req proto.Message) (proto.Message, error) {
		r := req.(*pb.GetLocksRequest)
		rest := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return id <= r.GetStartAfter() })
		rest = rest[min(len(rest), int(r.GetOffset())):]
		limit := size
		if r.GetLimit() > 0 {
			limit = min(limit, int(r.GetLimit()))
		}
		answer := &pb.GetLocksResponse{TotalMatchingFilter: int32(len(ids)), HasMore: len(rest) > limit}
		for _, id := range rest[:min(limit, len(rest))] {
			answer.Locks = append(answer.Locks, &pb.LockInfo{LockId: id, OwnerId: "o", Remaining: askDuration(time.Minute)})
		}
		return answer, nil
	}
}

func manyIDs(n int) (ids []string) {
	for i := range n {
		ids = append(ids, fmt.Sprintf("lock-%04d", i))
	}
	return ids
}

func TestAListWithoutALimitIsWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		ids := manyIDs(25)
		m := f.member(n1, pages(ids, 10))
		c := f.client(nil, n1)
		res, err := c.GetLocks(t.Context(), &GetLocksRequest{Offset: 3})
		if err != nil || res.HasMore || res.TotalMatching != 25 {
			t.Fatalf("%+v, %v", res, err)
		}
		if got := idsOf(res.Locks); !slices.Equal(got, ids[3:]) {
			t.Errorf("got %v", got)
		}
		if len(m.calls) != 3 || c.GetMetrics().GetRequestCount("GetLocks") != 1 {
			t.Errorf("%d pages, %d calls counted", len(m.calls), c.GetMetrics().GetRequestCount("GetLocks"))
		}
		if res.Locks[0].ExpiresAt != time.Now().Add(time.Minute) {
			t.Errorf("the end is %v", res.Locks[0].ExpiresAt)
		}
		res, err = c.GetLocks(t.Context(), &GetLocksRequest{Limit: 4, StartAfter: ids[1]})
		if err != nil || !res.HasMore || !slices.Equal(idsOf(res.Locks), ids[2:6]) {
			t.Errorf("a page is %v, %v", idsOf(res.Locks), err)
		}
	})
}

func idsOf(locks []*LockInfo) (ids []string) {
	for _, l := range locks {
		ids = append(ids, l.LockID)
	}
	return ids
}

// A member that does not know StartAfter must not keep the client for ever.
func TestAListThatWouldNeverEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.member(n1, func(context.Context, string, proto.Message) (proto.Message, error) {
			return &pb.GetLocksResponse{HasMore: true, Locks: []*pb.LockInfo{{LockId: "a"}}}, nil
		})
		c := f.client(nil, n1)
		if _, err := c.GetLocks(t.Context(), &GetLocksRequest{}); err == nil {
			t.Error("no error")
		}
		n := 0
		var last error
		for _, err := range Locks(t.Context(), c, nil) {
			n, last = n+1, err
		}
		if n != 2 || last == nil {
			t.Errorf("%d turns, %v", n, last)
		}
	})
}

func TestLocksRangesOverAllPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		ids := manyIDs(2500)
		f.member(n1, pages(ids, 700))
		c := f.client(nil, n1)
		var got []string
		for lock, err := range Locks(t.Context(), c, &LockFilter{OnlyHeld: true}) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, lock.LockID)
		}
		if !slices.Equal(got, ids) {
			t.Errorf("%d locks", len(got))
		}
		for range Locks(t.Context(), c, nil) {
			break
		}
	})
}

// listed is somebody else's client: an answer per call, then an error.
type listed struct {
	RaftLockClient
	pages []*GetLocksResult
}

func (l *listed) GetLocks(context.Context, *GetLocksRequest) (*GetLocksResult, error) {
	if len(l.pages) == 0 {
		return nil, ErrUnavailable
	}
	page := l.pages[0]
	l.pages = l.pages[1:]
	return page, nil
}

func TestLocksEndsWithTheError(t *testing.T) {
	c := &listed{pages: []*GetLocksResult{
		{Locks: []*LockInfo{{LockID: "a"}, {LockID: "b"}}, HasMore: true},
		{Locks: []*LockInfo{{LockID: "b"}, {LockID: "c"}}, HasMore: true}, // a repeat is passed over
	}}
	var got []string
	var last error
	for lock, err := range Locks(t.Context(), c, nil) {
		if last = err; err == nil {
			got = append(got, lock.LockID)
		}
	}
	if !slices.Equal(got, []string{"a", "b", "c"}) || !errors.Is(last, ErrUnavailable) {
		t.Errorf("got %v, %v", got, last)
	}
}

// The ends of waits come as instants of the member's wall clock; here they are
// in ours, whatever that clock shows.
func TestWaitersEndsAreInOurTime(t *testing.T) {
	sent := time.Now()
	theirs := time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)
	info := infoOf(&pb.LockInfo{
		OwnerId: "o", Remaining: askDuration(10 * time.Second), ExpiresAt: timestamppb.New(theirs.Add(10 * time.Second)),
		WaitersInfo: []*pb.WaiterInfo{
			{ClientId: "w", TimeoutAt: timestamppb.New(theirs.Add(time.Minute)), Position: 0},
			{ClientId: "late", TimeoutAt: timestamppb.New(theirs.Add(-time.Minute)), Position: 1}, {ClientId: "none"},
		},
	}, sent)
	if got := info.ExpiresAt.Sub(sent); got != 10*time.Second {
		t.Errorf("the grant has %v", got)
	}
	if got := info.WaitersInfo[0].TimeoutAt.Sub(sent); got != time.Minute {
		t.Errorf("the wait has %v", got)
	}
	if got := info.WaitersInfo[1].TimeoutAt.Sub(sent); got != 0 {
		t.Errorf("a wait that is over has %v", got)
	}
	if !info.WaitersInfo[2].TimeoutAt.IsZero() {
		t.Error("a wait without an end has one")
	}
}

func TestHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		m := f.member(n1, func(context.Context, string, proto.Message) (proto.Message, error) {
			return &pb.HealthResponse{
				Status: pb.HealthStatus_NOT_SERVING, Message: "no leader is known",
				HealthInfo: &pb.HealthStatus{RaftTerm: 5, Uptime: askDuration(time.Hour)},
			}, nil
		})
		c := f.client(nil, n1)
		got, err := c.Health(t.Context(), &HealthRequest{})
		if !is(err, ErrUnavailable) || is(err, ErrOutcomeUnknown) || got.Status != HealthStatusNotServing || got.Message != "no leader is known" || got.RaftTerm != 5 || got.Uptime != time.Hour {
			t.Errorf("%+v, %v", got, err)
		}
		m.stop()
		got, err = c.Health(t.Context(), &HealthRequest{})
		if !is(err, ErrUnavailable) || got.Status != HealthStatusNotServing || got.Message == "" {
			t.Errorf("nobody there: %+v, %v", got, err)
		}
		f.member(n1, nil)
		if got, err = c.Health(t.Context(), &HealthRequest{}); err != nil || got.Status != HealthStatusServing {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

func TestStatusIsConvertedWhole(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		m := f.member(n1, func(_ context.Context, method string, _ proto.Message) (proto.Message, error) {
			if method == "GetBackoffAdvice" {
				return &pb.BackoffAdviceResponse{Advice: &pb.BackoffAdvice{InitialBackoff: askDuration(1), MaxBackoff: askDuration(2), Multiplier: 3, JitterFactor: 4}}, nil
			}
			return &pb.GetStatusResponse{
				RaftStatus: &pb.RaftStatus{
					NodeId: "n1", Role: "Leader", Term: 1, LeaderId: "n1", LastLogIndex: 2, LastLogTerm: 3,
					CommitIndex: 4, LastApplied: 5, SnapshotIndex: 6, SnapshotTerm: 7,
					Replication: map[string]*pb.PeerState{"n2": {NextIndex: 1, MatchIndex: 2, IsActive: true, LastActiveAt: timestamppb.New(at), SnapshotInProgress: true, ReplicationLag: 3}},
				},
				LockStats: &pb.LockManagerStats{ActiveLocksCount: 1, TotalWaitersCount: 2, ContestedLocksCount: 3, AverageHoldDuration: askDuration(4), AcquisitionRatePerSecond: 5, ReleaseRatePerSecond: 6, ExpiredLocksLastPeriod: 7},
				Health:    &pb.HealthStatus{Status: pb.HealthStatus_SERVING, Message: "m", IsRaftLeader: true, RaftLeaderAddress: "a", RaftTerm: 1, RaftLastApplied: 2, CurrentActiveLocks: 3, CurrentTotalWaiters: 4, Uptime: askDuration(5), LastHealthCheckAt: timestamppb.New(at)},
			}, nil
		})
		c := f.client(nil, n1)
		got, err := c.GetStatus(t.Context(), &GetStatusRequest{IncludeReplicationDetails: true})
		if err != nil {
			t.Fatal(err)
		}
		if !m.calls[0].req.(*pb.GetStatusRequest).IncludeReplicationDetails {
			t.Error("the question lost its detail")
		}
		local := at.Local()
		wantRaft := RaftStatus{NodeID: "n1", Role: "Leader", Term: 1, LeaderID: "n1", LastLogIndex: 2, LastLogTerm: 3, CommitIndex: 4, LastApplied: 5, SnapshotIndex: 6, SnapshotTerm: 7}
		raft := *got.RaftStatus
		peer := raft.Replication["n2"]
		raft.Replication = nil
		if fmt.Sprint(raft) != fmt.Sprint(wantRaft) || *peer != (PeerState{1, 2, true, local, true, 3}) {
			t.Errorf("raft %+v %+v", raft, peer)
		}
		if *got.LockStats != (LockManagerStats{1, 2, 3, 4, 5, 6, 7}) {
			t.Errorf("stats %+v", got.LockStats)
		}
		if *got.Health != (HealthStatus{HealthStatusServing, "m", true, "a", 1, 2, 3, 4, 5, local}) {
			t.Errorf("health %+v", got.Health)
		}
		advice, err := c.GetBackoffAdvice(t.Context(), &BackoffAdviceRequest{LockID: "l"})
		if err != nil || *advice != (BackoffAdvice{1, 2, 3, 4}) {
			t.Errorf("%+v, %v", advice, err)
		}
	})
}

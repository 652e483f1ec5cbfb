package lockservice_test

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/raftlock/raftlock/internal/lockservice"
	"github.com/raftlock/raftlock/pb"
	"github.com/raftlock/raftlock/testcluster"
)

// signed checks the headers that every answer carries.
func signed(t *testing.T, c *testcluster.Cluster, header metadata.MD) {
	t.Helper()
	leader := []string{"n" + string(rune('1'+c.Leader())) + ".example:7001"}
	if got := header.Get(lockservice.ClusterHeader); !slices.Equal(got, []string{c.Node(0).ClusterID()}) {
		t.Errorf("header %s is %q, want %q", lockservice.ClusterHeader, got, c.Node(0).ClusterID())
	}
	if got := header.Get(lockservice.LeaderHeader); !slices.Equal(got, leader) {
		t.Errorf("header %s is %q, want %q", lockservice.LeaderHeader, got, leader)
	}
}

// Every call works at every member.
func TestEveryCall(t *testing.T) {
	c := testcluster.New(t, 3)
	for i := range 3 {
		d := openDesk(t, at(c, i))
		lock, one, two := "lock-"+string(rune('a'+i)), "one", "two"

		got, header, err := call(t, d.rpc.Acquire, &pb.AcquireRequest{
			LockId: lock, ClientId: one, Ttl: durationpb.New(time.Hour), Metadata: map[string]string{"k": "v"},
			WaitTimeout: durationpb.New(0),
		})
		if err != nil || got.GetError() != nil || !got.GetAcquired() {
			t.Fatalf("Acquire: %v, %v", got, err)
		}
		signed(t, c, header)
		l := got.GetLock()
		if l.GetLockId() != lock || l.GetOwnerId() != one || l.GetVersion() == 0 || l.GetMetadata()["k"] != "v" {
			t.Errorf("Acquire: %v", l)
		}
		left := l.GetRemaining().AsDuration()
		if left <= 59*time.Minute || left > time.Hour {
			t.Errorf("an hour's lock has %v left", left)
		}
		if off := time.Until(l.GetExpiresAt().AsTime()) - left; off > 0 || off < -time.Minute {
			t.Errorf("expires_at is %v off what is left", off)
		}

		info := must(t, d.rpc.GetLockInfo, &pb.GetLockInfoRequest{LockId: lock}).GetLockInfo()
		if info.GetOwnerId() != one || info.GetVersion() != l.GetVersion() || info.GetRemaining().AsDuration() <= 59*time.Minute {
			t.Errorf("GetLockInfo: %v", info)
		}
		renewed := must(t, d.rpc.Renew, &pb.RenewRequest{
			LockId: lock, ClientId: one, Version: l.GetVersion(), NewTtl: durationpb.New(2 * time.Hour),
		})
		if !renewed.GetRenewed() || renewed.GetLock().GetRemaining().AsDuration() < 119*time.Minute {
			t.Errorf("Renew: %v", renewed)
		}
		queued := must(t, d.rpc.EnqueueWaiter, &pb.EnqueueWaiterRequest{
			LockId: lock, ClientId: two, Timeout: durationpb.New(0), Priority: 3, Version: 7,
		})
		if !queued.GetEnqueued() || queued.GetPosition() != 0 || queued.GetEstimatedWaitDuration().AsDuration() < time.Hour {
			t.Errorf("EnqueueWaiter: %v", queued)
		}
		info = must(t, d.rpc.GetLockInfo, &pb.GetLockInfoRequest{LockId: lock, IncludeWaiters: true}).GetLockInfo()
		if w := info.GetWaitersInfo(); info.GetWaiterCount() != 1 || len(w) != 1 || w[0].GetClientId() != two || w[0].GetPriority() != 3 ||
			time.Until(w[0].GetTimeoutAt().AsTime()) <= 0 {
			t.Errorf("GetLockInfo with waiters: %v", info)
		}
		if got := must(t, d.rpc.CancelWait, &pb.CancelWaitRequest{LockId: lock, ClientId: two, Version: 7}); !got.GetCancelled() {
			t.Errorf("CancelWait: %v", got)
		}
		list := must(t, d.rpc.GetLocks, &pb.GetLocksRequest{Filter: &pb.LockFilter{LockIdPattern: lock, OnlyHeld: true}})
		if len(list.GetLocks()) != 1 || list.GetTotalMatchingFilter() != 1 || list.GetHasMore() {
			t.Errorf("GetLocks: %v", list)
		}
		advice := must(t, d.rpc.GetBackoffAdvice, &pb.BackoffAdviceRequest{LockId: "never-seen"}).GetAdvice()
		if advice.GetInitialBackoff().AsDuration() != 50*time.Millisecond || advice.GetMaxBackoff().AsDuration() != time.Second ||
			advice.GetMultiplier() != 1.5 || advice.GetJitterFactor() != 0.2 {
			t.Errorf("GetBackoffAdvice: %v", advice)
		}
		st := must(t, d.rpc.GetStatus, &pb.GetStatusRequest{IncludeReplicationDetails: true})
		if st.GetRaftStatus().GetNodeId() != "n"+string(rune('1'+i)) || st.GetLockStats() == nil || st.GetHealth().GetStatus() != pb.HealthStatus_SERVING {
			t.Errorf("GetStatus: %v", st)
		}
		health := must(t, d.rpc.Health, &pb.HealthRequest{})
		if health.GetStatus() != pb.HealthStatus_SERVING || health.GetHealthInfo().GetIsRaftLeader() != (c.Leader() == i) {
			t.Errorf("Health: %v", health)
		}
		released := must(t, d.rpc.Release, &pb.ReleaseRequest{LockId: lock, ClientId: one, Version: l.GetVersion()})
		if !released.GetReleased() || released.GetWaiterPromoted() {
			t.Errorf("Release: %v", released)
		}
	}
}

// A refusal of the table is an answer; what the table has not decided is a status.
// Both are signed.
func TestRefusals(t *testing.T) {
	c := testcluster.New(t, 1)
	d := openDesk(t, at(c, 0))
	hour := durationpb.New(time.Hour)
	held := must(t, d.rpc.Acquire, &pb.AcquireRequest{LockId: "held", ClientId: "one", Ttl: hour}).GetLock()
	freed := must(t, d.rpc.Acquire, &pb.AcquireRequest{LockId: "freed", ClientId: "one", Ttl: hour}).GetLock()
	must(t, d.rpc.Release, &pb.ReleaseRequest{LockId: "freed", ClientId: "one", Version: freed.GetVersion()})

	for name, test := range map[string]struct {
		call func() (interface{ GetError() *pb.ErrorDetail }, metadata.MD, error)
		code pb.ErrorCode
		keys []string
	}{
		"held": {func() (interface{ GetError() *pb.ErrorDetail }, metadata.MD, error) {
			answer, header, err := call(t, d.rpc.Acquire, &pb.AcquireRequest{LockId: "held", ClientId: "two"})
			if answer.GetBackoffAdvice() == nil {
				t.Error("LOCK_HELD without advice")
			}
			return answer, header, err
		}, pb.ErrorCode_LOCK_HELD, []string{"owner_id", "version", "retry_after_ms"}},
		"not held": {func() (interface{ GetError() *pb.ErrorDetail }, metadata.MD, error) {
			return call3(call(t, d.rpc.Release, &pb.ReleaseRequest{LockId: "freed", ClientId: "one", Version: 1}))
		}, pb.ErrorCode_LOCK_NOT_HELD, []string{"last_version"}},
		"not owner": {func() (interface{ GetError() *pb.ErrorDetail }, metadata.MD, error) {
			return call3(call(t, d.rpc.Renew, &pb.RenewRequest{LockId: "held", ClientId: "two", Version: 1, NewTtl: hour}))
		}, pb.ErrorCode_NOT_LOCK_OWNER, []string{"version"}},
		"mismatch": {func() (interface{ GetError() *pb.ErrorDetail }, metadata.MD, error) {
			return call3(call(t, d.rpc.Release, &pb.ReleaseRequest{LockId: "held", ClientId: "one", Version: held.GetVersion() + 1}))
		}, pb.ErrorCode_VERSION_MISMATCH, []string{"version"}},
		"not found": {func() (interface{ GetError() *pb.ErrorDetail }, metadata.MD, error) {
			return call3(call(t, d.rpc.GetLockInfo, &pb.GetLockInfoRequest{LockId: "unknown"}))
		}, pb.ErrorCode_LOCK_NOT_FOUND, nil},
		"ttl": {func() (interface{ GetError() *pb.ErrorDetail }, metadata.MD, error) {
			return call3(call(t, d.rpc.Acquire, &pb.AcquireRequest{LockId: "a", ClientId: "two", Ttl: durationpb.New(1)}))
		}, pb.ErrorCode_INVALID_TTL, []string{"field", "value", "min", "max"}},
		"zero ttl of a renewal": {func() (interface{ GetError() *pb.ErrorDetail }, metadata.MD, error) {
			return call3(call(t, d.rpc.Renew, &pb.RenewRequest{LockId: "held", ClientId: "one", Version: 1, NewTtl: durationpb.New(0)}))
		}, pb.ErrorCode_INVALID_TTL, []string{"field"}},
		"not waiting": {func() (interface{ GetError() *pb.ErrorDetail }, metadata.MD, error) {
			return call3(call(t, d.rpc.CancelWait, &pb.CancelWaitRequest{LockId: "held", ClientId: "two"}))
		}, pb.ErrorCode_NOT_WAITING, nil},
		"time is over": {func() (interface{ GetError() *pb.ErrorDetail }, metadata.MD, error) {
			return call3(call(t, d.rpc.Acquire, &pb.AcquireRequest{
				LockId: "held", ClientId: "two", Wait: true, WaitTimeout: durationpb.New(time.Millisecond),
			}))
		}, pb.ErrorCode_TIMEOUT, []string{"outcome"}},
	} {
		answer, header, err := test.call()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		signed(t, c, header)
		got := answer.GetError()
		if got.GetCode() != test.code || got.GetMessage() == "" {
			t.Errorf("%s: %v, want %v", name, got, test.code)
		}
		for _, key := range test.keys {
			if got.GetDetails()[key] == "" {
				t.Errorf("%s: no detail %q in %v", name, key, got.GetDetails())
			}
		}
	}
	_, header, err := call(t, d.rpc.Acquire, &pb.AcquireRequest{LockId: "", ClientId: "two"})
	signed(t, c, header)
	if status.Code(err) != codes.InvalidArgument || detail(t, err).GetCode() != pb.ErrorCode_INVALID_ARGUMENT ||
		detail(t, err).GetDetails()["field"] != "lock_id" {
		t.Errorf("no lock id: %v", err)
	}
}

func call3[A interface{ GetError() *pb.ErrorDetail }](answer A, header metadata.MD, err error) (interface{ GetError() *pb.ErrorDetail }, metadata.MD, error) {
	return answer, header, err
}

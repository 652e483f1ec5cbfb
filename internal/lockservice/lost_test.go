package lockservice_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/raftlock/raftlock/internal/lockservice"
	"github.com/raftlock/raftlock/pb"
	"github.com/raftlock/raftlock/testcluster"
)

// ended is how a wait came out.
type ended struct {
	answer *pb.AcquireResponse
	err    error
}

// wait stands in the queue of lock "a" until ctx ends.
func wait(ctx context.Context, rpc pb.RaftLockClient, id string, attempt int32) <-chan ended {
	out := make(chan ended, 1)
	go func() {
		answer, err := rpc.Acquire(ctx, &pb.AcquireRequest{
			LockId: "a", ClientId: id, RequestId: "r", Wait: true, Attempt: attempt, Ttl: durationpb.New(time.Hour),
		})
		out <- ended{answer, err}
	}()
	return out
}

// queue is who waits for lock "a".
func queue(t *testing.T, d *desk) (ids []string) {
	t.Helper()
	info := must(t, d.rpc.GetLockInfo, &pb.GetLockInfoRequest{LockId: "a", IncludeWaiters: true}).GetLockInfo()
	for _, w := range info.GetWaitersInfo() {
		ids = append(ids, w.GetClientId())
	}
	return ids
}

// awaitQueue waits until n wait.
func awaitQueue(t *testing.T, d *desk, n int) {
	t.Helper()
	for len(queue(t, d)) < n {
		time.Sleep(time.Millisecond)
	}
}

// line is a lock with a holder and two who wait, the first over its own desk.
func line(t *testing.T) (first, second *desk, token int64) {
	t.Helper()
	c := testcluster.New(t, 3)
	leader := c.Leader()
	first, second = openDesk(t, at(c, (leader+1)%3)), openDesk(t, at(c, (leader+2)%3))
	held := must(t, second.rpc.Acquire, &pb.AcquireRequest{LockId: "a", ClientId: "holder", Ttl: durationpb.New(time.Hour)})
	return first, second, held.GetLock().GetVersion()
}

// granted checks that a wait has got the lock.
func granted(t *testing.T, what string, w <-chan ended) {
	t.Helper()
	got := <-w
	if got.err != nil || !got.answer.GetAcquired() || got.answer.GetLock().GetRemaining().AsDuration() < 59*time.Minute {
		t.Errorf("%s: %v, %v", what, got.answer, got.err)
	}
}

// Whether a caller cancels, its connection breaks, or its deadline passes: its
// wait keeps its place, and its next attempt at another member takes it.
func TestLostCallersKeepTheirPlaces(t *testing.T) {
	for name, lose := range map[string]func(d *desk, cancel context.CancelFunc){
		"cancelled": func(_ *desk, cancel context.CancelFunc) { cancel() },
		"broken":    func(d *desk, _ context.CancelFunc) { _ = d.conn.Close() },
		"drained":   func(d *desk, _ context.CancelFunc) { _ = d.service.Drain(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				first, second, token := line(t)
				ctx, cancel := context.WithCancel(t.Context())
				lost := wait(ctx, first.rpc, "one", 1)
				awaitQueue(t, second, 1)
				behind := wait(t.Context(), second.rpc, "two", 1)
				awaitQueue(t, second, 2)
				lose(first, cancel)
				if got := <-lost; got.err == nil {
					t.Fatalf("the wait ends with %v", got.answer)
				} else if name == "drained" && (status.Code(got.err) != codes.Unavailable || detail(t, got.err).GetDetails()["outcome"] != "unknown") {
					t.Errorf("the wait ends with %v", got.err)
				}
				time.Sleep(time.Second)
				if got := queue(t, second); len(got) != 2 || got[0] != "one" {
					t.Errorf("a second later %v wait", got)
				}
				again := wait(t.Context(), second.rpc, "one", 2)
				time.Sleep(10 * time.Second) // longer than a place is kept
				must(t, second.rpc.Release, &pb.ReleaseRequest{LockId: "a", ClientId: "holder", Version: token})
				granted(t, "the claim", again)
				if got := queue(t, second); len(got) != 1 || got[0] != "two" {
					t.Errorf("afterwards %v wait", got)
				}
				must(t, second.rpc.CancelWait, &pb.CancelWaitRequest{LockId: "a", ClientId: "two", RequestId: "r"})
				if got := <-behind; got.err != nil || got.answer.GetError().GetCode() != pb.ErrorCode_NOT_WAITING {
					t.Errorf("the other: %v, %v", got.answer, got.err)
				}
				cancel()
			})
		})
	}
}

// The place of a caller who does not come back is given up, and the deadline of
// a call is answered as what it is.
func TestLostCallersLapse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second, _ := line(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if got := <-wait(ctx, first.rpc, "one", 1); status.Code(got.err) != codes.DeadlineExceeded {
			t.Errorf("the wait ends with %v, %v", got.answer, got.err)
		}
		time.Sleep(1900 * time.Millisecond)
		if got := queue(t, second); len(got) != 1 {
			t.Errorf("after 1.9 s %v wait", got)
		}
		time.Sleep(200 * time.Millisecond)
		if got := queue(t, second); len(got) != 0 {
			t.Errorf("after 2.1 s %v wait", got)
		}
	})
}

// A service that is drained refuses new calls, says so before anything else is
// closed, and lets who watches its health go.
func TestDrain(t *testing.T) {
	c := testcluster.New(t, 1)
	d := openDesk(t, at(c, 0))
	must(t, d.rpc.Acquire, &pb.AcquireRequest{LockId: "a", ClientId: "one"})
	for range 2 {
		if err := d.service.Drain(within(t)); err != nil {
			t.Fatal(err)
		}
	}
	_, header, err := call(t, d.rpc.Acquire, &pb.AcquireRequest{LockId: "a", ClientId: "one"})
	signed(t, c, header)
	if got := detail(t, err); status.Code(err) != codes.Unavailable || got.GetCode() != pb.ErrorCode_UNAVAILABLE || got.GetDetails()["outcome"] != "not_proposed" {
		t.Errorf("a call afterwards: %v", err)
	}
	if got := must(t, d.rpc.Health, &pb.HealthRequest{}); got.GetStatus() != pb.HealthStatus_NOT_SERVING {
		t.Errorf("health afterwards: %v", got)
	}
}

// Calls that run are waited for, as long as the caller of Drain does.
func TestDrainWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := &fake{hang: make(chan struct{})}
		d := openDesk(t, lockservice.Config{Client: slow, Cluster: none, Leader: nobody})
		answered := make(chan error, 1)
		go func() {
			_, err := d.rpc.Release(t.Context(), &pb.ReleaseRequest{})
			answered <- err
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := d.service.Drain(ctx); err == nil {
			t.Error("drained while a call runs")
		}
		close(slow.hang)
		if err := d.service.Drain(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-answered; err != nil {
			t.Errorf("the call: %v", err)
		}
	})
}

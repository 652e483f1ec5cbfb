package testcluster_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/testcluster"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAcquireRelease(t *testing.T) {
	for _, size := range []int{1, 3, 5} {
		c := testcluster.New(t, size)
		for i := range size {
			cl := c.ClientOn(i)
			res, err := cl.Acquire(t.Context(), &client.AcquireRequest{LockID: "a", ClientID: "me"})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := cl.Acquire(t.Context(), &client.AcquireRequest{LockID: "a", ClientID: "you"}); !errors.Is(err, client.ErrLockHeld) {
				t.Fatal(err)
			}
			info, err := cl.GetLockInfo(t.Context(), &client.GetLockInfoRequest{LockID: "a"})
			if err != nil || info.Version != res.Lock.Version {
				t.Fatal(info, err)
			}
			if _, err := cl.Release(t.Context(), &client.ReleaseRequest{LockID: "a", ClientID: "me", Version: res.Lock.Version}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testcluster.New(t, 3)
		cl := c.Client()
		begun := time.Now()
		_, err := cl.Acquire(t.Context(), &client.AcquireRequest{LockID: "a", ClientID: "me", TTL: 30 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		crashed := c.CrashLeader()
		res, err := cl.Acquire(t.Context(), &client.AcquireRequest{LockID: "a", ClientID: "you", Wait: true})
		if err != nil {
			t.Fatal(err)
		}
		took := time.Since(begun)
		t.Log("granted after", took, res.Lock)
		if took < 30*time.Second || took > 32*time.Second {
			t.Error("wrong time", took)
		}
		c.Restart(crashed)
	})
}

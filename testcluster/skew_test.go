package testcluster_test

import (
	"testing"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/testcluster"
)

// What a client holds ends by its own clock, wherever it was told of the end.
func TestSkewedClientsCountByTheirClocks(t *testing.T) {
	const ttl = 100 * time.Second
	for _, ppm := range []float64{0, 500, -500} {
		bubble(t, 1, func(t *testing.T, c *testcluster.Cluster) {
			cl := c.Client()
			cl.SkewRate(ppm)
			time.Sleep(time.Minute) // by now the clock is off
			handle, err := client.NewLockHandle(cl, "a", "me")
			if err != nil {
				t.Fatal(err)
			}
			if err := handle.Acquire(t.Context(), ttl, false); err != nil {
				t.Fatal(err)
			}
			begun := time.Now()
			now := cl.Clock().Now()
			left := map[string]time.Duration{"Acquire": handle.Lock().ExpiresAt.Sub(now), "GetLockInfo": look(t, cl, "a").ExpiresAt.Sub(now)}
			listed, err := cl.GetLocks(t.Context(), &client.GetLocksRequest{})
			if err != nil {
				t.Fatal(err)
			}
			left["GetLocks"] = listed.Locks[0].ExpiresAt.Sub(now)
			for call, left := range left {
				if left != ttl {
					t.Errorf("%v ppm: by %s the grant lasts for %v", ppm, call, left)
				}
			}
			end := time.Duration(float64(ttl-time.Second) / (1 + ppm/1e6))
			time.Sleep(end - time.Millisecond - time.Since(begun))
			if !handle.IsHeld() {
				t.Errorf("%v ppm: the handle lost its lock before %v", ppm, end)
			}
			time.Sleep(2 * time.Millisecond)
			if handle.IsHeld() {
				t.Errorf("%v ppm: the handle holds its lock after %v", ppm, end)
			}
		})
	}
}

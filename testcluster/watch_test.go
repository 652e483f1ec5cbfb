package testcluster_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/raftlock/raftlock/testcluster"
)

// The cleanup tells a test that its clients have seen what no cluster may show
// them. Here somebody releases a lock behind its holder's back, whom the cleanup
// does not know of; so it looks as if two had it.
func TestCleanupJudgesTheClients(t *testing.T) {
	for what, c := range map[string]struct {
		before func(c *testcluster.Cluster)
		told   bool
	}{
		"all is seen":             {func(*testcluster.Cluster) {}, true},
		"a node was asked for":    {func(c *testcluster.Cluster) { c.Node(0) }, false},
		"clients of other makers": {func(c *testcluster.Cluster) { c.ClientConfig() }, false},
		"a clock went wrong":      {func(c *testcluster.Cluster) { c.SkewRate(0, 501) }, false},
		"a client was stopped":    {func(c *testcluster.Cluster) { c.Client().Pause() }, false},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &recorder{TB: t}
				cluster := testcluster.New(r, 3, testcluster.WithGRPC())
				c.before(cluster)
				held := hold(t, cluster.Client(), "lock", "one")
				time.Sleep(time.Second)
				give(t, cluster.Unseen(0), held)
				hold(t, cluster.Client(), "lock", "two")
				r.end()
				if c.told {
					r.wants(t, true, "mutual exclusion", "one", "two")
				} else {
					r.wants(t, false)
				}
			})
		})
	}
}

package testcluster

import (
	"hash/fnv"
	"math/rand/v2"
)

// WithSeed decides whatever chance decides about faults: which frames a link
// loses, repeats or holds up and for how long, how slow a disk is, what a power cut
// leaves. The same seed gives the same faults, as far as the members do the same
// between them, as they nearly do in virtual time. Without it each cluster has a
// seed of its own, which a test that fails is told.
func WithSeed(seed uint64) Option {
	return func(c *Cluster) { c.seed = seed }
}

// dice are those of one thing that befalls a member, for as long as the cluster
// lives. They must be used under a lock.
func dice(seed uint64, of, name string) *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write([]byte(of + "\x00" + name)) // a hash has no errors
	return rand.New(rand.NewPCG(seed, h.Sum64()))
}

// tellSeed tells a test that failed how to have the same faults again.
func (c *Cluster) tellSeed() {
	if c.tb.Failed() {
		c.tb.Logf("testcluster: for the same faults again: testcluster.New(t, %d, testcluster.WithSeed(%d))", len(c.roll.list()), c.seed)
	}
}

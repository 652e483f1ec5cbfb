package testcluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/internal/clock"
)

// roll is the members that the cluster has ever had, by number. It only grows,
// and what list returned stays as it is.
type roll struct {
	mu      sync.Mutex
	members []*member
}

func (r *roll) list() []*member {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.members
}

// enter makes the next member, on an empty disk, and returns its number. The seed
// is that of its faults.
func (r *roll) enter(seed uint64) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := len(r.members)
	name := fmt.Sprintf("n%d", i+1)
	m := &member{name: name, addr: "mem://" + name, warp: clock.NewWarp()}
	m.faults.mu.dice = dice(seed, "disk", name)
	m.mu.disk = raftlock.NewMemoryStorage()
	r.members = append(slices.Clip(r.members), m) // in a new array: others range over the old one
	return i
}

// Add makes a place for one more member, starts that with an empty disk, and
// returns its number, the next one. It does not wait for the member, which is
// ready when it has caught up, and votes soon after that; Members of any
// [raftlock.Node] tells. Members are taken away by their Node's RemoveMember.
func (c *Cluster) Add() int {
	c.tb.Helper()
	if !c.isAlive("Add") {
		return -1
	}
	i := c.roll.enter(c.seed)
	m := c.roll.list()[i]
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		err := c.node(c.Leader()).AddMember(ctx, m.name, m.addr)
		if err == nil {
			break
		}
		if errors.Is(err, client.ErrInvalidArgument) || ctx.Err() != nil {
			c.tb.Fatalf("testcluster: add member %d: %v", i, err)
		}
	}
	c.start(i)
	return i
}

// present are the peer addresses of the members that have not been removed, as
// far as their machines have heard.
func (c *Cluster) present() map[string]string {
	addrs := map[string]string{}
	for i, m := range c.roll.list() {
		if !c.wasRemoved(i) {
			addrs[m.name] = m.addr
		}
	}
	return addrs
}

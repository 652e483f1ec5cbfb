package raftlock

import (
	"context"
	"fmt"
	"maps"
	"slices"
)

// directory is the way to every peer, as of a roster: the newest that this member
// knows, which its log may have yet to reach. It never changes: a change of the
// members makes another one. Only the loop makes them; everybody reads
// the last one.
type directory struct {
	roster *roster
	byName map[string]*outbox // the peers of the roster that have come
	byNode map[uint64]*outbox // these, and for the rest of a turn those that have gone
	// vacant are the places that wait, each with what ends the knocking there.
	vacant map[string]context.CancelFunc
}

// nameOf is a node's name, "" when it has none.
func (d *directory) nameOf(node uint64) string {
	if m := d.roster.byNode(node); m != nil {
		return m.name
	}
	return ""
}

// company is who this member speaks with: who belongs to the cluster as far as it
// has heard, in its log or from a peer that is ahead.
func (r *replica) company() *roster {
	if r.told != nil && r.told.index > r.roster.index {
		return r.told
	}
	return r.roster
}

// hear lets this member meet those whom a peer knows and its own log does not name
// yet. The leader may be one of them, and this member's log gets on through nobody
// else.
func (n *Node) hear(theirs *hello) {
	told := n.assembly.news(theirs)
	if told == nil || !n.isFormed() {
		return
	}
	for range 2 { // the first one's turn has told the others when the second is taken
		_, _ = look(n.ctx, n, func(r *replica) bool { // an error is the end of this member
			if told.index > r.company().index {
				r.told = told
			}
			return true
		})
	}
}

// enroll makes the directory of a roster, starts the outboxes of the peers that are
// new in it, and has its empty places knocked at. It returns the outboxes of peers that
// are gone, which still take what this turn has for them; dismiss ends them.
func (n *Node) enroll(now *roster, self uint64) (gone []*outbox) {
	old := n.directory.Load()
	next := &directory{roster: now, byName: map[string]*outbox{}, byNode: map[uint64]*outbox{}, vacant: n.knocks(old.vacant, now)}
	maps.Copy(next.byNode, old.byNode)
	for i := range now.records {
		m := &now.records[i]
		if m.node == 0 || m.node == self {
			continue
		}
		o := next.byNode[m.node]
		if o == nil {
			o = newOutbox(n, m.name, m.node)
			next.byNode[m.node] = o
			n.beside("outbox", func() {
				defer o.cancel()
				o.run(o.ctx)
			})
		}
		next.byName[m.name] = o
	}
	for _, node := range slices.Sorted(maps.Keys(next.byNode)) {
		if o := next.byNode[node]; next.byName[o.name] != o {
			gone = append(gone, o)
		}
	}
	n.assembly.learn(now)
	n.directory.Store(next)
	return gone
}

// dismiss ends the outboxes of peers that are members no more. What they have
// taken is still sent, if that can be: it may be the answer to the call that
// removed the peer.
func (n *Node) dismiss(gone []*outbox) {
	if len(gone) == 0 {
		return
	}
	next := *n.directory.Load()
	next.byNode = maps.Clone(next.byNode)
	n.mu.Lock()
	for _, o := range gone {
		delete(next.byNode, o.id)
		delete(n.mu.addresses, o.name)
	}
	n.mu.Unlock()
	n.directory.Store(&next)
	for _, o := range gone {
		o.part()
	}
}

// address is where a peer is reached: where the configuration says, or what the
// log has for a name that the configuration lacks.
func (n *Node) address(name string) (string, error) {
	if addr := n.cfg.InitialCluster[name]; addr != "" {
		return addr, nil
	}
	if m := n.directory.Load().roster.find(name); m != nil && m.address != "" {
		return m.address, nil
	}
	if addr := n.assembly.toldAddress(name); addr != "" {
		return addr, nil
	}
	return "", fmt.Errorf("no address of member %q is known: InitialCluster does not name it", name)
}

// addresses are where all members are reached, as far as this one knows.
func (n *Node) addresses() map[string]string {
	all := map[string]string{}
	for _, m := range n.directory.Load().roster.records {
		if addr, err := n.address(m.name); err == nil {
			all[m.name] = addr
		}
	}
	return all
}

// admit gives the place that waits for it to a member that has come with an
// empty storage. The place is its own when the log says so, not before.
func (n *Node) admit(theirs *hello) error {
	ctx, cancel := n.clock.WithTimeout(n.ctx, admitLimit)
	defer cancel()
	err := n.ask(ctx, "Admit", &wish{change: change{kind: changeBind, name: theirs.Name, node: theirs.Incarnation}})
	if err != nil {
		return fmt.Errorf("admit %s: %w", theirs.Name, err)
	}
	return nil
}

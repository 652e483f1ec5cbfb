package raftlock

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// record is one place in the cluster. A place without a node waits for the
// member that is to have it.
type record struct {
	name string
	// since is the tenancy: the index of the entry that made the place, or
	// emptied it the last time. Names come back, tenancies do not.
	since       uint64
	node        uint64 // the id in raft; 0: nobody has come yet
	incarnation uint64
	voter       bool
	address     string // what it was added with; "" of an initial member
}

// roster is who belongs to the cluster: a function of the log, like the lock
// table, and part of every snapshot. A roster never changes; a change of the
// members makes another one.
//
// Rosters of one cluster form one line, so that of two members that know each
// other differently the one with the greater index is right, and the other is
// behind, or has been removed.
type roster struct {
	index   uint64   // of the last entry that changed the members
	records []record // by name
}

// errNoFit is in the error of a change that does not fit the members.
var errNoFit = errors.New("raftlock: the change does not fit the members")

func compareNames(r record, name string) int { return cmp.Compare(r.name, name) }

// find returns the place of a name, nil when there is none.
func (t *roster) find(name string) *record {
	i, ok := slices.BinarySearchFunc(t.records, name, compareNames)
	if !ok {
		return nil
	}
	return &t.records[i]
}

// byNode returns the place of a node, nil when it has none.
func (t *roster) byNode(node uint64) *record {
	for i := range t.records {
		if node != 0 && t.records[i].node == node {
			return &t.records[i]
		}
	}
	return nil
}

// voters counts the members that vote.
func (t *roster) voters() (n int) {
	for i := range t.records {
		if t.records[i].voter {
			n++
		}
	}
	return n
}

// apply returns the roster after a change that stands at index in the log. The
// error is around errNoFit when the change does not fit, and must be ignored
// then by every member alike.
func (t *roster) apply(c *change, index uint64) (*roster, error) {
	if why := t.misfit(c); why != "" {
		return nil, fmt.Errorf("%w: member %q: %s", errNoFit, c.name, why)
	}
	next := &roster{index: index, records: slices.Clone(t.records)}
	if c.kind == changeAdd {
		at, _ := slices.BinarySearchFunc(next.records, c.name, compareNames)
		next.records = slices.Insert(next.records, at, record{name: c.name, since: index, address: c.address})
		return next, nil
	}
	at, _ := slices.BinarySearchFunc(next.records, c.name, compareNames)
	r := &next.records[at]
	switch c.kind {
	case changeRemove:
		next.records = slices.Delete(next.records, at, at+1)
	case changeReplace:
		r.since, r.node, r.incarnation, r.voter = index, 0, 0, false
	case changeBind:
		r.node, r.incarnation = c.node, c.node
	case changePromote:
		r.voter = true
	}
	return next, nil
}

// misfit says why a change does not fit, "" when it does.
func (t *roster) misfit(c *change) string {
	r := t.find(c.name)
	switch {
	case c.kind == changeAdd && r != nil:
		return "there is one"
	case c.kind == changeAdd:
		return ""
	case r == nil || r.since != c.since:
		return "there is none of that tenancy"
	case c.kind == changeBind && (r.node != 0 || c.node == 0 || t.byNode(c.node) != nil):
		return "the place is not empty, or the node has one"
	case c.kind != changeBind && r.node != c.node:
		return "another node has the place"
	case c.kind == changePromote && (r.node == 0 || r.voter):
		return "it is no learner"
	case c.kind != changeBind && c.kind != changePromote && r.voter && t.voters() == 1:
		return "it is the last that votes"
	}
	return ""
}

// hash is equal on members with the same roster.
func (t *roster) hash() uint64 {
	h := mixWord(hashSeed+4, t.index)
	for i := range t.records {
		r := &t.records[i]
		h = mixString(h, r.name)
		h = mixString(h, r.address)
		h = mixWord(h, r.since)
		h = mixWord(h, r.node)
		h = mixWord(h, r.incarnation)
		if r.voter {
			h = mixWord(h, 1)
		}
	}
	return endHash(h)
}

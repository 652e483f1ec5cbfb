package raftlock

import "fmt"

// changeKind says what a change of the members does. The values are part of the
// log format.
type changeKind uint8

const (
	changeAdd     changeKind = 1 // makes a place for a new member
	changeRemove  changeKind = 2 // takes a place away, with who has it
	changeReplace changeKind = 3 // empties a place, for whoever comes next
	changeBind    changeKind = 4 // gives an empty place to the member that came, a learner
	changePromote changeKind = 5 // lets a learner vote
)

// change is one change of the members, as the log has it. It names the place by
// name and tenancy, and who is meant by the node id: a change that does not fit
// the members as they are then changes nothing.
type change struct {
	kind    changeKind
	name    string
	since   uint64 // the tenancy; 0 for changeAdd
	node    uint64 // who has the place, or comes to it; 0 for an empty one
	address string // changeAdd: where peers will reach the member
}

// changeFormat is the version of the bytes of a change, which stand in the log
// beside raft's own words for it, for ever. The rules are those of codec.go: a
// format byte, then fields in order, one encoding of a value.
//
//	change = 1, { 1 kind, 2 name, 3 since, 4 node, 5 address }
const changeFormat format = 1

// encode returns the bytes of a change.
func (c *change) encode() []byte {
	b := []byte{byte(changeFormat)}
	b = putUint(b, 1, uint64(c.kind))
	b = putText(b, 2, c.name)
	b = putUint(b, 3, c.since)
	b = putUint(b, 4, c.node)
	return putText(b, 5, c.address)
}

// decodeChange reads what encode wrote.
func decodeChange(b []byte) (change, error) {
	f, err := changeFormat.open(b, "change", 0)
	if err != nil {
		return change{}, err
	}
	var c change
	for f.next() {
		switch f.num {
		case 1:
			c.kind = changeKind(min(f.uint(), 255))
		case 2:
			c.name = string(f.text())
		case 3:
			c.since = f.uint()
		case 4:
			c.node = f.uint()
		case 5:
			c.address = string(f.text())
		default:
			f.unknown()
		}
	}
	if c.kind > changePromote {
		f.fail(fmt.Errorf("%w: change of kind %d, this build knows kinds up to %d", errUnknownFormat, c.kind, changePromote))
	}
	if f.err == nil && (c.kind == 0 || c.name == "") {
		f.malformed("no kind, or no name")
	}
	if f.err != nil {
		return change{}, f.err
	}
	return c, nil
}

// wanted reports whether a change is one that a member may ask the leader for.
func (c *change) wanted() bool {
	switch c.kind {
	case changeAdd:
		return c.since == 0 && c.node == 0
	case changeRemove, changeReplace:
		return c.since != 0 && c.node == 0
	case changeBind:
		return c.node != 0
	}
	return false
}

package raftlock

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// The bytes of a snapshot: all that a member must have to go on behind an entry
// of the log as if it had applied every entry itself. A snapshot is a row of
// records, cut into blocks. These numbers are part of the disk format: fields
// are added with a new version of the file (snapshotfile.go), never changed.
//
//	snapshot = 1 header, 2 lock*, 3 waiter*, 4 request*, 5 end
//	header   = { 1 format, 2 cluster, 3 index, 4 term, 5 conf, 6 members, 7 at, 8 token, 9 seq,
//	             10 freeings, 11 stampTerm }
//	conf     = { 1 voters, 2 learners, 3 outgoing, 4 next, 5 autoLeave }
//	members  = { 1 index, 2 member* }
//	member   = { 1 name, 2 since, 3 node, 4 incarnation, 5 voter, 6 address }
//	lock     = { 1 id, 2 owner, 3 request, 4 version, 5 end, 6 since, 7 modified, 8 flags, 9 pair* }
//	waiter   = { 1 lock, 2 client, 3 request, 4 number, 5 claim, 6 version, 7 ttl, 8 timeout,
//	             9 detachEnd, 10 joined, 11 priority, 12 flags, 13 pair* }
//	request  = { 1 end, 2 lock, 3 client, 4 request }
//	end      = { 1 locks, 2 waiters, 3 requests, 4 hash }
//
// Fields are written as in entries (codec.go), and there is one encoding of a
// state: locks by id, waiters by lock and place, requests as they are forgotten,
// node ids by value (8 bytes each, big end first), members by name. A block ends
// with the record that fills it. The decoders refuse all else.

// recordNumber says what a record is.
type recordNumber = protowire.Number

const (
	recordHeader  recordNumber = 1
	recordLock    recordNumber = 2
	recordWaiter  recordNumber = 3
	recordRequest recordNumber = 4
	recordEnd     recordNumber = 5
)

const (
	blockFill = 64 << 10 // a block with this many bytes takes no further record
	maxBlock  = 1 << 20  // no record is so large that a block could exceed this
)

// snapshotHeader is what a snapshot says besides the locks.
type snapshotHeader struct {
	format      format // of the entries at that point of the log
	cluster     uint64
	index, term uint64 // of the last entry in it
	conf        snapshotConf
	members     snapshotMembers

	at        logTime
	token     int64
	seq       uint64
	freeings  uint64
	stampTerm uint64 // the term of the last entry in it that has a stamp
}

// snapshotConf is the configuration of raft, as node ids in order.
type snapshotConf struct {
	voters, learners, outgoing, next []uint64
	autoLeave                        bool
}

// snapshotMembers are the members of the cluster at that point of the log.
type snapshotMembers struct {
	index uint64 // of the last entry that changed them; that of the first state if none has
	list  []snapshotMember
}

// snapshotMember is one place in the cluster.
type snapshotMember struct {
	name        string
	since       uint64 // the entry that made or emptied the place; the first state's of an initial member
	node        uint64 // 0 as long as nobody has come
	incarnation uint64
	voter       bool
	address     string // what it was added with; "" of an initial member
}

// snapshotEnd closes a snapshot.
type snapshotEnd struct {
	locks, waiters, requests uint64
	hash                     uint64 // of the table
}

func (h *snapshotHeader) appendTo(dst []byte) []byte {
	dst = putUint(dst, 1, uint64(h.format))
	dst = putUint(dst, 2, h.cluster)
	dst = putUint(dst, 3, h.index)
	dst = putUint(dst, 4, h.term)
	dst, at := openMessage(dst, 5)
	for i, ids := range [][]uint64{h.conf.voters, h.conf.learners, h.conf.outgoing, h.conf.next} {
		dst = putIDs(dst, protowire.Number(i+1), ids)
	}
	dst = closeMessage(putBool(dst, 5, h.conf.autoLeave), at)
	if h.members.index != 0 || len(h.members.list) > 0 {
		dst, at = openMessage(dst, 6)
		dst = closeMessage(h.members.appendTo(dst), at)
	}
	dst = putUint(dst, 7, uint64(h.at))
	dst = putUint(dst, 8, uint64(h.token))
	dst = putUint(dst, 9, h.seq)
	dst = putUint(dst, 10, h.freeings)
	return putUint(dst, 11, h.stampTerm)
}

func decodeSnapshotHeader(b []byte) (*snapshotHeader, error) {
	h := &snapshotHeader{}
	f := fields{b: b, of: "snapshot header"}
	for f.next() {
		switch f.num {
		case 1:
			h.format = format(min(f.uint(), 255))
		case 2:
			h.cluster = f.uint()
		case 3:
			h.index = f.uint()
		case 4:
			h.term = f.uint()
		case 5:
			f.fail(h.conf.decode(f.message()))
		case 6:
			f.fail(h.members.decode(f.text()))
		case 7:
			h.at = f.time()
		case 8:
			h.token = int64(f.uint())
		case 9:
			h.seq = f.uint()
		case 10:
			h.freeings = f.uint()
		case 11:
			h.stampTerm = f.uint()
		default:
			f.unknown()
		}
	}
	if f.err == nil && (h.format == 0 || h.index == 0 || h.term == 0 || h.stampTerm > h.term || len(h.conf.voters) == 0) {
		f.malformed("a header that cannot be")
	}
	return h, f.err
}

func (c *snapshotConf) decode(b []byte) error {
	f := fields{b: b, of: "configuration"}
	for f.next() {
		switch f.num {
		case 1:
			c.voters = f.ids()
		case 2:
			c.learners = f.ids()
		case 3:
			c.outgoing = f.ids()
		case 4:
			c.next = f.ids()
		case 5:
			c.autoLeave = f.bool()
		default:
			f.unknown()
		}
	}
	return f.err
}

func putIDs(dst []byte, num protowire.Number, ids []uint64) []byte {
	if len(ids) == 0 {
		return dst
	}
	dst, at := openMessage(dst, num)
	for _, id := range ids {
		for shift := 56; shift >= 0; shift -= 8 {
			dst = append(dst, byte(id>>shift))
		}
	}
	return closeMessage(dst, at)
}

// ids reads node ids, which rise and are not 0.
func (f *fields) ids() (ids []uint64) {
	b := f.text()
	if len(b)%8 != 0 {
		f.malformed("node ids that are cut off")
		return nil
	}
	ids = make([]uint64, 0, len(b)/8)
	last := uint64(0)
	for ; len(b) > 0; b = b[8:] {
		id := uint64(0)
		for _, c := range b[:8] {
			id = id<<8 | uint64(c)
		}
		if id <= last {
			f.malformed("node ids out of order")
			return nil
		}
		ids, last = append(ids, id), id
	}
	return ids
}

func (m *snapshotMembers) appendTo(dst []byte) []byte {
	dst = putUint(dst, 1, m.index)
	for i := range m.list {
		var at int
		dst, at = openMessage(dst, 2)
		dst = closeMessage(m.list[i].appendTo(dst), at)
	}
	return dst
}

func (m *snapshotMembers) decode(b []byte) error {
	f := fields{b: b, of: "members", repeated: 2}
	for f.next() {
		switch f.num {
		case 1:
			m.index = f.uint()
		case 2:
			var one snapshotMember
			f.fail(one.decode(f.message()))
			if n := len(m.list); n > 0 && m.list[n-1].name >= one.name {
				f.malformed("names out of order")
			}
			m.list = append(m.list, one)
		default:
			f.unknown()
		}
	}
	return f.err
}

func (m *snapshotMember) appendTo(dst []byte) []byte {
	dst = putText(dst, 1, m.name)
	dst = putUint(dst, 2, m.since)
	dst = putUint(dst, 3, m.node)
	dst = putUint(dst, 4, m.incarnation)
	dst = putBool(dst, 5, m.voter)
	return putText(dst, 6, m.address)
}

func (m *snapshotMember) decode(b []byte) error {
	f := fields{b: b, of: "member"}
	for f.next() {
		switch f.num {
		case 1:
			m.name = string(f.text())
		case 2:
			m.since = f.uint()
		case 3:
			m.node = f.uint()
		case 4:
			m.incarnation = f.uint()
		case 5:
			m.voter = f.bool()
		case 6:
			m.address = string(f.text())
		default:
			f.unknown()
		}
	}
	if f.err == nil && (m.name == "" || (m.node == 0) != (m.incarnation == 0) || m.voter && m.node == 0) {
		f.malformed("a member that cannot be")
	}
	return f.err
}

func (e *snapshotEnd) appendTo(dst []byte) []byte {
	dst = putUint(dst, 1, e.locks)
	dst = putUint(dst, 2, e.waiters)
	dst = putUint(dst, 3, e.requests)
	return putUint(dst, 4, e.hash)
}

func (e *snapshotEnd) decode(b []byte) error {
	f := fields{b: b, of: "snapshot end"}
	for f.next() {
		switch f.num {
		case 1:
			e.locks = f.uint()
		case 2:
			e.waiters = f.uint()
		case 3:
			e.requests = f.uint()
		case 4:
			e.hash = f.uint()
		default:
			f.unknown()
		}
	}
	return f.err
}

// snapshotPacker cuts records into blocks and gives each to emit, which must not
// keep it.
type snapshotPacker struct {
	buf  []byte
	emit func(block []byte) error
	err  error // the first of emit
}

func (p *snapshotPacker) add(num recordNumber, record func(dst []byte) []byte) bool {
	if p.err != nil {
		return false
	}
	buf, at := openMessage(p.buf, num)
	p.buf = closeMessage(record(buf), at)
	if len(p.buf) >= blockFill {
		p.flush()
	}
	return p.err == nil
}

func (p *snapshotPacker) flush() {
	if p.err == nil && len(p.buf) > 0 {
		p.err = p.emit(p.buf)
		p.buf = p.buf[:0]
	}
}

// pack gives the blocks of a snapshot to emit, one after the other, and returns
// its first error. hash is the hash of the table that v is a clone of.
func (v *tableView) pack(h *snapshotHeader, hash uint64, emit func(block []byte) error) error {
	p := &snapshotPacker{emit: emit}
	p.add(recordHeader, h.appendTo)
	end := snapshotEnd{hash: hash}
	v.locks.from("", func(l *lockRecord) bool {
		end.locks++
		return p.add(recordLock, l.appendTo)
	})
	v.queue.Ascend(func(w waiter) bool {
		end.waiters++
		return p.add(recordWaiter, w.appendTo)
	})
	v.memory.Ascend(func(r request) bool {
		end.requests++
		return p.add(recordRequest, r.appendTo)
	})
	p.add(recordEnd, end.appendTo)
	p.flush()
	return p.err
}

// snapshotWalker takes a snapshot's blocks apart. It sees to the order of the
// records and to what a block may hold; take looks at each record, whose bytes
// belong to the block.
type snapshotWalker struct {
	take func(num recordNumber, record []byte) error

	header snapshotHeader
	end    snapshotEnd
	seen   snapshotEnd // counts so far
	last   recordNumber
	short  bool // the last block was not full
}

// block takes the next block apart.
func (w *snapshotWalker) block(b []byte) error {
	f := fields{b: b, of: "snapshot"}
	if w.short || w.last == recordEnd {
		f.malformed("a block behind the last one")
	}
	for f.err == nil && f.at < len(b) {
		if f.at >= blockFill {
			f.malformed("a block that is too long")
			break
		}
		f.num, f.typ = protowire.DecodeTag(f.varint())
		record := f.message()
		if f.err == nil {
			f.fail(w.record(f.num, record))
		}
	}
	w.short = len(b) < blockFill
	return f.err
}

func (w *snapshotWalker) record(num recordNumber, b []byte) error {
	f := fields{of: "snapshot", num: num}
	switch {
	case num < recordHeader || num > recordEnd:
		f.unknown()
	case w.last == 0 && num != recordHeader,
		num == recordHeader && w.last != 0,
		num < w.last, w.last == recordEnd:
		f.malformed("record out of order")
	}
	if f.err != nil {
		return f.err
	}
	w.last = num
	switch num {
	case recordHeader:
		h, err := decodeSnapshotHeader(b)
		if err != nil {
			return err
		}
		w.header = *h
	case recordLock:
		w.seen.locks++
	case recordWaiter:
		w.seen.waiters++
	case recordRequest:
		w.seen.requests++
	case recordEnd:
		if err := w.end.decode(b); err != nil {
			return err
		}
		w.seen.hash = w.end.hash
	}
	if w.take == nil {
		return nil
	}
	return w.take(num, b)
}

// close is called behind the last block.
func (w *snapshotWalker) close() error {
	switch {
	case w.last != recordEnd:
		return fmt.Errorf("%w: snapshot without an end", errMalformed)
	case w.seen != w.end:
		return fmt.Errorf("%w: snapshot of %d locks, %d waiters and %d requests, which says %d, %d and %d", errMalformed,
			w.seen.locks, w.seen.waiters, w.seen.requests, w.end.locks, w.end.waiters, w.end.requests)
	}
	return nil
}

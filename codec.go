package raftlock

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/raftlock/raftlock/pb"
)

// The bytes of entries, commands and results. Entries stand on disk for ever;
// all three travel between members of neighbouring builds. Each is a format
// byte and then fields as protobuf writes them:
//
//	entry   = 1, { 1 stamp, 2 wall, 3 first, 4 floor, 5 lockWaiters, 6 locks, 7 waiters, 8 command* }
//	command = 1, { 1 kind, 2 wait, 3 attempt, 4 priority, 5 lock, 6 client, 7 request, 8 version,
//	               9 ttl, 10 timeout, 11 claim, 12 age, 13 pair* }
//	result  = 1, { 1 code, 2 queued, 3 promoted, 4 waiter, 5 claim, 6 position, 7 limit, 8 lock }
//	lock    = { 1 id, 2 owner, 3 request, 4 version, 5 end, 6 acquired, 7 modified, 8 waiters, 9 pair* }
//	pair    = { 1 key, 2 value }
//
// Text is wire type 2, all else a varint; priority is zigzag, other signed
// numbers are two's complement. age is the entry's stamp less the command's
// arrival (0 on the wire between members, where neither is set). A command
// inside an entry has no format byte of its own. These numbers are part of the
// disk format: fields are added, never changed.
//
// There is one encoding of a value: fields in order of their numbers, none that
// is zero, no varint longer than need be. The decoders refuse all else, so that
// what they accept encodes to the same bytes, and what the encoders write of a
// known kind is always accepted and decodes to the same value (an arrival
// outside of 0…stamp is moved to the nearest end, a negative stamp to 0).

// format is a version of the bytes of entries, commands and results. A build
// reads every format from oldestFormat to its own newest, and can write them all:
// what a format brings is written only from that format on.
type format uint8

const (
	oldestFormat format = 1
	newestFormat format = 1
)

var (
	// errUnknownFormat is in the error of a decoder that met what a newer
	// build may have written. A member must stop before it applies such an
	// entry, or it would diverge from the members that understand it.
	errUnknownFormat = errors.New("raftlock: format of a newer build")
	// errMalformed is in the error of a decoder that met what no build writes.
	errMalformed = errors.New("raftlock: malformed bytes")
)

// appendEntry appends the bytes of an entry to dst.
func (v format) appendEntry(dst []byte, e *entry) []byte {
	stamp := max(e.stamp, 0)
	dst = append(dst, byte(v))
	dst = putUint(dst, 1, uint64(stamp))
	dst = putUint(dst, 2, uint64(e.wall))
	dst = putBool(dst, 3, e.first)
	dst = putUint(dst, 4, uint64(e.floor))
	dst = putUint(dst, 5, uint64(e.bounds.lockWaiters))
	dst = putUint(dst, 6, uint64(e.bounds.locks))
	dst = putUint(dst, 7, uint64(e.bounds.waiters))
	for i := range e.commands {
		var at int
		dst, at = openMessage(dst, 8)
		dst = appendCommandFields(dst, &e.commands[i], stamp)
		dst = closeMessage(dst, at)
	}
	return dst
}

// decodeEntry reads what appendEntry wrote. The entry shares no memory with b.
func (v format) decodeEntry(b []byte) (entry, error) {
	var e entry
	if err := v.decodeEntryInto(b, &e); err != nil {
		return entry{}, err
	}
	return e, nil
}

// decodeEntryInto is decodeEntry with the array of e's commands used again. After
// an error e holds nothing of use.
func (v format) decodeEntryInto(b []byte, e *entry) error {
	*e = entry{commands: e.commands[:0]}
	f, err := v.open(b, "entry", 8)
	if err != nil {
		return err
	}
	names := &recentNames{}
	for f.next() {
		switch f.num {
		case 1:
			e.stamp = f.time()
		case 2:
			e.wall = int64(f.uint())
		case 3:
			e.first = f.bool()
		case 4:
			e.floor = int64(f.uint())
		case 5:
			e.bounds.lockWaiters = int64(f.uint())
		case 6:
			e.bounds.locks = int64(f.uint())
		case 7:
			e.bounds.waiters = int64(f.uint())
		case 8:
			if cap(e.commands) == 0 {
				e.commands = make([]command, 0, f.countRepeated())
			}
			e.commands = append(e.commands, command{})
			c := &e.commands[len(e.commands)-1]
			if err := decodeCommandFields(f.message(), e.stamp, names, c); err != nil {
				f.fail(err)
			}
		default:
			f.unknown()
		}
	}
	return f.err
}

// appendCommand appends the bytes of a command that is not in an entry yet: its
// arrival is left out.
func (v format) appendCommand(dst []byte, c *command) []byte {
	dst = append(dst, byte(v))
	return appendCommandFields(dst, c, 0)
}

// decodeCommand reads what appendCommand wrote.
func (v format) decodeCommand(b []byte) (command, error) {
	if _, err := v.open(b, "command", 0); err != nil {
		return command{}, err
	}
	var c command
	if err := decodeCommandFields(b[1:], 0, &recentNames{}, &c); err != nil {
		return command{}, err
	}
	return c, nil
}

func appendCommandFields(dst []byte, c *command, stamp logTime) []byte {
	dst = putUint(dst, 1, uint64(c.kind))
	dst = putBool(dst, 2, c.wait)
	dst = putUint(dst, 3, uint64(int64(c.attempt)))
	dst = putUint(dst, 4, protowire.EncodeZigZag(int64(c.priority)))
	dst = putText(dst, 5, c.lock)
	dst = putText(dst, 6, c.client)
	dst = putText(dst, 7, c.request)
	dst = putUint(dst, 8, uint64(c.version))
	dst = putUint(dst, 9, uint64(c.ttl))
	dst = putUint(dst, 10, uint64(c.timeout))
	dst = putUint(dst, 11, c.claim)
	dst = putUint(dst, 12, uint64(stamp-min(max(c.arrival, 0), stamp)))
	return putPairs(dst, 13, c.metadata)
}

func decodeCommandFields(b []byte, stamp logTime, names *recentNames, c *command) error {
	f := fields{b: b, of: "command", repeated: 13}
	c.arrival = stamp
	for f.next() {
		switch f.num {
		case 1:
			c.kind = f.kind()
		case 2:
			c.wait = f.bool()
		case 3:
			c.attempt = f.int32()
		case 4:
			c.priority = f.zigzag32()
		case 5:
			c.lock = names.lock(f.text())
		case 6:
			c.client = names.client(f.text())
		case 7:
			c.request = string(f.text())
		case 8:
			c.version = int64(f.uint())
		case 9:
			c.ttl = span(f.uint())
		case 10:
			c.timeout = span(f.uint())
		case 11:
			c.claim = f.uint()
		case 12:
			c.arrival = f.arrival(stamp)
		case 13:
			c.metadata = f.pair(c.metadata)
		default:
			f.unknown()
		}
	}
	if f.err == nil && c.kind == 0 {
		f.malformed("no kind")
	}
	return f.err
}

// appendResult appends the bytes of a result to dst.
func (v format) appendResult(dst []byte, r *result) []byte {
	dst = append(dst, byte(v))
	dst = putUint(dst, 1, uint64(int64(r.code)))
	dst = putBool(dst, 2, r.queued)
	dst = putBool(dst, 3, r.promoted)
	dst = putUint(dst, 4, r.waiter)
	dst = putUint(dst, 5, r.claim)
	dst = putUint(dst, 6, uint64(int64(r.position)))
	dst = putUint(dst, 7, uint64(r.limit))
	before := len(dst)
	dst, at := openMessage(dst, 8)
	dst = appendLockFields(dst, &r.lock)
	if len(dst) == at {
		return dst[:before]
	}
	return closeMessage(dst, at)
}

// decodeResult reads what appendResult wrote. The result shares no memory with
// b.
func (v format) decodeResult(b []byte) (result, error) {
	f, err := v.open(b, "result", 0)
	if err != nil {
		return result{}, err
	}
	var r result
	for f.next() {
		switch f.num {
		case 1:
			r.code = pb.ErrorCode(f.int32())
		case 2:
			r.queued = f.bool()
		case 3:
			r.promoted = f.bool()
		case 4:
			r.waiter = f.uint()
		case 5:
			r.claim = f.uint()
		case 6:
			r.position = f.int32()
		case 7:
			r.limit = int64(f.uint())
		case 8:
			f.fail(decodeLockFields(f.text(), &r.lock))
		default:
			f.unknown()
		}
	}
	if f.err != nil {
		return result{}, f.err
	}
	return r, nil
}

func appendLockFields(dst []byte, l *lockView) []byte {
	dst = putText(dst, 1, l.id)
	dst = putText(dst, 2, l.owner)
	dst = putText(dst, 3, l.request)
	dst = putUint(dst, 4, uint64(l.version))
	dst = putUint(dst, 5, uint64(max(l.end, 0)))
	dst = putUint(dst, 6, uint64(l.acquired))
	dst = putUint(dst, 7, uint64(l.modified))
	dst = putUint(dst, 8, uint64(int64(l.waiters)))
	return putPairs(dst, 9, l.metadata)
}

func decodeLockFields(b []byte, l *lockView) error {
	f := fields{b: b, of: "lock", repeated: 9}
	for f.next() {
		switch f.num {
		case 1:
			l.id = string(f.text())
		case 2:
			l.owner = string(f.text())
		case 3:
			l.request = string(f.text())
		case 4:
			l.version = int64(f.uint())
		case 5:
			l.end = f.time()
		case 6:
			l.acquired = int64(f.uint())
		case 7:
			l.modified = int64(f.uint())
		case 8:
			l.waiters = f.int32()
		case 9:
			l.metadata = f.pair(l.metadata)
		default:
			f.unknown()
		}
	}
	return f.err
}

// The encoders leave out what is zero.

func putUint(dst []byte, num protowire.Number, v uint64) []byte {
	if v == 0 {
		return dst
	}
	return protowire.AppendVarint(protowire.AppendTag(dst, num, protowire.VarintType), v)
}

func putBool(dst []byte, num protowire.Number, v bool) []byte {
	if !v {
		return dst
	}
	return putUint(dst, num, 1)
}

func putText(dst []byte, num protowire.Number, s string) []byte {
	if s == "" {
		return dst
	}
	return protowire.AppendString(protowire.AppendTag(dst, num, protowire.BytesType), s)
}

func putPairs(dst []byte, num protowire.Number, m metadata) []byte {
	for i := range m {
		var at int
		dst, at = openMessage(dst, num)
		dst = putText(dst, 1, m[i].key)
		dst = putText(dst, 2, m[i].value)
		dst = closeMessage(dst, at)
	}
	return dst
}

// openMessage begins a message inside a message, with room for a length below
// 128, which nearly all have. at is where its fields begin.
func openMessage(dst []byte, num protowire.Number) (_ []byte, at int) {
	dst = append(protowire.AppendTag(dst, num, protowire.BytesType), 0)
	return dst, len(dst)
}

// closeMessage writes the length, and moves the fields if it takes more room.
func closeMessage(dst []byte, at int) []byte {
	n := len(dst) - at
	size := protowire.SizeVarint(uint64(n))
	for range size - 1 {
		dst = append(dst, 0)
	}
	if size > 1 {
		copy(dst[at-1+size:], dst[at:at+n])
	}
	protowire.AppendVarint(dst[:at-1], uint64(n))
	return dst
}

// fields reads a message field by field. After the first error next returns
// false, and the readers return zero.
type fields struct {
	b        []byte
	at       int              // read so far: an index, as moving b would cost write barriers
	num      protowire.Number // of the field at hand, whose value comes next
	typ      protowire.Type
	repeated protowire.Number // the one field that may come more than once
	of       string           // whose fields they are, for errors
	err      error
}

// open checks the format byte of what a build reads whose newest format is v.
func (v format) open(b []byte, name string, repeated protowire.Number) (fields, error) {
	f := fields{of: name, repeated: repeated}
	switch {
	case len(b) == 0:
		f.malformed("no bytes")
	case b[0] == 0:
		f.malformed("format 0")
	case format(b[0]) > v:
		f.fail(fmt.Errorf("%w: %s of format %d, this build reads up to format %d", errUnknownFormat, name, b[0], v))
	default:
		f.b = b[1:]
	}
	return f, f.err
}

func (f *fields) next() bool {
	if f.err != nil || f.at == len(f.b) {
		return false
	}
	num, typ := protowire.DecodeTag(f.varint())
	switch {
	case f.err != nil:
	case num < protowire.MinValidNumber:
		f.malformed("no field number")
	case num < f.num, num == f.num && num != f.repeated:
		f.malformed("field out of order")
	}
	f.num, f.typ = num, typ
	return f.err == nil
}

// varint reads the shortest form and no other.
func (f *fields) varint() uint64 {
	if f.at < len(f.b) && f.b[f.at] < 0x80 {
		f.at++
		return uint64(f.b[f.at-1])
	}
	v, n := protowire.ConsumeVarint(f.b[f.at:])
	if n != protowire.SizeVarint(v) {
		f.malformed("bad varint")
		return 0
	}
	f.at += n
	return v
}

func (f *fields) uint() uint64 {
	if !f.is(protowire.VarintType) {
		return 0
	}
	v := f.varint()
	if v == 0 {
		f.malformed("zero written out")
	}
	return v
}

func (f *fields) bool() bool {
	v := f.uint()
	if v > 1 {
		f.malformed("no boolean")
	}
	return v == 1
}

func (f *fields) int32() int32 {
	v := int64(f.uint())
	if v != int64(int32(v)) {
		f.malformed("out of range")
	}
	return int32(v)
}

func (f *fields) zigzag32() int32 {
	v := protowire.DecodeZigZag(f.uint())
	if v != int64(int32(v)) {
		f.malformed("out of range")
	}
	return int32(v)
}

func (f *fields) time() logTime {
	v := f.uint()
	if v > uint64(never) {
		f.malformed("out of range")
		return 0
	}
	return logTime(v)
}

func (f *fields) arrival(stamp logTime) logTime {
	age := f.time()
	if age > stamp {
		f.malformed("out of range")
	}
	return stamp - age
}

func (f *fields) kind() commandKind {
	v := f.uint()
	if v > uint64(cmdDetach) {
		f.fail(fmt.Errorf("%w: command of kind %d, this build (format %d) knows kinds up to %d",
			errUnknownFormat, v, newestFormat, cmdDetach))
		return 0
	}
	return commandKind(v)
}

// message returns the bytes of a message or text, which still belong to the
// input.
func (f *fields) message() []byte {
	if !f.is(protowire.BytesType) {
		return nil
	}
	n := f.varint()
	if n > uint64(len(f.b)-f.at) {
		f.malformed("truncated")
		return nil
	}
	f.at += int(n)
	return f.b[f.at-int(n) : f.at]
}

func (f *fields) text() []byte {
	b := f.message()
	if len(b) == 0 {
		f.malformed("empty text written out")
	}
	return b
}

// pair appends one pair to m.
func (f *fields) pair(m metadata) metadata {
	if m == nil {
		m = make(metadata, 0, f.countRepeated())
	}
	in := fields{b: f.message(), of: "pair"}
	var p pair
	for in.next() {
		switch in.num {
		case 1:
			p.key = string(in.text())
		case 2:
			p.value = string(in.text())
		default:
			in.unknown()
		}
	}
	f.fail(in.err)
	return append(m, p)
}

// countRepeated counts the field at hand and those of its number that follow,
// so that one allocation holds them all.
func (f *fields) countRepeated() (n int) {
	ahead := *f
	for {
		ahead.message()
		if ahead.err != nil {
			return n
		}
		n++
		if !ahead.next() || ahead.num != f.num {
			return n
		}
	}
}

func (f *fields) is(typ protowire.Type) bool {
	if f.typ != typ {
		f.malformed("wrong wire type")
	}
	return f.err == nil
}

// fail keeps the first error.
func (f *fields) fail(err error) {
	if f.err == nil {
		f.err = err
	}
}

func (f *fields) malformed(why string) {
	f.fail(fmt.Errorf("%w: %s, field %d: %s", errMalformed, f.of, f.num, why))
}

// unknown is for a field that this build has no name for.
func (f *fields) unknown() {
	f.fail(fmt.Errorf("%w: field %d of a %s, which format %d as this build knows it does not have",
		errUnknownFormat, f.num, f.of, newestFormat))
}

// recentNames saves copies: the commands of an entry come from a few processes,
// and often name one lock.
type recentNames struct {
	lastLock string
	clients  [16]string
}

func (r *recentNames) lock(b []byte) string {
	if string(b) != r.lastLock {
		r.lastLock = string(b)
	}
	return r.lastLock
}

func (r *recentNames) client(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	slot := &r.clients[(int(b[len(b)-1])+len(b))%len(r.clients)]
	if string(b) != *slot {
		*slot = string(b)
	}
	return *slot
}

package raftlock

import (
	"fmt"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/raftlock/raftlock/pb"
)

// A frame is what one Send carries to a peer: any number of raft messages and
// forwarded calls, in the order of their numbers. Its bytes are protobuf's
// (fields 1 and 2, repeated), so that members of neighbouring versions can skip
// nothing by mistake: an unknown field is an error, and what a version may
// write is agreed on in the handshake.
//
//	1 bytes  a raftpb.Message
//	2 bytes  a forward:  1 kind  2 id  3 command  4 how  5 result
//	                     6 remaining  7 timed  8 index  9 now  10 failure
//	                     11 change, or 12 the member that is to lead
//	         a failure:  1 code  2 message  3 detail (1 key, 2 value)
//	                     4 again  5 interrupted
type frame struct {
	messages []*raftpb.Message
	forwards []forward
}

func (f *frame) empty() bool { return len(f.messages) == 0 && len(f.forwards) == 0 }

// encode makes the frame's bytes, for a member that reads up to v.
func (f *frame) encode(v format) ([]byte, error) {
	total := 0
	for _, m := range f.messages {
		total += protowire.SizeTag(1) + protowire.SizeBytes(proto.Size(m))
	}
	var scratch []byte
	b := make([]byte, 0, total+64*len(f.forwards))
	for _, m := range f.messages {
		b = protowire.AppendTag(b, 1, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(proto.Size(m))) // leaves the sizes within m cached
		var err error
		if b, err = (proto.MarshalOptions{UseCachedSize: true}).MarshalAppend(b, m); err != nil {
			return nil, fmt.Errorf("encode raft message: %w", err)
		}
	}
	for i := range f.forwards {
		scratch = appendForward(scratch[:0], &f.forwards[i], v)
		b = appendBytes(b, 2, scratch)
	}
	return b, nil
}

// decodeFrame reads a frame, of any format up to v. The strings and entries in it do not point into b.
func decodeFrame(b []byte, v format) (frame, error) {
	var f frame
	err := eachField(b, func(num protowire.Number, typ protowire.Type, _ uint64, value []byte) error {
		switch {
		case num == 1 && typ == protowire.BytesType:
			m := new(raftpb.Message)
			if err := proto.Unmarshal(value, m); err != nil {
				return fmt.Errorf("%w: raft message: %w", errMalformed, err)
			}
			f.messages = append(f.messages, m)
		case num == 2 && typ == protowire.BytesType:
			m, err := decodeForward(value, v)
			if err != nil {
				return err
			}
			f.forwards = append(f.forwards, m)
		default:
			return unknownField("frame", num, typ)
		}
		return nil
	})
	return f, err
}

func appendForward(b []byte, m *forward, v format) []byte {
	b = appendUint(b, 1, uint64(m.kind))
	b = appendUint(b, 2, m.id)
	switch m.kind {
	case forwardCall:
		b = appendBytes(b, 3, v.appendCommand(nil, &m.cmd))
	case forwardWish:
		if m.wish.transfer != "" {
			return appendBytes(b, 12, []byte(m.wish.transfer))
		}
		b = appendBytes(b, 11, m.wish.change.encode())
	case forwardLeave:
		b = appendUint(b, 4, uint64(m.how))
	case forwardResult:
		b = appendBytes(b, 5, v.appendResult(nil, &m.result))
		b = appendUint(b, 6, uint64(m.remaining))
		b = appendUint(b, 7, protowire.EncodeBool(m.timed))
	case forwardIndex:
		b = appendUint(b, 8, m.index)
		b = appendUint(b, 9, uint64(m.now))
	case forwardFailed:
		b = appendBytes(b, 10, appendFailure(nil, m.failure))
	}
	return b
}

func decodeForward(b []byte, v format) (forward, error) {
	var m forward
	err := eachField(b, func(num protowire.Number, typ protowire.Type, n uint64, value []byte) (err error) {
		if (typ == protowire.BytesType) != (num == 3 || num == 5 || num >= 10) {
			return unknownField("forward", num, typ)
		}
		switch num {
		case 1:
			m.kind = forwardKind(min(n, 255))
		case 2:
			m.id = n
		case 3:
			m.cmd, err = v.decodeCommand(value)
		case 4:
			m.how = departure(min(n, 255))
		case 5:
			m.result, err = v.decodeResult(value)
		case 6:
			m.remaining = span(n)
		case 7:
			m.timed = protowire.DecodeBool(n)
		case 8:
			m.index = n
		case 9:
			m.now = logTime(n)
		case 10:
			m.failure, err = decodeFailure(value)
		case 11:
			m.wish = &wish{}
			m.wish.change, err = decodeChange(value)
		case 12:
			m.wish = &wish{transfer: string(value)}
		default:
			return unknownField("forward", num, typ)
		}
		return err
	})
	if err != nil {
		return forward{}, err
	}
	return m, m.check()
}

// check refuses what would be misunderstood further in.
func (m *forward) check() error {
	bad := false
	switch m.kind {
	case forwardCall:
		bad = m.cmd.kind < cmdAcquire || m.cmd.kind > cmdWithdraw
	case forwardLeave:
		bad = m.how != gaveUp && m.how != lostTouch
	case forwardFailed:
		bad = m.failure == nil
	case forwardWish:
		bad = m.wish == nil || m.wish.transfer == "" && !m.wish.change.wanted()
	case forwardResult:
		bad = m.remaining < 0 || m.result.position < 0 || m.result.lock.waiters < 0
	case forwardIndex:
		bad = m.now < 0
	case forwardRead, forwardQueued:
	default:
		return fmt.Errorf("%w: forward of kind %d", errUnknownFormat, m.kind)
	}
	if bad {
		return fmt.Errorf("%w: forward of kind %d", errMalformed, m.kind)
	}
	return nil
}

func appendFailure(b []byte, f *failure) []byte {
	b = appendUint(b, 1, uint64(f.code))
	b = appendBytes(b, 2, []byte(f.message))
	for _, p := range metadataOf(f.details) {
		detail := appendBytes(nil, 1, []byte(p.key))
		b = appendBytes(b, 3, appendBytes(detail, 2, []byte(p.value)))
	}
	b = appendUint(b, 4, protowire.EncodeBool(f.again))
	return appendUint(b, 5, protowire.EncodeBool(f.interrupted))
}

func decodeFailure(b []byte) (*failure, error) {
	f := &failure{details: map[string]string{}}
	err := eachField(b, func(num protowire.Number, typ protowire.Type, n uint64, value []byte) error {
		if (typ == protowire.BytesType) != (num == 2 || num == 3) {
			return unknownField("failure", num, typ)
		}
		switch num {
		case 1:
			f.code = pb.ErrorCode(n)
		case 2:
			f.message = string(value)
		case 3:
			return decodeDetail(value, f.details)
		case 4:
			f.again = protowire.DecodeBool(n)
		case 5:
			f.interrupted = protowire.DecodeBool(n)
		default:
			return unknownField("failure", num, typ)
		}
		return nil
	})
	return f, err
}

func decodeDetail(b []byte, into map[string]string) error {
	var key, value string
	err := eachField(b, func(num protowire.Number, typ protowire.Type, _ uint64, v []byte) error {
		switch {
		case num == 1 && typ == protowire.BytesType:
			key = string(v)
		case num == 2 && typ == protowire.BytesType:
			value = string(v)
		default:
			return unknownField("detail", num, typ)
		}
		return nil
	})
	into[key] = value
	return err
}

// eachField walks over the varint and bytes fields of b.
func eachField(b []byte, visit func(protowire.Number, protowire.Type, uint64, []byte) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("%w: %w", errMalformed, protowire.ParseError(n))
		}
		b = b[n:]
		var number uint64
		var value []byte
		switch typ {
		case protowire.VarintType:
			number, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			value, n = protowire.ConsumeBytes(b)
		default:
			return unknownField("frame", num, typ)
		}
		if n < 0 {
			return fmt.Errorf("%w: %w", errMalformed, protowire.ParseError(n))
		}
		b = b[n:]
		if err := visit(num, typ, number, value); err != nil {
			return err
		}
	}
	return nil
}

func unknownField(where string, num protowire.Number, typ protowire.Type) error {
	return fmt.Errorf("%w: field %d of type %d in a %s", errUnknownFormat, num, typ, where)
}

func appendUint(b []byte, num protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v)
}

func appendBytes(b []byte, num protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), v)
}

// checkMessage refuses a raft message that did not come from the member at the
// other end, or that no member sends: raft would panic on some, and take others
// for its own.
func checkMessage(m *raftpb.Message, from, self uint64) error {
	if m.GetFrom() != from || m.GetTo() != self {
		return fmt.Errorf("%w: raft message from %d to %d on the stream from %d to %d", errMalformed, m.GetFrom(), m.GetTo(), from, self)
	}
	if m.GetTerm() == 0 {
		return fmt.Errorf("%w: raft message without a term", errMalformed) // raft takes it for its own
	}
	switch m.GetType() {
	case raftpb.MsgApp:
		return checkAppend(m)
	case raftpb.MsgHeartbeat, raftpb.MsgHeartbeatResp:
		if n := len(m.GetContext()); n != 0 && n != 8 {
			return fmt.Errorf("%w: heartbeat with a context of %d bytes", errMalformed, n)
		}
	case raftpb.MsgAppResp, raftpb.MsgVote, raftpb.MsgVoteResp, raftpb.MsgPreVote, raftpb.MsgPreVoteResp, raftpb.MsgTimeoutNow:
	default:
		return fmt.Errorf("%w: raft message of type %v", errMalformed, m.GetType())
	}
	if len(m.GetEntries()) > 0 || !raft.IsEmptySnap(m.GetSnapshot()) {
		return fmt.Errorf("%w: raft message of type %v with entries or a snapshot", errMalformed, m.GetType())
	}
	return nil
}

// checkAppend holds an append to raft's own invariants: no gap, no falling
// term, nothing of a term that the sender has not reached.
func checkAppend(m *raftpb.Message) error {
	index, term := m.GetIndex(), m.GetLogTerm()
	for _, e := range m.GetEntries() {
		if e.GetIndex() != index+1 || e.GetTerm() < term || e.GetTerm() > m.GetTerm() {
			return fmt.Errorf("%w: append of entry %d of term %d after entry %d of term %d", errMalformed, e.GetIndex(), e.GetTerm(), index, term)
		}
		index, term = e.GetIndex(), e.GetTerm()
	}
	if !raft.IsEmptySnap(m.GetSnapshot()) {
		return fmt.Errorf("%w: append with a snapshot", errMalformed)
	}
	return nil
}

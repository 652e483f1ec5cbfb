package raftlock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// The sending of a snapshot to a peer that lacks more of the log than its leader
// has, on a stream of its own, so that nothing waits for it. After the hellos:
//
//	sender            receiver
//	offer          →
//	               ←  answer: go on, or done when it has no need of it
//	chunk          →
//	               ←  answer: go on            (for each chunk)
//	…
//	               ←  answer: done             (when it is checked and handed to raft)
//
//	offer  = 1 size of the snapshot in bytes, 2 the raft message that it belongs to
//	answer = 1 done, or 2 why it is not taken
//
// A chunk is bytes of the snapshot and nothing else. What was broken off begins
// anew, with the newest snapshot: a part of an old one is of no use.

const (
	snapshotChunk  = 256 << 10
	snapshotWindow = 16 // chunks that may be unanswered

	// snapshotPatience is how long a transfer may be without progress.
	snapshotPatience = time.Minute
	// resendPause is how many election time-outs pass before a peer is offered a
	// snapshot again after a failure; twice as many after each further one, and
	// no longer than snapshotPatience.
	resendPause = 2
)

var (
	errWithheld = errors.New("the own disk hangs")
	errSpoilt   = errors.New("the own snapshot does not read back")
)

// offer is what a snapshot is announced with.
type offer struct {
	size    uint64
	message *raftpb.Message // MsgSnap
}

func (o *offer) encode() ([]byte, error) {
	m, err := proto.Marshal(o.message)
	if err != nil {
		return nil, fmt.Errorf("encode offer: %w", err)
	}
	return appendBytes(appendUint(nil, 1, o.size), 2, m), nil
}

func decodeOffer(b []byte) (offer, error) {
	o := offer{message: new(raftpb.Message)}
	err := eachField(b, func(num protowire.Number, typ protowire.Type, n uint64, value []byte) error {
		switch {
		case num == 1 && typ == protowire.VarintType:
			o.size = n
		case num == 2 && typ == protowire.BytesType:
			if err := proto.Unmarshal(value, o.message); err != nil {
				return fmt.Errorf("%w: raft message: %w", errMalformed, err)
			}
		default:
			return unknownField("offer", num, typ)
		}
		return nil
	})
	return o, err
}

// check refuses an offer that did not come from the member at the other end, or
// that no leader makes.
func (o *offer) check(from, self uint64) error {
	m := o.message
	meta := m.GetSnapshot().GetMetadata()
	switch {
	case m.GetType() != raftpb.MsgSnap || m.GetFrom() != from || m.GetTo() != self || m.GetTerm() == 0 || len(m.GetEntries()) > 0 || len(m.GetResponses()) > 0:
		return fmt.Errorf("%w: offer of %v from %d to %d on the stream from %d to %d", errMalformed, m.GetType(), m.GetFrom(), m.GetTo(), from, self)
	case meta.GetIndex() <= firstIndex || meta.GetTerm() == 0 || meta.GetTerm() > m.GetTerm() || o.size == 0:
		return fmt.Errorf("%w: offer of %d bytes up to entry %d of term %d, in term %d", errMalformed, o.size, meta.GetIndex(), meta.GetTerm(), m.GetTerm())
	}
	return nil
}

// snapshotAnswer is what the receiver says.
type snapshotAnswer struct {
	done    bool
	refusal string
}

func (a *snapshotAnswer) encode() []byte {
	b := appendUint(nil, 1, protowire.EncodeBool(a.done))
	if a.refusal != "" {
		b = appendBytes(b, 2, []byte(a.refusal))
	}
	return b
}

// err is what an answer means, unless it is to go on.
func (a *snapshotAnswer) err() error {
	if a.refusal != "" {
		return refused("by the receiver: %s", a.refusal)
	}
	return nil
}

func decodeSnapshotAnswer(b []byte) (snapshotAnswer, error) {
	var a snapshotAnswer
	err := eachField(b, func(num protowire.Number, typ protowire.Type, n uint64, value []byte) error {
		switch {
		case num == 1 && typ == protowire.VarintType:
			a.done = protowire.DecodeBool(n)
		case num == 2 && typ == protowire.BytesType:
			a.refusal = string(value)
		default:
			return unknownField("answer to a snapshot", num, typ)
		}
		return nil
	})
	return a, err
}

// sendOrder is a snapshot that is to be sent.
type sendOrder struct {
	message  *raftpb.Message // MsgSnap
	failures int             // of the peer, one after the other
}

// toSend takes raft's wish that a peer get a snapshot. One is under way to a peer
// at a time; how that ends is told to raft as the end of this one too.
func (r *replica) toSend(m *raftpb.Message) {
	if _, under := r.sending[m.GetTo()]; under {
		return
	}
	r.sending[m.GetTo()] = m.GetSnapshot().GetMetadata().GetIndex()
	r.out.sends = append(r.out.sends, sendOrder{m, r.sendFailures[m.GetTo()]})
}

// snapshotEnded notes that the snapshot to a peer is not on its way any more. One
// that does not read back is never sent again: raft asks for a newer one then.
func (r *replica) snapshotEnded(to uint64, err error) {
	index := r.sending[to]
	delete(r.sending, to)
	if errors.Is(err, errSpoilt) {
		r.log.spoilt = max(r.log.spoilt, index)
	}
	if err == nil || r.roster.byNode(to) == nil { // who has parted was forgotten, and stays so
		delete(r.sendFailures, to)
	} else {
		r.sendFailures[to]++
	}
}

// reportSnapshot tells raft what became of a snapshot: it waits for that.
func (r *replica) reportSnapshot(to uint64, err error) {
	status := raft.SnapshotFinish
	if err != nil {
		status = raft.SnapshotFailure
	}
	r.raw.ReportSnapshot(to, status)
}

// sendSnapshot sends a snapshot to a peer, beside all else, and tells the loop.
// After a failure raft hears of it only when the peer may be asked again.
func (n *Node) sendSnapshot(s sendOrder) {
	to := s.message.GetTo()
	o := n.directory.Load().byNode[to]
	if o == nil {
		n.inbox.request(func(r *replica) {
			r.snapshotEnded(to, errParted)
			r.reportSnapshot(to, errParted)
		})
		return
	}
	n.beside("send snapshot", func() {
		begun := n.clock.Now()
		err := n.transfer(o.ctx, o.name, s.message)
		n.inbox.request(func(r *replica) { r.snapshotEnded(to, err) })
		switch {
		case err == nil:
			n.logger.Info("snapshot sent", "peer", o.name, "index", s.message.GetSnapshot().GetMetadata().GetIndex(), "took", n.clock.Now().Sub(begun))
		case o.ctx.Err() == nil:
			n.logger.Warn("snapshot is not sent", "peer", o.name, "error", err)
			_ = n.pause(o.ctx, n.resendPause(s.failures)) // ended: so has the peer
		}
		n.inbox.request(func(r *replica) { r.reportSnapshot(to, err) })
	})
}

func (n *Node) resendPause(failures int) time.Duration {
	first := resendPause * time.Duration(n.cfg.ElectionTicks) * n.cfg.TickInterval
	return min(first<<min(failures, 10), snapshotPatience)
}

// transfer brings a snapshot to a peer. It returns nil when the peer has it, or
// has no need of it; the error is around errSpoilt when nobody could be sent it.
func (n *Node) transfer(ctx context.Context, name string, m *raftpb.Message) error {
	index := m.GetSnapshot().GetMetadata().GetIndex()
	file, err := n.cfg.Storage.OpenSnapshot(index)
	if err != nil {
		return fmt.Errorf("%w: open snapshot: %w", errSpoilt, err)
	}
	defer func() { _ = file.Close() }() // it was only read
	err = n.transferFile(ctx, name, &offer{size: uint64(file.Size()), message: m}, file)
	if errors.Is(err, errRefused) { // is it the receiver, or the snapshot?
		if _, damage := CheckSnapshot(io.NewSectionReader(file, 0, file.Size())); damage != nil {
			return fmt.Errorf("%w: snapshot %d: %w", errSpoilt, index, damage)
		}
	}
	return err
}

func (n *Node) transferFile(ctx context.Context, name string, o *offer, file SnapshotFile) error {
	stream, _, err := n.greet(ctx, name, sendsSnapshot)
	if err != nil {
		return err
	}
	defer func() { _ = stream.Close() }() // it has no more to say
	defer context.AfterFunc(ctx, func() { _ = stream.Close() })()
	send := &snapshotSender{stream: stream}
	patience := n.clock.AfterFunc(snapshotPatience, func() { _ = stream.Close() })
	defer patience.Stop()
	send.progress = func() { patience.Reset(snapshotPatience) }
	b, err := o.encode()
	if err != nil {
		return err
	}
	return send.run(b, io.NewSectionReader(file, 0, file.Size()))
}

// snapshotSender is one transfer.
type snapshotSender struct {
	stream   PeerStream
	progress func()
	open     int // chunks that are not answered
	done     bool
}

func (s *snapshotSender) run(offer []byte, from io.Reader) error {
	if err := s.stream.Send(offer); err != nil {
		return fmt.Errorf("send offer: %w", err)
	}
	s.open++
	err := s.answer()
	for more := true; err == nil && !s.done; {
		if more && s.open < snapshotWindow {
			more, err = s.chunk(from)
		} else {
			err = s.answer()
		}
	}
	return err
}

// chunk sends the next bytes; false when there are no more.
func (s *snapshotSender) chunk(from io.Reader) (more bool, err error) {
	b := make([]byte, snapshotChunk) // the stream owns it
	n, err := io.ReadFull(from, b)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return false, fmt.Errorf("%w: read snapshot: %w", errSpoilt, err)
	}
	if n == 0 {
		return false, nil
	}
	s.open++
	if err := s.stream.Send(b[:n]); err != nil {
		return false, fmt.Errorf("send snapshot: %w", err)
	}
	return err == nil, nil
}

// answer waits for the answer to what was sent first of all that is open.
func (s *snapshotSender) answer() error {
	if s.open == 0 {
		return fmt.Errorf("%w: the receiver has answered all and does not say that it is done", errMalformed)
	}
	b, err := s.stream.Recv()
	if err != nil {
		return fmt.Errorf("send snapshot: %w", err)
	}
	a, err := decodeSnapshotAnswer(b)
	if err != nil {
		return err
	}
	s.open--
	s.done = a.done
	s.progress()
	return a.err()
}

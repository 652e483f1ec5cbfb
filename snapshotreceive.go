package raftlock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"go.etcd.io/raft/v3/raftpb"
)

// The receiving of a snapshot: it is written aside, checked and loaded by the
// goroutine of its stream. Only then does raft hear of it. When raft takes it,
// the appender names it in the log, and the loop puts the loaded table in the
// place of its own.

// loaded is the state that a snapshot holds.
type loaded struct {
	header *snapshotHeader
	table  *table
	size   uint64 // of the file
}

// loadFrom reads a snapshot of a storage back.
func loadFrom(ctx context.Context, storage Storage, index uint64) (*loaded, error) {
	file, err := storage.OpenSnapshot(index)
	if err != nil {
		return nil, fmt.Errorf("open snapshot: %w", err)
	}
	defer func() { _ = file.Close() }() // it was only read
	header, table, err := loadSnapshot(untilDone{ctx, io.NewSectionReader(file, 0, file.Size())})
	if err != nil {
		return nil, err
	}
	if header.index != index {
		return nil, fmt.Errorf("%w: snapshot %d says that it is of entry %d", errMalformed, index, header.index)
	}
	return &loaded{header: header, table: table, size: uint64(file.Size())}, nil
}

// untilDone reads until ctx ends, so that no large state holds up the end of a
// member.
type untilDone struct {
	ctx  context.Context
	from io.Reader
}

func (u untilDone) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.from.Read(p)
}

// fits refuses a snapshot of another cluster, or whose entries this build cannot
// all read.
func (s *loaded) fits(cluster uint64, newest format) error {
	switch {
	case s.header.cluster != cluster:
		return fmt.Errorf("%w: the snapshot is of the cluster with id %016x, this member of %016x", errMalformed, s.header.cluster, cluster)
	case s.header.format > newest:
		return fmt.Errorf("%w: the snapshot stands on entries of format %d, this build knows %d", ErrUnknownFormat, s.header.format, newest)
	}
	return nil
}

// incoming lets one snapshot come at a time: the one that was offered last.
type incoming struct {
	mu     sync.Mutex
	stream PeerStream
	ended  chan struct{} // closed when stream's snapshot has ended
}

// take breaks the stream of the snapshot that is coming, waits for its end, and
// lets another one come; release says that this has ended. A disk that hangs can
// keep the old one for long: it waits until ctx ends.
func (in *incoming) take(ctx context.Context, stream PeerStream) error {
	for {
		in.mu.Lock()
		old, ended := in.stream, in.ended
		if old == nil {
			in.stream, in.ended = stream, make(chan struct{})
			in.mu.Unlock()
			return nil
		}
		in.mu.Unlock()
		_ = old.Close() // in favour of the newer one
		select {
		case <-ended:
		case <-ctx.Done():
			return errors.New("the snapshot that came before does not end")
		}
	}
}

func (in *incoming) release() {
	in.mu.Lock()
	defer in.mu.Unlock()
	close(in.ended)
	in.stream, in.ended = nil, nil
}

// receiveSnapshot takes a snapshot over a stream of a peer. What goes wrong ends
// the stream, never the member.
func (n *Node) receiveSnapshot(stream PeerStream, theirs *hello) error {
	o := n.directory.Load().byName[theirs.Name]
	if o == nil {
		return refused("%q is not a member", theirs.Name)
	}
	ctx, cancel := context.WithCancel(o.ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = stream.Close() })()
	patience := n.clock.AfterFunc(snapshotPatience, cancel)
	defer patience.Stop()
	b, err := stream.Recv()
	if err != nil {
		return fmt.Errorf("receive offer: %w", err)
	}
	offer, err := decodeOffer(b)
	if err == nil {
		err = offer.check(o.id, n.assembly.identity().nodeID())
	}
	if err != nil {
		return err
	}
	if err := n.judgeOffer(offer.message); err != nil {
		return err // before it breaks off what the present leader sends
	}
	if err := n.incoming.take(ctx, stream); err != nil {
		return err
	}
	defer n.incoming.release()
	err = n.takeOffer(&snapshotReceiver{stream: stream, offer: &offer, progress: func() { patience.Reset(snapshotPatience) }})
	answer := snapshotAnswer{done: true}
	if err != nil {
		answer = snapshotAnswer{refusal: err.Error()}
	}
	if sendErr := stream.Send(answer.encode()); sendErr == nil {
		_, _ = stream.Recv() // until the peer has read it and goes
	}
	if err != nil {
		return fmt.Errorf("receive snapshot from %s: %w", theirs.Name, err)
	}
	return nil
}

// takeOffer gives an offered snapshot to raft: whole, or its message alone when
// this member has all of it, which tells the leader.
func (n *Node) takeOffer(s *snapshotReceiver) error {
	meta := s.offer.message.GetSnapshot().GetMetadata()
	wanted, err := lookInOrder(n, func(r *replica) bool { return meta.GetIndex() > r.commit })
	if err != nil {
		return err
	}
	var state *loaded
	if wanted {
		if state, err = n.receiveState(s, meta); err != nil {
			return err
		}
	}
	if !n.inbox.inOrder(func(r *replica) { r.offered(s.offer.message, state) }) {
		return ErrClosed
	}
	return nil
}

// judgeOffer refuses what a leader of the past offers.
func (n *Node) judgeOffer(m *raftpb.Message) error {
	term, err := lookInOrder(n, func(r *replica) uint64 { return r.term })
	if err == nil && m.GetTerm() < term {
		return refused("snapshot of term %d in term %d", m.GetTerm(), term)
	}
	return err
}

func (n *Node) receiveState(s *snapshotReceiver, meta *raftpb.SnapshotMetadata) (*loaded, error) {
	begun := n.clock.Now()
	state, err := keepState(n.ctx, n.cfg.Storage, meta, s.spool)
	if err != nil {
		return nil, err
	}
	n.logger.Info("snapshot received", "index", meta.GetIndex(), "bytes", state.size, "took", n.clock.Now().Sub(begun))
	return state, state.fits(n.assembly.identity().ClusterID, n.cfg.newest)
}

// keepState makes what spool writes durable and loads it: the state that was offered
// with meta.
func keepState(ctx context.Context, disk Storage, meta *raftpb.SnapshotMetadata, spool func(io.Writer) error) (*loaded, error) {
	sink, err := disk.CreateSnapshot(meta)
	if err != nil {
		return nil, fmt.Errorf("create snapshot: %w", err)
	}
	defer func() { _ = sink.Discard() }() // after Commit it does nothing; after an error that one matters
	if err := spool(sink); err != nil {
		return nil, err
	}
	if err := sink.Commit(ctx); err != nil {
		return nil, fmt.Errorf("commit snapshot: %w", err)
	}
	state, err := loadFrom(ctx, disk, meta.GetIndex())
	if err != nil {
		return nil, err
	}
	if got := metaOf(state.header); got.GetTerm() != meta.GetTerm() || got.GetConfState().Equivalent(meta.GetConfState()) != nil {
		return nil, fmt.Errorf("%w: the snapshot is {%v}, and was offered as {%v}", errMalformed, got, meta)
	}
	return state, nil
}

// snapshotReceiver is one transfer.
type snapshotReceiver struct {
	stream   PeerStream
	offer    *offer
	progress func()
}

// spool writes the chunks to a sink as they come. The last one is answered by
// the caller.
func (s *snapshotReceiver) spool(to io.Writer) error {
	goOn := snapshotAnswer{}
	for left := s.offer.size; left > 0; {
		if err := s.stream.Send(goOn.encode()); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
		chunk, err := s.stream.Recv()
		if err != nil {
			return fmt.Errorf("receive chunk: %w", err)
		}
		s.progress()
		if size := uint64(len(chunk)); size == 0 || size > min(left, snapshotChunk) {
			return fmt.Errorf("%w: chunk of %d bytes, %d are left", errMalformed, size, left)
		}
		if _, err := to.Write(chunk); err != nil {
			return fmt.Errorf("write snapshot: %w", err)
		}
		left -= uint64(len(chunk))
	}
	return nil
}

// offered steps the message of a snapshot that is on disk and loaded; state is
// nil when this member has all of it in its log.
func (r *replica) offered(m *raftpb.Message, state *loaded) {
	r.offer = state
	if err := r.step(m); err != nil {
		r.logger.Error("snapshot of the leader is not taken", "error", err)
	}
}

// accept notes that raft has taken the snapshot that was offered in this turn.
func (r *replica) accept(snap *raftpb.Snapshot) error {
	state := r.offer
	if state == nil || state.header.index != snap.GetMetadata().GetIndex() || state.header.term != snap.GetMetadata().GetTerm() {
		return fmt.Errorf("raft has taken a snapshot {%v} that was not offered", snap.GetMetadata())
	}
	r.arriving = append(r.arriving, state)
	return nil
}

// install puts the state of a snapshot in the place of the table: the appender
// has named it in the log.
func (r *replica) install(snap *raftpb.Snapshot) error {
	index := snap.GetMetadata().GetIndex()
	for len(r.arriving) > 0 && r.arriving[0].header.index < index {
		r.arriving = r.arriving[1:]
	}
	if len(r.arriving) == 0 || r.arriving[0].header.index != index {
		return fmt.Errorf("snapshot %d is installed and not loaded", index)
	}
	state := r.arriving[0]
	r.arriving = r.arriving[1:]
	r.passOver(index)
	r.adopt(state)
	r.changes.stir = true
	r.logger.Info("snapshot installed", "index", index, "term", state.header.term)
	return nil
}

// adopt makes the state of a snapshot this replica's own.
func (r *replica) adopt(s *loaded) {
	h := s.header
	r.table, r.applied, r.stampTerm, r.newestApplied = s.table, h.index, h.stampTerm, h.format
	r.commit = max(r.commit, h.index)
	r.roster, r.conf = rosterIn(h), metaOf(h).GetConfState()
	r.log.floor = r.roster.index
	r.clock.applied(r.table.now())
	r.horizon.passOver(s.size)
	for node := range r.heard {
		if r.company().byNode(node) == nil {
			r.forgetNode(node)
		}
	}
	r.agreeOnFormat()
}

// passOver ends what waits for entries that a snapshot stands for: nobody here
// will see what became of them.
func (r *replica) passOver(index uint64) {
	p := &r.proposals
	for len(p.flight) > 0 && p.flight[0].index <= index {
		b := p.flight[0]
		p.flight = shift(p.flight, 1)
		for _, c := range b.calls {
			if c.place == placeProposed {
				r.answer(c, reply{failure: leaderLost})
			}
		}
		p.recycle(b)
	}
	if f := r.changes.flight; f != nil && f.index <= index {
		r.changes.flight = nil
		r.retryWish(f.call)
	}
}

package raftlock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// The taking of a snapshot: the loop clones the state in one turn, a goroutine
// writes it aside, the appender names it and cuts the log. Only the last step
// counts, and it is made between two writes of the log.

// snapshotPause is how many election time-outs pass before a snapshot is tried
// again that could not be written.
const snapshotPause = 20

// tendSnapshot freezes the state when a snapshot is due, or when a peer needs one
// that there is not.
func (r *replica) tendSnapshot() {
	h := &r.horizon
	if h.taking || r.applied <= firstIndex || r.applied < h.replay || r.ticks < h.notBefore || r.disk.hangs {
		return
	}
	if !h.due() && !r.log.wanted || len(r.arriving) > 0 {
		return
	}
	r.log.wanted = false
	if r.newestSnapshot() >= r.applied { // of no use to raft, or it would not ask
		r.stampWanted = r.stampWanted || r.office == officeOpen
		return
	}
	state, err := r.freeze()
	if err != nil {
		r.logger.Error("no snapshot can be taken", "error", err)
		h.notBefore = r.ticks + snapshotPause*r.electionTicks
		return
	}
	h.taking = true
	r.out.snapshot = &takenSnapshot{frozen: state, total: h.total}
}

// takenSnapshot is a state on its way to the disk.
type takenSnapshot struct {
	*frozen
	total uint64 // of the horizon
	size  uint64 // of the file, when it is written
}

// freeze is the state of this replica as it is now.
func (r *replica) freeze() (*frozen, error) {
	term, err := r.log.Term(r.applied)
	if err != nil {
		return nil, fmt.Errorf("term of entry %d: %w", r.applied, err)
	}
	return &frozen{
		view: r.table.clone(), hash: r.table.hash(),
		header: snapshotHeader{
			format: r.newestApplied, cluster: r.cluster, index: r.applied, term: term,
			conf: confOf(r.conf), members: membersOf(r.roster),
			at: r.table.at, token: r.table.token, seq: r.table.seq, freeings: r.table.freeings, stampTerm: r.stampTerm,
		},
	}, nil
}

// newestSnapshot is the index of the snapshot that the log stands on.
func (r *replica) newestSnapshot() uint64 {
	newest, _ := r.log.MemoryStorage.Snapshot() // a log in memory has no error
	return newest.GetMetadata().GetIndex()
}

// snapshotTaken notes that a snapshot is on disk, and up to where the log can be
// cut in memory: not behind a snapshot that is on its way to a peer, who will
// need what follows it.
func (r *replica) snapshotTaken(s *takenSnapshot) (cut uint64) {
	h := &r.horizon
	h.taking = false
	r.log.wanted = false // raft asks again if this one does not do
	if s.header.index < r.newestSnapshot() {
		return 0 // the leader has sent a newer one meanwhile
	}
	h.since, h.size = s.total, s.size
	cut = min(h.cut(s.total), s.header.index)
	for _, index := range r.sending {
		cut = min(cut, index)
	}
	return cut
}

// snapshotFailed notes that a snapshot could not be written.
func (r *replica) snapshotFailed() {
	r.horizon.taking = false
	r.horizon.notBefore = r.ticks + snapshotPause*r.electionTicks
}

// takeSnapshot writes a state to the disk, beside all else.
func (n *Node) takeSnapshot(s *takenSnapshot) {
	n.beside("take snapshot", func() {
		begun := n.clock.Now()
		if err := s.write(n.ctx, n.cfg.Storage); err != nil {
			if n.ctx.Err() == nil {
				n.logger.Error("snapshot is not taken; the log goes on, and it is tried again later", "error", err)
				n.inbox.request((*replica).snapshotFailed)
			}
			return // what it would have replaced is still there
		}
		n.appender.do(func() error { return n.nameSnapshot(s, begun) })
	})
}

// write writes the snapshot aside, until ctx ends.
func (s *takenSnapshot) write(ctx context.Context, to Storage) error {
	sink, err := to.CreateSnapshot(metaOf(&s.header))
	if err != nil {
		return fmt.Errorf("create snapshot: %w", err)
	}
	defer func() { _ = sink.Discard() }() // after Commit it does nothing; after an error that one matters
	count := &countingWriter{ctx: ctx, sink: sink}
	if err := s.writeTo(count); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	s.size, s.view = count.bytes, nil // it would keep the old pages of the table
	if err := sink.Commit(ctx); err != nil {
		return fmt.Errorf("commit snapshot: %w", err)
	}
	return nil
}

// countingWriter counts what a snapshot has, and stops when the member ends.
type countingWriter struct {
	ctx   context.Context
	sink  SnapshotSink
	bytes uint64
}

func (w *countingWriter) Write(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	written, err := w.sink.Write(p)
	w.bytes += uint64(written)
	return written, err
}

// nameSnapshot is the appender's part. An error is one of the log's own disk and
// ends the member.
func (n *Node) nameSnapshot(s *takenSnapshot, begun time.Time) error {
	if err := s.name(n.cfg.Storage, n.log); err != nil {
		return fmt.Errorf("save snapshot: %w (what it has acknowledged stands: see to the disk, and start the member again)", err)
	}
	n.logger.Info("snapshot taken", "index", s.header.index, "bytes", s.size, "took", n.clock.Now().Sub(begun))
	n.inbox.request(func(r *replica) { r.cutLog(r.snapshotTaken(s)) })
	return nil
}

// name makes what is durable what the log stands on: on the disk, and in memory,
// unless the leader has sent a newer one meanwhile.
func (s *takenSnapshot) name(disk Storage, log *raft.MemoryStorage) error {
	meta := metaOf(&s.header)
	if err := disk.SaveSnapshot(meta); err != nil {
		return err
	}
	newest, err := log.Snapshot()
	if err == nil && newest.GetMetadata().GetIndex() < meta.GetIndex() {
		_, err = log.CreateSnapshot(meta.GetIndex(), meta.GetConfState(), nil)
	}
	return err
}

// cutLog lets go of entries in memory up to an index.
func (r *replica) cutLog(index uint64) {
	if first, err := r.log.FirstIndex(); err != nil || index < first {
		return
	}
	if err := r.log.Compact(index); err != nil && !errors.Is(err, raft.ErrCompacted) {
		r.logger.Error("log is not cut", "index", index, "error", err)
	}
}

// confOf is raft's configuration as a snapshot has it.
func confOf(c *raftpb.ConfState) snapshotConf {
	return snapshotConf{
		voters: sorted(c.GetVoters()), learners: sorted(c.GetLearners()),
		outgoing: sorted(c.GetVotersOutgoing()), next: sorted(c.GetLearnersNext()), autoLeave: c.GetAutoLeave(),
	}
}

func sorted(ids []uint64) []uint64 {
	ids = slices.Clone(ids)
	slices.Sort(ids)
	return ids
}

// membersOf are the members as a snapshot has them.
func membersOf(t *roster) snapshotMembers {
	m := snapshotMembers{index: t.index}
	for i := range t.records {
		m.list = append(m.list, snapshotMember(t.records[i]))
	}
	return m
}

// rosterIn is who belongs to the cluster by a snapshot.
func rosterIn(h *snapshotHeader) *roster {
	t := &roster{index: h.members.index}
	for i := range h.members.list {
		t.records = append(t.records, record(h.members.list[i]))
	}
	return t
}

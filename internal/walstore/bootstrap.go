package walstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftlock/raftlock"
)

// Bootstrap implements raftlock.Storage. The log is made aside and put in its
// place whole; the identity comes last and decides: a log beside an identity
// without Members was not finished, and is made again.
func (s *Store) Bootstrap(id raftlock.Identity) error {
	if err := s.usable(); err != nil {
		return err
	}
	return s.final(s.bootstrap("bootstrap", id, false))
}

// Join implements raftlock.Storage. It is Bootstrap with an empty log.
func (s *Store) Join(id raftlock.Identity) error {
	if err := s.usable(); err != nil {
		return err
	}
	return s.final(s.bootstrap("join", id, true))
}

func (s *Store) bootstrap(act string, id raftlock.Identity, join bool) error {
	switch {
	case s.identity == nil:
		return fmt.Errorf("%s: no identity yet", act)
	case len(s.identity.Members) > 0:
		return fmt.Errorf("%s: done before", act)
	case id.Joined != join:
		return fmt.Errorf("%s: an identity with Joined: %t", act, id.Joined)
	}
	ids, err := voters(id)
	if err != nil {
		return fmt.Errorf("%s: %w", act, err)
	}
	if join {
		ids = nil
	}
	if err := s.removeUnfinished(); err != nil {
		return fmt.Errorf("%s: %w", act, err)
	}
	made := filepath.Join(s.dir, newWALName)
	h := header{clusterID: id.ClusterID, nodeID: id.Members[id.Name].NodeID}
	if err := guard(act, func() error { return s.createWAL(made, h, ids) }); err != nil {
		return err
	}
	if err := os.Rename(made, s.walDir()); err != nil {
		return fmt.Errorf("%s: %w", act, err)
	}
	s.trace("renamed wal")
	if err := syncDir(s.dir); err != nil {
		return fmt.Errorf("%s: %w", act, err)
	}
	if err := s.writeIdentity(id); err != nil {
		return err
	}
	_, err = s.openWAL()
	return err
}

// removeUnfinished removes what an earlier Bootstrap left behind.
func (s *Store) removeUnfinished() error {
	for _, name := range []string{newWALName + tmpSuffix, newWALName, walName} {
		if err := os.RemoveAll(filepath.Join(s.dir, name)); err != nil {
			return err
		}
		s.trace("removed " + name)
	}
	return nil
}

// createWAL makes a durable log of the first state only; of nothing, if there are
// no voters. The hard state commits the snapshot: etcd's code ignores one that is
// not committed.
func (s *Store) createWAL(dir string, h header, ids []uint64) (err error) {
	w, err := wal.Create(s.zap, dir, h.encode())
	if err != nil {
		return err
	}
	s.wal = w // so that closeWAL closes it
	defer func() { err = errors.Join(err, s.closeWAL()) }()
	s.trace("created wal")
	if len(ids) == 0 {
		return syncDir(dir)
	}
	if err := w.SaveSnapshot(&walpb.Snapshot{
		Index:     new(uint64(firstIndex)),
		Term:      new(uint64(firstTerm)),
		ConfState: &raftpb.ConfState{Voters: ids},
	}); err != nil {
		return err
	}
	s.trace("saved snapshot")
	if err := w.Save(fullState(firstTerm, 0, firstIndex), nil); err != nil {
		return err
	}
	s.trace("saved state")
	return syncDir(dir) // etcd's code syncs the file and the parent only
}

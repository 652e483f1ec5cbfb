package walstore

import (
	"io"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftlock/raftlock"
)

// checkSnapshot judges a snapshot file.
func checkSnapshot(r io.Reader) (*raftpb.SnapshotMetadata, error) { return raftlock.CheckSnapshot(r) }

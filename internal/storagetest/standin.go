package storagetest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raftlock/raftlock"
)

const standInMagic = "snap1"

// SnapshotBytes is a snapshot of a format that is only the tests': a disk cares
// for what a snapshot is of, not for what is in it.
func SnapshotBytes(meta *raftpb.SnapshotMetadata, content string) []byte {
	head, err := proto.Marshal(meta)
	if err != nil {
		panic(err)
	}
	b := binary.BigEndian.AppendUint32([]byte(standInMagic), uint32(len(head)))
	b = append(append(b, head...), content...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
}

// CheckSnapshot judges such a snapshot, as raftlock.CheckSnapshot judges a real
// one.
func CheckSnapshot(r io.Reader) (*raftpb.SnapshotMetadata, error) {
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	if len(b) < len(standInMagic)+8 {
		return nil, fmt.Errorf("%w: a snapshot of %d bytes", raftlock.ErrCorrupt, len(b))
	}
	end := len(b) - 4
	if sum := crc32.ChecksumIEEE(b[:end]); sum != binary.BigEndian.Uint32(b[end:]) {
		return nil, fmt.Errorf("%w: checksum %08x", raftlock.ErrCorrupt, sum)
	}
	if string(b[:len(standInMagic)]) != standInMagic {
		return nil, fmt.Errorf("%w: snapshot %q", raftlock.ErrUnknownFormat, b[:len(standInMagic)])
	}
	head := b[len(standInMagic)+4 : end]
	size := binary.BigEndian.Uint32(b[len(standInMagic):])
	meta := &raftpb.SnapshotMetadata{}
	if uint64(size) > uint64(len(head)) {
		return nil, errors.New("a head beyond the end")
	}
	return meta, proto.Unmarshal(head[:size], meta)
}

// OfNewerFormat makes of a snapshot what a later version would have written.
func OfNewerFormat(b []byte) []byte {
	b = append([]byte("snap2"), b[len(standInMagic):len(b)-4]...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
}

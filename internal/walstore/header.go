package walstore

import (
	"encoding/binary"
	"fmt"

	"github.com/raftlock/raftlock"
)

const (
	headerMagic   = "raftlock"
	headerVersion = 1
	headerSize    = len(headerMagic) + 4 + 8 + 8
)

// header is the first payload of each segment: whose log it is. Part of the
// disk format, do not change.
type header struct {
	clusterID, nodeID uint64
}

func (h header) encode() []byte {
	b := make([]byte, 0, headerSize)
	b = append(b, headerMagic...)
	b = binary.BigEndian.AppendUint32(b, headerVersion)
	b = binary.BigEndian.AppendUint64(b, h.clusterID)
	return binary.BigEndian.AppendUint64(b, h.nodeID)
}

func decodeHeader(b []byte) (header, error) {
	if len(b) < len(headerMagic)+4 || string(b[:len(headerMagic)]) != headerMagic {
		return header{}, fmt.Errorf("not the log of raftlock")
	}
	b = b[len(headerMagic):]
	if v := binary.BigEndian.Uint32(b); v != headerVersion {
		return header{}, fmt.Errorf("%w: log format %d, this one knows %d", raftlock.ErrUnknownFormat, v, headerVersion)
	}
	if b = b[4:]; len(b) != 16 {
		return header{}, fmt.Errorf("header of %d bytes", headerSize-16+len(b))
	}
	return header{
		clusterID: binary.BigEndian.Uint64(b),
		nodeID:    binary.BigEndian.Uint64(b[8:]),
	}, nil
}

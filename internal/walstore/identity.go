package walstore

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"reflect"
	"slices"
	"strconv"

	"github.com/raftlock/raftlock"
)

const identityFormat = 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// identityFile is member.json. Part of the disk format, do not change.
type identityFile struct {
	Format   int             `json:"format"`
	Checksum string          `json:"crc32c"`
	Identity json.RawMessage `json:"identity"`
}

// encodeIdentity returns the bytes of member.json. It refuses an identity that
// would not come back equal, such as one with a name that is not UTF-8.
func encodeIdentity(id raftlock.Identity) ([]byte, error) {
	raw, err := json.Marshal(id)
	if err != nil {
		return nil, fmt.Errorf("encode identity: %w", err)
	}
	file, err := wrapIdentity(raw)
	if err != nil {
		return nil, fmt.Errorf("encode identity: %w", err)
	}
	back, err := decodeIdentity(file)
	if err != nil {
		return nil, fmt.Errorf("encode identity: %w", err)
	}
	if !sameIdentity(id, back) {
		return nil, fmt.Errorf("encode identity: %+v reads back as %+v", id, back)
	}
	return file, nil
}

func wrapIdentity(raw json.RawMessage) ([]byte, error) {
	file, err := json.Marshal(identityFile{
		Format:   identityFormat,
		Checksum: identityChecksum(identityFormat, raw),
		Identity: raw,
	})
	return append(file, '\n'), err
}

// identityChecksum covers the format, or a flipped bit would make an older or
// newer one of it.
func identityChecksum(format int, raw []byte) string {
	sum := crc32.Checksum(strconv.AppendInt(nil, int64(format), 10), castagnoli)
	return fmt.Sprintf("%08x", crc32.Update(sum, castagnoli, raw))
}

// decodeIdentity reads the bytes of member.json. A wrapper that differs by one
// byte from what wrapIdentity writes is refused, so that no flipped bit hides
// in spelling (a space, the case of a digit or of a key). The fields within are
// not compared that way: an older version's file lacks newer ones.
func decodeIdentity(file []byte) (raftlock.Identity, error) {
	var id raftlock.Identity
	var wrapper identityFile
	if err := json.Unmarshal(file, &wrapper); err != nil {
		return id, fmt.Errorf("not an identity: %w", err)
	}
	if sum := identityChecksum(wrapper.Format, wrapper.Identity); sum != wrapper.Checksum {
		return id, fmt.Errorf("checksum %q, computed %q", wrapper.Checksum, sum)
	}
	if wrapper.Format != identityFormat {
		return id, fmt.Errorf("%w: format %d, this one knows %d", raftlock.ErrUnknownFormat, wrapper.Format, identityFormat)
	}
	if again, err := wrapIdentity(wrapper.Identity); err != nil || !bytes.Equal(again, file) {
		return id, errors.New("not written as this format writes it")
	}
	dec := json.NewDecoder(bytes.NewReader(wrapper.Identity))
	dec.DisallowUnknownFields() // whose meaning could be that this build must not start
	if err := dec.Decode(&id); err != nil {
		return raftlock.Identity{}, fmt.Errorf("%w: %w", raftlock.ErrUnknownFormat, err)
	}
	return id, nil
}

// sameIdentity compares, no members and nil members being the same.
func sameIdentity(a, b raftlock.Identity) bool {
	if len(a.Members) == 0 && len(b.Members) == 0 {
		a.Members, b.Members = nil, nil
	}
	return reflect.DeepEqual(a, b)
}

func cloneIdentity(id raftlock.Identity) *raftlock.Identity {
	id.Members, id.Configured = maps.Clone(id.Members), slices.Clone(id.Configured)
	return &id
}

// voters returns the node ids of an identity's members in order, and checks
// what a log relies on: that the member is one of them, and that no id is 0 or
// occurs twice, on which raft would panic.
func voters(id raftlock.Identity) ([]uint64, error) {
	if _, ok := id.Members[id.Name]; !ok {
		return nil, fmt.Errorf("member %q is not among the members", id.Name)
	}
	if id.ClusterID == 0 {
		return nil, errors.New("members without a cluster id")
	}
	ids := make([]uint64, 0, len(id.Members))
	for _, m := range id.Members {
		ids = append(ids, m.NodeID)
	}
	slices.Sort(ids)
	if len(slices.Compact(slices.Clone(ids))) != len(ids) || ids[0] == 0 {
		return nil, errors.New("a node id is 0 or occurs twice")
	}
	return ids, nil
}

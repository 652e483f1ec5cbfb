package walstore

import (
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/internal/storagetest"
)

// logWriter writes a segment record by record, right or wrong, apart from
// etcd's code and from the reader that is tested.
type logWriter struct {
	buf []byte
	crc uint32
}

func (w *logWriter) record(kind uint64, payload []byte) (off int) {
	w.crc = crc32.Update(w.crc, castagnoli, payload)
	return w.raw(kind, w.crc, payload)
}

func (w *logWriter) raw(kind uint64, crc uint32, payload []byte) (off int) {
	off = len(w.buf)
	body := protowire.AppendVarint([]byte{0x08}, kind)
	body = protowire.AppendVarint(append(body, 0x10), uint64(crc))
	if payload != nil {
		body = protowire.AppendBytes(append(body, 0x1a), payload)
	}
	length := uint64(len(body))
	if padding := (8 - length%8) % 8; padding != 0 {
		length |= (0x80 | padding) << 56
		body = append(body, make([]byte, padding)...)
	}
	w.buf = binary.LittleEndian.AppendUint64(w.buf, length)
	w.buf = append(w.buf, body...)
	return off
}

func (w *logWriter) entry(kind, term, index uint64, data string) (off int) {
	return w.record(2, payload(0x08, kind, 0x10, term, 0x18, index, 0x22, data))
}

func (w *logWriter) state(term, vote, commit uint64) (off int) {
	return w.record(3, payload(0x08, term, 0x10, vote, 0x18, commit))
}

// begin writes what every log of storagetest.ID begins with.
func (w *logWriter) begin() {
	w.raw(4, 0, nil)
	w.record(1, testHeader().encode())
	w.record(5, payload(0x08, uint64(0), 0x10, uint64(0)))
	w.record(5, payload(0x08, uint64(1), 0x10, uint64(1), 0x1a, testConf()))
	w.state(1, 0, 1)
}

// payload is tags, each with its number or bytes behind it.
func payload(parts ...any) []byte {
	b := []byte{}
	for _, part := range parts {
		switch part := part.(type) {
		case int:
			b = append(b, byte(part))
		case uint64:
			b = protowire.AppendVarint(b, part)
		case string:
			b = protowire.AppendBytes(b, []byte(part))
		}
	}
	return b
}

func testHeader() header {
	id := storagetest.ID()
	return header{clusterID: id.ClusterID, nodeID: id.Members[id.Name].NodeID}
}

func testConf() string {
	ids, err := voters(storagetest.ID())
	if err != nil {
		panic(err)
	}
	conf, err := proto.Marshal(&raftpb.ConfState{Voters: ids})
	if err != nil {
		panic(err)
	}
	return string(conf)
}

// writeDir makes a data directory of segments, with the identity of
// storagetest.ID.
func writeDir(tb testing.TB, segments map[string][]byte) (dir string) {
	tb.Helper()
	dir = tb.TempDir()
	file, err := encodeIdentity(storagetest.ID())
	must(tb, err)
	must(tb, os.WriteFile(filepath.Join(dir, identityName), file, 0o600))
	must(tb, os.Mkdir(filepath.Join(dir, walName), 0o700))
	for name, buf := range segments {
		must(tb, os.WriteFile(filepath.Join(dir, walName, name), buf, 0o600))
	}
	return dir
}

// readDir returns all files of a directory by their path within, but LOCK.
func readDir(tb testing.TB, dir string) map[string]string {
	tb.Helper()
	files := map[string]string{}
	must(tb, filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() || entry.Name() == lockName {
			return err
		}
		buf, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		files[name] = string(buf)
		return err
	}))
	return files
}

// copyDir copies a data directory.
func copyDir(tb testing.TB, from, to string) {
	tb.Helper()
	must(tb, os.CopyFS(to, os.DirFS(from)))
}

// scanBytes reads one segment that is all of the log.
func scanBytes(buf []byte) (*scan, error) {
	s := &scan{}
	return s, s.segment(firstSegment, buf, true)
}

// dataOf returns the data of the entries, in order.
func dataOf(found raftlock.Recovered) []string {
	var data []string
	for _, e := range found.Entries {
		data = append(data, string(e.GetData()))
	}
	return data
}

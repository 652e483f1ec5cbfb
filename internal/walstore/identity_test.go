package walstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/internal/storagetest"
)

func TestIdentityKeepsNamesOfAllKinds(t *testing.T) {
	for _, name := range []string{"n1", "", "日本", `<&>"\`, "\u2028", strings.Repeat("n", 1000)} {
		id := storagetest.Bare()
		id.Name, id.ClusterName = name, name
		file, err := encodeIdentity(id)
		must(t, err)
		if back, err := decodeIdentity(file); err != nil || !sameIdentity(id, back) {
			t.Errorf("%q: %+v, %v", name, back, err)
		}
	}
}

func TestIdentityThatCannotBeKeptIsRefused(t *testing.T) {
	id := storagetest.Bare()
	id.Name = "\xff" // JSON has no bytes
	if _, err := encodeIdentity(id); err == nil {
		t.Error("a name that is not UTF-8 was accepted")
	}
}

func TestIdentityFindsEveryFlippedByte(t *testing.T) {
	file, err := encodeIdentity(storagetest.ID())
	must(t, err)
	for at := range file {
		for _, mask := range []byte{1, 2, 4, 8, 16, 32, 64, 128, 0xff, file[at]} {
			bad := []byte(string(file))
			bad[at] ^= mask
			if id, err := decodeIdentity(bad); err == nil || errors.Is(err, raftlock.ErrUnknownFormat) {
				t.Fatalf("byte %d %#02x→%#02x: %+v, %v", at, file[at], bad[at], id, err)
			}
		}
		if id, err := decodeIdentity(file[:at]); err == nil {
			t.Fatalf("cut at %d: %+v", at, id)
		}
		for _, more := range []string{" ", "\n", "0", "\x00", `"`} {
			bad := string(file[:at]) + more + string(file[at:])
			if id, err := decodeIdentity([]byte(bad)); err == nil {
				t.Fatalf("%q put in at %d: %+v", more, at, id)
			}
		}
	}
}

func TestIdentityOfANewerVersion(t *testing.T) {
	more := []byte(`{"name":"n1","witness":true}`)
	unknown, err := wrapIdentity(more)
	must(t, err)
	format2 := fmt.Appendf(nil, `{"format":2,"crc32c":"%s","identity":%s}`+"\n", identityChecksum(2, more), more)
	for name, file := range map[string][]byte{"field": unknown, "format": format2} {
		if _, err := decodeIdentity(file); !errors.Is(err, raftlock.ErrUnknownFormat) {
			t.Errorf("newer %s: %v, want ErrUnknownFormat", name, err)
		}
	}
	older, err := wrapIdentity([]byte(`{"name":"n1"}`)) // before there were other fields
	must(t, err)
	if id, err := decodeIdentity(older); err != nil || id.Name != "n1" {
		t.Errorf("older fields: %+v, %v", id, err)
	}
}

func TestLoadRefusesADamagedIdentity(t *testing.T) {
	w := &logWriter{}
	w.begin()
	file, err := encodeIdentity(storagetest.ID())
	must(t, err)
	for at := 0; at < len(file); at += 17 {
		dir := writeDir(t, map[string][]byte{firstSegment: w.buf})
		bad := []byte(string(file))
		bad[at] ^= 0x20
		must(t, os.WriteFile(filepath.Join(dir, identityName), bad, 0o600))
		refusesUnchanged(t, dir, filepath.Join(dir, identityName))
	}
	for name, id := range map[string]func(*raftlock.Identity){
		"not a member":    func(id *raftlock.Identity) { id.Name = "n9" },
		"no cluster":      func(id *raftlock.Identity) { id.ClusterID = 0 },
		"another cluster": func(id *raftlock.Identity) { id.ClusterID++ },
		"a node id twice": func(id *raftlock.Identity) { id.Members["n2"] = id.Members["n3"] },
		"another node id": func(id *raftlock.Identity) { id.Members["n2"] = raftlock.MemberID{NodeID: 99} },
	} {
		t.Run(name, func(t *testing.T) {
			dir := writeDir(t, map[string][]byte{firstSegment: w.buf})
			wrong := storagetest.ID()
			id(&wrong)
			file, err := encodeIdentity(wrong)
			must(t, err)
			must(t, os.WriteFile(filepath.Join(dir, identityName), file, 0o600))
			refusesUnchanged(t, dir, dir)
		})
	}
}

func TestLoadRefusesHalfADirectory(t *testing.T) {
	w := &logWriter{}
	w.begin()
	dir := writeDir(t, map[string][]byte{firstSegment: w.buf})
	must(t, os.Remove(filepath.Join(dir, identityName)))
	refusesUnchanged(t, dir, identityName)
	dir = writeDir(t, nil)
	must(t, os.Remove(filepath.Join(dir, walName)))
	refusesUnchanged(t, dir, filepath.Join(dir, walName))
	dir = writeDir(t, nil)
	refusesUnchanged(t, dir, filepath.Join(dir, walName))
}

func FuzzDecodeIdentity(f *testing.F) {
	for _, id := range []raftlock.Identity{{}, storagetest.Bare(), storagetest.ID()} {
		file, err := encodeIdentity(id)
		must(f, err)
		f.Add(file)
	}
	f.Add([]byte(`{"format":1,"crc32c":"00000000","identity":null}` + "\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		id, err := decodeIdentity(file)
		if err != nil {
			return
		}
		again, err := encodeIdentity(id)
		if err != nil {
			t.Fatalf("%+v was read and cannot be written: %v", id, err)
		}
		if back, err := decodeIdentity(again); err != nil || !sameIdentity(id, back) {
			t.Fatalf("%+v came back as %+v, %v", id, back, err)
		}
	})
}

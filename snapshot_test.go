package raftlock

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"encoding/binary"
)

// snapshotOf is a table as the state at an entry of a cluster of three.
func snapshotOf(t *table) *frozen {
	return &frozen{view: t.clone(), hash: t.hash(), header: snapshotHeader{
		format: 1, cluster: 0xc1, index: 77, term: 5, stampTerm: 5,
		conf: snapshotConf{voters: []uint64{1, 2}, learners: []uint64{1 << 63}},
		members: snapshotMembers{index: 70, list: []snapshotMember{
			{name: "n1", node: 1, incarnation: 11, voter: true},
			{name: "n2", node: 2, incarnation: 12, voter: true},
			{name: "n3", since: 60, node: 1 << 63, incarnation: 1 << 63, address: "10.0.0.3:7400"},
			{name: "n4", since: 70, address: "10.0.0.4:7400"},
		}},
		at: t.at, token: t.token, seq: t.seq, freeings: t.freeings,
	}}
}

func snapshotBytes(t testing.TB, s *frozen) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.writeTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// sampleTable holds something of everything: held, free and unclaimed locks, waits
// of every kind, remembered requests, metadata.
func sampleTable() *table {
	t := newTable()
	md := metadata{{"app", "web"}, {"empty", ""}}
	acquire := func(lock, client, request string, attempt int32) command {
		return command{kind: cmdAcquire, lock: lock, client: client, request: request, attempt: attempt, wait: true,
			ttl: 30_000_000_000, timeout: 60_000_000_000, metadata: md}
	}
	low, enqueue := acquire("a", "C", "r3", 1), command{kind: cmdEnqueue, lock: "a", client: "D", version: 9, ttl: 5_000_000_000, timeout: 7_000_000_000}
	low.priority = -3
	all := bounds{lockWaiters: 100, locks: 100, waiters: 100}
	t.apply(&entry{stamp: 1_000_000_000, wall: 1_700_000_000_000_000, first: true, floor: 1_700_000_000_000_000})
	t.apply(&entry{stamp: 2_000_000_000, wall: 1_700_000_001_000_000, bounds: all, commands: []command{
		acquire("a", "A", "r1", 1), acquire("a", "B", "r2", 2), low, enqueue, acquire("b", "A", "", 1),
		acquire("freed", "F", "r4", 1), acquire("unclaimed", "A", "x", 1), acquire("unclaimed", "U", "y", 1),
	}})
	t.apply(&entry{stamp: 3_000_000_000, wall: 1_700_000_002_000_000, first: true, floor: 1_700_000_002_000_000})
	t.apply(&entry{stamp: 4_000_000_000, wall: 1_700_000_003_000_000, bounds: all, commands: []command{
		{kind: cmdWithdraw, lock: "freed", client: "F", request: "r4", arrival: 4_000_000_000},
		{kind: cmdWithdraw, lock: "unclaimed", client: "A", request: "x", arrival: 4_000_000_000},
		acquire("a", "B", "r2", 3), // claims its wait again
	}})
	return t
}

// TestSnapshotGoesOn: what a snapshot holds is all that the table depends on, and
// one state has one snapshot.
func TestSnapshotGoesOn(t *testing.T) {
	check := func(log []entry) string {
		cut := rand.New(rand.NewPCG(uint64(len(log)), 3)).IntN(len(log) + 1)
		table := newTable()
		recordLog(table, log[:cut])
		written := snapshotBytes(t, snapshotOf(table))
		rest := recordLog(table, log[cut:])
		header, loaded, err := loadSnapshot(bytes.NewReader(written))
		if err != nil {
			return err.Error()
		}
		again := snapshotOf(loaded)
		again.header = *header
		if !bytes.Equal(written, snapshotBytes(t, again)) {
			return "the loaded table has another snapshot"
		}
		for i, r := range recordLog(loaded, log[cut:]) {
			if d := recordedDiff(rest[i], r); d != "" {
				return fmt.Sprintf("loaded after %d entries, entry %d: %s", cut, cut+i, d)
			}
		}
		return ""
	}
	forLogs(t, logCount(1000, 150), makeLog, check)
	forLogs(t, logCount(6, 2), makeLongQueueLog, check)
	forLogs(t, logCount(1, 0), makeCrowdedLog, check)
}

// TestGoldenSnapshot pins the format: -rewrite-codec writes it anew, which is
// right only before a build with it is released.
func TestGoldenSnapshot(t *testing.T) {
	file := filepath.Join("testdata", "codec", "snapshot.hex")
	got := snapshotBytes(t, snapshotOf(sampleTable()))
	if *rewriteCodec {
		if err := os.WriteFile(file, []byte(hex.Dump(got)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if hex.Dump(got) != string(want) {
		t.Errorf("the snapshot is written as\n%s", hex.Dump(got))
	}
	header, table, err := loadSnapshot(bytes.NewReader(got))
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(*header) != fmt.Sprint(snapshotOf(sampleTable()).header) || table.hash() != sampleTable().hash() {
		t.Errorf("read back as %+v", header)
	}
	meta, err := CheckSnapshot(bytes.NewReader(got))
	if err != nil || meta.GetIndex() != 77 || meta.GetTerm() != 5 || len(meta.GetConfState().GetVoters()) != 2 {
		t.Errorf("CheckSnapshot: %v, %v", meta, err)
	}
}

// TestSnapshotDamage: every bit and every byte of a snapshot counts.
func TestSnapshotDamage(t *testing.T) {
	good := snapshotBytes(t, snapshotOf(sampleTable()))
	check := func(what string, b []byte) {
		if _, err := CheckSnapshot(bytes.NewReader(b)); err == nil || errors.Is(err, ErrUnknownFormat) {
			t.Errorf("%s: CheckSnapshot: %v", what, err)
		}
		if _, _, err := loadSnapshot(bytes.NewReader(b)); err == nil || errors.Is(err, ErrUnknownFormat) {
			t.Errorf("%s: load: %v", what, err)
		}
	}
	for i := range good {
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << bit
			check(fmt.Sprintf("byte %d, bit %d", i, bit), bad)
		}
		check(fmt.Sprintf("cut at %d", i), good[:i])
	}
	check("a byte more", append(bytes.Clone(good), 0))
	check("twice", append(bytes.Clone(good), good...))
}

// TestSnapshotBlocks: blocks that are missing, doubled or exchanged are found,
// though each is right in itself.
func TestSnapshotBlocks(t *testing.T) {
	table := newTable()
	for i := range 6000 {
		table.apply(&entry{stamp: logTime(i + 1), wall: 1, bounds: bounds{locks: 1e6}, commands: []command{
			{kind: cmdAcquire, lock: fmt.Sprintf("lock/%06d", i), client: "client", ttl: 1e12},
		}})
	}
	good := snapshotBytes(t, snapshotOf(table))
	if _, loaded, err := loadSnapshot(bytes.NewReader(good)); err != nil || loaded.hash() != table.hash() {
		t.Fatalf("load: %v", err)
	}
	var blocks [][]byte
	for b := good[snapshotPreamble:]; len(b) > 0; {
		n := blockHead + int(binary.LittleEndian.Uint32(b))
		blocks, b = append(blocks, b[:n]), b[n:]
	}
	if len(blocks) < 4 {
		t.Fatalf("%d blocks", len(blocks))
	}
	b := blocks
	for what, order := range map[string][][]byte{
		"missing":   append([][]byte{b[0], b[2]}, b[3:]...),
		"doubled":   append([][]byte{b[0], b[1], b[1]}, b[2:]...),
		"exchanged": append([][]byte{b[0], b[2], b[1]}, b[3:]...),
		"the last":  b[:len(b)-1],
	} {
		bad := bytes.Join(append([][]byte{good[:snapshotPreamble]}, order...), nil)
		if _, err := CheckSnapshot(bytes.NewReader(bad)); !errors.Is(err, errMalformed) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestSnapshotOfAnotherTable: checksums say that the bytes are as they were
// written, the hash that they make the table that they were written of.
func TestSnapshotOfAnotherTable(t *testing.T) {
	other := snapshotOf(sampleTable())
	other.hash++
	if _, _, err := loadSnapshot(bytes.NewReader(snapshotBytes(t, other))); !errors.Is(err, errMalformed) {
		t.Errorf("load: %v", err)
	}
}

// TestSnapshotOfANewerVersion is told from damage.
func TestSnapshotOfANewerVersion(t *testing.T) {
	b := snapshotBytes(t, snapshotOf(sampleTable()))
	binary.LittleEndian.PutUint32(b[8:], snapshotVersion+1)
	binary.LittleEndian.PutUint32(b[12:], crc32.Checksum(b[:12], crc32.MakeTable(crc32.Castagnoli)))
	if _, err := CheckSnapshot(bytes.NewReader(b)); !errors.Is(err, ErrUnknownFormat) {
		t.Errorf("CheckSnapshot: %v", err)
	}
}

// seal makes a snapshot of blocks: the checksums are right, the contents are
// what they are.
func seal(blocks ...[]byte) []byte {
	b := append([]byte(snapshotMagic), snapshotVersion, 0, 0, 0)
	sum := crc32.Checksum(b, castagnoli())
	b = binary.LittleEndian.AppendUint32(b, sum)
	for _, block := range blocks {
		head := binary.LittleEndian.AppendUint32(nil, uint32(len(block)))
		sum = crc32.Update(crc32.Update(sum, castagnoli(), head), castagnoli(), block)
		b = append(binary.LittleEndian.AppendUint32(append(b, head...), sum), block...)
	}
	return b
}

// FuzzSnapshot: whatever a block holds, reading it ends without a panic, and what
// is accepted is written again as it was. The checksums are made right, or
// nothing behind them would be reached.
func FuzzSnapshot(f *testing.F) {
	good := snapshotBytes(f, snapshotOf(sampleTable()))
	f.Add(good[snapshotPreamble+blockHead:])
	f.Add(snapshotBytes(f, snapshotOf(newTable()))[snapshotPreamble+blockHead:])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, block []byte) {
		_, _, _ = loadSnapshot(bytes.NewReader(block)) // as it is
		_, _ = CheckSnapshot(bytes.NewReader(block))
		b := seal(block)
		header, table, err := loadSnapshot(bytes.NewReader(b))
		if err != nil {
			return
		}
		if _, err := CheckSnapshot(bytes.NewReader(b)); err != nil {
			t.Fatalf("it can be loaded, but CheckSnapshot: %v", err)
		}
		again := &frozen{header: *header, view: table.clone(), hash: table.hash()}
		if !bytes.Equal(b, snapshotBytes(t, again)) {
			t.Fatal("written again as other bytes")
		}
	})
}

// TestSnapshotMemory: a length that lies costs no memory.
func TestSnapshotMemory(t *testing.T) {
	b := seal()
	b = binary.LittleEndian.AppendUint32(b, 1<<31)
	b = append(b, strings.Repeat("x", 100)...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := CheckSnapshot(bytes.NewReader(b)); !errors.Is(err, errMalformed) {
		t.Errorf("CheckSnapshot: %v", err)
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 4<<20 {
		t.Errorf("%d bytes were allocated", grown)
	}
}

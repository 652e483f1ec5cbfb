package raftlock_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/internal/memnet"
	"github.com/raftlock/raftlock/internal/walstore"
)

const chunkSize = 256 << 10

// breaker breaks the first snapshot that comes to a member, once.
type breaker struct {
	// at picks the chunk in whose place the stream breaks, from 1 on; the one
	// behind the last is the receiver's answer.
	at func(chunks int) int

	mu     sync.Mutex
	armed  bool
	came   []int // how many chunks each transfer had
	broken chan struct{}
}

var errBroken = errors.New("the stream was broken by the test")

// due reports whether it is time to break, and if so does not again.
func (b *breaker) due(chunk, chunks int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.armed || chunk != b.at(chunks) {
		return false
	}
	b.armed = false
	close(b.broken)
	return true
}

func (b *breaker) transfers() []int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]int(nil), b.came...)
}

// breakingTransport hands the snapshots that come to a breaker.
type breakingTransport struct {
	raftlock.Transport
	breaker *breaker
}

func (t breakingTransport) Serve(accept func(raftlock.PeerStream)) error {
	return t.Transport.Serve(func(s raftlock.PeerStream) { accept(&breakingStream{PeerStream: s, breaker: t.breaker}) })
}

// breakingStream is the receiver's end. Frames come in this order: a hello, an
// offer, chunks; and go: a hello, an answer for each chunk, the last answer.
type breakingStream struct {
	raftlock.PeerStream
	breaker  *breaker
	snapshot bool
	in, out  int
	chunks   int
}

func (s *breakingStream) Recv() ([]byte, error) {
	if s.snapshot && s.in >= 2 && s.in-1 <= s.chunks && s.breaker.due(s.in-1, s.chunks) {
		return nil, errors.Join(errBroken, s.Close())
	}
	frame, err := s.PeerStream.Recv()
	if err != nil {
		return frame, err
	}
	s.in++
	switch {
	case s.in == 1:
		s.snapshot = bytes.Contains(frame, []byte(`"snapshot":true`))
	case s.in == 2 && s.snapshot:
		size, n := protowire.ConsumeVarint(frame[1:]) // behind the tag of field 1
		if n < 0 {
			return nil, errors.New("the offer does not begin with its size")
		}
		s.chunks = (int(size) + chunkSize - 1) / chunkSize
		s.breaker.mu.Lock()
		s.breaker.came = append(s.breaker.came, s.chunks)
		s.breaker.mu.Unlock()
	}
	return frame, nil
}

func (s *breakingStream) Send(frame []byte) error {
	if s.snapshot && s.chunks > 0 && s.out == s.chunks+1 && s.breaker.due(s.chunks+1, s.chunks) {
		return errors.Join(errBroken, s.Close())
	}
	s.out++
	return s.PeerStream.Send(frame)
}

// A transfer that breaks leaves nothing behind on the receiver's disk, wherever it
// breaks, and the next one gives it the leader's table.
func TestSnapshotTransferBreaksAtAnyChunk(t *testing.T) {
	for name, at := range map[string]func(chunks int) int{
		"at the first chunk":       func(int) int { return 1 },
		"in the middle":            func(chunks int) int { return (chunks + 1) / 2 },
		"at the last chunk":        func(chunks int) int { return chunks },
		"behind it, at the answer": func(chunks int) int { return chunks + 1 },
	} {
		t.Run(name, func(t *testing.T) { inBubble(t, func(t *testing.T) { breakTransfer(t, at) }) })
	}
}

func inBubble(t *testing.T, test func(t *testing.T)) { synctest.Test(t, test) }

func breakTransfer(t *testing.T, at func(chunks int) int) {
	dir, network := t.TempDir(), memnet.New()
	names := map[string]string{"n1": "n1", "n2": "n2", "n3": "n3"}
	nodes, breakers := map[string]*raftlock.Node{}, map[string]*breaker{}
	for name := range names {
		disk, err := walstore.Open(walstore.Config{Dir: filepath.Join(dir, name)})
		if err != nil {
			t.Fatal(err)
		}
		breakers[name] = &breaker{at: at, broken: make(chan struct{})}
		n, err := raftlock.Open(raftlock.Config{
			Name: name, InitialCluster: names, Logger: slog.New(slog.DiscardHandler), Storage: disk,
			Transport: breakingTransport{network.Transport(name), breakers[name]},
			Snapshots: raftlock.Snapshots{MinLogBytes: 1 << 10, KeepLogBytes: 1 << 10},
		})
		if err != nil {
			t.Fatal(err)
		}
		nodes[name] = n
		t.Cleanup(func() {
			if err := n.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	leader, behind := "", ""
	for _, n := range nodes {
		<-n.Ready()
	}
	for leader == "" {
		leader, _ = nodes["n1"].Leader()
		time.Sleep(10 * time.Millisecond)
	}
	for name := range names {
		if name != leader {
			behind = name
		}
	}
	network.Isolate(behind)
	fill(t, nodes[leader].Client())
	b := breakers[behind]
	b.mu.Lock()
	b.armed = true
	b.mu.Unlock()
	network.Rejoin(behind)
	<-b.broken
	synctest.Wait()
	if left := unfinished(t, filepath.Join(dir, behind, "snapshots")); left != "" {
		t.Errorf("left behind where it broke: %s", left)
	}
	hash := func(name string) (uint64, uint64) {
		index, hash, err := nodes[name].StateHash(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return index, hash
	}
	deadline := time.Now().Add(5 * time.Minute)
	for {
		index, want := hash(leader)
		got, is := hash(behind)
		if got == index {
			if is != want {
				t.Errorf("the tables at %d differ: %x and %x", index, is, want)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("it has applied %d of %d", got, index)
		}
		time.Sleep(50 * time.Millisecond)
	}
	came := b.transfers()
	if came[0] < 3 || at(came[0]) <= came[0] && len(came) < 2 {
		t.Errorf("transfers of so many chunks have begun: %d", came)
	}
	if left := unfinished(t, filepath.Join(dir, behind, "snapshots")); left != "" {
		t.Errorf("left behind in the end: %s", left)
	}
}

// fill takes locks with as much metadata as they may have, some 5 MB.
func fill(t *testing.T, cl client.Client) {
	t.Helper()
	metadata := map[string]string{}
	for i := range 32 {
		metadata[fmt.Sprint("key", i)] = strings.Repeat("x", 256)
	}
	var work sync.WaitGroup
	for i := range 600 {
		work.Go(func() {
			_, err := cl.Acquire(context.Background(), &client.AcquireRequest{
				LockID: fmt.Sprint("lock", i), ClientID: "me", TTL: time.Hour, Metadata: metadata,
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	work.Wait()
}

// unfinished are the files of a directory that are not complete.
func unfinished(t *testing.T, dir string) (names string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".tmp") {
			names += path + "\n"
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

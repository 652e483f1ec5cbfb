//go:build unix

package fence_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/raftlock/raftlock/fence"
)

// TestFileRecipe holds what a file is to remember: over restarts (nothing here is
// kept in memory), over what crashes leave, and when it was only read.
func TestFileRecipe(t *testing.T) {
	const base int64 = 1_790_000_000_000_000 // as a cluster's tokens: more than 32 bits
	f := tokenFile{filepath.Join(t.TempDir(), "data")}
	if data, err := f.Read(base + 5); err != nil || len(data) != 0 {
		t.Fatalf("a file that is not there yet: %q, %v", data, err)
	}
	if err := f.Write(base+4, []byte("old")); !errors.Is(err, fence.ErrStale) {
		t.Errorf("a write of token 4 after a read of token 5: %v", err)
	}
	if err := f.Write(base+6, []byte("a\nb")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.path+".new", []byte("99\na longer text that a crash has left"), 0o600); err != nil {
		t.Fatal(err)
	}
	if data, err := f.Read(base + 6); err != nil || string(data) != "a\nb" {
		t.Errorf("read %q, %v", data, err)
	}
	if err := f.Write(base+6, []byte("c")); err != nil {
		t.Errorf("the same holder again: %v", err)
	}
	if data, err := f.Read(base + 5); !errors.Is(err, fence.ErrStale) || data != nil {
		t.Errorf("a stale read: %q, %v", data, err)
	}
	if data, err := f.Read(base + 7); err != nil || string(data) != "c" {
		t.Errorf("the next holder reads %q, %v", data, err)
	}
	if err := f.Write(0, nil); !errors.Is(err, fence.ErrInvalidToken) {
		t.Errorf("no token: %v", err)
	}
	if err := os.WriteFile(f.path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.Write(base+8, nil); !errors.Is(err, fence.ErrInvalidToken) {
		t.Errorf("a file that has lost its token: %v", err)
	}
}

// TestFileRecipeWithManyWriters lets writers read and add, each time with a new
// token: of what was accepted nothing is lost.
func TestFileRecipeWithManyWriters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	var tokens struct {
		sync.Mutex
		last int64
	}
	next := func() int64 {
		tokens.Lock()
		defer tokens.Unlock()
		tokens.last++
		return tokens.last
	}
	var accepted sync.Map
	var writers sync.WaitGroup
	for range 4 {
		writers.Go(func() {
			for range 10 {
				token := next()
				data, err := tokenFile{path}.Read(token)
				if err == nil {
					err = tokenFile{path}.Write(token, fmt.Appendf(data, "%d ", token))
				}
				if err == nil {
					accepted.Store(token, true)
				} else if !errors.Is(err, fence.ErrStale) {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	data, err := tokenFile{path}.Read(next())
	if err != nil {
		t.Fatal(err)
	}
	want := ""
	for token := range tokens.last {
		if _, ok := accepted.Load(token); ok {
			want += fmt.Sprint(token, " ")
		}
	}
	if string(data) != want || want == "" {
		t.Errorf("the file has %q, accepted was %q", data, want)
	}
}

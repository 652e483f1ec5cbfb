package sqlrow_test

import (
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/raftlock/raftlock/fence"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open opens the table in a file; the first time makes it.
func open(t *testing.T, path string, first bool) accounts {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(60000)&_pragma=journal_mode(WAL)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	if first {
		if _, err := db.ExecContext(t.Context(), schema); err != nil {
			t.Fatal(err)
		}
	}
	return accounts{db}
}

// TestRowRecipe holds what a row is to remember: from its first insert on, over a
// restart of its database, and when it was only read. The tokens are as great as a
// cluster's, and differ in their lower bits alone.
func TestRowRecipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "accounts")
	table := open(t, path, true)
	ctx := t.Context()
	const base int64 = 1_790_000_000_000_000
	if !strings.Contains(schema, "token BIGINT") {
		t.Error("SQLite takes tokens in a column of any type, PostgreSQL and MySQL do not")
	}
	if err := table.Write(ctx, "Ada", base+5, "first insert"); err != nil {
		t.Fatal(err)
	}
	if err := table.Write(ctx, "Ada", base+5, "the same holder"); err != nil {
		t.Errorf("the same holder again: %v", err)
	}
	err := table.Write(ctx, "Ada", base+4, "stale")
	stale, ok := errors.AsType[*fence.StaleError](err)
	if want := (fence.StaleError{Resource: "Ada", Token: base + 4, Greatest: base + 5}); !ok || *stale != want {
		t.Errorf("a stale write: %v", err)
	}
	if data, err := table.Read(ctx, "Ada", base+4); !errors.Is(err, fence.ErrStale) || data.Valid {
		t.Errorf("a stale read: %q, %v", data.String, err)
	}

	table = open(t, path, false) // the database is opened again
	if err := table.Write(ctx, "Ada", base+4, "stale"); !errors.Is(err, fence.ErrStale) {
		t.Errorf("a stale write after a restart: %v", err)
	}
	if data, err := table.Read(ctx, "Ada", base+6); err != nil || data.String != "the same holder" {
		t.Errorf("the next holder reads %q, %v", data.String, err)
	}
	if err := table.Write(ctx, "Ada", base+5, "stale"); !errors.Is(err, fence.ErrStale) {
		t.Errorf("a write of token 5 after a read of token 6: %v", err)
	}

	if data, err := table.Read(ctx, "Grace", base+9); err != nil || data.Valid {
		t.Errorf("a row that is not there: %q, %v", data.String, err)
	}
	if err := table.Write(ctx, "Grace", base+8, "stale"); !errors.Is(err, fence.ErrStale) {
		t.Errorf("a first insert of token 8 after a read of token 9: %v", err)
	}
	if err := table.Write(ctx, "Grace", 0, ""); !errors.Is(err, fence.ErrInvalidToken) {
		t.Errorf("a write without a token: %v", err)
	}
	if _, err := table.Read(ctx, "Grace", -1); !errors.Is(err, fence.ErrInvalidToken) {
		t.Errorf("a read without a token: %v", err)
	}
}

// TestRowRecipeWithManyWriters lets writers with connections of their own read and
// add, each time with a new token: of what was accepted nothing is lost. The first
// inserts race as well.
func TestRowRecipeWithManyWriters(t *testing.T) {
	table := open(t, filepath.Join(t.TempDir(), "accounts"), true)
	table.db.SetMaxOpenConns(4)
	var last atomic.Int64
	var accepted sync.Map
	var writers sync.WaitGroup
	for range 4 {
		writers.Go(func() {
			for range 25 {
				token := last.Add(1)
				data, err := table.Read(t.Context(), "Ada", token)
				if err == nil {
					err = table.Write(t.Context(), "Ada", token, data.String+fmt.Sprint(token, " "))
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
	var want strings.Builder
	for token := range last.Load() + 1 {
		if _, ok := accepted.Load(token); ok {
			fmt.Fprint(&want, token, " ")
		}
	}
	data, err := table.Read(t.Context(), "Ada", last.Load())
	if err != nil || data.String != want.String() || want.Len() == 0 {
		t.Errorf("the row has %q (%v), accepted was %q", data.String, err, want.String())
	}
}

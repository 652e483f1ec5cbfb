package sqlrow_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	_ "modernc.org/sqlite"

	"github.com/raftlock/raftlock/fence"
)

// accounts is a table whose rows remember the greatest token.
type accounts struct{ db *sql.DB }

// The token stands in the row of the data that it guards. Its column has 64 bits:
// tokens are about 1.8e15, which the 32 bits of an INTEGER in PostgreSQL or MySQL
// refuse, or cut.
const schema = `CREATE TABLE accounts (id TEXT PRIMARY KEY, data TEXT, token BIGINT NOT NULL)`

// A row that is not there yet is made; one that is there is changed if it has not
// seen a greater token. The comparison and the change are one statement: a SELECT
// before an UPDATE would let a newer holder come between them.
const write = `
INSERT INTO accounts (id, data, token) VALUES (?, ?, ?)
ON CONFLICT (id) DO UPDATE SET data = excluded.data, token = excluded.token
WHERE accounts.token <= excluded.token`

// A read notes the token as well, so that no older holder writes after it. That
// goes for a row that is not there yet too.
const read = `
INSERT INTO accounts (id, data, token) VALUES (?, NULL, ?)
ON CONFLICT (id) DO UPDATE SET token = excluded.token
WHERE accounts.token <= excluded.token
RETURNING data`

// Write writes a row as the holder of a token.
func (a accounts) Write(ctx context.Context, id string, token int64, data string) error {
	if token < 1 {
		return fmt.Errorf("%w: %d", fence.ErrInvalidToken, token)
	}
	result, err := a.db.ExecContext(ctx, write, id, data, token)
	if err != nil {
		return err
	}
	written, err := result.RowsAffected()
	if err != nil {
		return err
	}
	if written == 0 {
		return a.stale(ctx, id, token)
	}
	return nil
}

// Read reads a row as the holder of a token; it is not Valid when there is no data.
func (a accounts) Read(ctx context.Context, id string, token int64) (data sql.NullString, err error) {
	if token < 1 {
		return data, fmt.Errorf("%w: %d", fence.ErrInvalidToken, token)
	}
	err = a.db.QueryRowContext(ctx, read, id, token).Scan(&data)
	if errors.Is(err, sql.ErrNoRows) {
		return data, a.stale(ctx, id, token)
	}
	return data, err
}

// stale says which token has refused another one; by now it may be greater yet.
func (a accounts) stale(ctx context.Context, id string, token int64) error {
	stale := &fence.StaleError{Resource: id, Token: token}
	if err := a.db.QueryRowContext(ctx, `SELECT token FROM accounts WHERE id = ?`, id).Scan(&stale.Greatest); err != nil {
		return errors.Join(fence.ErrStale, err)
	}
	return stale
}

// A row that refuses writers who have lost their lock.
func Example() {
	ctx := context.Background()
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer db.Close()
	db.SetMaxOpenConns(1) // each connection would have a memory of its own
	if _, err := db.ExecContext(ctx, schema); err != nil {
		fmt.Println(err)
		return
	}
	table := accounts{db}

	fmt.Println(table.Write(ctx, "Ada", 41, "100"))
	data, err := table.Read(ctx, "Ada", 42) // the next holder
	fmt.Println(data.String, err)
	fmt.Println(table.Write(ctx, "Ada", 41, "90"))
	data, err = table.Read(ctx, "Ada", 42)
	fmt.Println(data.String, err)
	// Output:
	// <nil>
	// 100 <nil>
	// fence: stale token: resource "Ada" has seen token 42, refused token 41
	// 100 <nil>
}

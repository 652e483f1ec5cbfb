// Package sqlrow shows a row of a SQL database that remembers the greatest fencing
// token it has seen, and refuses smaller ones. There is nothing to import: the
// recipe is the statements in example_test.go, which the tests run on SQLite, and
// which PostgreSQL takes as well (with $1 for ?). The directory is a module of its
// own, so that who uses raftlock does not depend on a database.
//
// The column of the token is a BIGINT, everywhere: tokens are about 1.8e15, and
// INTEGER has only 32 bits in PostgreSQL and MySQL.
//
// Where rows are never missing, or a database has no INSERT … ON CONFLICT, a write is
//
//	UPDATE accounts SET data = ?, token = ? WHERE id = ? AND token <= ?
//
// and stale when it matches no row. (MySQL counts the rows that it changed, not
// those that it matched: the same data with the same token again would look stale.
// Its drivers have an option for that, such as clientFoundRows.)
//
// It promises that one statement compares the token and writes it with the data,
// however many processes write, and whatever isolation the transaction around it
// has: a row is locked while it is changed.
//
// It refuses to delete: with a row its token would be gone, and a stale writer would
// make it anew. Data that is deleted is NULL.
package sqlrow

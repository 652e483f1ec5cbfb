// Package fence is the resource's half of fencing tokens. A lock cluster proves
// with a growing token (Lock.Version) who holds a lock; only what the lock
// protects can refuse a holder that has lost it and does not know, because it
// was suspended, or because its write was under way in the network for long.
// For that the resource remembers the greatest token it has seen and refuses
// smaller ones.
//
//	var guard fence.Guard // one for each process that owns the resource
//
//	func (s *store) save(ctx context.Context, account string, token int64, balance int) error {
//		return guard.Do(ctx, account, token, func() error {
//			return s.write(account, balance, token) // the token is kept with the data
//		})
//	}
//
// The package imports nothing but the standard library, and no other package of
// the module: what a lock protects need not know the cluster.
//
// # What it promises
//
// A token that is smaller than one the guard has seen for the same resource is
// refused with [ErrStale], and its action is not begun. An equal token is let
// through: it is the same holder. The order of accepted tokens never falls.
//
// Check and action are one: actions on one resource run one after the other, so
// that nothing comes between the check of [Guard.Do] and its action. Actions on
// different resources do not wait for each other.
//
// A token counts as seen from the moment it comes, whatever becomes of its
// action, because a greater token proves that every smaller one's grant is over.
// Reads count as much as writes, if they are made through the guard: after the
// new holder's read no older holder's write comes any more.
//
// # What it refuses
//
// It keeps nothing on a disk. A guard that was made anew has seen nothing, and
// would let the next stale token through. So the greatest token has to be durable
// together with the data, changed in one step with it; at a start it is told to
// the guard with [Guard.Check], or the data's own token is what is compared, as
// in the recipes below, which need no guard.
//
// It does not span processes: two that write to the same database each have
// their own guard, and neither sees what the other has. Then the comparison
// belongs into the database.
//
// It does not say whether a token is genuine. Whoever can send any number can
// send the greatest there is, and shut everybody else out until [Guard.Forget].
// Let only those speak to the resource who may take the lock.
//
// It does not bound its own memory: it keeps one number for each name that it
// was given with a valid token (some 200 bytes with the name). Names that callers
// can make up need a check before, or a [Guard.Forget] after. [Guard.Len] tells
// how many there are.
//
// # Recipes
//
// Each of them is run by the tests; take what you need.
//
//   - An HTTP service: [Guard.Handler], and the example with it.
//   - A row in SQL: UPDATE … SET data = ?, token = ? WHERE id = ? AND token <= ?, in
//     directory sqlrow, a module of its own. The column of the token is a BIGINT:
//     tokens are about 1.8e15, and INTEGER has 32 bits in most databases.
//   - A file: the example named file. The token stands in the file, which is
//     replaced as a whole under a file lock.
//   - An object store with conditional puts (If-Match): the example named
//     objectStore. The SDK must not repeat such a put by itself, or the change must
//     be idempotent.
//
// docs/guarantees.md tells what tokens can do and what they cannot.
package fence

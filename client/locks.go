package client

import (
	"context"
	"iter"
)

// pageSize is how many locks Locks asks for at a time.
const pageSize = 1000

// Locks ranges over the locks that a filter selects, all if it is nil, ordered
// by LockID. It reads page after page while the loop runs: each page is a
// linearizable read, the whole is not, but no lock that stands is seen twice or
// passed over. An error comes last, with a nil lock. It works on any client; the
// filter must not change during the loop.
//
//	for lock, err := range client.Locks(ctx, c, nil) {
//		if err != nil {
//			return err
//		}
//		fmt.Println(lock.LockID, lock.OwnerID)
//	}
func Locks(ctx context.Context, c RaftLockClient, filter *LockFilter) iter.Seq2[*LockInfo, error] {
	return func(yield func(*LockInfo, error) bool) {
		req := GetLocksRequest{Filter: filter, Limit: pageSize}
		for {
			page, err := c.GetLocks(ctx, &req)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, lock := range page.Locks {
				if lock.LockID <= req.StartAfter {
					continue // a client that does not know StartAfter
				}
				if !yield(lock, nil) {
					return
				}
			}
			if !page.HasMore || len(page.Locks) == 0 {
				return
			}
			last := page.Locks[len(page.Locks)-1].LockID
			if last <= req.StartAfter { // it would never end
				yield(nil, pagesRepeat().err("GetLocks"))
				return
			}
			req.StartAfter = last
		}
	}
}

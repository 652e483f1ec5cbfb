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
		req := &GetLocksRequest{Filter: filter, Limit: pageSize}
		for more := true; more; {
			var page []*LockInfo
			var err error
			page, more, err = turnPage(ctx, c, req)
			for _, lock := range page {
				if !yield(lock, nil) {
					return
				}
			}
			if err != nil {
				yield(nil, err)
				return
			}
		}
	}
}

// turnPage reads the locks behind req.StartAfter, moves that on, and reports
// whether there are more. A client that does not know StartAfter may repeat
// locks, which are dropped; one that repeats them only would never end.
func turnPage(ctx context.Context, c RaftLockClient, req *GetLocksRequest) (page []*LockInfo, more bool, err error) {
	res, err := c.GetLocks(ctx, req)
	if err != nil {
		return nil, false, err
	}
	if res == nil { // somebody else's client: a test's, say
		return nil, false, nil
	}
	for _, lock := range res.Locks {
		if lock != nil && lock.LockID > req.StartAfter {
			page = append(page, lock)
		}
	}
	switch {
	case len(page) > 0:
		req.StartAfter = page[len(page)-1].LockID
	case res.HasMore && len(res.Locks) > 0:
		return nil, false, pagesRepeat().err("GetLocks")
	}
	return page, res.HasMore && len(page) > 0, nil
}

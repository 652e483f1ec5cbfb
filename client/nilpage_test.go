package client

import (
	"context"
	"testing"
)

// sparse is a client whose lists are what its maker left of them.
type sparse struct {
	RaftLockClient
	res *GetLocksResult
}

func (s sparse) GetLocks(context.Context, *GetLocksRequest) (*GetLocksResult, error) {
	return s.res, nil
}

func TestLocksBearsWithHolesInAList(t *testing.T) {
	for name, c := range map[string]struct {
		res  *GetLocksResult
		want int
	}{
		"no result": {nil, 0},
		"no lock":   {&GetLocksResult{Locks: []*LockInfo{nil, {LockID: "a"}}}, 1},
	} {
		n := 0
		for lock, err := range Locks(t.Context(), sparse{res: c.res}, nil) {
			if lock == nil || err != nil {
				t.Errorf("%s: %v, %v", name, lock, err)
			}
			n++
		}
		if n != c.want {
			t.Errorf("%s: %d locks", name, n)
		}
	}
}

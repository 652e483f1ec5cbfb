package walstore_test

import (
	"errors"
	"fmt"
	"os"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/internal/walstore"
)

// A member's directory is locked, then loaded; an empty one has no identity yet.
func Example() {
	dir, err := os.MkdirTemp("", "member")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	store, err := walstore.Open(walstore.Config{Dir: dir})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()
	found, err := store.Load()
	fmt.Println(found.Identity == nil, err)
	fmt.Println(store.SaveIdentity(raftlock.Identity{Name: "n1", ClusterName: "shop", Incarnation: 42}))

	_, err = walstore.Open(walstore.Config{Dir: dir})
	fmt.Println(errors.Is(err, raftlock.ErrLocked))
	// Output:
	// true <nil>
	// <nil>
	// true
}

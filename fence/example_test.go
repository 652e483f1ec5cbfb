package fence_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/raftlock/raftlock/fence"
)

func ExampleGuard() {
	ctx := context.Background()
	var guard fence.Guard
	balance := 0
	set := func(token int64, to int) {
		err := guard.Do(ctx, "account 7", token, func() error {
			balance = to
			return nil
		})
		fmt.Println(err, balance)
	}
	set(41, 100)
	set(42, 90) // the next holder
	set(41, 80) // the first one again, who was suspended and does not know
	set(42, 70)
	// Output:
	// <nil> 100
	// <nil> 90
	// fence: stale token: resource "account 7" has seen token 42, refused token 41 90
	// <nil> 70
}

// A guard that was made anew is told the token that is stored with the data,
// before anybody else speaks to it.
func ExampleGuard_Check() {
	stored := map[string]int64{"account 7": 42}
	var guard fence.Guard
	for resource, token := range stored {
		if err := guard.Check(resource, token); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println(guard.Check("account 7", 41))
	// Output:
	// fence: stale token: resource "account 7" has seen token 42, refused token 41
}

func ExampleStaleError() {
	var guard fence.Guard
	err := errors.Join(guard.Check("account 7", 42), guard.Check("account 7", 41))
	if stale, ok := errors.AsType[*fence.StaleError](err); ok {
		fmt.Println(stale.Resource, stale.Token, stale.Greatest, errors.Is(err, fence.ErrStale))
	}
	// Output:
	// account 7 41 42 true
}

package client_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/client"
)

// Work is done under a lock: by one at a time, with a token that only grows.
func Example() {
	locks, stop := cluster()
	defer stop()

	var last int64
	for _, instance := range []string{"first", "second"} {
		err := client.Do(context.Background(), locks, "invoices/2024", func(ctx context.Context, token int64) error {
			fmt.Println(instance, "has a greater token:", token > last)
			last = token // a database would remember it, and refuse a smaller one
			return nil
		})
		if err != nil {
			fmt.Println(err)
		}
	}
	// Output:
	// first has a greater token: true
	// second has a greater token: true
}

// One try, with a time-to-live of its own and a note for whoever looks.
func ExampleDo() {
	locks, stop := cluster()
	defer stop()
	ctx := context.Background()

	err := client.Do(ctx, locks, "migration", func(ctx context.Context, token int64) error {
		info, err := locks.GetLockInfo(ctx, &client.GetLockInfoRequest{LockID: "migration"})
		if err != nil {
			return err
		}
		fmt.Println("migrating to", info.Metadata["to"])

		again := client.Do(ctx, locks, "migration", func(context.Context, int64) error { return nil }, client.NoWait())
		fmt.Println("somebody else:", errors.Is(again, client.ErrLockHeld))
		return nil
	}, client.WithTTL(10*time.Second), client.WithMetadata(map[string]string{"to": "v7"}))
	fmt.Println("error:", err)
	// Output:
	// migrating to v7
	// somebody else: true
	// error: <nil>
}

// A lock that is held for as long as a part of the program runs.
func ExampleHold() {
	locks, stop := cluster()
	defer stop()
	ctx := context.Background()

	held, err := client.Hold(ctx, locks, "leader", client.WithWait(time.Minute))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("leading:", held.Err() == nil)
	lead(held.Context(), held.Token())

	fmt.Println("released:", held.Release(ctx))
	fmt.Println("leading:", held.Err() == nil)
	// Output:
	// leading: true
	// released: <nil>
	// leading: false
}

func lead(context.Context, int64) {} // until the context ends

// A handle keeps token and end of its lock; renewing is up to the caller.
func ExampleNewLockHandle() {
	locks, stop := cluster()
	defer stop()
	ctx := context.Background()

	handle, err := client.NewLockHandle(locks, "printer", client.NewClientID("print"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer handle.Close(ctx)
	if err := handle.Acquire(ctx, time.Minute, true); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("held:", handle.IsHeld(), handle.Lock().LockID)
	if err := handle.Renew(ctx, time.Hour); err != nil {
		fmt.Println(err)
	}
	fmt.Println("for more than a minute:", time.Until(handle.Lock().ExpiresAt) > time.Minute)
	fmt.Println("released:", handle.Release(ctx), handle.IsHeld())
	// Output:
	// held: true printer
	// for more than a minute: true
	// released: <nil> false
}

// A renewer keeps a handle's lock, until it is stopped or the lock is lost.
func ExampleNewAutoRenewer() {
	locks, stop := cluster()
	defer stop()
	ctx := context.Background()

	handle, err := client.NewLockHandle(locks, "printer", client.NewClientID("print"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer handle.Close(ctx)
	if err := handle.Acquire(ctx, 30*time.Second, true); err != nil {
		fmt.Println(err)
		return
	}
	renewer, err := client.NewAutoRenewer(handle, 10*time.Second, 30*time.Second)
	if err != nil {
		fmt.Println(err)
		return
	}
	renewer.Start(ctx)
	select {
	case <-renewer.Done(): // only when the lock is lost
		fmt.Println(renewer.Err())
	default:
		fmt.Println("printing")
	}
	fmt.Println("stopped:", renewer.Stop(ctx))
	// Output:
	// printing
	// stopped: <nil>
}

// A short piece of work, or none when another is at it.
func ExampleDoWithLock() {
	locks, stop := cluster()
	defer stop()

	id := client.NewClientID("reports")
	err := client.DoWithLock(context.Background(), locks, "report", id, 10*time.Second, func(ctx context.Context) error {
		fmt.Println("writing the report")
		return nil
	})
	if errors.Is(err, client.ErrLockHeld) {
		fmt.Println("another writes it")
	}
	// Output: writing the report
}

// Work that may take longer than the time-to-live, with a ClientID of its own.
func ExampleRunWithLock() {
	locks, stop := cluster()
	defer stop()

	id := client.NewClientID("reports")
	ttl, interval := 30*time.Second, 10*time.Second
	err := client.RunWithLock(context.Background(), locks, "report", id, ttl, interval, func(ctx context.Context) error {
		return errors.New("out of paper")
	})
	fmt.Println(err, errors.Is(err, client.ErrLockLost))
	// Output: out of paper false
}

// cluster is a cluster of one in memory, for the examples.
func cluster() (locks client.Client, stop func()) {
	node, err := raftlock.Open(raftlock.Config{Name: "n1", Storage: raftlock.NewMemoryStorage()})
	if err != nil {
		panic(err)
	}
	return node.Client(), func() { _ = node.Close() }
}

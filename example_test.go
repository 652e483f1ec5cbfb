package raftlock_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/client"
)

// A cluster of one on a disk in memory, which is all that an example needs; the
// service would call embed.Start with a directory and two more members.
func Example() {
	err := bill(context.Background(), raftlock.NewMemoryStorage())
	fmt.Println("error:", err)
	// Output:
	// invoices written under a token: true
	// error: <nil>
}

// bill stands in the package's documentation, word for word (TestDocExample).
func bill(ctx context.Context, disk raftlock.Storage) error {
	node, err := raftlock.Open(raftlock.Config{Name: "n1", Storage: disk})
	if err != nil {
		return err
	}
	defer node.Close()
	return client.Do(ctx, node.Client(), "invoices", func(ctx context.Context, token int64) error {
		return writeInvoices(ctx, token) // for as long as ctx lasts; the token goes with every write
	})
}

func writeInvoices(_ context.Context, token int64) error {
	fmt.Println("invoices written under a token:", token > 0)
	return nil
}

// A refusal comes with a result that says why, and when to come back.
func ExampleNode_Client() {
	node, err := raftlock.Open(raftlock.Config{Name: "n1", Storage: raftlock.NewMemoryStorage()})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer node.Close()
	locks, ctx := node.Client(), context.Background()
	if _, err := locks.Acquire(ctx, &client.AcquireRequest{LockID: "reports", ClientID: "web-1"}); err != nil {
		fmt.Println(err)
	}
	res, err := locks.Acquire(ctx, &client.AcquireRequest{LockID: "reports", ClientID: "web-2"})
	fmt.Println(errors.Is(err, client.ErrLockHeld), res.Error.Code, res.Error.Details["owner_id"])
	// Output: true LOCK_HELD web-1
}

// A faulty configuration is refused as a whole, every fault with its field.
func ExampleConfig() {
	_, err := raftlock.Open(raftlock.Config{
		InitialCluster: map[string]string{"n1": "10.0.0.1:7101", "n2": "10.0.0.2:7101"},
		ElectionTicks:  1,
	})
	fmt.Println(err)
	// Output:
	// config: Name: is required
	// config: InitialCluster: does not name this member ""; it names [n1, n2]
	// config: Storage: is required
	// config: Transport: is required in a cluster of 2
	// config: ElectionTicks: 1 is not within 3 and 1000
}

// The disk in memory outlives the member on it: a lock that was granted is still
// held after a restart, under the same token.
func ExampleMemoryStorage() {
	ctx := context.Background()
	disk := raftlock.NewMemoryStorage()
	node, err := raftlock.Open(raftlock.Config{Name: "n1", Storage: disk})
	if err != nil {
		fmt.Println(err)
		return
	}
	got, err := node.Client().Acquire(ctx, &client.AcquireRequest{LockID: "reports", ClientID: "web-1"})
	if err != nil {
		fmt.Println(err)
	}
	if err := node.Close(); err != nil {
		fmt.Println(err)
	}

	node, err = raftlock.Open(raftlock.Config{Name: "n1", Storage: disk.Reopen()})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer node.Close()
	info, err := node.Client().GetLockInfo(ctx, &client.GetLockInfoRequest{LockID: "reports"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(info.OwnerID, info.Version == got.Lock.Version)
	// Output: web-1 true
}

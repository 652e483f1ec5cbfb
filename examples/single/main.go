// Command single is the smallest use of raftlock: a cluster of one member, which
// keeps its locks in a directory. Run it twice: the token grows, for the directory
// stays.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/embed"
)

func main() {
	ctx := context.Background()
	dir := filepath.Join(os.TempDir(), "raftlock-single")
	member, err := embed.Start(ctx, embed.Config{Name: "n1", DataDir: dir})
	if err != nil {
		log.Fatal(err)
	}
	defer member.Close()

	locks, me := member.Client(), client.NewClientID("billing")
	got, err := locks.Acquire(ctx, &client.AcquireRequest{LockID: "invoices", ClientID: me, Wait: true})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("nobody else holds invoices; my token is", got.Lock.Version)
	_, err = locks.Release(ctx, &client.ReleaseRequest{LockID: "invoices", ClientID: me, Version: got.Lock.Version})
	if err != nil {
		log.Fatal(err)
	}
}

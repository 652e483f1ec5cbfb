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

	err = client.Do(ctx, member.Client(), "invoices", func(ctx context.Context, token int64) error {
		fmt.Println("nobody else holds invoices; my token is", token)
		return nil // work here, for as long as ctx lasts
	})
	if err != nil {
		log.Fatal(err)
	}
}

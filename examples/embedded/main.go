// Command embedded is a service of three instances, each of which carries a
// member of the lock cluster. Here they share a process and a temporary directory;
// in life each instance is a process on a machine of its own.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"path/filepath"
	"sync"

	"github.com/raftlock/raftlock/embed"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		log.Fatal(err)
	}
}

// run starts three instances, lets each write three invoices at the same time,
// and shows the book.
func run(ctx context.Context, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "raftlock-embedded-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	configs, err := configure(dir, "n1", "n2", "n3")
	if err != nil {
		return err
	}
	members := make([]*embed.Member, len(configs))
	defer func() { err = errors.Join(err, closeAll(members)) }()
	err = atOnce(len(configs), func(i int) (err error) {
		members[i], err = embed.Start(ctx, configs[i]) // returns when the cluster has formed
		return err
	})
	if err != nil {
		return err
	}
	shared := &book{}
	err = atOnce(len(configs), func(i int) error {
		v := &invoicer{id: "billing-" + configs[i].Name, locks: members[i].Client(), book: shared}
		for _, customer := range []string{"Ada", "Grace", "Edsger"} {
			if err := v.invoice(ctx, customer); err != nil {
				return err
			}
		}
		return nil
	})
	for _, line := range shared.invoices {
		fmt.Fprintln(out, line)
	}
	return err
}

// closeAll closes what was started. Members stay as long as any of them has work:
// without a majority nobody gets a lock.
func closeAll(members []*embed.Member) error {
	return atOnce(len(members), func(i int) error {
		if members[i] == nil {
			return nil
		}
		return members[i].Close()
	})
}

// atOnce calls do for 0 to n-1 at the same time and joins the errors.
func atOnce(n int, do func(i int) error) error {
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { errs[i] = do(i) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// configure picks a free port for each member and tells all of them to each.
func configure(dir string, names ...string) ([]embed.Config, error) {
	cluster := map[string]string{}
	var configs []embed.Config
	for _, name := range names {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		cluster[name] = listener.Addr().String()
		configs = append(configs, embed.Config{
			Name: name, DataDir: filepath.Join(dir, name),
			InitialCluster: cluster, PeerListener: listener,
		})
	}
	return configs, nil
}

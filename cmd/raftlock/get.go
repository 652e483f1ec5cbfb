package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/raftlock/raftlock/client"
)

func getCommand() *cobra.Command {
	g := &getting{}
	cmd := &cobra.Command{
		Use:   "get NAME",
		Short: "Show one lock",
		Long: `Shows one lock: who holds it, with which fencing token, how long the grant
lasts unless it is renewed, and with --waiters who waits for it, in order.

It exits with 1 if the lock is not known: nobody has taken it, or it was given
back more than a minute ago.`,
		Example: `  raftlock get nightly-report
  raftlock get nightly-report --waiters
  raftlock get nightly-report --json | jq .token`,
		Args: exactly("NAME"),
		RunE: g.run,
	}
	cmd.Flags().BoolVar(&g.waiters, "waiters", false, "show who waits")
	cmd.Flags().BoolVar(&g.json, "json", false, "print a JSON object")
	g.register(cmd)
	g.registerTimeout(cmd)
	return cmd
}

type getting struct {
	connection
	waiters, json bool
}

func (g *getting) run(cmd *cobra.Command, args []string) (err error) {
	locks, err := g.dial()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, locks.Close()) }()
	info, err := locks.GetLockInfo(cmd.Context(), &client.GetLockInfoRequest{LockID: args[0], IncludeWaiters: g.waiters})
	if errors.Is(err, client.ErrLockNotFound) {
		return unknownLock(args[0])
	} else if err != nil {
		return explain(err)
	}
	v := viewOf(info, time.Now())
	if g.json {
		return printJSON(cmd.OutOrStdout(), v)
	}
	return g.print(cmd.OutOrStdout(), v)
}

func unknownLock(name string) error {
	return fmt.Errorf("the lock %s is not known: nobody has taken it, or it has been free for more than a minute", name)
}

func (g *getting) print(out io.Writer, v lockView) error {
	rows := [][]string{{"lock", v.Lock}}
	if v.Held {
		rows = append(rows,
			[]string{"holder", v.Owner},
			[]string{"token", fmt.Sprint(v.Token)},
			[]string{"since", clockTime(v.AcquiredAt)},
			[]string{"left", span(v.Left)},
		)
	} else {
		rows = append(rows,
			[]string{"holder", "nobody"},
			[]string{"last token", fmt.Sprint(v.Token)},
			[]string{"free since", clockTime(v.ModifiedAt)},
		)
	}
	if len(v.Metadata) > 0 {
		rows = append(rows, []string{"metadata", pairs(v.Metadata)})
	}
	rows = append(rows, []string{"waiters", fmt.Sprint(v.Waiters)})
	if err := table(out, rows); err != nil || len(v.Queue) == 0 {
		return err
	}
	if _, err := fmt.Fprintln(out); err != nil {
		return err
	}
	rows = [][]string{{"PLACE", "WAITER", "PRIORITY", "SINCE", "TIMES OUT IN"}}
	for _, w := range v.Queue {
		rows = append(rows, []string{fmt.Sprint(w.Position), w.Client, fmt.Sprint(w.Priority), clockTime(w.Since), span(w.TimesOut)})
	}
	return table(out, rows)
}

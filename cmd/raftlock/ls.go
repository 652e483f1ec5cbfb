package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/raftlock/raftlock/client"
)

func lsCommand() *cobra.Command {
	l := &listing{}
	cmd := &cobra.Command{
		Use:   "ls [PATTERN]",
		Short: "List locks",
		Long: `Lists the locks that are held, in the order of their names: holder, fencing
token, how long the grant lasts unless it is renewed, and how many wait. In
PATTERN, which must fit the whole name, * stands for anything and ? for one
character; quote it, so that the shell leaves it alone.

A lock that was given back is remembered for a minute; --all shows those too.`,
		Example: `  raftlock ls
  raftlock ls 'report-*' --contested
  raftlock ls --owner 'web-*' --json`,
		Args: cobra.MaximumNArgs(1),
		RunE: l.run,
	}
	f := cmd.Flags()
	f.BoolVar(&l.all, "all", false, "show locks that are free, too")
	f.BoolVar(&l.contested, "contested", false, "only locks that somebody waits for")
	f.StringVar(&l.owner, "owner", "", "only locks whose holder's name fits this `pattern`")
	f.StringToStringVar(&l.metadata, "metadata", nil, "only locks with this `key=value`")
	f.BoolVar(&l.json, "json", false, "print a JSON array")
	l.register(cmd)
	l.registerTimeout(cmd)
	return cmd
}

type listing struct {
	connection
	all, contested bool
	owner          string
	metadata       map[string]string
	json           bool
}

func (l *listing) run(cmd *cobra.Command, args []string) (err error) {
	locks, err := l.dial()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, locks.Close()) }()
	filter := client.LockFilter{
		OwnerIDPattern: l.owner, OnlyHeld: !l.all, OnlyContested: l.contested, MetadataFilter: l.metadata,
	}
	if len(args) == 1 {
		filter.LockIDPattern = args[0]
	}
	views := []lockView{}
	for info, err := range client.Locks(cmd.Context(), locks, &filter) {
		if err != nil {
			return explain(err)
		}
		views = append(views, viewOf(info, time.Now()))
	}
	if l.json {
		return printJSON(cmd.OutOrStdout(), views)
	}
	if len(views) == 0 {
		_, err := fmt.Fprintln(cmd.OutOrStdout(), "no locks")
		return err
	}
	rows := [][]string{{"LOCK", "HOLDER", "TOKEN", "LEFT", "WAITERS"}}
	for _, v := range views {
		left := "-"
		if v.Held {
			left = span(v.Left)
		}
		rows = append(rows, []string{v.Lock, orDash(v.Owner), fmt.Sprint(v.Token), left, fmt.Sprint(v.Waiters)})
	}
	return table(cmd.OutOrStdout(), rows)
}

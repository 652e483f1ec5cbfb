package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/raftlock/raftlock/client"
)

func releaseCommand() *cobra.Command {
	r := &releasing{}
	cmd := &cobra.Command{
		Use:   "release NAME",
		Short: "Give a lock back, or take it away from its holder",
		Long: `Gives back a lock that --client-id holds under --token, both as they were given
at the grant; get shows them.

With --force it takes the lock away from whoever holds it. The holder finds out
when it tries to renew, up to a third of its TTL later, and may go on working
until then beside the next one: only fencing tokens keep the two apart. Do it when
you know that the holder is dead, or that it does not matter.`,
		Example: `  raftlock release nightly-report --client-id reporter-1 --token 1795695685863181
  raftlock release nightly-report --force`,
		Args: exactly("NAME"),
		RunE: r.run,
	}
	f := cmd.Flags()
	f.StringVar(&r.clientID, "client-id", "", "`name` of the holder")
	f.Int64Var(&r.token, "token", 0, "fencing `token` of the grant")
	f.BoolVar(&r.force, "force", false, "release it whoever holds it")
	fromEnvironment(cmd, "client-id")
	r.register(cmd)
	r.registerTimeout(cmd)
	return cmd
}

type releasing struct {
	connection
	clientID string
	token    int64
	force    bool
}

func (r *releasing) run(cmd *cobra.Command, args []string) (err error) {
	own := r.clientID != "" && r.token != 0
	if !own && !r.force {
		return misuse("say whose grant it is with --client-id and --token, as `raftlock get %s` shows them; or take the lock away from its holder with --force", args[0])
	}
	locks, err := r.dial()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, locks.Close()) }()
	if r.force {
		if err := r.lookUp(cmd.Context(), locks, args[0]); err != nil {
			return err
		}
	}
	done, err := locks.Release(cmd.Context(), &client.ReleaseRequest{LockID: args[0], ClientID: r.clientID, Version: r.token})
	if err != nil {
		return r.refused(args[0], err)
	}
	next := "nobody waits for it"
	if done.WaiterPromoted {
		next = "the next one in its queue has it"
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "released %s, which %s held with token %d; %s\n", args[0], r.clientID, r.token, next)
	return err
}

// lookUp finds out who holds the lock. What the command line says of that must
// be true: it is what the user believes to take away.
func (r *releasing) lookUp(ctx context.Context, locks client.RaftLockClient, name string) error {
	info, err := locks.GetLockInfo(ctx, &client.GetLockInfoRequest{LockID: name})
	switch {
	case errors.Is(err, client.ErrLockNotFound):
		return unknownLock(name)
	case err != nil:
		return explain(err)
	case info.OwnerID == "":
		return fmt.Errorf("nobody holds the lock %s", name)
	case r.clientID != "" && r.clientID != info.OwnerID, r.token != 0 && r.token != info.Version:
		return fmt.Errorf("the lock %s is held by %s with token %d, not as you say; leave out what you are not sure of", name, info.OwnerID, info.Version)
	}
	r.clientID, r.token = info.OwnerID, info.Version
	return nil
}

func (r *releasing) refused(name string, err error) error {
	e, _ := errors.AsType[*client.ClientError](err)
	switch {
	case errors.Is(err, client.ErrLockNotFound):
		return unknownLock(name)
	case errors.Is(err, client.ErrVersionMismatch):
		return fmt.Errorf("%s holds the lock %s with another token, %s: that grant is not yours to release", r.clientID, name, e.Details["version"])
	case errors.Is(err, client.ErrNotLockOwner) && e.Details["last_version"] != "":
		return fmt.Errorf("nobody holds the lock %s any more", name)
	case errors.Is(err, client.ErrNotLockOwner):
		return fmt.Errorf("%s does not hold the lock %s; `raftlock get %s` shows who does", r.clientID, name, name)
	}
	return explain(err)
}

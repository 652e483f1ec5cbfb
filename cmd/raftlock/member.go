package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/pb"
)

// memberEntry is a member as --json shows it.
type memberEntry struct {
	Name   string `json:"name"`
	Peer   string `json:"peer_address,omitempty"`
	Client string `json:"client_address,omitempty"`
	Leader bool   `json:"leader"`
	Voter  bool   `json:"voter"`
}

// memberChange is one of the commands that change something.
type memberChange struct {
	use, short, long string
	change           func(ctx context.Context, m pb.MembersClient, args []string) error
	done             string // what to tell, with the member's name
}

func memberChanges() []memberChange {
	return []memberChange{
		{
			"add NAME ADDRESS", "Make a place for a new member",
			"Makes a place for a new member, which the others reach at ADDRESS, host:port, and\nwhose name no member has or had. Start it then, with an empty data directory: it\ncatches up with the others and takes part in votes after that.",
			func(ctx context.Context, m pb.MembersClient, args []string) error {
				_, err := m.Add(ctx, &pb.AddMemberRequest{Name: args[0], PeerAddress: args[1]})
				return err
			},
			"%s has a place; start it now, with an empty data directory",
		},
		{
			"replace NAME", "Let a member that has lost its disk come back",
			"Lets a member whose data directory is gone come back with an empty one. Start it\nthen. What is left of the old one must not be started again: it is refused.",
			func(ctx context.Context, m pb.MembersClient, args []string) error {
				_, err := m.Replace(ctx, &pb.ReplaceMemberRequest{Name: args[0]})
				return err
			},
			"%s can come back; start it now, with an empty data directory",
		},
		{
			"remove NAME", "Take a member out of the cluster for good",
			"Takes a member out of the cluster for good. Its data directory is of no use then.",
			func(ctx context.Context, m pb.MembersClient, args []string) error {
				_, err := m.Remove(ctx, &pb.RemoveMemberRequest{Name: args[0]})
				return err
			},
			"%s is no member any more",
		},
		{
			"transfer NAME", "Hand the leadership to a member",
			"Hands the leadership to a member, before the leader's machine is taken down say.",
			func(ctx context.Context, m pb.MembersClient, args []string) error {
				_, err := m.Transfer(ctx, &pb.TransferLeadershipRequest{Name: args[0]})
				return err
			},
			"%s leads",
		},
	}
}

func memberCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "member",
		Short: "List and change the members of a cluster",
		Long: `Lists the members of a cluster, adds, replaces and removes them, and hands the
leadership over, where members are told to serve that (the gRPC service
raftlock.Members). Any member takes any of it. A change is done when a majority
has it on disk, and one is made at a time; to make one again is safe.`,
		Example: `  raftlock member list
  raftlock member replace n2
  raftlock member add n4 10.0.0.4:7101
  raftlock member transfer n3`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(memberListCommand())
	for _, c := range memberChanges() {
		cmd.AddCommand(memberChangeCommand(c))
	}
	return cmd
}

func memberChangeCommand(c memberChange) *cobra.Command {
	with := &connection{}
	cmd := &cobra.Command{
		Use: c.use, Short: c.short, Long: c.long, Args: exactly(strings.Fields(c.use)[1:]...),
		Example: "  raftlock member " + strings.NewReplacer("NAME", "n4", "ADDRESS", "10.0.0.4:7101").Replace(c.use),
		RunE: func(cmd *cobra.Command, args []string) error {
			err := with.askMembers(cmd.Context(), func(ctx context.Context, m pb.MembersClient) error {
				return c.change(ctx, m, args)
			})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), c.done+"\n", args[0])
			return err
		},
	}
	with.register(cmd)
	with.registerTimeout(cmd)
	return cmd
}

func memberListCommand() *cobra.Command {
	with, asJSON := &connection{}, false
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the members",
		Long:    "Lists the members as the cluster knows them; `raftlock status` asks each for itself.",
		Example: "  raftlock member list\n  raftlock member list --json",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list := []memberEntry{}
			err := with.askMembers(cmd.Context(), func(ctx context.Context, m pb.MembersClient) error {
				answer, err := m.List(ctx, &pb.ListMembersRequest{})
				for _, m := range answer.GetMembers() {
					list = append(list, memberEntry{m.GetName(), m.GetPeerAddress(), m.GetClientAddress(), m.GetIsLeader(), m.GetIsVoter()})
				}
				return err
			})
			switch {
			case err != nil:
				return err
			case asJSON:
				return printJSON(cmd.OutOrStdout(), list)
			}
			return printMembers(cmd.OutOrStdout(), list)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	with.register(cmd)
	with.registerTimeout(cmd)
	return cmd
}

func printMembers(out io.Writer, list []memberEntry) error {
	rows := [][]string{{"MEMBER", "PART", "PEERS REACH IT AT", "CLIENTS REACH IT AT"}}
	for _, m := range list {
		part := "voter"
		switch {
		case m.Leader:
			part = "leader"
		case !m.Voter:
			part = "learner"
		}
		rows = append(rows, []string{m.Name, part, orDash(m.Peer), orDash(m.Client)})
	}
	return table(out, rows)
}

// askMembers makes a call of the service raftlock.Members, at one endpoint after
// the other until one can be reached: any member takes any call, and to make one
// again is safe.
func (c *connection) askMembers(ctx context.Context, call func(context.Context, pb.MembersClient) error) error {
	cfg, err := c.config()
	if err != nil {
		return err
	}
	secured := insecure.NewCredentials()
	if cfg.TLS != nil {
		secured = credentials.NewTLS(cfg.TLS)
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.RequestTimeout)
	defer cancel()
	var failures []string
	for _, endpoint := range cfg.Endpoints {
		conn, err := grpc.NewClient("passthrough:///"+endpoint, grpc.WithTransportCredentials(secured), grpc.WithNoProxy())
		if err != nil {
			return misuse("--endpoints: %w", err)
		}
		err = call(ctx, pb.NewMembersClient(conn))
		if e := conn.Close(); err == nil { // not joined: a status would read otherwise
			err = e
		}
		said, ok := status.FromError(err)
		if !ok || said.Code() != codes.Unavailable || ctx.Err() != nil {
			return membersError(err)
		}
		failures = append(failures, endpoint+": "+dialling.ReplaceAllString(said.Message(), "$1"))
	}
	return explain(fmt.Errorf("%w: %s", client.ErrUnavailable, strings.Join(failures, "; ")))
}

// membersError is a refusal in words for people.
func membersError(err error) error {
	said, ok := status.FromError(err)
	switch {
	case err == nil:
		return nil
	case !ok:
		return err
	case said.Code() == codes.Unimplemented:
		return errors.New("this member does not serve changes of the membership; ask one that is told to")
	case said.Code() == codes.InvalidArgument:
		return fmt.Errorf("the cluster refuses this: %s", said.Message())
	case said.Code() == codes.DeadlineExceeded:
		return fmt.Errorf("no answer in time: %s; the change may have been made, and to make it again is safe", said.Message())
	}
	return errors.New(said.Message())
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/raftlock/raftlock/client"
)

func statusCommand() *cobra.Command {
	s := &asking{}
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Ask every endpoint how it is",
		Long: `Asks each of --endpoints for its own view, all at once: which member it is, its
part in the raft group, how far it has applied the log, how many locks are held,
and whether it can serve. The leader also tells how far the others are behind.

It exits with 0 if all of them serve, with 1 if some do not, and with 69 if none
answers.`,
		Example: `  raftlock status --endpoints 10.0.0.1:7001,10.0.0.2:7001,10.0.0.3:7001
  raftlock status --json`,
		Args: exactly(),
		RunE: s.run,
	}
	cmd.Flags().BoolVar(&s.json, "json", false, "print a JSON array, one object for each endpoint")
	s.register(cmd)
	s.registerTimeout(cmd)
	return cmd
}

type asking struct {
	connection
	json bool
}

// memberView is an endpoint's answer as --json shows it.
type memberView struct {
	Endpoint string              `json:"endpoint"`
	Serving  bool                `json:"serving"`
	Problem  string              `json:"problem,omitempty"`
	Member   string              `json:"member,omitempty"`
	Role     string              `json:"role,omitempty"`
	Leader   string              `json:"leader,omitempty"`
	Term     uint64              `json:"term,omitempty"`
	Commit   uint64              `json:"commit_index,omitempty"`
	Applied  uint64              `json:"applied_index,omitempty"`
	Snapshot uint64              `json:"snapshot_index,omitempty"`
	Locks    int32               `json:"locks"`
	Waiters  int32               `json:"waiters"`
	Uptime   float64             `json:"uptime_seconds,omitempty"`
	Peers    map[string]peerView `json:"peers,omitempty"`

	answered bool
}

// peerView is a member as its leader sees it.
type peerView struct {
	Match  uint64 `json:"match_index"`
	Lag    uint64 `json:"lag"`
	Active bool   `json:"active"`
}

func (s *asking) run(cmd *cobra.Command, _ []string) error {
	cfg, err := s.config()
	if err != nil {
		return err
	}
	cfg.RetryPolicy = client.RetryPolicy{InitialBackoff: time.Millisecond} // once: to repeat is up to the user
	views := make([]memberView, len(cfg.Endpoints))
	errs := make([]error, len(cfg.Endpoints))
	var all sync.WaitGroup
	for i, endpoint := range cfg.Endpoints {
		one := cfg
		one.Endpoints = []string{endpoint}
		all.Go(func() { views[i], errs[i] = s.ask(cmd.Context(), one) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if s.json {
		err = printJSON(cmd.OutOrStdout(), views)
	} else {
		err = s.print(cmd.OutOrStdout(), views)
	}
	if err != nil {
		return err
	}
	return verdict(views)
}

// ask asks one endpoint. An answer that does not come is an answer, too; an error
// is an endpoint that cannot be one.
func (s *asking) ask(ctx context.Context, cfg client.Config) (v memberView, err error) {
	v.Endpoint = cfg.Endpoints[0]
	member, err := dial(cfg)
	if err != nil {
		return v, err
	}
	defer func() { err = errors.Join(err, member.Close()) }()
	status, err := member.GetStatus(ctx, &client.GetStatusRequest{IncludeReplicationDetails: true})
	if err != nil {
		v.Problem = strings.TrimPrefix(reason(err), v.Endpoint+": ")
		return v, nil
	}
	v.answered = true
	v.fill(status)
	return v, nil
}

func (v *memberView) fill(status *client.ClusterStatus) {
	if raft := status.RaftStatus; raft != nil {
		v.Member, v.Role, v.Leader, v.Term = raft.NodeID, raft.Role, raft.LeaderID, raft.Term
		v.Commit, v.Applied, v.Snapshot = raft.CommitIndex, raft.LastApplied, raft.SnapshotIndex
		for name, peer := range raft.Replication {
			if v.Peers == nil {
				v.Peers = map[string]peerView{}
			}
			v.Peers[name] = peerView{Match: peer.MatchIndex, Lag: peer.ReplicationLag, Active: peer.IsActive}
		}
	}
	if stats := status.LockStats; stats != nil {
		v.Locks, v.Waiters = stats.ActiveLocksCount, stats.TotalWaitersCount
	}
	if health := status.Health; health != nil {
		v.Serving = health.Status == client.HealthStatusServing
		v.Uptime = health.Uptime.Round(time.Millisecond).Seconds()
		if !v.Serving {
			v.Problem = health.Message
		}
	}
}

func (s *asking) print(out io.Writer, views []memberView) error {
	rows := [][]string{{"ENDPOINT", "MEMBER", "ROLE", "LEADER", "TERM", "APPLIED", "LOCKS", "WAITERS", "UP", "STATE"}}
	var behind [][]string
	for _, v := range views {
		state := "serving"
		if !v.Serving {
			state = "not serving: " + orDash(v.Problem)
		}
		if !v.answered {
			rows = append(rows, []string{v.Endpoint, "-", "-", "-", "-", "-", "-", "-", "-", "no answer: " + v.Problem})
			continue
		}
		rows = append(rows, []string{
			v.Endpoint, orDash(v.Member), orDash(v.Role), orDash(v.Leader), fmt.Sprint(v.Term), fmt.Sprint(v.Applied),
			fmt.Sprint(v.Locks), fmt.Sprint(v.Waiters), span(v.Uptime), state,
		})
		for _, name := range slices.Sorted(maps.Keys(v.Peers)) {
			peer, alive := v.Peers[name], "no"
			if peer.Active {
				alive = "yes"
			}
			behind = append(behind, []string{name, fmt.Sprint(peer.Match), fmt.Sprint(peer.Lag), alive})
		}
	}
	if err := table(out, rows); err != nil || len(behind) == 0 {
		return err
	}
	if _, err := fmt.Fprintln(out, "\nThe others as the leader sees them:"); err != nil {
		return err
	}
	return table(out, append([][]string{{"MEMBER", "HAS", "BEHIND BY", "ANSWERS"}}, behind...))
}

// verdict is the exit code: the table has said the rest.
func verdict(views []memberView) error {
	answered, serving := 0, 0
	for _, v := range views {
		if v.answered {
			answered++
		}
		if v.Serving {
			serving++
		}
	}
	switch {
	case answered == 0:
		return &exit{code: exitNoCluster}
	case serving < len(views):
		return &exit{code: exitFailed}
	}
	return nil
}

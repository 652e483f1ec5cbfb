package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/raftlock/raftlock/embed"
)

func serveCommand() *cobra.Command {
	s := &serving{}
	cmd := &cobra.Command{
		Use:   "serve --name NAME --data-dir DIR",
		Short: "Run a member of a cluster for programs that do not embed one",
		Long: `Runs one member of a lock cluster until it is told to end. First start and restart
are the same command line. Without --initial-cluster it is a cluster of one.

When the member can serve it prints one line on standard output,

  ready name=n1 client=127.0.0.1:7001 peer=127.0.0.1:7101

and nothing else; its log goes to standard error. SIGTERM and SIGINT end it
gracefully: who waits in a queue is sent to another member and keeps the place,
the leadership is handed over, and the exit code is 0. A member that fails exits
with 1. Every flag can come from the environment: --data-dir from
RAFTLOCK_DATA_DIR, and so on. docs/operations.md tells how to run members.`,
		Example: `  raftlock serve --name n1 --data-dir /var/lib/raftlock
  raftlock serve --name n1 --data-dir d1 --listen-client 127.0.0.1:7001 \
    --listen-peer 127.0.0.1:7101 --initial-cluster n1=127.0.0.1:7101,n2=127.0.0.1:7102,n3=127.0.0.1:7103`,
		Args: cobra.NoArgs,
		RunE: s.run,
	}
	s.register(cmd)
	return cmd
}

// serving is the serve command.
type serving struct {
	cfg          embed.Config
	cluster      string
	client, peer papersOf
	health       string
	level        string
}

func (s *serving) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.cfg.Name, "name", "", "`name` of this member, unique in the cluster and the same at every start")
	f.StringVar(&s.cfg.DataDir, "data-dir", "", "`directory` of this member alone; made if it is missing")
	f.StringVar(&s.cluster, "initial-cluster", "", "all members of the first start, this one included, and where peers reach them: `name=host:port,...`")
	f.StringVar(&s.cfg.ClusterName, "cluster-name", "", "`name` that keeps clusters apart; default: raftlock")
	f.StringVar(&s.cfg.ListenClient, "listen-client", "127.0.0.1:7001", "`address` to serve programs at, host:port")
	f.StringVar(&s.cfg.AdvertiseClient, "advertise-client", "", "`address` at which programs reach this member, if it is another one")
	f.StringVar(&s.cfg.ListenPeer, "listen-peer", "", "`address` to listen for the other members at; default: this member's in --initial-cluster")
	s.client.register(cmd, "client", "programs")
	s.peer.register(cmd, "peer", "other members")
	f.BoolVar(&s.cfg.Insecure, "insecure", false, "allow connections without TLS from other machines")
	f.BoolVar(&s.cfg.ServeMembers, "allow-member-changes", false, "let clients change who belongs to the cluster (raftlock member)")
	f.DurationVar(&s.cfg.TickInterval, "tick-interval", 0, "`unit` of raft's time, more than the round trip between members; default: 50ms")
	f.IntVar(&s.cfg.ElectionTicks, "election-ticks", 0, "`number` of ticks without a leader until a member wants to be one; default: 10")
	f.StringVar(&s.health, "listen-health", "", "`address` to answer HTTP requests about this member's health at: 200 or 503")
	f.StringVar(&s.level, "log-level", "info", "least `level` that is logged: debug, info, warn or error")
	fromEnvironment(cmd, "name", "data-dir", "initial-cluster", "cluster-name", "listen-client", "advertise-client",
		"listen-peer", "client-cert", "client-key", "client-ca", "peer-cert", "peer-key", "peer-ca", "insecure", "allow-member-changes",
		"tick-interval", "election-ticks", "listen-health", "log-level")
}

// config completes the member's configuration from what the flags say.
func (s *serving) config(errOut io.Writer) (cfg embed.Config, err error) {
	cfg = s.cfg
	for _, f := range []struct{ flag, value string }{{"--name", cfg.Name}, {"--data-dir", cfg.DataDir}} {
		if f.value == "" {
			return cfg, misuse("%s is required", f.flag)
		}
	}
	if s.cluster != "" {
		if cfg.InitialCluster, err = embed.ParseCluster(s.cluster); err != nil {
			return cfg, misuse("--initial-cluster: %w", err)
		}
	}
	if cfg.ClientTLS, err = s.client.config("client"); err != nil {
		return cfg, err
	}
	if cfg.PeerTLS, err = s.peer.config("peer"); err != nil {
		return cfg, err
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(s.level)); err != nil {
		return cfg, misuse("--log-level %q is not debug, info, warn or error", s.level)
	}
	cfg.Logger = slog.New(slog.NewTextHandler(errOut, &slog.HandlerOptions{Level: level}))
	return cfg, nil
}

func (s *serving) run(cmd *cobra.Command, _ []string) error {
	cfg, err := s.config(cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	m, err := embed.Open(cfg)
	if err != nil {
		return &exit{exitFailed, flagged(err)}
	}
	stopHealth, err := serveHealth(s.health, m)
	if err != nil {
		return &exit{exitFailed, errors.Join(err, m.Close())}
	}
	defer stopHealth()
	if err := attend(cmd.Context(), cmd.OutOrStdout(), cfg.Name, m); err != nil {
		return &exit{exitFailed, errors.Join(err, m.Close())}
	}
	if err := m.Close(); err != nil {
		return &exit{exitFailed, err}
	}
	return nil
}

// attend tells when a member serves, and returns when it has ended, or should.
func attend(ctx context.Context, out io.Writer, name string, m *embed.Member) error {
	select {
	case <-m.Ready():
		_, err := fmt.Fprintf(out, "ready name=%s client=%s peer=%s\n", name, m.ClientAddr(), m.PeerAddr())
		if err != nil {
			return err
		}
	case <-m.Done():
	case <-ctx.Done():
	}
	select {
	case <-m.Done():
		return m.Err()
	case <-ctx.Done():
		return nil
	}
}

// serveHealth answers HTTP requests about a member, until it is stopped.
func serveHealth(addr string, m *embed.Member) (stop func(), err error) {
	if addr == "" {
		return func() {}, nil
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for --listen-health: %w", err)
	}
	server := &http.Server{Handler: m.HealthHandler(), ReadHeaderTimeout: 5 * time.Second}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(l) // it ends when it is closed
	}()
	return func() {
		_ = server.Close() // nothing is lost with it
		<-served
	}, nil
}

// flagged is a member's error in the words of this command: a configuration's
// fields have other names here.
func flagged(err error) error {
	return errors.New(strings.NewReplacer(
		"config: Name:", "--name:", "config: ClusterName:", "--cluster-name:", "config: DataDir:", "--data-dir:",
		"config: InitialCluster:", "--initial-cluster:", "config: ListenPeer:", "--listen-peer:",
		"config: ListenClient:", "--listen-client:", "config: AdvertiseClient:", "--advertise-client:",
		"config: ClientTLS:", "--client-cert:", "config: PeerTLS:", "--peer-cert:",
		"config: TickInterval:", "--tick-interval:", "config: ElectionTicks:", "--election-ticks:",
		"(or set Insecure)", "(or give --insecure)",
	).Replace(err.Error()))
}

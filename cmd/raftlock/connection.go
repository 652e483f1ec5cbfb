package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/raftlock/raftlock/client"
)

// connection is how a command finds its cluster.
type connection struct {
	endpoints             []string
	secure, insecure      bool
	ca, cert, key, server string
	timeout               time.Duration // of each call; 0 is the client's own
}

// register adds the flags; each can come from the environment too.
func (c *connection) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringSliceVar(&c.endpoints, "endpoints", []string{"127.0.0.1:7001"}, "`addresses` of members, host:port, separated by commas; name all of them")
	f.BoolVar(&c.secure, "tls", false, "use TLS; so do --ca, --cert and --server-name")
	f.StringVar(&c.ca, "ca", "", "`file` of the authorities that members' certificates come from, PEM; default: the system's")
	f.StringVar(&c.cert, "cert", "", "`file` of the own certificate, PEM, for members that ask for one")
	f.StringVar(&c.key, "key", "", "`file` of the certificate's key, PEM")
	f.StringVar(&c.server, "server-name", "", "`name` that members' certificates must have; default: the endpoint's host")
	f.BoolVar(&c.insecure, "insecure", false, "allow connections without TLS to other machines")
	fromEnvironment(cmd, "endpoints", "tls", "ca", "cert", "key", "server-name", "insecure")
}

// registerTimeout adds the bound of a command that makes a call or two.
func (c *connection) registerTimeout(cmd *cobra.Command) {
	cmd.Flags().DurationVar(&c.timeout, "timeout", 10*time.Second, "how `long` the cluster may take to answer")
	fromEnvironment(cmd, "timeout")
}

// config is a client's configuration for all endpoints.
func (c *connection) config() (client.Config, error) {
	cfg := client.DefaultClientConfig()
	if c.timeout < 0 {
		return client.Config{}, misuse("--timeout %v must not be negative", c.timeout)
	} else if c.timeout > 0 {
		cfg.RequestTimeout = c.timeout
	}
	for _, endpoint := range c.endpoints {
		if endpoint = strings.TrimSpace(endpoint); endpoint != "" {
			cfg.Endpoints = append(cfg.Endpoints, endpoint)
		}
	}
	if len(cfg.Endpoints) == 0 {
		return client.Config{}, misuse("--endpoints names no member: give host:port, or several, separated by commas")
	}
	if c.secure || c.ca != "" || c.cert != "" || c.key != "" || c.server != "" {
		own, err := c.tls()
		if err != nil {
			return client.Config{}, err
		}
		cfg.TLS = own
		return cfg, nil
	}
	for _, endpoint := range cfg.Endpoints {
		if !c.insecure && !isLoopback(endpoint) {
			return client.Config{}, misuse("%s is on another machine, and the connection would not be encrypted: use --tls or --ca, or --insecure if the network can be trusted", endpoint)
		}
	}
	return cfg, nil
}

func (c *connection) tls() (*tls.Config, error) {
	own := &tls.Config{ServerName: c.server, MinVersion: tls.VersionTLS12}
	if c.insecure {
		return nil, misuse("--insecure means no TLS, but other flags ask for it")
	}
	if (c.cert == "") != (c.key == "") {
		return nil, misuse("--cert and --key belong together")
	}
	if c.cert != "" {
		pair, err := tls.LoadX509KeyPair(c.cert, c.key)
		if err != nil {
			return nil, misuse("read --cert and --key: %w", err)
		}
		own.Certificates = []tls.Certificate{pair}
	}
	if c.ca != "" {
		pool, err := authorities("--ca", c.ca)
		if err != nil {
			return nil, err
		}
		own.RootCAs = pool
	}
	return own, nil
}

// dial makes a client, which connects when it is used.
func (c *connection) dial() (client.Client, error) {
	cfg, err := c.config()
	if err != nil {
		return nil, err
	}
	return dial(cfg)
}

func dial(cfg client.Config) (client.Client, error) {
	locks, err := client.Dial(cfg)
	if fault, ok := errors.AsType[*client.ValidationError](err); ok {
		return nil, misuse("--endpoints: %v %s", fault.Value, fault.Message)
	}
	if err != nil {
		return nil, misuse("%w", err)
	}
	return locks, nil
}

// explain says what the user can do about an error of a client.
func explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, client.ErrUnavailable):
		return &exit{exitNoCluster, fmt.Errorf("no member can be reached: %s; see --endpoints, and `raftlock serve` starts a member", reason(err))}
	case errors.Is(err, client.ErrLeaderUnavailable):
		return &exit{exitNoCluster, fmt.Errorf("the cluster has no leader: %s; a majority must be up, and `raftlock status` shows who is", reason(err))}
	}
	return errors.New(reason(err))
}

// dialling is how gRPC tells that a connection could not be made; the address
// stands before it already.
var dialling = regexp.MustCompile(`connection error: desc = "transport: Error while dialing: (?:dial tcp \S+: )?(?:connect: )?([^"]*)"`)

// reason is what a client's error says, without what is for programs.
func reason(err error) string {
	if e, ok := errors.AsType[*client.ClientError](err); ok {
		err = e.Err
	}
	text := err.Error()
	for _, known := range []error{client.ErrUnavailable, client.ErrLeaderUnavailable} { // which the caller has said
		text = strings.TrimPrefix(text, known.Error()+": ")
	}
	return dialling.ReplaceAllString(text, "$1")
}

func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return true // which is refused elsewhere
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

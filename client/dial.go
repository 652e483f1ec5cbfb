package client

import (
	"fmt"
	"net"
	"slices"
)

// Dial returns a client of the cluster whose members listen at cfg.Endpoints. It
// does no I/O: the first call connects, to all endpoints at once, and members
// that are down when a program starts do not keep it from starting.
//
// The client sends calls to the leader as soon as an answer has named it, and to
// any other member that it can reach before that and in between: members pass
// calls on. What fails on the way is repeated as cfg.RetryPolicy says, under one
// identity, so that a repeat never takes a second grant. Renewals, releases and
// withdrawals have connections of their own and do not queue behind other calls.
//
// The first cluster that answers is the one that the client stays with: a member
// of another one counts as failed, and the error names both.
//
// Close ends the calls that are under way, with ErrClientClosed, withdraws those
// that may have been applied and carry a RequestID, closes the connections and
// returns within about three seconds.
//
// Errors: ErrInvalidArgument, around a *ValidationError for every field that is
// out of bounds, or around what gRPC says about TLS and DialOptions.
func Dial(cfg Config) (Client, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("dial: %w: %w", ErrInvalidArgument, err)
	}
	cfg = cfg.withDefaults()
	cfg.Endpoints = slices.Clone(cfg.Endpoints)
	cfg.DialOptions = slices.Clone(cfg.DialOptions)
	cfg.RetryPolicy.RetryableErrors = slices.Clone(cfg.RetryPolicy.RetryableErrors)
	c, err := newRemote(cfg, net.DefaultResolver.LookupHost)
	if err != nil {
		return nil, fmt.Errorf("dial: %w: %w", ErrInvalidArgument, err)
	}
	return c, nil
}

// NewRaftLockClient is Dial for a program that takes locks.
func NewRaftLockClient(config Config) (RaftLockClient, error) {
	c, err := Dial(config)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// NewAdminClient is Dial for a program that looks at members.
func NewAdminClient(config Config) (AdminClient, error) {
	c, err := Dial(config)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// NewAdvancedClient is Dial for a program that handles queues by hand.
func NewAdvancedClient(config Config) (AdvancedClient, error) {
	c, err := Dial(config)
	if err != nil {
		return nil, err
	}
	return c, nil
}

package client

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"google.golang.org/grpc"
)

// What a Config means where it is silent.
const (
	defaultDialTimeout      = 5 * time.Second
	defaultRequestTimeout   = 30 * time.Second
	defaultKeepAliveTime    = 30 * time.Second
	defaultKeepAliveTimeout = 5 * time.Second
	defaultMaxMessageSize   = 16 << 20
)

// Config holds the settings of a client that talks to a cluster over the
// network. Only Endpoints is needed: zero durations and sizes mean the
// default. DefaultClientConfig writes the defaults out.
type Config struct {
	// Endpoints are addresses of members, host:port, in any order; at least
	// one. A name with several addresses counts as several endpoints. List all
	// members: the client finds the leader from any of them, but from none that
	// it was not told of.
	Endpoints []string

	// DialTimeout bounds one attempt to connect to one endpoint. Default 5 s.
	// Too short, and a slow network looks dead; too long, and a dead member
	// delays the first call.
	DialTimeout time.Duration

	// RequestTimeout bounds a call over all its attempts, not counting the time
	// that an Acquire waits in the queue. Default 30 s. A context that ends
	// sooner comes first.
	RequestTimeout time.Duration

	// KeepAlive says when to ping an idle connection. If the struct is zero as
	// a whole the default is used, otherwise it is taken as written.
	KeepAlive KeepAliveConfig

	// RetryPolicy says when and how often a call is repeated. If the struct is
	// zero as a whole the default is used, otherwise it is taken as written
	// (MaxRetries 0 is then no retry).
	RetryPolicy RetryPolicy

	// EnableMetrics has the client count what it does. It is taken as written:
	// off in a zero Config, on in DefaultClientConfig.
	EnableMetrics bool

	// MaxMessageSize bounds a message in either direction, in bytes. Default
	// 16 MiB. Below 4 MiB a long list of locks may not fit.
	MaxMessageSize int

	// TLS secures the connections. Nil means none: the network in between can
	// then read and take over every lock.
	TLS *tls.Config

	// DialOptions are added, last, to the gRPC options of each connection: for
	// credentials, interceptors, a dialer of one's own. An interceptor must pass
	// on the context it is given, or one made from it: with another, a call that
	// fails after it was sent is taken for one that never was.
	DialOptions []grpc.DialOption
}

// DefaultClientConfig returns the defaults, without endpoints. The caller may
// change every part of it.
func DefaultClientConfig() Config {
	return Config{
		DialTimeout:    defaultDialTimeout,
		RequestTimeout: defaultRequestTimeout,
		KeepAlive: KeepAliveConfig{
			Time:                defaultKeepAliveTime,
			Timeout:             defaultKeepAliveTimeout,
			PermitWithoutStream: true,
		},
		RetryPolicy:    DefaultRetryPolicy(),
		EnableMetrics:  true,
		MaxMessageSize: defaultMaxMessageSize,
	}
}

// KeepAliveConfig says how a client finds out that a quiet connection is dead.
type KeepAliveConfig struct {
	// Time is how long a connection may be quiet before the client pings.
	// Default 30 s. A member closes connections that ping more often than
	// every 5 s, and gRPC raises anything below 10 s to 10 s.
	Time time.Duration

	// Timeout is how long the answer to a ping may take before the connection
	// counts as dead. Default 5 s. Too short, and a stall of the network costs
	// the connection.
	Timeout time.Duration

	// PermitWithoutStream pings also when no call is under way, so that the
	// first call after a pause does not meet a dead connection. Default true.
	PermitWithoutStream bool
}

// withDefaults fills in what the configuration leaves open.
func (c Config) withDefaults() Config {
	defaults := DefaultClientConfig()
	if c.DialTimeout == 0 {
		c.DialTimeout = defaults.DialTimeout
	}
	if c.RequestTimeout == 0 {
		c.RequestTimeout = defaults.RequestTimeout
	}
	if c.KeepAlive == (KeepAliveConfig{}) {
		c.KeepAlive = defaults.KeepAlive
	}
	if c.RetryPolicy.isZero() {
		c.RetryPolicy = defaults.RetryPolicy
	}
	if c.MaxMessageSize == 0 {
		c.MaxMessageSize = defaults.MaxMessageSize
	}
	return c
}

// validate reports everything that is wrong, each as a *ValidationError.
func (c *Config) validate() error {
	var faults []error
	check := func(ok bool, field string, value any, message string) {
		if !ok {
			faults = append(faults, NewValidationError(field, value, message))
		}
	}
	check(len(c.Endpoints) > 0, "Endpoints", c.Endpoints, "must name at least one member")
	for i, endpoint := range c.Endpoints {
		why := faultOfAddress(endpoint)
		check(why == "", fmt.Sprintf("Endpoints[%d]", i), endpoint, why)
	}
	check(c.DialTimeout >= 0, "DialTimeout", c.DialTimeout, "must not be negative")
	check(c.RequestTimeout >= 0, "RequestTimeout", c.RequestTimeout, "must not be negative")
	check(c.MaxMessageSize >= 0, "MaxMessageSize", c.MaxMessageSize, "must not be negative")
	check(c.KeepAlive.Time >= 0, "KeepAlive.Time", c.KeepAlive.Time, "must not be negative")
	check(c.KeepAlive.Timeout >= 0, "KeepAlive.Timeout", c.KeepAlive.Timeout, "must not be negative")
	c.RetryPolicy.check(check)
	return errors.Join(faults...)
}

// faultOfAddress says what keeps an address from being dialled, "" if nothing
// does.
func faultOfAddress(address string) string {
	host, port, err := net.SplitHostPort(address)
	switch {
	case err != nil:
		return "must be host:port"
	case host == "":
		return "must be host:port, and has no host"
	}
	if number, err := strconv.ParseUint(port, 10, 16); err != nil || number == 0 {
		return "must be host:port, with a port from 1 to 65535"
	}
	return ""
}

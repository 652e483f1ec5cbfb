package client

import (
	"fmt"
	"slices"
	"time"

	"github.com/raftlock/raftlock/pb"
)

// RaftLockClientBuilder collects the settings of a client and makes it. Each
// With method changes the builder and returns it. A builder is for one
// goroutine; each Build makes another client, which does not see later changes.
type RaftLockClientBuilder struct {
	config Config
}

// NewRaftLockClientBuilder returns a builder with the default settings and the
// given endpoints, host:port each.
func NewRaftLockClientBuilder(endpoints []string) *RaftLockClientBuilder {
	b := &RaftLockClientBuilder{config: DefaultClientConfig()}
	return b.WithEndpoints(endpoints)
}

// WithEndpoints replaces the endpoints.
func (b *RaftLockClientBuilder) WithEndpoints(endpoints []string) *RaftLockClientBuilder {
	b.config.Endpoints = slices.Clone(endpoints)
	return b
}

// WithTimeouts sets Config.DialTimeout and Config.RequestTimeout. One that is
// not positive stays as it was.
func (b *RaftLockClientBuilder) WithTimeouts(dialTimeout, requestTimeout time.Duration) *RaftLockClientBuilder {
	setPositive(&b.config.DialTimeout, dialTimeout)
	setPositive(&b.config.RequestTimeout, requestTimeout)
	return b
}

// WithKeepAlive sets Config.KeepAlive. A duration that is not positive stays as
// it was.
func (b *RaftLockClientBuilder) WithKeepAlive(time, timeout time.Duration, permitWithoutStream bool) *RaftLockClientBuilder {
	setPositive(&b.config.KeepAlive.Time, time)
	setPositive(&b.config.KeepAlive.Timeout, timeout)
	b.config.KeepAlive.PermitWithoutStream = permitWithoutStream
	return b
}

// WithRetryPolicy replaces the retry policy. It is taken as written; the zero
// policy is the default one.
func (b *RaftLockClientBuilder) WithRetryPolicy(policy RetryPolicy) *RaftLockClientBuilder {
	policy.RetryableErrors = slices.Clone(policy.RetryableErrors)
	b.config.RetryPolicy = policy
	return b
}

// WithRetryOptions sets how often and at which pace calls are repeated. A value
// that is not positive stays as it was; WithRetryPolicy can set zeros.
func (b *RaftLockClientBuilder) WithRetryOptions(maxRetries int, initialBackoff, maxBackoff time.Duration, multiplier float64) *RaftLockClientBuilder {
	p := &b.config.RetryPolicy
	setPositive(&p.MaxRetries, maxRetries)
	setPositive(&p.InitialBackoff, initialBackoff)
	setPositive(&p.MaxBackoff, maxBackoff)
	setPositive(&p.BackoffMultiplier, multiplier)
	return b
}

// WithRetryableErrors sets the codes that a call is repeated on; without any,
// none is.
func (b *RaftLockClientBuilder) WithRetryableErrors(codes ...pb.ErrorCode) *RaftLockClientBuilder {
	b.config.RetryPolicy.RetryableErrors = append([]pb.ErrorCode{}, codes...)
	return b
}

// WithMetrics sets Config.EnableMetrics.
func (b *RaftLockClientBuilder) WithMetrics(enabled bool) *RaftLockClientBuilder {
	b.config.EnableMetrics = enabled
	return b
}

// WithMaxMessageSize sets Config.MaxMessageSize, in bytes. One that is not
// positive stays as it was.
func (b *RaftLockClientBuilder) WithMaxMessageSize(size int) *RaftLockClientBuilder {
	setPositive(&b.config.MaxMessageSize, size)
	return b
}

// Build makes a client that takes locks; see Dial.
func (b *RaftLockClientBuilder) Build() (RaftLockClient, error) { return built[RaftLockClient](b) }

// BuildAdmin makes a client that looks at members; see Dial.
func (b *RaftLockClientBuilder) BuildAdmin() (AdminClient, error) { return built[AdminClient](b) }

// BuildAdvanced makes a client that handles queues; see Dial.
func (b *RaftLockClientBuilder) BuildAdvanced() (AdvancedClient, error) {
	return built[AdvancedClient](b)
}

// built makes a client, as one of the interfaces that it has: a failed Build
// must return a nil one.
func built[C interface{ Close() error }](b *RaftLockClientBuilder) (C, error) {
	var none C
	if len(b.config.Endpoints) == 0 {
		return none, noEndpointError{NewValidationError("Endpoints", b.config.Endpoints, "must name at least one member")}
	}
	c, err := Dial(b.config)
	if err != nil {
		return none, fmt.Errorf("builder: %w", err)
	}
	return any(c).(C), nil
}

// noEndpointError is what a builder without endpoints fails with. Its text is
// part of the published API.
type noEndpointError struct{ fault *ValidationError }

func (noEndpointError) Error() string     { return "builder: at least one endpoint must be set" }
func (e noEndpointError) Unwrap() []error { return []error{ErrInvalidArgument, e.fault} }

func setPositive[N int | float64 | time.Duration](field *N, value N) {
	if value > 0 {
		*field = value
	}
}

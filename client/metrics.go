package client

import "time"

// Metrics counts what one client does. Operations are named after the methods
// of the interfaces, "Acquire" and so on; one that was never counted reads as
// zero. All methods may be called from any number of goroutines, and none
// blocks for long.
type Metrics interface {
	// IncrSuccess counts a call that succeeded.
	IncrSuccess(operation string)

	// IncrFailure counts a call that failed or was refused.
	IncrFailure(operation string)

	// IncrRetry counts one repeated attempt.
	IncrRetry(operation string)

	// IncrLeaderRedirect counts a call that went to another member because
	// that one leads.
	IncrLeaderRedirect()

	// ObserveLatency takes in how long a call took, over all its attempts.
	ObserveLatency(operation string, d time.Duration)

	// SetConnectionCount notes how many connections stand.
	SetConnectionCount(count int)

	// GetRequestCount returns how many calls ended, either way.
	GetRequestCount(operation string) uint64

	// GetSuccessCount returns how many calls succeeded.
	GetSuccessCount(operation string) uint64

	// GetFailureCount returns how many calls failed or were refused.
	GetFailureCount(operation string) uint64

	// GetRetryCount returns how many attempts were repeats.
	GetRetryCount(operation string) uint64

	// GetSuccessRate returns the share of calls that succeeded, 0 to 1; 0 if
	// there were none.
	GetSuccessRate(operation string) float64

	// GetAverageLatency returns how long a call took on average.
	GetAverageLatency(operation string) time.Duration

	// GetMaxLatency returns how long the slowest call took.
	GetMaxLatency(operation string) time.Duration

	// GetLeaderRedirectCount returns how many calls were sent on to a leader.
	GetLeaderRedirectCount() uint64

	// GetConnectionCount returns how many connections stand.
	GetConnectionCount() int

	// Reset sets every count back to zero, the number of connections too until
	// it changes next.
	Reset()

	// Snapshot returns a copy of all counts, taken at one moment.
	Snapshot() MetricsSnapshot
}

// MetricsSnapshot is what Metrics had counted at one moment. It belongs to the
// caller.
type MetricsSnapshot struct {
	// Operations holds the counts of each operation by its name.
	Operations map[string]OperationMetrics

	// LeaderRedirects is how many calls were sent on to a leader.
	LeaderRedirects uint64

	// Connections is how many connections stood.
	Connections int
}

// OperationMetrics are the counts of one operation.
type OperationMetrics struct {
	// Requests is how many calls ended, either way.
	Requests uint64

	// Successes is how many of them succeeded.
	Successes uint64

	// Failures is how many of them failed or were refused.
	Failures uint64

	// Retries is how many attempts were repeats.
	Retries uint64

	// Latency is how long all calls took together.
	Latency time.Duration

	// MaxLatency is how long the slowest took.
	MaxLatency time.Duration
}

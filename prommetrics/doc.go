// Package prommetrics shows what a client counts (client.Metrics) to Prometheus.
// It stands apart so that programs which do not use Prometheus do not link it.
//
//	c, err := client.NewAdvancedClient(cfg)
//	…
//	registry.MustRegister(prommetrics.New(c.GetMetrics()))
//
// It promises to read the counts at each scrape, all at one moment, and to keep
// nothing itself: there is no goroutine, and nothing to close. It registers
// nothing anywhere; the registry is the caller's. Several clients in one registry
// need a label each:
//
//	prometheus.WrapRegistererWith(prometheus.Labels{"client": "billing"}, registry).
//		MustRegister(prommetrics.New(c.GetMetrics()))
//
// # The metrics
//
//	raftlock_client_calls_total{operation,result}      calls that ended; result is success or failure, refusals included
//	raftlock_client_retries_total{operation}           attempts that were repeats
//	raftlock_client_call_seconds{operation}            a summary without quantiles: how many calls, and how long together
//	raftlock_client_call_seconds_max{operation}        the slowest call since the client was made, or was reset
//	raftlock_client_leader_redirects_total             calls that a member sent on to the leader
//	raftlock_client_connections                        connections that stand
//
// An operation is a method of the client, such as Acquire; one that was never
// called has no series. The time of an Acquire includes its wait in the queue.
package prommetrics

package prommetrics_test

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/goleak"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/prommetrics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// counted is a client's metrics after some calls.
func counted() (client.Metrics, func()) {
	cfg := client.DefaultClientConfig()
	cfg.Endpoints = []string{"127.0.0.1:7001"} // nobody is called
	c, err := client.NewAdvancedClient(cfg)
	if err != nil {
		panic(err)
	}
	m := c.GetMetrics()
	m.IncrSuccess("Acquire")
	m.IncrSuccess("Acquire")
	m.IncrFailure("Acquire")
	m.IncrRetry("Acquire")
	m.ObserveLatency("Acquire", time.Second)
	m.ObserveLatency("Acquire", 2*time.Second)
	m.ObserveLatency("Acquire", 500*time.Millisecond)
	m.IncrLeaderRedirect()
	m.SetConnectionCount(2)
	return m, func() { _ = c.Close() }
}

// scrape returns what a registry with the collectors shows.
func scrape(t *testing.T, collectors ...prometheus.Collector) string {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(collectors...)
	out := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(out, httptest.NewRequest("GET", "/metrics", nil))
	if out.Code != 200 {
		t.Fatalf("status %d: %s", out.Code, out.Body)
	}
	return out.Body.String()
}

func TestCollector(t *testing.T) {
	m, end := counted()
	defer end()
	got := scrape(t, prommetrics.New(m))
	for _, line := range []string{
		`raftlock_client_calls_total{operation="Acquire",result="success"} 2`,
		`raftlock_client_calls_total{operation="Acquire",result="failure"} 1`,
		`raftlock_client_retries_total{operation="Acquire"} 1`,
		`raftlock_client_call_seconds_sum{operation="Acquire"} 3.5`,
		`raftlock_client_call_seconds_count{operation="Acquire"} 3`,
		`raftlock_client_call_seconds_max{operation="Acquire"} 2`,
		`raftlock_client_leader_redirects_total 1`,
		`raftlock_client_connections 2`,
		`# TYPE raftlock_client_calls_total counter`,
		`# TYPE raftlock_client_call_seconds summary`,
		`# TYPE raftlock_client_connections gauge`,
	} {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("no line %q in\n%s", line, got)
		}
	}
	m.IncrSuccess("Renew")
	if got := scrape(t, prommetrics.New(m)); !strings.Contains(got, `{operation="Renew",result="success"} 1`) {
		t.Errorf("a later call does not show in\n%s", got)
	}
}

// A client without metrics has nothing to show, and nothing breaks.
func TestNoMetrics(t *testing.T) {
	if got := scrape(t, prommetrics.New(nil)); got != "" {
		t.Errorf("shows %s", got)
	}
}

// Several clients share a registry under labels of their own.
func TestSeveralClients(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	for _, name := range []string{"a", "b"} {
		m, end := counted()
		defer end()
		if err := prometheus.WrapRegistererWith(prometheus.Labels{"client": name}, registry).Register(prommetrics.New(m)); err != nil {
			t.Fatal(err)
		}
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "raftlock_client_connections" && len(f.GetMetric()) != 2 {
			t.Errorf("%d series", len(f.GetMetric()))
		}
	}
	if len(families) != 6 {
		t.Errorf("%d families", len(families))
	}
}

func ExampleNew() {
	m, end := counted() // a client's GetMetrics
	defer end()
	registry := prometheus.NewRegistry()
	registry.MustRegister(prommetrics.New(m))
	families, err := registry.Gather()
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, f := range families {
		fmt.Println(f.GetName())
	}
	// Output:
	// raftlock_client_call_seconds
	// raftlock_client_call_seconds_max
	// raftlock_client_calls_total
	// raftlock_client_connections
	// raftlock_client_leader_redirects_total
	// raftlock_client_retries_total
}

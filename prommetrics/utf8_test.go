package prommetrics_test

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/prommetrics"
)

type oddNames struct{ client.Metrics }

func (oddNames) Snapshot() client.MetricsSnapshot {
	s := client.MetricsSnapshot{}
	s.Operations = map[string]client.OperationMetrics{"a\xff": {}}
	return s
}

func TestANameThatIsNoUTF8(t *testing.T) {
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(prommetrics.New(oddNames{}))
	if _, err := r.Gather(); err != nil {
		t.Error(err)
	}
}

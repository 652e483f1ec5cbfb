package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/raftlock/raftlock/testcluster"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// All nine invoices are written, each instance's in its order.
func TestRun(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	for _, name := range []string{"n1", "n2", "n3"} {
		var customers []string
		for i, line := range lines {
			var number int
			var customer, by string
			if _, err := fmt.Sscanf(line, "%d  %s  by %s", &number, &customer, &by); err != nil || number != i+1 {
				t.Fatalf("line %d is %q: %v", i, line, err)
			}
			if by == "billing-"+name {
				customers = append(customers, customer)
			}
		}
		if !slices.Equal(customers, []string{"Ada", "Grace", "Edsger"}) {
			t.Errorf("%s wrote for %v", name, customers)
		}
	}
}

func TestInvoicesSurviveTheLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // virtual time: minutes cost milliseconds
		cluster := testcluster.New(t, 3)
		shared := &book{}
		one := &invoicer{id: "one", locks: cluster.Client(), book: shared}
		two := &invoicer{id: "two", locks: cluster.Client(), book: shared}
		if err := one.invoice(t.Context(), "Ada"); err != nil {
			t.Fatal(err)
		}
		crashed := cluster.CrashLeader()
		if err := two.invoice(t.Context(), "Grace"); err != nil {
			t.Fatal(err)
		}
		cluster.Restart(crashed)
		time.Sleep(time.Minute)
		if err := one.invoice(t.Context(), "Edsger"); err != nil {
			t.Fatal(err)
		}
	})
}

package e2e

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// childEnv holds the configuration of a member; who finds it is one.
const childEnv = "RAFTLOCK_E2E_MEMBER"

// customerEnv holds the configuration of a customer.
const customerEnv = "RAFTLOCK_E2E_CUSTOMER"

func TestMain(m *testing.M) {
	if text := os.Getenv(childEnv); text != "" {
		os.Exit(runChild(text))
	}
	if text := os.Getenv(customerEnv); text != "" {
		os.Exit(runCustomer(text))
	}
	goleak.VerifyTestMain(m)
}

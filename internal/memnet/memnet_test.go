package memnet_test

import (
	"fmt"
	"testing"

	"go.uber.org/goleak"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/internal/memnet"
	"github.com/raftlock/raftlock/internal/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func factory(testing.TB) transporttest.Open {
	network := memnet.New()
	fresh := 0
	return func(addr string) (raftlock.Transport, string) {
		if addr == "" {
			fresh++
			addr = fmt.Sprintf("m%d", fresh)
		}
		return network.Transport(addr), addr
	}
}

func TestContract(t *testing.T) { transporttest.Run(t, factory) }

func TestContractInBubble(t *testing.T) { transporttest.RunInBubble(t, factory) }

package testcluster

import (
	"errors"
	"testing"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/pb"
)

// That the last attempt was not proposed says nothing of those before.
func TestUnsureCallsStayUnsure(t *testing.T) {
	refused := client.NewClientError("Release", client.ErrLeaderUnavailable, pb.ErrorCode_NO_LEADER, map[string]string{"outcome": "not_proposed"})
	if err := (&passage{}).unlessUnsure(refused); err != error(refused) {
		t.Errorf("the only attempt: %v", err)
	}
	err := (&passage{unsure: true}).unlessUnsure(refused)
	ce, ok := errors.AsType[*client.ClientError](err)
	if !errors.Is(err, client.ErrOutcomeUnknown) || !ok || ce.Details["outcome"] != "unknown" || ce.Code != pb.ErrorCode_NO_LEADER {
		t.Errorf("after one that may have been applied: %v", err)
	}
	if refused.Details["outcome"] != "not_proposed" {
		t.Error("the error of the member was changed")
	}
	final := client.NewClientError("Release", client.ErrNotLockOwner, pb.ErrorCode_NOT_LOCK_OWNER, nil)
	if err := (&passage{unsure: true}).unlessUnsure(final); err != error(final) {
		t.Errorf("an answer of the table: %v", err)
	}
}

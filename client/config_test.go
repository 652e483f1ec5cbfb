package client

import (
	"reflect"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/raftlock/raftlock/pb"
)

func TestDefaultClientConfig(t *testing.T) {
	want := Config{
		DialTimeout:    5 * time.Second,
		RequestTimeout: 30 * time.Second,
		KeepAlive:      KeepAliveConfig{Time: 30 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true},
		RetryPolicy: RetryPolicy{
			MaxRetries:        3,
			InitialBackoff:    100 * time.Millisecond,
			MaxBackoff:        5 * time.Second,
			BackoffMultiplier: 2,
			JitterFactor:      0.1,
			RetryableErrors: []pb.ErrorCode{
				pb.ErrorCode_NO_LEADER, pb.ErrorCode_NOT_LEADER, pb.ErrorCode_UNAVAILABLE, pb.ErrorCode_TIMEOUT,
			},
		},
		EnableMetrics:  true,
		MaxMessageSize: 16777216,
	}
	if got := DefaultClientConfig(); !reflect.DeepEqual(got, want) {
		t.Errorf("\n got %+v\nwant %+v", got, want)
	}
}

func TestDefaultsBelongToTheCaller(t *testing.T) {
	DefaultClientConfig().RetryPolicy.RetryableErrors[0] = pb.ErrorCode_LOCK_HELD
	DefaultRetryPolicy().RetryableErrors[1] = pb.ErrorCode_LOCK_HELD
	for i, code := range DefaultRetryPolicy().RetryableErrors {
		if code == pb.ErrorCode_LOCK_HELD {
			t.Errorf("code %d of a later policy was changed through an earlier one", i)
		}
	}
}

func TestHealthServingStatusNumbers(t *testing.T) {
	for status, wire := range map[HealthServingStatus]pb.HealthStatus_ServingStatus{
		HealthStatusUnknown:    pb.HealthStatus_UNKNOWN,
		HealthStatusServing:    pb.HealthStatus_SERVING,
		HealthStatusNotServing: pb.HealthStatus_NOT_SERVING,
	} {
		if int(status) != int(wire) {
			t.Errorf("%d is %s on the wire", status, wire)
		}
	}
}

func TestWithClock(t *testing.T) {
	first, second := clockwork.NewFakeClock(), clockwork.NewFakeClock()
	var o AutoRenewerOptions
	for _, c := range []struct {
		name  string
		clock clockwork.Clock
		want  clockwork.Clock
	}{
		{"sets", first, first},
		{"nil keeps", nil, first},
		{"the last one counts", second, second},
	} {
		WithClock(c.clock)(&o)
		if o.Clock != c.want {
			t.Errorf("%s: got another clock", c.name)
		}
	}
}

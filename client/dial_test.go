package client

import (
	"crypto/tls"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/raftlock/raftlock/pb"
)

// good is a configuration with nothing wrong. It reaches nobody: Dial does no
// I/O.
func good() Config { return Config{Endpoints: []string{"localhost:7001"}} }

func TestDialNamesTheFieldThatIsWrong(t *testing.T) {
	for _, c := range []struct {
		field string
		spoil func(*Config)
	}{
		{"Endpoints", func(c *Config) { c.Endpoints = nil }},
		{"Endpoints", func(c *Config) { c.Endpoints = []string{} }},
		{"Endpoints[0]", func(c *Config) { c.Endpoints = []string{""} }},
		{"Endpoints[1]", func(c *Config) { c.Endpoints = []string{"a:1", "b"} }},
		{"Endpoints[0]", func(c *Config) { c.Endpoints = []string{":7001"} }},
		{"Endpoints[0]", func(c *Config) { c.Endpoints = []string{"a:"} }},
		{"Endpoints[0]", func(c *Config) { c.Endpoints = []string{"a:0"} }},
		{"Endpoints[0]", func(c *Config) { c.Endpoints = []string{"a:65536"} }},
		{"Endpoints[0]", func(c *Config) { c.Endpoints = []string{"a:http"} }},
		{"Endpoints[0]", func(c *Config) { c.Endpoints = []string{"::1:7001"} }},
		{"DialTimeout", func(c *Config) { c.DialTimeout = -1 }},
		{"RequestTimeout", func(c *Config) { c.RequestTimeout = -1 }},
		{"MaxMessageSize", func(c *Config) { c.MaxMessageSize = -1 }},
		{"KeepAlive.Time", func(c *Config) { c.KeepAlive.Time = -1 }},
		{"KeepAlive.Timeout", func(c *Config) { c.KeepAlive.Timeout = -1 }},
		{"RetryPolicy.MaxRetries", func(c *Config) { c.RetryPolicy.MaxRetries = -1 }},
		{"RetryPolicy.InitialBackoff", func(c *Config) { c.RetryPolicy.InitialBackoff = -1 }},
		{"RetryPolicy.MaxBackoff", func(c *Config) { c.RetryPolicy.MaxBackoff = -1 }},
		{"RetryPolicy.BackoffMultiplier", func(c *Config) { c.RetryPolicy.BackoffMultiplier = -0.1 }},
		{"RetryPolicy.BackoffMultiplier", func(c *Config) { c.RetryPolicy.BackoffMultiplier = math.NaN() }},
		{"RetryPolicy.BackoffMultiplier", func(c *Config) { c.RetryPolicy.BackoffMultiplier = math.Inf(1) }},
		{"RetryPolicy.JitterFactor", func(c *Config) { c.RetryPolicy.JitterFactor = -0.1 }},
		{"RetryPolicy.JitterFactor", func(c *Config) { c.RetryPolicy.JitterFactor = 1.1 }},
		{"RetryPolicy.JitterFactor", func(c *Config) { c.RetryPolicy.JitterFactor = math.NaN() }},
	} {
		cfg := good()
		c.spoil(&cfg)
		dialled, err := Dial(cfg)
		if dialled != nil {
			t.Errorf("%s: there is a client", c.field)
		}
		if v, ok := errors.AsType[*ValidationError](err); !ok || v.Field != c.field || !errors.Is(err, ErrInvalidArgument) {
			t.Errorf("%s: %v", c.field, err)
		}
	}
}

func TestDialReportsAllFaults(t *testing.T) {
	_, err := Dial(Config{DialTimeout: -1, RetryPolicy: RetryPolicy{MaxRetries: -1}})
	for _, field := range []string{"Endpoints", "DialTimeout", "RetryPolicy.MaxRetries"} {
		if !strings.Contains(err.Error(), "'"+field+"'") {
			t.Errorf("%s is not in %v", field, err)
		}
	}
}

func TestDialTakesGoodConfigurations(t *testing.T) {
	for _, endpoint := range []string{"localhost:7001", "10.0.0.1:1", "[::1]:65535", "[fe80::1%eth0]:7001", "n-1.example.:7001"} {
		cfg := good()
		cfg.Endpoints = []string{endpoint, endpoint}
		cfg.TLS = &tls.Config{ServerName: "n1"}
		c, err := Dial(cfg)
		if err != nil {
			t.Errorf("%s: %v", endpoint, err)
			continue
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// The published constructors return nil interfaces, not interfaces around nil.
func TestConstructors(t *testing.T) {
	bad := Config{}
	a, err1 := NewRaftLockClient(bad)
	b, err2 := NewAdminClient(bad)
	c, err3 := NewAdvancedClient(bad)
	if a != nil || b != nil || c != nil || err1 == nil || err2 == nil || err3 == nil {
		t.Errorf("%v %v %v", a, b, c)
	}
	a, err1 = NewRaftLockClient(good())
	b, err2 = NewAdminClient(good())
	c, err3 = NewAdvancedClient(good())
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(a.Close(), b.Close(), c.Close()); err != nil {
		t.Error(err)
	}
}

func TestZeroMeansTheDefault(t *testing.T) {
	got := Config{Endpoints: []string{"a:1"}}.withDefaults()
	want := DefaultClientConfig()
	if got.DialTimeout != want.DialTimeout || got.RequestTimeout != want.RequestTimeout || got.KeepAlive != want.KeepAlive ||
		got.MaxMessageSize != want.MaxMessageSize || got.RetryPolicy.MaxRetries != 3 || got.EnableMetrics {
		t.Errorf("got %+v", got)
	}
	written := Config{KeepAlive: KeepAliveConfig{Time: time.Minute}, RetryPolicy: RetryPolicy{InitialBackoff: time.Second}}
	got = written.withDefaults()
	if got.KeepAlive != written.KeepAlive || got.RetryPolicy.MaxRetries != 0 || got.RetryPolicy.RetryableErrors != nil {
		t.Errorf("what was written became %+v", got)
	}
	if !(&RetryPolicy{}).isZero() || (&RetryPolicy{RetryableErrors: []pb.ErrorCode{}}).isZero() {
		t.Error("isZero is wrong")
	}
}

func TestPausesBearWithAnyPolicy(t *testing.T) {
	for _, p := range []RetryPolicy{
		{}, DefaultRetryPolicy(),
		{InitialBackoff: -time.Second, MaxBackoff: -time.Second, BackoffMultiplier: -1, JitterFactor: -5},
		{InitialBackoff: math.MaxInt64, MaxBackoff: math.MaxInt64, BackoffMultiplier: math.Inf(1), JitterFactor: 1},
		{InitialBackoff: time.Second, MaxBackoff: time.Minute, BackoffMultiplier: math.NaN(), JitterFactor: math.NaN()},
	} {
		for _, tries := range []int{0, 1, 10, 1000, math.MaxInt} {
			if d := p.pause(tries); d < minPause || d > max(minPause, p.MaxBackoff) {
				t.Errorf("%+v pauses %v after %d", p, d, tries)
			}
		}
	}
	p := RetryPolicy{InitialBackoff: time.Second, MaxBackoff: 5 * time.Second, BackoffMultiplier: 2}
	for tries, want := range []time.Duration{1, 2, 4, 5, 5} {
		if got := p.pause(tries); got != want*time.Second {
			t.Errorf("pause %d is %v", tries, got)
		}
	}
}

func TestBuilder(t *testing.T) {
	b := NewRaftLockClientBuilder([]string{"a:1"})
	if b.WithEndpoints([]string{"b:2"}) != b || !slices.Equal(b.config.Endpoints, []string{"b:2"}) {
		t.Error("WithEndpoints")
	}
	if b.WithTimeouts(time.Second, time.Minute) != b || b.config.DialTimeout != time.Second || b.config.RequestTimeout != time.Minute {
		t.Error("WithTimeouts")
	}
	if b.WithTimeouts(0, -1); b.config.DialTimeout != time.Second || b.config.RequestTimeout != time.Minute {
		t.Error("WithTimeouts took what is not positive")
	}
	if b.WithKeepAlive(time.Minute, time.Second, false) != b || b.config.KeepAlive != (KeepAliveConfig{time.Minute, time.Second, false}) {
		t.Error("WithKeepAlive")
	}
	if b.WithKeepAlive(0, -1, true); b.config.KeepAlive != (KeepAliveConfig{time.Minute, time.Second, true}) {
		t.Error("WithKeepAlive took what is not positive")
	}
	if b.WithRetryOptions(7, time.Second, time.Minute, 3) != b {
		t.Error("WithRetryOptions")
	}
	b.WithRetryOptions(-1, 0, -1, 0)
	p := b.config.RetryPolicy
	if p.MaxRetries != 7 || p.InitialBackoff != time.Second || p.MaxBackoff != time.Minute || p.BackoffMultiplier != 3 || p.JitterFactor != 0.1 || len(p.RetryableErrors) != 4 {
		t.Errorf("WithRetryOptions made %+v", p)
	}
	codes := []pb.ErrorCode{pb.ErrorCode_TIMEOUT}
	if b.WithRetryableErrors(codes...) != b || !slices.Equal(b.config.RetryPolicy.RetryableErrors, codes) {
		t.Error("WithRetryableErrors")
	}
	if b.WithRetryableErrors(); len(b.config.RetryPolicy.RetryableErrors) != 0 || b.config.RetryPolicy.RetryableErrors == nil {
		t.Error("WithRetryableErrors without any")
	}
	policy := RetryPolicy{MaxRetries: 1, RetryableErrors: codes}
	if b.WithRetryPolicy(policy) != b || b.config.RetryPolicy.MaxRetries != 1 {
		t.Error("WithRetryPolicy")
	}
	codes[0] = pb.ErrorCode_OK
	if b.config.RetryPolicy.RetryableErrors[0] != pb.ErrorCode_TIMEOUT {
		t.Error("the builder keeps the caller's slice")
	}
	if !b.config.EnableMetrics || b.WithMetrics(false) != b || b.config.EnableMetrics {
		t.Error("WithMetrics")
	}
	if b.WithMaxMessageSize(5) != b || b.WithMaxMessageSize(0).config.MaxMessageSize != 5 {
		t.Error("WithMaxMessageSize")
	}
	locks, err1 := b.Build()
	admin, err2 := b.BuildAdmin()
	advanced, err3 := b.BuildAdvanced()
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	if advanced.GetMetrics() != nil {
		t.Error("metrics are off, and there are some")
	}
	if err := errors.Join(locks.Close(), admin.Close(), advanced.Close()); err != nil {
		t.Error(err)
	}
}

func TestBuilderRefuses(t *testing.T) {
	for _, endpoints := range [][]string{nil, {}} {
		c, err := NewRaftLockClientBuilder(endpoints).Build()
		if c != nil || err == nil || err.Error() != "builder: at least one endpoint must be set" {
			t.Errorf("%v, %v", c, err)
		}
		if v, ok := errors.AsType[*ValidationError](err); !ok || v.Field != "Endpoints" || !errors.Is(err, ErrInvalidArgument) {
			t.Errorf("%v names no field", err)
		}
	}
	a, err := NewRaftLockClientBuilder([]string{"x"}).BuildAdmin()
	if v, ok := errors.AsType[*ValidationError](err); a != nil || !ok || v.Field != "Endpoints[0]" {
		t.Errorf("%v, %v", a, err)
	}
}

package lockservice_test

import (
	"context"

	"github.com/raftlock/raftlock/client"
)

// fake is a client that answers every call alike.
type fake struct {
	client.Client
	err    error
	panics bool
	hang   chan struct{} // closed when calls may be answered; nil when they may at once
}

func none() string             { return "" }
func nobody() (string, string) { return "", "" }

func (f *fake) answer() error {
	if f.hang != nil {
		<-f.hang
	}
	if f.panics {
		panic("broken")
	}
	return f.err
}

func (f *fake) SetRetryPolicy(client.RetryPolicy) {}

func (f *fake) Acquire(context.Context, *client.AcquireRequest) (*client.AcquireResult, error) {
	return nil, f.answer()
}

func (f *fake) Release(context.Context, *client.ReleaseRequest) (*client.ReleaseResult, error) {
	return &client.ReleaseResult{}, f.answer()
}

func (f *fake) GetLocks(context.Context, *client.GetLocksRequest) (*client.GetLocksResult, error) {
	return nil, f.answer()
}

func (f *fake) Health(context.Context, *client.HealthRequest) (*client.HealthStatus, error) {
	return nil, f.answer()
}

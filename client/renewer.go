package client

import (
	"context"

	"github.com/jonboulle/clockwork"
)

// AutoRenewer renews the lock of a handle in the background, until it is told
// to stop or the lock is lost. All methods may be called from any number of
// goroutines.
type AutoRenewer interface {
	// Start begins to renew. It returns at once; when ctx ends, so does the
	// renewing. Only the first call starts anything.
	Start(ctx context.Context)

	// Stop ends the renewing and waits until it is over, or until ctx ends. It
	// does not release the lock. It returns what Err returns, or the error of
	// ctx.
	Stop(ctx context.Context) error

	// Done is closed, by the renewer, when it has ended for whatever reason.
	Done() <-chan struct{}

	// Err returns nil while the renewer runs, after Stop, and after the context
	// given to Start has ended; otherwise an error that is ErrLockLost. A
	// renewal that fails is not an end: it is tried again for as long as the
	// grant lasts.
	Err() error
}

// AutoRenewerOption adjusts an AutoRenewer when it is made.
type AutoRenewerOption func(*AutoRenewerOptions)

// AutoRenewerOptions is what the options of an AutoRenewer set.
type AutoRenewerOptions struct {
	// Clock tells the renewer when to renew; nil means the clock of the client.
	Clock clockwork.Clock
}

// WithClock has an AutoRenewer wait by the given clock instead of that of its
// client, for tests that move time by hand. Nil changes nothing.
func WithClock(clock clockwork.Clock) AutoRenewerOption {
	return func(o *AutoRenewerOptions) {
		if clock != nil {
			o.Clock = clock
		}
	}
}

package fence

import (
	"errors"
	"fmt"
)

// ErrStale says that a greater token of the resource was seen before: another
// holder has the lock, or had it after this one. Nothing was done. To repeat the
// call with the same token is in vain; the caller has lost the lock, and does what
// it does then. errors.As finds a *StaleError.
var ErrStale = errors.New("fence: stale token")

// ErrInvalidToken says that what was given is no token: tokens are whole numbers
// of at least 1. Nothing was done; the caller has a bug, or sent no token.
var ErrInvalidToken = errors.New("fence: invalid token")

// StaleError is ErrStale with the names: errors.Is(err, ErrStale) holds.
type StaleError struct {
	Resource string // what was to be read or written
	Token    int64  // the token that was refused
	Greatest int64  // the greatest one that was seen, greater than Token
}

func (e *StaleError) Error() string {
	return fmt.Sprintf("%v: resource %q has seen token %d, refused token %d", ErrStale, e.Resource, e.Greatest, e.Token)
}

// Unwrap is ErrStale.
func (e *StaleError) Unwrap() error { return ErrStale }

// invalidToken names the field as the resource's callers know it, whether it was
// an argument or a header.
func invalidToken(value string) error {
	return fmt.Errorf("%w: field 'token' is %.64q, want a whole number from 1 to 9223372036854775807", ErrInvalidToken, value)
}

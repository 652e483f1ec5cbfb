// Package callctx holds what the context of a lock call can say beyond its
// end: a server that runs calls for remote callers tells the client which it
// calls in process that a caller's connection is lost. That is no cancel: the
// call's wait keeps its place for a while, to be claimed over another connection.
package callctx

import "errors"

// ErrConnectionLost is the cause (context.Cause) of a call's context that
// ended with the connection of its caller.
var ErrConnectionLost = errors.New("connection of the caller is lost")

package history

import "time"

// Call is what an operation asks for.
type Call string

// The calls that a history has. The first six are those of package client; a
// write is one to the resource that a lock protects.
const (
	Acquire Call = "acquire"
	Release Call = "release"
	Renew   Call = "renew"
	Look    Call = "look" // GetLockInfo, GetLocks
	Enqueue Call = "enqueue"
	Cancel  Call = "cancel"
	Write   Call = "write"
)

// Outcome is what the caller knows of an operation.
type Outcome string

// The outcomes. An operation whose outcome is unknown, or that is still open,
// may have had its effect at any time since it began, or have it yet.
const (
	OK      Outcome = "ok"
	Refused Outcome = "refused" // by the lock table, with a code; it had no effect
	Failed  Outcome = "failed"  // it had no effect, and says nothing about the lock
	Unknown Outcome = "unknown"
	Open    Outcome = "open" // not answered when the history ends
)

// Op is one operation as its caller saw it. Instants are counted from the start
// of the recording, on one clock for all clients.
type Op struct {
	Call    Call          `json:"call"`
	Client  string        `json:"client,omitempty"` // which client made it, for people
	From    time.Duration `json:"from"`             // when it was called
	To      time.Duration `json:"to,omitempty"`     // when it was answered; nothing while it is open
	Outcome Outcome       `json:"outcome"`
	Code    string        `json:"code,omitempty"` // of a refusal, as package pb names it

	Lock      string        `json:"lock,omitempty"`
	ClientID  string        `json:"client_id,omitempty"`
	RequestID string        `json:"request_id,omitempty"`
	TTL       time.Duration `json:"ttl,omitempty"`
	Wait      bool          `json:"wait,omitempty"`
	Timeout   time.Duration `json:"timeout,omitempty"` // of the wait
	Priority  int32         `json:"priority,omitempty"`

	// Token is the one that was granted, or the one that the caller named.
	Token int64 `json:"token,omitempty"`
	// Expires is the end that the answer promised; zero says that it did not.
	Expires time.Duration `json:"expires,omitempty"`
	// Promoted says of a release that the next of the queue was granted the lock.
	Promoted bool `json:"promoted,omitempty"`
	// Seen are the locks that the answer tells of: a look's result, or the holder
	// that a refusal names.
	Seen []Sight `json:"seen,omitempty"`
}

// Sight is a lock as an answer shows it.
type Sight struct {
	Lock string `json:"lock"`
	// Owner is the ClientID of the holder; empty when it is free, or not told.
	Owner string `json:"owner,omitempty"`
	Held  bool   `json:"held,omitempty"`
	// Token is that of the present grant, or of the last one.
	Token int64 `json:"token,omitempty"`
	// Waiters is the length of the queue.
	Waiters int32 `json:"waiters,omitempty"`
	// Queue is the queue in its order, if it was asked for.
	Queue []Place `json:"queue,omitempty"`
}

// Place is one place in a queue.
type Place struct {
	ClientID string `json:"client_id"`
}

// hasEffect reports whether it did something, or may have.
func (o *Op) hasEffect() bool {
	return o.Outcome == OK || o.Outcome == Unknown || o.Outcome == Open
}

// extends reports whether it is known to have granted or prolonged a grant.
func (o *Op) extends() bool {
	return o.Outcome == OK && o.Token != 0 && (o.Call == Acquire || o.Call == Renew)
}

// gaveUp reports whether its caller may have called it off before it had an effect.
func (o *Op) gaveUp() bool {
	return o.Outcome == Failed || o.Outcome == Refused && o.Code == "TIMEOUT"
}

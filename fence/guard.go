package fence

import (
	"context"
	"fmt"
	"sync"
)

// Guard remembers the greatest token it has seen for each resource, and refuses
// smaller ones. A resource is any name: of a row, a file, a device. The zero
// Guard is ready to use; it must not be copied after that. All methods may be
// called by many goroutines at once.
type Guard struct {
	mu struct {
		sync.Mutex
		marks map[string]*mark
	}
}

// mark is what a guard knows of one resource.
type mark struct {
	greatest int64         // 0: nothing was seen, or it was forgotten
	users    int           // calls of Do that wait or act; while there are any, the mark stays in the map
	turn     chan struct{} // has room for one value, which is there while somebody acts; never closed
}

// Check notes a token as seen, and refuses it with ErrStale when a greater one of
// the resource was seen before. A token below 1 is refused with ErrInvalidToken.
// It does not block.
//
// Between Check and what the caller does next a greater token may come and act:
// use Do for whatever must not be done after that. Check is for what Do cannot
// hold together: to tell a guard at a start the token that is stored with the
// data, or to refuse early, before the body of a long request is read.
func (g *Guard) Check(resource string, token int64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, err := g.see(resource, token)
	return err
}

// Do runs act if the token is not smaller than the greatest one of the resource,
// and returns what act returns. Otherwise act is not called, and the error is
// ErrStale. A token below 1 is refused with ErrInvalidToken.
//
// Actions on one resource run one after the other. Do waits until those before it
// have ended, and compares again then: an action is refused if a greater token
// came while it waited. The end of ctx ends this wait with ctx's error, without a
// call of act; it does not reach into an action that has begun, which may use ctx
// itself. While an action hangs, that of a newer holder waits: give actions an
// end, such as ctx's.
//
// Reads for the sake of a later write belong into Do as well. The token stays seen
// when act fails or panics. An action must not call Do for its own resource: it
// would wait for itself.
func (g *Guard) Do(ctx context.Context, resource string, token int64, act func() error) error {
	m, err := g.enter(resource, token)
	if err != nil {
		return err
	}
	defer g.leave(resource, m)
	select {
	case m.turn <- struct{}{}:
		defer func() { <-m.turn }()
	case <-ctx.Done():
	}
	if err := ctx.Err(); err != nil { // also when both were ready
		return fmt.Errorf("fence: wait for the turn at resource %q: %w", resource, err)
	}
	if err := g.Check(resource, token); err != nil {
		return err
	}
	return act()
}

// Forget drops what the guard knows of a resource: any token is let through next.
// It is for a resource that is gone for good, and to mend a mark that was set by a
// number which was no token. A stale writer can still come for a resource that was
// forgotten too soon. It does not wait for actions that run.
func (g *Guard) Forget(resource string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if m := g.mu.marks[resource]; m != nil {
		m.greatest = 0
		g.drop(resource, m)
	}
}

// Len is how many resources the guard remembers.
func (g *Guard) Len() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.mu.marks)
}

// enter notes a token before its turn has come, so that smaller ones that wait
// need not act any more, and keeps the mark from being dropped.
func (g *Guard) enter(resource string, token int64) (*mark, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	m, err := g.see(resource, token)
	if err != nil {
		return nil, err
	}
	m.users++
	return m, nil
}

func (g *Guard) leave(resource string, m *mark) {
	g.mu.Lock()
	defer g.mu.Unlock()
	m.users--
	g.drop(resource, m)
}

// see compares a token with the greatest one and notes it. The caller holds mu.
func (g *Guard) see(resource string, token int64) (*mark, error) {
	if token < 1 {
		return nil, invalidToken(fmt.Sprint(token))
	}
	m := g.mu.marks[resource]
	if m == nil {
		m = &mark{turn: make(chan struct{}, 1)}
		if g.mu.marks == nil {
			g.mu.marks = map[string]*mark{}
		}
		g.mu.marks[resource] = m
	}
	if token < m.greatest {
		return nil, &StaleError{Resource: resource, Token: token, Greatest: m.greatest}
	}
	m.greatest = token
	return m, nil
}

// drop takes a mark out of the map when it says nothing and nobody uses it: two
// marks of one resource would be two turns. The caller holds mu.
func (g *Guard) drop(resource string, m *mark) {
	if m.greatest == 0 && m.users == 0 {
		delete(g.mu.marks, resource)
	}
}

package raftlock

import (
	"context"
	"errors"
	"testing"
)

// nowhere is a transport that reaches nobody.
type nowhere struct{}

func (nowhere) Serve(func(PeerStream)) error { return nil }
func (nowhere) Dial(context.Context, string) (PeerStream, error) {
	return nil, errors.New("nobody is there")
}
func (nowhere) Close() error { return nil }

// Whom a change is about may come as soon as the change is answered: those who
// greet peers must know of it by then.
func TestChangeIsKnownWhenAnswered(t *testing.T) {
	n, err := Open(Config{Name: "n1", Storage: NewMemoryStorage(), Transport: nowhere{}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}()
	<-n.Ready()
	for i := range 300 {
		if err := n.AddMember(t.Context(), "n2", "somewhere"); err != nil {
			t.Fatal(err)
		}
		added := n.directory.Load().roster.find("n2") != nil
		if err := n.RemoveMember(t.Context(), "n2"); err != nil {
			t.Fatal(err)
		}
		if removed := n.directory.Load().roster.find("n2") == nil; !added || !removed {
			t.Fatalf("round %d: answered, and not known: added %t, removed %t", i, added, removed)
		}
	}
}

package raftlock

import (
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

// Who starts one member of three asks the others at every tick, and is told once a
// minute why it is alone.
func TestAbsentMembersAreLoggedOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &lastWords{}
		n, err := Open(Config{
			Name: "n1", InitialCluster: map[string]string{"n1": "a", "n2": "b", "n3": "c"},
			Storage: NewMemoryStorage(), Transport: nowhere{}, Logger: slog.New(slog.NewTextHandler(log, nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(150 * time.Second)
		for _, peer := range []string{"n2", "n3"} {
			if got := log.count("peer=" + peer); got != 3 {
				t.Errorf("%d lines about %s in 150 s", got, peer)
			}
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Who is no member and comes again and again is refused each time, and logged once a
// minute.
func TestRefusedPeersAreLoggedOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &lastWords{}
		n, err := Open(Config{Name: "n1", Storage: NewMemoryStorage(), Transport: nowhere{}, Logger: slog.New(slog.NewTextHandler(log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		<-n.Ready()
		for i := range 150 {
			for _, name := range []string{"n8", "n9"} {
				h := hello{
					Protocol: newestProtocol, Entries: int(newestFormat), Target: "n1",
					Identity: Identity{Name: name, Incarnation: 7, ClusterName: n.assembly.identity().ClusterName},
				}
				b, err := h.encode()
				if err != nil {
					t.Fatal(err)
				}
				n.accept(&recited{frames: [][]byte{b}})
			}
			if got, want := log.count("is not another member"), 2*(1+i/60); got != want {
				t.Fatalf("after %d s %d lines about refused peers, want %d", i, got, want)
			}
			time.Sleep(time.Second)
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Peers choose what is remembered, and must not choose how much.
func TestRepetitionIsBounded(t *testing.T) {
	r := repetition{}
	for i := range 10 * maxSaid {
		if text := fmt.Sprint(i); !r.isNew(text) || r.isNew(text) {
			t.Fatalf("text %d is not said exactly once", i)
		}
		if len(r.said) > maxSaid {
			t.Fatalf("%d texts are remembered", len(r.said))
		}
	}
}

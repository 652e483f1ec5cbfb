package e2e

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
)

// state is what one caller knows of a lock that only it uses.
type state uint8

const (
	asked     state = iota // the acquire is not answered
	granted                // acknowledged
	releasing              // the release is not answered
	released               // acknowledged
)

// mostKept bounds the locks that are held over the rounds: with many of them
// snapshots, which wait for four times as much log, would become rare.
const mostKept = 32

type knowledge struct {
	req     request // the acquire
	state   state
	version int64
	floor   int64 // the largest token that was acknowledged when it was asked
}

// load is callers within the members' processes, which die with them. They take
// locks, keep some and release others, and remember what they were told.
type load struct {
	f    *fleet
	acks atomic.Int64
	max  atomic.Int64 // the largest token acknowledged

	mu     sync.Mutex
	known  []*knowledge
	tokens map[int64]string // all that were acknowledged, and for which lock
}

func newLoad(f *fleet) *load { return &load{f: f, tokens: map[int64]string{}} }

// acknowledged notes that a grant was, and returns what is wrong with it.
func (l *load) acknowledged(lock string, version, floor int64) error {
	l.acks.Add(1)
	for {
		old := l.max.Load()
		if version <= old || l.max.CompareAndSwap(old, version) {
			break
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	other := l.tokens[version]
	l.tokens[version] = lock
	switch {
	case version <= floor:
		return fmt.Errorf("%s got token %d after %d was acknowledged", lock, version, floor)
	case other != "":
		return fmt.Errorf("token %d was given for %s and for %s", version, other, lock)
	}
	return nil
}

func (l *load) know(k *knowledge) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known = append(l.known, k)
}

// caller works until the processes die under it. One grant of 32 is kept over the
// rounds.
func (l *load) caller(prefix string, d *rand.Rand) {
	for i, kept := 0, 0; ; i++ {
		k := &knowledge{floor: l.max.Load(), req: request{
			Op: "acquire", Lock: fmt.Sprintf("%s-%d", prefix, kept), Client: prefix, Request: fmt.Sprint(i), TTL: longTTL,
		}}
		l.know(k)
		a, alive := l.f.at(fmt.Sprintf("n%d", 1+d.IntN(3))).call(k.req)
		if !alive || a.Error != "" {
			return
		}
		k.state, k.version = granted, a.Version
		if err := l.acknowledged(k.req.Lock, a.Version, k.floor); err != nil {
			l.f.tb.Error(err)
		}
		if d.IntN(32) == 0 {
			kept++
			continue
		}
		k.state = releasing
		a, alive = l.f.at(fmt.Sprintf("n%d", 1+d.IntN(3))).call(request{Op: "release", Lock: k.req.Lock, Client: prefix, Version: k.version})
		if !alive || a.Error != "" {
			return
		}
		k.state = released
		l.acks.Add(1)
	}
}

// check holds what the cluster says against what the callers know, settles what
// they do not know, and forgets what is over.
func (l *load) check(t *testing.T, round int) {
	t.Helper()
	newest := map[string]*knowledge{}
	for _, k := range l.known {
		newest[k.req.Lock] = k // of each lock in the order of asking
	}
	l.known = nil
	i := 0
	for _, k := range newest {
		p := l.f.at(l.f.names()[i%3])
		i++
		if k.state == asked { // the same request again: granted before, or now
			a := p.must(k.req)
			k.state, k.version = granted, a.Version
			if err := l.acknowledged(k.req.Lock, a.Version, k.floor); err != nil {
				t.Errorf("round %d: %v", round, err)
			}
		}
		l.compare(t, round, k, p.must(request{Op: "info", Lock: k.req.Lock}))
		switch {
		case k.state != granted:
		case len(l.known) < mostKept:
			l.known = append(l.known, k)
		default:
			p.must(request{Op: "release", Lock: k.req.Lock, Client: k.req.Client, Version: k.version})
		}
	}
}

// compare holds what a member says of a lock against what its caller knows.
func (l *load) compare(t *testing.T, round int, k *knowledge, a answer) {
	t.Helper()
	holds := a.Owner == k.req.Client && a.Version == k.version
	switch {
	case a.Version != k.version:
		t.Errorf("round %d: %s has token %d, was acknowledged with %d", round, k.req.Lock, a.Version, k.version)
	case k.state == granted && !holds:
		t.Errorf("round %d: the grant of %s is lost: %+v", round, k.req.Lock, a)
	case k.state == released && a.Owner != "":
		t.Errorf("round %d: %s was released and is held again: %+v", round, k.req.Lock, a)
	case k.state == releasing && !holds && a.Owner != "":
		t.Errorf("round %d: %s is held by a stranger: %+v", round, k.req.Lock, a)
	}
	if k.state != granted && k.state != released && a.Owner == "" {
		k.state = released
	}
	if k.state == granted { // and who asks again is told the same
		if again := l.f.other("").must(k.req); again.Version != k.version {
			t.Errorf("round %d: asked again for %s: token %d, was acknowledged with %d", round, k.req.Lock, again.Version, k.version)
		}
	}
}

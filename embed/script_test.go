package embed_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/embed"
)

// The script is the life of a cluster of one in lock operations, one after the
// other, each of which has one right outcome. The tests that break that life hold
// what is found then against what was acknowledged.
const scriptLength = 500

// scriptStep is one operation.
type scriptStep struct {
	verb byte // a: acquire, n: renew, r: release
	lock string
	of   int // the step whose grant is renewed or released
}

// script takes, renews and gives back a lock in turn with locks that are held for
// a hundred steps.
func script() (steps []scriptStep) {
	held := map[string]int{}
	for n := 0; len(steps) < scriptLength; n++ {
		i := len(steps)
		work, keep := fmt.Sprint("work-", n%7), fmt.Sprint("kept-", n%25)
		steps = append(steps, scriptStep{'a', work, i}, scriptStep{'n', work, i}, scriptStep{'r', work, i})
		if at, ok := held[keep]; ok {
			delete(held, keep)
			steps = append(steps, scriptStep{'r', keep, at})
		} else {
			held[keep] = i + 3
			steps = append(steps, scriptStep{'a', keep, i + 3})
		}
	}
	return steps
}

// aloneConfig is a cluster of one that takes a snapshot every few dozen steps.
func aloneConfig(dir string, log *logBook) embed.Config {
	return embed.Config{
		Name: "n1", DataDir: dir, TickInterval: tick,
		Snapshots: raftlock.Snapshots{MinLogBytes: 4 << 10, KeepLogBytes: 1 << 10},
		Logger:    slog.New(slog.NewTextHandler(log, nil)),
	}
}

// runScript makes the steps until one fails, and tells of each what token its
// grant has.
func runScript(ctx context.Context, c client.Client, tell func(step int, token int64)) error {
	var tokens [scriptLength]int64
	for i, s := range script() {
		tokens[i] = tokens[s.of]
		var err error
		switch s.verb {
		case 'a':
			req := &client.AcquireRequest{LockID: s.lock, ClientID: "c", RequestID: fmt.Sprint(i), TTL: longTTL}
			if strings.HasPrefix(s.lock, "work") {
				req.Metadata = map[string]string{"fills": strings.Repeat("the log", 30)}
			}
			var got *client.AcquireResult
			if got, err = c.Acquire(ctx, req); err == nil {
				tokens[i] = got.Lock.Version
			}
		case 'n':
			_, err = c.Renew(ctx, &client.RenewRequest{LockID: s.lock, ClientID: "c", Version: tokens[i], NewTTL: longTTL})
		case 'r':
			_, err = c.Release(ctx, &client.ReleaseRequest{LockID: s.lock, ClientID: "c", Version: tokens[i]})
		}
		if err != nil {
			return fmt.Errorf("step %d, %c of %s: %w", i, s.verb, s.lock, err)
		}
		tell(i, tokens[i])
	}
	return nil
}

// checkScript holds a member's table against the tokens of the steps that were
// acknowledged; of the next one, that may have been made or not.
func checkScript(tb testing.TB, m *embed.Member, tokens []int64) {
	tb.Helper()
	steps := script()
	owned, versions := map[string]bool{}, map[string]int64{}
	for i, token := range tokens {
		lock := steps[i].lock
		owned[lock], versions[lock] = steps[i].verb != 'r', token
	}
	begun := ""
	if len(tokens) < len(steps) {
		begun = steps[len(tokens)].lock
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	found, err := m.Client().GetLocks(ctx, &client.GetLocksRequest{})
	if err != nil {
		tb.Fatalf("after %d steps: %v", len(tokens), err)
	}
	last := int64(0)
	for _, token := range tokens {
		last = max(last, token)
	}
	held := map[string]int64{}
	for _, l := range found.Locks {
		if l.OwnerID != "" {
			held[l.LockID] = l.Version
		}
		if l.LockID == begun {
			last = max(last, l.Version)
			continue
		}
		if (l.OwnerID != "") != owned[l.LockID] || versions[l.LockID] != l.Version {
			tb.Errorf("after %d steps: %s is %q's with token %d, acknowledged: held %t with %d",
				len(tokens), l.LockID, l.OwnerID, l.Version, owned[l.LockID], versions[l.LockID])
		}
	}
	for lock, is := range owned {
		if is && held[lock] == 0 && lock != begun {
			tb.Errorf("after %d steps: the grant of %s with token %d is lost", len(tokens), lock, versions[lock])
		}
	}
	if token := acquire(tb, m, "new", "c"); token <= last {
		tb.Errorf("after %d steps: token %d after %d", len(tokens), token, last)
	}
}

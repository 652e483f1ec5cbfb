package raftlock

import (
	"context"
	"errors"
)

// knock says hello at the place of a member that has not come yet, until ctx ends. A
// newcomer asks by itself. But a founder that has lost its disk and founded the cluster
// again, alone, asks nobody: when its place was emptied for it before it started,
// nobody else would tell it that it is a second one.
func (n *Node) knock(ctx context.Context, name string) {
	timer := n.clock.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		stream, _, err := n.greet(ctx, name, asks)
		switch {
		case errors.Is(err, ErrDiskLost), errors.Is(err, ErrRemoved):
			n.fail(err)
			return
		case err == nil:
			_ = stream.Close() // it has heard what there is to say
		}
		timer.Reset(maxRedial)
	}
}

// knocks has each place that waits knocked at, and no other any more.
func (n *Node) knocks(old map[string]context.CancelFunc, now *roster) map[string]context.CancelFunc {
	next := map[string]context.CancelFunc{}
	for i := range now.records {
		m := &now.records[i]
		if m.node != 0 {
			continue
		}
		if next[m.name] = old[m.name]; next[m.name] == nil {
			ctx, cancel := context.WithCancel(n.ctx)
			next[m.name] = cancel
			n.beside("knock", func() {
				defer cancel()
				n.knock(ctx, m.name)
			})
		}
	}
	for name, cancel := range old {
		if next[name] == nil {
			cancel()
		}
	}
	return next
}

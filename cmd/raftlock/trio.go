package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/embed"
)

// trio is the demo's cluster: three members with everything that a member has,
// in one process.
type trio struct {
	dir     string
	names   []string
	links   *links
	members map[string]*embed.Member // those that live
	clients map[string]client.Client

	dying   sync.WaitGroup // the closing of those that were killed
	mourned struct {
		sync.Mutex
		err error
	}
}

func newTrio(dir string) (*trio, error) {
	names := []string{"n1", "n2", "n3"}
	links, err := newLinks(names)
	if err != nil {
		return nil, err
	}
	return &trio{
		dir: dir, names: names, links: links,
		members: map[string]*embed.Member{}, clients: map[string]client.Client{},
	}, nil
}

// start opens a member on its directory, for the first time or again.
func (t *trio) start(name string) error {
	listener, addrs := t.links.open(name)
	m, err := embed.Open(embed.Config{
		Name: name, ClusterName: "demo", DataDir: filepath.Join(t.dir, name),
		InitialCluster: addrs, PeerListener: listener,
	})
	if err != nil {
		t.links.cut(name)
		return fmt.Errorf("open member %s: %w", name, err)
	}
	t.members[name], t.clients[name] = m, m.Client()
	return nil
}

// ready waits until a member can serve.
func (t *trio) ready(ctx context.Context, name string) error {
	m := t.members[name]
	select {
	case <-m.Ready():
		return nil
	case <-m.Done():
		return fmt.Errorf("member %s has ended: %w", name, errors.Join(m.Err(), errEnded))
	case <-ctx.Done():
		return fmt.Errorf("wait for member %s: %w", name, context.Cause(ctx))
	}
}

var errEnded = errors.New("the member does not run")

// kill ends a member as the death of its process would look from outside: its
// connections break and nobody is told why. That it is closed afterwards, as
// something must end it in this process, the others cannot see.
func (t *trio) kill(name string) {
	m := t.members[name]
	delete(t.members, name)
	delete(t.clients, name)
	t.links.cut(name)
	t.dying.Go(func() {
		if err := m.Close(); err != nil {
			t.mourned.Lock()
			defer t.mourned.Unlock()
			t.mourned.err = errors.Join(t.mourned.err, fmt.Errorf("close member %s: %w", name, err))
		}
	})
}

// buried waits until all that were killed have let go of their directories.
func (t *trio) buried() error {
	t.dying.Wait()
	t.mourned.Lock()
	defer t.mourned.Unlock()
	return t.mourned.err
}

// leader waits for a member that leads by its own word.
func (t *trio) leader(ctx context.Context) (name string, err error) {
	err = await(ctx, func() bool {
		for _, name = range t.alive() {
			if t.members[name].Node().IsLeader() {
				return true
			}
		}
		return false
	})
	if err != nil {
		return "", fmt.Errorf("wait for a leader: %w", err)
	}
	return name, nil
}

// alive lists the members that live.
func (t *trio) alive() []string {
	return slices.DeleteFunc(slices.Clone(t.names), func(name string) bool { return t.members[name] == nil })
}

// others are the members that live, without one.
func (t *trio) others(than string) []string {
	return slices.DeleteFunc(t.alive(), func(name string) bool { return name == than })
}

// agree waits until all members stand at one index of the log and returns it
// with the hash of their tables, which must be the same.
func (t *trio) agree(ctx context.Context) (index, hash uint64, err error) {
	var differ error
	waited := await(ctx, func() bool {
		var same bool
		index, hash, same, differ = t.compare(ctx)
		return same || differ != nil
	})
	if err := errors.Join(waited, differ); err != nil {
		return 0, 0, fmt.Errorf("compare the members' tables: %w", err)
	}
	return index, hash, nil
}

func (t *trio) compare(ctx context.Context) (index, hash uint64, same bool, err error) {
	for i, name := range t.alive() {
		at, h, err := t.members[name].Node().StateHash(ctx)
		if err != nil {
			return 0, 0, false, fmt.Errorf("member %s: %w", name, err)
		}
		switch {
		case i == 0:
			index, hash = at, h
		case at != index:
			return 0, 0, false, nil
		case h != hash:
			return 0, 0, false, fmt.Errorf("at log index %d they differ: %016x and, at %s, %016x", index, hash, name, h)
		}
	}
	return index, hash, true, nil
}

// close ends every member, those that follow first: so nobody is left to whom
// the leadership would have to be handed.
func (t *trio) close() error {
	var order, last []string
	for _, name := range t.alive() {
		if t.members[name].Node().IsLeader() {
			last = append(last, name)
		} else {
			order = append(order, name)
		}
	}
	var errs []error
	for _, name := range append(order, last...) {
		if err := t.members[name].Close(); err != nil {
			errs = append(errs, fmt.Errorf("close member %s: %w", name, err))
		}
	}
	errs = append(errs, t.buried(), t.links.close())
	return errors.Join(errs...)
}

// await looks every few milliseconds until something holds.
func await(ctx context.Context, holds func() bool) error {
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	for !holds() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

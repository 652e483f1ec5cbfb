package client

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/raftlock/raftlock/internal/clock"
)

// lookupFunc finds the addresses of a host.
type lookupFunc func(ctx context.Context, host string) ([]string, error)

// hosts are the configured endpoints by name, and the addresses behind them. A
// name with one address stays a name, which is looked up at each connect; one
// with several is several endpoints.
type hosts struct {
	lookup lookupFunc
	all    []string // host:port, as configured
	names  []string // those of them that are names, and not addresses

	mu struct {
		sync.Mutex
		done    bool          // there was a look-up
		running bool          // there is one
		waited  chan struct{} // closed by the first one when it is over; nil without it
		asked   time.Time     // when the last one began
	}
}

// lookupInterval is how soon names are looked up again, at the earliest, while
// calls fail.
const lookupInterval = 5 * time.Second

func newHosts(configured []string, lookup lookupFunc) *hosts {
	h := &hosts{lookup: lookup, all: configured}
	for _, name := range configured {
		host, _, _ := net.SplitHostPort(name)
		if _, err := netip.ParseAddr(host); err != nil {
			h.names = append(h.names, name)
		}
	}
	return h
}

func (h *hosts) configured(name string) bool { return slices.Contains(h.all, name) }

// lookUp looks up the names that need it, all at once, and hands on what to dial
// for those that were found: the name itself, or several addresses. The first
// caller does it, and others wait for that; later it is done again only if asked
// for, and not too often. It takes no longer than ctx and limit.
func (h *hosts) lookUp(ctx context.Context, clk clock.Clock, limit time.Duration, again bool, found func(name string, addrs []string)) {
	if len(h.names) == 0 || !h.begin(ctx, clk, again) {
		return
	}
	defer func() { h.end(ctx.Err() == nil) }()
	limited, cancel := clk.WithTimeout(ctx, limit)
	defer cancel()
	answers := make([][]string, len(h.names))
	var all sync.WaitGroup
	for i, name := range h.names {
		all.Go(func() { answers[i] = h.addresses(limited, name) })
	}
	all.Wait()
	for i, name := range h.names {
		if answers[i] != nil {
			found(name, answers[i])
		}
	}
}

// begin reports whether the caller is to look the names up; it must then, and
// call end. While the first look-up runs, others wait for it.
func (h *hosts) begin(ctx context.Context, clk clock.Clock, again bool) bool {
	for ctx.Err() == nil {
		h.mu.Lock()
		due := !h.mu.done || again && clk.Now().Sub(h.mu.asked) >= lookupInterval
		running, waited := h.mu.running, h.mu.waited
		if due && !running {
			h.mu.running, h.mu.asked = true, clk.Now()
			if !h.mu.done {
				h.mu.waited = make(chan struct{})
			}
		}
		h.mu.Unlock()
		switch {
		case due && !running:
			return true
		case waited == nil:
			return false
		}
		select {
		case <-waited:
		case <-ctx.Done():
		}
	}
	return false
}

// end ends what begin began. A look-up that was not whole, because its caller
// went away, is left to the next call.
func (h *hosts) end(whole bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.running = false
	if h.mu.waited != nil {
		close(h.mu.waited)
		h.mu.waited = nil
	}
	h.mu.done = h.mu.done || whole
}

// addresses returns what to dial for a name, nil if that cannot be told now.
func (h *hosts) addresses(ctx context.Context, name string) []string {
	host, port, _ := net.SplitHostPort(name)
	found, err := h.lookup(ctx, host)
	if err != nil || len(found) == 0 {
		return nil
	}
	if len(found) == 1 {
		return []string{name}
	}
	addrs := make([]string, len(found))
	for i, ip := range found {
		addrs[i] = net.JoinHostPort(ip, port)
	}
	slices.Sort(addrs)
	return slices.Compact(addrs)
}

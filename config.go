package raftlock

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Config says who a member is and what it runs on. The fields without a
// default must be set. Open reports every fault at once, each with its field.
type Config struct {
	// Name is this member's name, unique in the cluster and the same at every
	// start: 1 to 64 bytes of UTF-8 without control characters.
	Name string
	// ClusterName keeps clusters apart that reach each other by mistake; all
	// members give the same. Default "raftlock".
	ClusterName string
	// InitialCluster names every member of the first start and its peer
	// address, this member included; at a restart the names must be the same,
	// the addresses may change. Empty means a cluster of one. An even number of
	// members survives no more failures than one fewer. Where a cluster of one
	// has grown, its first member must name the others before it is ever started
	// on an empty disk: it would make a second cluster.
	InitialCluster map[string]string
	// ClientAddress is where this member serves programs that do not embed,
	// told to the other members; empty when it serves nobody.
	ClientAddress string

	// Storage is this member's disk and Transport its way to the others.
	// The Node owns both from the call of Open on, whatever Open returns.
	// Transport may be nil in a cluster of one.
	Storage   Storage
	Transport Transport

	// Logger gets what an operator wants to know: elections, lost peers,
	// refused peers. nil is silent.
	Logger *slog.Logger

	// TickInterval is the unit of raft's time. Default 50 ms; 1 ms to 1 min.
	// Shorter finds a dead leader sooner and costs more when idle; below the
	// round trip between members no leader lasts.
	TickInterval time.Duration
	// ElectionTicks is how many ticks without a leader's message make a member
	// campaign: an election time-out is between one and two times this many.
	// A leader is heard five times in it, every tick if it has fewer than ten.
	// Default 10, at least 3, at most 1000.
	ElectionTicks int

	// RequestTimeout bounds a call that waits for its commit, not counting the
	// time in a lock's queue. Default 30 s, at least 10 ms.
	RequestTimeout time.Duration

	// Limits bound what callers may ask. Those of the leader count; give all
	// members the same.
	Limits Limits

	// Snapshots bound the log, on disk and in memory.
	Snapshots Snapshots

	// newest is the newest format that this build reads and writes; tests of an
	// upgrade move it.
	newest format
}

// Limits are bounds on input. Zero means the default; a value below the
// smallest allowed one, or above the largest, is refused by Open.
type Limits struct {
	MinTTL      time.Duration // shortest TTL; default 100 ms, at least 1 ms
	MaxTTL      time.Duration // longest TTL; default 24 h, at most 10 years
	DefaultTTL  time.Duration // for a TTL of 0; default 30 s, within the two
	DefaultWait time.Duration // for a wait time-out of 0; default 60 s, at most MaxWait
	MaxWait     time.Duration // longest wait time-out; default 24 h, at most 10 years

	LockWaiters int // waiters of one lock; default 10 000, at most 1 million
	Locks       int // locks in the table, freed ones included; default 4 million, at most 100 million
	Waiters     int // waiters in the table; default 1 million, at most 10 million

	// Pending is how many calls may be under way that are not yet applied; a
	// wait in a queue does not count. Renewals, releases and cancels have as
	// many places of their own. Default 65 536, at most 1 million; and 64 MiB
	// of commands in either of the two.
	Pending int
}

const (
	defaultClusterName    = "raftlock"
	defaultTickInterval   = 50 * time.Millisecond
	defaultElectionTicks  = 10
	defaultRequestTimeout = 30 * time.Second

	maxNameBytes = 64
	tenYears     = 10 * 365 * 24 * time.Hour
)

func (c *Config) setDefaults() {
	setDefault(&c.ClusterName, defaultClusterName)
	setDefault(&c.TickInterval, defaultTickInterval)
	setDefault(&c.ElectionTicks, defaultElectionTicks)
	setDefault(&c.RequestTimeout, defaultRequestTimeout)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if len(c.InitialCluster) == 0 {
		c.InitialCluster = map[string]string{c.Name: ""}
	}
	c.InitialCluster = maps.Clone(c.InitialCluster)
	setDefault(&c.newest, newestFormat)
	c.Limits.setDefaults()
	c.Snapshots.setDefaults()
}

func (l *Limits) setDefaults() {
	setDefault(&l.MinTTL, 100*time.Millisecond)
	setDefault(&l.MaxTTL, 24*time.Hour)
	setDefault(&l.DefaultTTL, 30*time.Second)
	setDefault(&l.DefaultWait, time.Minute)
	setDefault(&l.MaxWait, 24*time.Hour)
	setDefault(&l.LockWaiters, 10_000)
	setDefault(&l.Locks, 4_000_000)
	setDefault(&l.Waiters, 1_000_000)
	setDefault(&l.Pending, 65_536)
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Validate reports what Open would refuse in c, every fault at once. It opens
// nothing and changes nothing: it is for whoever makes Storage and Transport and
// wants to know before.
func (c Config) Validate() error {
	c.setDefaults()
	return c.validate()
}

// validate reports all faults; the defaults are set.
func (c *Config) validate() error {
	var errs []error
	fault := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("config: %s: %s", field, fmt.Sprintf(format, args...)))
	}
	if why := badName(c.Name); why != "" {
		fault("Name", "%s", why)
	}
	if why := badName(c.ClusterName); why != "" {
		fault("ClusterName", "%s", why)
	}
	if _, ok := c.InitialCluster[c.Name]; !ok {
		fault("InitialCluster", "does not name this member %q; it names %s", c.Name, nameList(memberNames(c.InitialCluster)))
	}
	for _, name := range slices.Sorted(maps.Keys(c.InitialCluster)) {
		if why := badName(name); why != "" {
			fault("InitialCluster", "member %q: %s", name, why)
		}
		if len(c.InitialCluster) > 1 && c.InitialCluster[name] == "" {
			fault("InitialCluster", "member %q has no address", name)
		}
	}
	if c.Storage == nil {
		fault("Storage", "is required")
	}
	if c.Transport == nil && len(c.InitialCluster) > 1 {
		fault("Transport", "is required in a cluster of %d", len(c.InitialCluster))
	}
	within(fault, "TickInterval", c.TickInterval, time.Millisecond, time.Minute)
	within(fault, "ElectionTicks", c.ElectionTicks, 3, 1000)
	within(fault, "RequestTimeout", c.RequestTimeout, 10*time.Millisecond, tenYears)
	c.Limits.validate(fault)
	c.Snapshots.validate(fault)
	return errors.Join(errs...)
}

func (l *Limits) validate(fault func(field, format string, args ...any)) {
	within(fault, "Limits.MinTTL", l.MinTTL, time.Millisecond, tenYears)
	within(fault, "Limits.MaxTTL", l.MaxTTL, l.MinTTL, tenYears)
	within(fault, "Limits.DefaultTTL", l.DefaultTTL, l.MinTTL, l.MaxTTL)
	within(fault, "Limits.MaxWait", l.MaxWait, time.Millisecond, tenYears)
	within(fault, "Limits.DefaultWait", l.DefaultWait, time.Millisecond, l.MaxWait)
	within(fault, "Limits.LockWaiters", l.LockWaiters, 1, 1_000_000)
	within(fault, "Limits.Locks", l.Locks, 1, 100_000_000)
	within(fault, "Limits.Waiters", l.Waiters, 1, 10_000_000)
	within(fault, "Limits.Pending", l.Pending, 1, 1_000_000)
}

func within[T int | time.Duration](fault func(string, string, ...any), field string, got, low, high T) {
	if got < low || got > high {
		fault(field, "%v is not within %v and %v", got, low, high)
	}
}

// badName says what is wrong with a member's or cluster's name, or "".
func badName(name string) string {
	switch {
	case name == "":
		return "is required"
	case len(name) > maxNameBytes:
		return fmt.Sprintf("has %d bytes, at most %d are allowed", len(name), maxNameBytes)
	case !utf8.ValidString(name):
		return "is not UTF-8"
	case strings.ContainsFunc(name, unicode.IsControl):
		return "has control characters"
	}
	return ""
}

func nameList(names []string) string {
	return "[" + strings.Join(names, ", ") + "]"
}

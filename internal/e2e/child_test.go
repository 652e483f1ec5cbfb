package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/embed"
)

// childConfig is what a child is told through its environment.
type childConfig struct {
	Name    string
	DataDir string
	Cluster map[string]string
	Tick    time.Duration
	// RequestTimeout is the member's; 0 is its default.
	RequestTimeout time.Duration
	// Snapshots are the member's; zero is its default.
	Snapshots raftlock.Snapshots
	// ListenClient is where the member serves others; it may be empty.
	ListenClient string
	// Endpoints make the child a program without a member, that talks to those.
	Endpoints []string
}

// request is a line that a child reads.
type request struct {
	ID      int // chosen by the parent, repeated in the answer
	Op      string
	Lock    string        `json:",omitempty"`
	Client  string        `json:",omitempty"`
	Request string        `json:",omitempty"`
	TTL     time.Duration `json:",omitempty"`
	Version int64         `json:",omitempty"`
	Callers int           `json:",omitempty"`
}

// answer is a line that a child writes: to a request, or, with an Event, of its
// own accord.
type answer struct {
	ID       int    `json:",omitempty"`
	Event    string `json:",omitempty"`
	Version  int64  `json:",omitempty"`
	Owner    string `json:",omitempty"`
	Waiters  int    `json:",omitempty"`
	Leader   string `json:",omitempty"`
	Index    uint64 `json:",omitempty"` // of the newest snapshot, or of what Hash is of
	Hash     uint64 `json:",omitempty"`
	Promoted bool   `json:",omitempty"`
	Gauge    *gauge `json:",omitempty"`

	Error string   `json:",omitempty"`
	Is    []string `json:",omitempty"` // the names in sentinels that Error is
}

// The events of a child.
const (
	eventRefused = "refused" // Open returned Error; the child ends
	eventOpened  = "opened"
	eventReady   = "ready"
	eventDone    = "done" // the member has ended with Error; the child lives on
	eventLost    = "lost" // the hold has ended with Error
)

var sentinels = map[string]error{
	"closed": raftlock.ErrClosed, "disk lost": raftlock.ErrDiskLost, "wrong cluster": raftlock.ErrWrongCluster,
	"locked": raftlock.ErrLocked, "corrupt": raftlock.ErrCorrupt, "EIO": syscall.EIO,
	"unavailable": client.ErrUnavailable, "no leader": client.ErrLeaderUnavailable, "held": client.ErrLockHeld,
	"not owner": client.ErrNotLockOwner, "not found": client.ErrLockNotFound, "timeout": client.ErrTimeout,
	"unknown": client.ErrOutcomeUnknown, "lost": client.ErrLockLost,
}

func (a answer) is(name string) bool {
	for _, is := range a.Is {
		if is == name {
			return true
		}
	}
	return false
}

func (a *answer) fail(err error) {
	if err == nil {
		return
	}
	a.Error = err.Error()
	for name, sentinel := range sentinels {
		if errors.Is(err, sentinel) {
			a.Is = append(a.Is, name)
		}
	}
}

// child is a member, or a program without one, that is told what to do line by
// line.
type child struct {
	member *embed.Member // nil without one
	client client.Client
	dir    string     // the member's
	mu     sync.Mutex // of standard output, held and crew
	held   *client.Held
	crew   *crew
}

// runChild is the life of a child: until its input ends, as it does when the
// parent dies.
func runChild(text string) int {
	var cfg childConfig
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	c := &child{}
	if err := c.open(cfg); err != nil {
		c.say(answer{Event: eventRefused}, err)
		return 1
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var req request
		if err := json.Unmarshal(lines.Bytes(), &req); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 2
		}
		go func() { c.say(c.do(&req)) }()
	}
	return 0
}

// open makes the child what it is told to be.
func (c *child) open(cfg childConfig) (err error) {
	if len(cfg.Endpoints) > 0 {
		if c.client, err = client.Dial(client.Config{Endpoints: cfg.Endpoints}); err == nil {
			c.say(answer{Event: eventReady}, nil)
		}
		return err
	}
	member, err := openChild(cfg)
	if err != nil {
		return err
	}
	c.member, c.client, c.dir = member, member.Client(), cfg.DataDir
	c.say(answer{Event: eventOpened}, nil)
	go func() {
		select {
		case <-member.Ready():
			c.say(answer{Event: eventReady}, nil)
		case <-member.Done():
		}
		<-member.Done()
		c.say(answer{Event: eventDone}, member.Err())
	}()
	return nil
}

// openChild opens the member. Between the test's choice of a port and this
// another process may have been given it for a connection: that passes.
func openChild(cfg childConfig) (*embed.Member, error) {
	limit := time.Now().Add(patience)
	for {
		m, err := embed.Open(embed.Config{
			Name: cfg.Name, DataDir: cfg.DataDir, InitialCluster: cfg.Cluster, TickInterval: cfg.Tick,
			RequestTimeout: cfg.RequestTimeout, ListenClient: cfg.ListenClient, Snapshots: cfg.Snapshots,
			Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		})
		if !errors.Is(err, syscall.EADDRINUSE) || time.Now().After(limit) {
			return m, err
		}
		<-time.After(10 * time.Millisecond)
	}
}

func (c *child) say(a answer, err error) {
	a.fail(err)
	line, err := json.Marshal(a)
	if err != nil {
		panic(err) // it is made of strings and numbers
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _ = os.Stdout.Write(append(line, '\n')) // nobody is left to tell
}

func (c *child) do(req *request) (a answer, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	a.ID = req.ID
	switch req.Op {
	case "acquire", "wait":
		var got *client.AcquireResult
		got, err = c.client.Acquire(ctx, &client.AcquireRequest{
			LockID: req.Lock, ClientID: req.Client, RequestID: req.Request, TTL: req.TTL, Wait: req.Op == "wait", WaitTimeout: longTTL,
		})
		if err == nil {
			a.Version, a.Owner = got.Lock.Version, got.Lock.OwnerID
		}
	case "release":
		var got *client.ReleaseResult
		got, err = c.client.Release(ctx, &client.ReleaseRequest{LockID: req.Lock, ClientID: req.Client, Version: req.Version})
		a.Promoted = got.WaiterPromoted
	case "renew":
		var got *client.RenewResult
		got, err = c.client.Renew(ctx, &client.RenewRequest{LockID: req.Lock, ClientID: req.Client, Version: req.Version, NewTTL: req.TTL})
		if err == nil {
			a.Version = got.Lock.Version
		}
	case "info":
		var info *client.LockInfo
		info, err = c.client.GetLockInfo(ctx, &client.GetLockInfoRequest{LockID: req.Lock})
		if err == nil {
			a.Version, a.Owner, a.Waiters = info.Version, info.OwnerID, int(info.WaiterCount)
		}
	case "status":
		var status *client.ClusterStatus
		status, err = c.client.GetStatus(ctx, &client.GetStatusRequest{})
		if err == nil {
			a.Leader, a.Index = status.RaftStatus.LeaderID, status.RaftStatus.SnapshotIndex
		}
	case "hash":
		a.Index, a.Hash, err = c.member.Node().StateHash(ctx)
	case "hold":
		a, err = c.hold(req)
	case "look":
		err = c.look()
	case "work":
		c.mu.Lock()
		c.crew = newCrew(c.client, req.Client, req.Callers)
		c.mu.Unlock()
	case "rest":
		w := c.crewAtWork()
		w.end()
		err = w.failure()
	case "gauge":
		a.Gauge, err = c.gauge()
	case "close":
		err = c.member.Close()
	default:
		err = fmt.Errorf("no such op: %q", req.Op)
	}
	return a, err
}

// hold takes a lock and keeps it, and tells when it is lost.
func (c *child) hold(req *request) (answer, error) {
	held, err := client.Hold(context.Background(), c.client, req.Lock, client.WithTTL(req.TTL))
	if err != nil {
		return answer{ID: req.ID}, err
	}
	c.mu.Lock()
	c.held = held
	c.mu.Unlock()
	go func() {
		<-held.Done()
		c.say(answer{Event: eventLost}, held.Err())
	}()
	return answer{ID: req.ID, Version: held.Token(), Owner: held.Lock().OwnerID}, nil
}

// look is what the holder sees of its hold: nil as long as it has it.
func (c *child) look() error {
	c.mu.Lock()
	held := c.held
	c.mu.Unlock()
	err := held.Err()
	if over := held.Context().Err() != nil; over != (err != nil) {
		return fmt.Errorf("the context has ended: %t, but the hold says %w", over, err)
	}
	return err
}

// crewAtWork is who works in this process; nil for nobody.
func (c *child) crewAtWork() *crew {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.crew
}

func (c *child) gauge() (*gauge, error) {
	g, err := readGauge(c.dir)
	if w := c.crewAtWork(); w != nil {
		g.Acks, g.Outages = w.acks.Load(), w.outages.Load()
		err = errors.Join(err, w.failure())
	}
	return &g, err
}

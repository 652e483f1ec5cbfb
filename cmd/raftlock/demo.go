package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/raftlock/raftlock/client"
)

// demoLimit is when the demo gives up. It usually takes three seconds.
const demoLimit = 30 * time.Second

var errTooSlow = fmt.Errorf("not done within %v", demoLimit)

func demoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Show a cluster of three members at work, in one process",
		Long: "Runs a lock cluster of three members in this process, with real disks in a\n" +
			"temporary directory and real connections on 127.0.0.1, and shows in five parts\n" +
			"what it promises. It takes about three seconds and leaves nothing behind.\n" +
			"What it prints is measured as it happens; if a promise does not hold, the demo\n" +
			"says so and fails.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runDemo(cmd.Context(), newStage(cmd.OutOrStdout()))
		},
	}
}

// demo is the script. A promise that does not hold is an error of its part.
type demo struct {
	*stage
	trio *trio
	last int64 // the greatest token that was granted so far
}

// runDemo makes the cluster, plays the parts, and takes everything down again,
// whatever happened.
func runDemo(ctx context.Context, s *stage) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, demoLimit, errTooSlow)
	defer cancel()
	begun := time.Now()
	dir, err := os.MkdirTemp("", "raftlock-demo-")
	if err != nil {
		return fmt.Errorf("make a temporary directory: %w", err)
	}
	defer func() {
		if e := os.RemoveAll(dir); e != nil {
			err = errors.Join(err, fmt.Errorf("remove the temporary directory: %w", e))
		}
	}()
	trio, err := newTrio(dir)
	if err != nil {
		return err
	}
	s.line(s.paint(bold, "raftlock demo") + ": three members of a lock cluster, in this one process")
	s.line("Their disks are " + dir + "/{" + strings.Join(trio.names, ",") + "}, their connections TCP on 127.0.0.1.")
	d := &demo{stage: s, trio: trio}
	err = d.play(ctx)
	if err != nil && context.Cause(ctx) == errTooSlow { // which the error of a call would not say
		err = fmt.Errorf("%w: %w", errTooSlow, err)
	}
	if e := trio.close(); e != nil {
		err = errors.Join(err, fmt.Errorf("close the cluster: %w", e))
	}
	if err == nil {
		s.line("")
		s.line(s.good("All of it held.") + fmt.Sprintf(" It took %s; the directory is removed.", took(time.Since(begun))))
	}
	return errors.Join(err, s.err)
}

func (d *demo) play(ctx context.Context) error {
	parts := []struct {
		title string
		play  func(context.Context) error
	}{
		{"Start", d.start},
		{"Tokens", d.tokens},
		{"A queue, in order", d.queue},
		{"The leader is killed", d.failover},
		{"A stale token is refused", d.fence},
	}
	for i, part := range parts {
		d.title(i+1, part.title)
		if err := part.play(ctx); err != nil {
			return fmt.Errorf("part %d (%s): %w", i+1, part.title, err)
		}
		if d.err != nil {
			return nil // nobody listens; runDemo returns the error
		}
	}
	return nil
}

// start is part one: empty directories become a cluster with a leader.
func (d *demo) start(ctx context.Context) error {
	begun := time.Now()
	for _, name := range d.trio.names {
		if err := d.trio.start(name); err != nil {
			return err
		}
	}
	for _, name := range d.trio.names {
		if err := d.trio.ready(ctx, name); err != nil {
			return err
		}
	}
	leader, err := d.trio.leader(ctx)
	if err != nil {
		return err
	}
	d.say("%s have met, formed a cluster and elected %s, in %s.", strings.Join(d.trio.names, ", "), leader, took(time.Since(begun)))
	d.aside("Each has a log of its own. Nothing is answered before two of the three have it fsynced.")
	return nil
}

// tokens is part two: what a grant and a refusal look like.
func (d *demo) tokens(ctx context.Context) error {
	leader, err := d.trio.leader(ctx)
	if err != nil {
		return err
	}
	near, far := d.trio.clients[leader], d.trio.clients[d.trio.others(leader)[0]]
	first, err := d.take(ctx, near, "web-1", "invoices")
	if err != nil {
		return err
	}
	d.say("web-1 takes the lock invoices:    %s", d.token(first.Version))
	if err := d.refused(ctx, far, "web-2", "invoices"); err != nil {
		return err
	}
	second, err := d.take(ctx, far, "web-2", "reports")
	if err != nil {
		return err
	}
	d.say("web-2 takes another one, reports: %s, which is greater: tokens grow over all locks", d.token(second.Version))
	renewed, err := near.Renew(ctx, &client.RenewRequest{LockID: "invoices", ClientID: "web-1", Version: first.Version, NewTTL: 20 * time.Second})
	if err != nil {
		return err
	}
	if renewed.Lock.Version != first.Version {
		return fmt.Errorf("a renewal changed the token from %d to %d", first.Version, renewed.Lock.Version)
	}
	d.say("web-1 renews invoices:            %s, as before: a grant keeps its token", d.token(renewed.Lock.Version))
	if err := d.give(ctx, near, "web-1", first); err != nil {
		return err
	}
	third, err := d.take(ctx, far, "web-2", "invoices")
	if err != nil {
		return err
	}
	d.say("web-1 releases it, web-2 gets it: %s, never used before", d.token(third.Version))
	return d.measure(ctx, near)
}

// refused asks for a lock that is held, without waiting.
func (d *demo) refused(ctx context.Context, c client.Client, who, lock string) error {
	res, err := c.Acquire(ctx, &client.AcquireRequest{LockID: lock, ClientID: who})
	if !errors.Is(err, client.ErrLockHeld) {
		return errors.Join(fmt.Errorf("%s asked for %s, which is held, and was not refused for it", who, lock), err)
	}
	d.say("%s asks for %s, too:     %s, held by %s; advised to come back in %s", who, lock, d.bad("refused"),
		res.Error.Details["owner_id"], took(res.BackoffAdvice.InitialBackoff))
	return nil
}

// measure times a lone caller at the leader.
func (d *demo) measure(ctx context.Context, c client.Client) error {
	var times []time.Duration
	for range 25 {
		begun := time.Now()
		lock, err := d.take(ctx, c, "clock", "clock")
		if err != nil {
			return err
		}
		times = append(times, time.Since(begun))
		if err := d.give(ctx, c, "clock", lock); err != nil {
			return err
		}
	}
	slices.Sort(times)
	d.aside("An acquire at the leader took %s (the median of %d): one write to two disks at least.", took(times[len(times)/2]), len(times))
	return nil
}

// place is somebody in a queue, and the member whose process it runs in.
type place struct {
	who, at  string
	priority int32
}

// queue is part three: four wait for one lock, on all members, and get it in the
// order of the queue.
func (d *demo) queue(ctx context.Context) error {
	holder, err := d.take(ctx, d.trio.clients["n1"], "worker-1", "printer")
	if err != nil {
		return err
	}
	d.say("worker-1 holds the lock printer:  %s. Four more ask for it, one after the other:", d.token(holder.Version))
	asking := []place{{"worker-2", "n2", 0}, {"worker-3", "n3", 0}, {"worker-4", "n1", 0}, {"urgent", "n2", 10}}
	line := &relay{}
	for i, p := range asking {
		line.run(ctx, d.trio.clients[p.at], p, "printer")
		if err := d.waitFor(ctx, "printer", i+1); err != nil {
			return errors.Join(err, line.stop())
		}
	}
	info, err := d.trio.clients["n3"].GetLockInfo(ctx, &client.GetLockInfoRequest{LockID: "printer", IncludeWaiters: true})
	if err != nil {
		return errors.Join(err, line.stop())
	}
	var expected []string
	for _, w := range info.WaitersInfo {
		expected = append(expected, w.ClientID)
		p := asking[slices.IndexFunc(asking, func(p place) bool { return p.who == w.ClientID })]
		d.say("  %d  %-9s at %s, priority %d", w.Position+1, w.ClientID, p.at, w.Priority)
	}
	begun := time.Now()
	if err := d.give(ctx, d.trio.clients["n1"], "worker-1", holder); err != nil {
		return errors.Join(err, line.stop())
	}
	if err := line.wait(); err != nil {
		return err
	}
	d.say("worker-1 releases it. Each of the four gives it back as soon as it has it:")
	return d.tell(line.granted, expected, time.Since(begun))
}

// tell shows who was granted the lock, and checks that it was in turn.
func (d *demo) tell(granted []turn, expected []string, all time.Duration) error {
	var order []string
	for _, g := range granted {
		order = append(order, g.who)
		d.say("  %-9s granted, %s", g.who, d.token(g.version))
		if err := d.grown(g.version); err != nil {
			return err
		}
	}
	if !slices.Equal(order, expected) {
		return fmt.Errorf("the queue was %v, but the lock went to %v", expected, order)
	}
	d.say("%s: the order of the queue, in %s for all four.", d.good("In turn"), took(all))
	return nil
}

// waitFor waits until so many wait for a lock.
func (d *demo) waitFor(ctx context.Context, lock string, waiters int) error {
	var failed error
	err := await(ctx, func() bool {
		info, err := d.trio.clients["n1"].GetLockInfo(ctx, &client.GetLockInfoRequest{LockID: lock})
		failed = err
		return err != nil || int(info.WaiterCount) >= waiters
	})
	return errors.Join(err, failed)
}

// relay is waiters who give a lock back as soon as they have it.
type relay struct {
	work sync.WaitGroup
	quit []context.CancelFunc

	mu      sync.Mutex
	granted []turn
	err     error
}

// turn is a grant that a waiter got.
type turn struct {
	who     string
	version int64
}

// run lets one more wait.
func (r *relay) run(ctx context.Context, c client.Client, p place, lock string) {
	ctx, cancel := context.WithCancel(ctx)
	r.quit = append(r.quit, cancel)
	r.work.Go(func() {
		err := r.take(ctx, c, p, lock)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.err = errors.Join(r.err, err)
	})
}

func (r *relay) take(ctx context.Context, c client.Client, p place, lock string) error {
	res, err := c.Acquire(ctx, &client.AcquireRequest{LockID: lock, ClientID: p.who, Wait: true, TTL: 10 * time.Second, Priority: p.priority})
	if err != nil {
		return fmt.Errorf("%s waits for %s: %w", p.who, lock, err)
	}
	r.mu.Lock()
	r.granted = append(r.granted, turn{p.who, res.Lock.Version}) // before the next can have it
	r.mu.Unlock()
	_, err = c.Release(ctx, &client.ReleaseRequest{LockID: lock, ClientID: p.who, Version: res.Lock.Version})
	return err
}

// wait waits for all of them.
func (r *relay) wait() error {
	r.work.Wait()
	for _, cancel := range r.quit {
		cancel()
	}
	return r.err
}

// stop ends the waits.
func (r *relay) stop() error {
	for _, cancel := range r.quit {
		cancel()
	}
	r.work.Wait()
	return nil // what they say now, they say because they were stopped
}

// failover is part four: the leader dies, and nothing that was granted is lost.
func (d *demo) failover(ctx context.Context) error {
	leader, err := d.trio.leader(ctx)
	if err != nil {
		return err
	}
	left := d.trio.others(leader)
	here, there := d.trio.clients[left[0]], d.trio.clients[left[1]]
	lock, err := d.take(ctx, here, "deployer", "deploy")
	if err != nil {
		return err
	}
	d.say("deployer, at %s, holds the lock deploy: %s. next, at %s, waits for it.", left[0], d.token(lock.Version), left[1])
	line := &relay{}
	line.run(ctx, there, place{who: "next"}, "deploy")
	if err := d.waitFor(ctx, "deploy", 1); err != nil {
		return errors.Join(err, line.stop())
	}
	if err := d.gap(ctx, leader, here); err != nil {
		return errors.Join(err, line.stop())
	}
	if err := d.kept(ctx, there, lock); err != nil {
		return errors.Join(err, line.stop())
	}
	begun := time.Now()
	if err := d.give(ctx, here, "deployer", lock); err != nil {
		return errors.Join(err, line.stop())
	}
	if err := line.wait(); err != nil {
		return err
	}
	d.say("deployer releases it, next has it %s later: %s.", took(time.Since(begun)), d.token(line.granted[0].version))
	if err := d.grown(line.granted[0].version); err != nil {
		return err
	}
	return d.revive(ctx, leader)
}

// gap kills the leader and measures how long nothing is granted.
func (d *demo) gap(ctx context.Context, leader string, c client.Client) error {
	d.say("%s, the leader, %s: its connections break, it hands nothing over.", leader, d.loud("dies"))
	d.aside("(All three share this process, so it cannot be killed with -9: the demo cuts every")
	d.aside("connection of %s, then stops it. The others see what they would see after a kill.)", leader)
	death := time.Now()
	d.trio.kill(leader)
	lock, err := d.take(ctx, c, "witness", "life goes on")
	if err != nil {
		return fmt.Errorf("the first acquire after the leader's death: %w", err)
	}
	gap := time.Since(death)
	heir, err := d.trio.leader(ctx)
	if err != nil {
		return err
	}
	d.say("%s is elected. From the death to the next grant: %s. It has %s, still growing.", heir, d.good(took(gap)), d.token(lock.Version))
	return nil
}

// kept checks that the grant and the wait have outlived the leader.
func (d *demo) kept(ctx context.Context, c client.Client, lock *client.Lock) error {
	info, err := c.GetLockInfo(ctx, &client.GetLockInfoRequest{LockID: lock.LockID, IncludeWaiters: true})
	if err != nil {
		return err
	}
	if info.OwnerID != lock.OwnerID || info.Version != lock.Version || len(info.WaitersInfo) != 1 {
		return fmt.Errorf("%s was held by %s with token %d and had one waiter; now by %q with %d and %d waiters",
			lock.LockID, lock.OwnerID, lock.Version, info.OwnerID, info.Version, len(info.WaitersInfo))
	}
	d.say("%s still holds %s with %s, and %s still waits: nothing was lost.",
		info.OwnerID, lock.LockID, d.token(info.Version), info.WaitersInfo[0].ClientID)
	return nil
}

// revive starts the dead member again on its disk.
func (d *demo) revive(ctx context.Context, name string) error {
	if err := d.trio.buried(); err != nil {
		return err
	}
	begun := time.Now()
	if err := d.trio.start(name); err != nil {
		return err
	}
	if err := d.trio.ready(ctx, name); err != nil {
		return err
	}
	caughtUp := took(time.Since(begun))
	index, hash, err := d.trio.agree(ctx)
	if err != nil {
		return err
	}
	d.say("%s is started again on its disk and has caught up in %s. At log index %d all three", name, caughtUp, index)
	d.say("lock tables have the same hash, %016x.", hash)
	return nil
}

// fence is part five: a holder that was stopped for too long comes back and
// writes, and what it writes to has seen a greater token.
func (d *demo) fence(ctx context.Context) error {
	const ttl = time.Second
	old, young := d.trio.clients["n1"], d.trio.clients["n2"]
	var ledger resource
	asked := time.Now()
	res, err := old.Acquire(ctx, &client.AcquireRequest{LockID: "ledger", ClientID: "old", TTL: ttl})
	if err != nil {
		return err
	}
	if err := d.grown(res.Lock.Version); err != nil {
		return err
	}
	d.say("old takes the lock ledger for %s: %s", took(ttl), d.token(res.Lock.Version))
	if err := d.write(&ledger, "old", res.Lock.Version, true); err != nil {
		return err
	}
	d.say("old stops: a long pause of its machine. It does not renew. young waits for the lock.")
	next, err := young.Acquire(ctx, &client.AcquireRequest{LockID: "ledger", ClientID: "young", Wait: true, TTL: 10 * time.Second})
	if err != nil {
		return err
	}
	after := time.Since(asked)
	if after < ttl {
		return fmt.Errorf("young was granted the lock %v after old had asked for it for %v", after, ttl)
	}
	if err := d.grown(next.Lock.Version); err != nil {
		return err
	}
	d.say("young is granted it %s after old had asked for it, not earlier: %s", took(after), d.token(next.Lock.Version))
	if err := d.write(&ledger, "young", next.Lock.Version, true); err != nil {
		return err
	}
	d.say("old wakes up, has noticed nothing, and writes.")
	if err := d.write(&ledger, "old", res.Lock.Version, false); err != nil {
		return err
	}
	d.aside("No lock service can stop a process that believes in a lock it has lost. The token can.")
	return nil
}

// resource is what a lock protects. It remembers the greatest token.
type resource struct{ greatest int64 }

func (r *resource) write(version int64) bool {
	if version < r.greatest {
		return false
	}
	r.greatest = version
	return true
}

func (d *demo) write(r *resource, who string, version int64, want bool) error {
	seen := r.greatest
	if r.write(version) != want {
		return fmt.Errorf("%s wrote with token %d after %d had been seen: refused is %t", who, version, seen, want)
	}
	if want {
		d.say("  %-5s writes with %s: %s", who, d.token(version), d.good("accepted"))
	} else {
		d.say("  %-5s writes with %s: %s, the ledger has seen a greater one", who, d.token(version), d.loud("refused"))
	}
	return nil
}

// take acquires a lock that must be free.
func (d *demo) take(ctx context.Context, c client.Client, who, lock string) (*client.Lock, error) {
	res, err := c.Acquire(ctx, &client.AcquireRequest{LockID: lock, ClientID: who, TTL: 20 * time.Second})
	if err != nil {
		return nil, fmt.Errorf("%s takes %s: %w", who, lock, err)
	}
	return res.Lock, d.grown(res.Lock.Version)
}

func (d *demo) give(ctx context.Context, c client.Client, who string, lock *client.Lock) error {
	_, err := c.Release(ctx, &client.ReleaseRequest{LockID: lock.LockID, ClientID: who, Version: lock.Version})
	if err != nil {
		return fmt.Errorf("%s releases %s: %w", who, lock.LockID, err)
	}
	return nil
}

// grown checks that a new grant's token is greater than all before it.
func (d *demo) grown(version int64) error {
	if version <= d.last {
		return fmt.Errorf("token %d was granted after token %d", version, d.last)
	}
	d.last = version
	return nil
}

package main

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/fence"
	"github.com/raftlock/raftlock/testcluster"
)

// What a holder sees of a failover: nothing, but that calls take longer.
func TestHolderSurvivesAFailover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := testcluster.New(t, 3)
		cluster.RequireReleased()
		shared := &book{}
		err := client.Do(t.Context(), cluster.Client(), "invoices", func(ctx context.Context, token int64) error {
			cluster.Restart(cluster.CrashLeader())
			time.Sleep(time.Minute) // several renewals
			return shared.write(ctx, token, "one", "Ada")
		}, client.WithTTL(10*time.Second))
		if err != nil {
			t.Fatal(err)
		}
	})
}

// What a holder sees when its machine is cut off: the context of its work ends,
// with client.ErrLockLost, before another instance has the lock.
func TestHolderIsToldWhenItIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := testcluster.New(t, 3)
		machine := cluster.Client() // of the instance that will be cut off
		shared := &book{}
		two := &invoicer{id: "two", locks: cluster.Client(), book: shared}

		var told time.Time
		lost := make(chan error, 1)
		go func() {
			lost <- client.Do(t.Context(), machine, "invoices", func(ctx context.Context, _ int64) error {
				<-ctx.Done() // a long piece of work, that stops when it is told to
				told = time.Now()
				return nil
			}, client.WithTTL(10*time.Second))
		}()
		synctest.Wait() // it holds the lock

		machine.Cut()
		if err := two.invoice(t.Context(), "Grace"); err != nil { // waits for its turn
			t.Fatal(err)
		}
		next := time.Now()
		if err := <-lost; !errors.Is(err, client.ErrLockLost) {
			t.Errorf("the holder that was cut off ended with %v", err)
		}
		if !told.Before(next) {
			t.Errorf("it was told %v after the next had the lock", told.Sub(next))
		}
	})
}

// A holder that is stopped, as by a long pause for garbage or the move of its
// virtual machine, cannot be told. What it writes when it goes on is refused.
func TestStaleWriterIsFenced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := testcluster.New(t, 3)
		machine := cluster.Client()
		shared := &book{}
		two := &invoicer{id: "two", locks: cluster.Client(), book: shared}

		held, err := client.Hold(t.Context(), machine, "invoices", client.WithTTL(10*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		machine.Pause()
		if err := two.invoice(t.Context(), "Grace"); err != nil {
			t.Fatal(err)
		}
		// This write was on its way when the machine stopped: nothing of it looks at
		// the lock any more.
		if err := shared.write(t.Context(), held.Token(), "one", "Ada"); !errors.Is(err, fence.ErrStale) {
			t.Errorf("the write of the stale holder ended with %v", err)
		}
		machine.Resume()
		if err := held.Err(); !errors.Is(err, client.ErrLockLost) {
			t.Errorf("after the pause the hold says %v", err)
		}
		if len(shared.invoices) != 1 {
			t.Errorf("the book has %v", shared.invoices)
		}
	})
}

package client

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
)

// stuckConn is a connection whose other side reads nothing any more, once stuck
// is set: gRPC then takes seconds to close it.
type stuckConn struct {
	net.Conn
	stuck  *atomic.Bool
	once   sync.Once
	closed chan struct{}
}

func (c *stuckConn) Write(b []byte) (int, error) {
	if !c.stuck.Load() {
		return c.Conn.Write(b)
	}
	<-c.closed
	return 0, net.ErrClosed
}

func (c *stuckConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

func sticking(f *fleet, stuck *atomic.Bool) func(*Config) {
	f.t.Cleanup(func() { time.Sleep(time.Minute) }) // what Close did not wait for ends, too
	return func(cfg *Config) {
		cfg.DialOptions = []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			conn, err := f.dial(ctx, address)
			if err != nil {
				return nil, err
			}
			return &stuckConn{Conn: conn, stuck: stuck, closed: make(chan struct{})}, nil
		})}
	}
}

// Every call needs the pool, also while an old leader's connection is closed.
func TestClosingAnEndpointKeepsNobodyWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		var stuck atomic.Bool
		m := f.member(n1, nil)
		f.member(n2, nil)
		m.leader = n2
		c := f.client(sticking(f, &stuck), n1)
		for range 2 {
			if _, err := c.Acquire(t.Context(), acquireReq()); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		stuck.Store(true)
		told := make(chan struct{})
		go func() {
			defer close(told)
			c.endpoints.heard(c.endpoints.snapshot()[0], "c1", n3)
		}()
		synctest.Wait()
		select {
		case <-told:
			t.Error("nothing was closed that takes long")
		default:
		}
		if c.endpoints.mu.TryLock() {
			c.endpoints.mu.Unlock()
		} else {
			t.Error("the pool is locked while a connection is closed")
		}
		<-told
	})
}

func TestCloseIsBoundedAlsoWithStuckConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		var stuck atomic.Bool
		f.member(n1, nil)
		f.member(n2, nil)
		c := f.client(sticking(f, &stuck), n1, n2)
		if _, err := c.Acquire(t.Context(), acquireReq()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		stuck.Store(true)
		begun := time.Now()
		if err := c.Close(); err != nil || time.Since(begun) > closeGrace+closeForce {
			t.Errorf("it took %v: %v", time.Since(begun), err)
		}
	})
}

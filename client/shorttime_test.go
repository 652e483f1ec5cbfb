package client

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
)

// What a call does that has little time, and a leader that hangs while its
// connection stands.

// hanging is a fleet of a leader that answers one call and then hangs, and of a
// member that answers all; the client has heard who leads.
func hanging(t *testing.T, retries int) (c *remote, leader, other *fakeMember) {
	f := newFleet(t)
	leader, other = f.member(n1, nil), f.member(n2, nil)
	leader.leader = n1
	c = f.client(fewRetries(retries), n1, n2)
	if _, err := c.Acquire(t.Context(), acquireReq()); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	leader.script = func(ctx context.Context, _ string, _ proto.Message) (proto.Message, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return c, leader, other
}

func renewWithin(t *testing.T, c *remote, d time.Duration) error {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	_, err := c.Renew(ctx, &RenewRequest{LockID: "l", ClientID: "me", Version: 7, NewTTL: time.Second})
	return err
}

func TestAShortCallLeavesAHungLeader(t *testing.T) {
	for _, d := range []time.Duration{50 * time.Millisecond, 300 * time.Millisecond, time.Second, 3 * time.Second} {
		t.Run(d.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, leader, other := hanging(t, 3)
				for range 2 {
					if err := renewWithin(t, c, d); err != nil {
						t.Error(err)
					}
				}
				if l, o := len(leader.heardOf("Renew")), len(other.heardOf("Renew")); l != 1 || o != 2 {
					t.Errorf("the leader that hangs was asked %d times, the other one %d times", l, o)
				}
			})
		})
	}
}

// Without repeats the one attempt has all the time, and the next call goes
// elsewhere.
func TestAShortCallSuspectsAHungLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, leader, _ := hanging(t, 0)
		if err := renewWithin(t, c, 300*time.Millisecond); !is(err, ErrTimeout) {
			t.Errorf("the first ended with %v", err)
		}
		if err := renewWithin(t, c, 300*time.Millisecond); err != nil {
			t.Errorf("the second ended with %v", err)
		}
		if n := len(leader.heardOf("Renew")); n != 1 {
			t.Errorf("the leader that hangs was asked %d times", n)
		}
	})
}

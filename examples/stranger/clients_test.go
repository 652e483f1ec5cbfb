package stranger

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

// What can happen to the machine of a poster.

// shop is two posters, and a cluster for their lock.
type shop struct {
	cluster  *testcluster.Cluster
	machines [2]*testcluster.Client
	posters  [2]*Poster
	ledger   *Ledger
}

// inShop runs a test in virtual time, with posters in process and over gRPC.
func inShop(t *testing.T, test func(t *testing.T, s *shop)) {
	t.Helper()
	for _, remote := range []bool{false, true} {
		name := "in process"
		if remote {
			name = "gRPC"
		}
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &shop{cluster: testcluster.New(t, 3, testcluster.WithGRPC()), ledger: &Ledger{}}
				for i := range s.machines {
					if remote {
						s.machines[i] = s.cluster.Dial(s.cluster.ClientConfig())
					} else {
						s.machines[i] = s.cluster.Client()
					}
					s.posters[i] = &Poster{Locks: s.machines[i], Ledger: s.ledger}
					if err := s.posters[i].Post(t.Context(), 0, nil); err != nil {
						t.Fatal(err)
					}
				}
				test(t, s)
			})
		})
	}
}

// post posts 1 by a poster, which must succeed, and returns how long it took.
func (s *shop) post(t *testing.T, i int) time.Duration {
	t.Helper()
	begun := time.Now()
	if err := s.posters[i].Post(t.Context(), 1, nil); err != nil {
		t.Errorf("poster %d: %v", i, err)
	}
	return time.Since(begun)
}

// stuck has the first poster hold the lock until its context ends; the channel
// gets when that was, and what Post returned.
func (s *shop) stuck(t *testing.T) (told <-chan time.Time, ended <-chan error) {
	t.Helper()
	at, result := make(chan time.Time, 1), make(chan error, 1)
	go func() {
		result <- s.posters[0].Post(t.Context(), 1, func(ctx context.Context, _ int64) {
			<-ctx.Done()
			at <- time.Now()
		})
	}()
	synctest.Wait()
	return at, result
}

func (s *shop) wantSum(t *testing.T, want int) {
	t.Helper()
	if sum := s.ledger.Sum(); sum != want {
		t.Errorf("the sum is %d, want %d", sum, want)
	}
}

func TestWithoutFaults(t *testing.T) {
	inShop(t, func(t *testing.T, s *shop) {
		s.cluster.RequireReleased()
		for range 10 {
			s.post(t, 0)
			s.post(t, 1)
		}
		s.wantSum(t, 20)
	})
}

func TestCut(t *testing.T) {
	inShop(t, func(t *testing.T, s *shop) {
		told, ended := s.stuck(t)
		s.machines[0].Cut()
		s.post(t, 1)
		next := time.Now()
		if at := <-told; !at.Before(next) {
			t.Errorf("who was cut off was told %v after the next grant", at.Sub(next))
		}
		if err := <-ended; !errors.Is(err, client.ErrLockLost) {
			t.Errorf("Post ended with %v", err)
		}
		if err := s.posters[0].Post(t.Context(), 1, nil); !errors.Is(err, client.ErrUnavailable) {
			t.Errorf("a poster that is cut off ended with %v", err)
		}
		s.wantSum(t, 1)
	})
}

func TestMend(t *testing.T) {
	inShop(t, func(t *testing.T, s *shop) {
		s.machines[0].Cut()
		time.AfterFunc(2*time.Second, s.machines[0].Mend)
		if took := s.post(t, 0); took < 2*time.Second {
			t.Errorf("a poster that was cut off for 2s took %v", took)
		}
	})
}

func TestDropAnswers(t *testing.T) {
	inShop(t, func(t *testing.T, s *shop) {
		cl := s.machines[0]
		cl.DropAnswers()
		req := &client.AcquireRequest{LockID: "order", ClientID: "me", RequestID: "1", TTL: time.Hour}
		_, err := cl.Acquire(t.Context(), req)
		if !errors.Is(err, client.ErrOutcomeUnknown) {
			t.Errorf("a call without an answer ended with %v", err)
		}
		info, err := s.machines[1].GetLockInfo(t.Context(), &client.GetLockInfoRequest{LockID: "order"})
		if err != nil || info.OwnerID != "me" {
			t.Fatalf("it was not applied: %+v, %v", info, err)
		}
		cl.Mend()
		res, err := cl.Acquire(t.Context(), req)
		if err != nil || res.Lock.Version != info.Version {
			t.Errorf("its repeat: %+v, %v", res, err)
		}
	})
}

func TestPausedClient(t *testing.T) {
	for name, resume := range map[string]func(*testcluster.Client){
		"Resume": (*testcluster.Client).Resume, "Wake": (*testcluster.Client).Wake,
	} {
		t.Run(name, func(t *testing.T) {
			inShop(t, func(t *testing.T, s *shop) {
				held, err := client.Hold(t.Context(), s.machines[0], "ledger", client.WithTTL(ttl))
				if err != nil {
					t.Fatal(err)
				}
				s.machines[0].Pause()
				s.post(t, 1)
				if err := held.Err(); err != nil {
					t.Errorf("a paused machine knows that %v", err)
				}
				if err := s.ledger.Add(t.Context(), held.Token(), 1); !errors.Is(err, fence.ErrStale) {
					t.Errorf("its write ended with %v", err)
				}
				resume(s.machines[0])
				if err := held.Err(); !errors.Is(err, client.ErrLockLost) {
					t.Errorf("after the pause the hold says %v", err)
				}
				s.wantSum(t, 1)
			})
		})
	}
}

func TestSkewedClient(t *testing.T) {
	inShop(t, func(t *testing.T, s *shop) {
		s.machines[0].SkewRate(250_000) // a quarter faster
		begun := time.Now()
		err := client.DoWithLock(t.Context(), s.machines[0], "ledger", "me", 100*time.Second, func(ctx context.Context) error {
			<-ctx.Done()
			return nil
		})
		if took := time.Since(begun); !errors.Is(err, client.ErrLockLost) || took < 78*time.Second || took > 80*time.Second {
			t.Errorf("99s by a clock that is a quarter faster took %v, and ended with %v", took, err)
		}
	})
}

// Without a bubble, time is real, and all else the same.
func TestRealTime(t *testing.T) {
	cluster := testcluster.New(t, 3)
	cluster.RequireReleased()
	machine, ledger := cluster.Client(), &Ledger{}
	held, err := client.Hold(t.Context(), machine, "ledger", client.WithTTL(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	machine.Cut()
	other := &Poster{Locks: cluster.Client(), Ledger: ledger}
	if err := other.Post(t.Context(), 1, nil); err != nil {
		t.Fatal(err)
	}
	<-held.Done()
	if err := ledger.Add(t.Context(), held.Token(), 1); !errors.Is(err, fence.ErrStale) {
		t.Error(err)
	}
}

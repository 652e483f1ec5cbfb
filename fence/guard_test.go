package fence_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/raftlock/raftlock/fence"
)

func nothing() error { return nil }

// mustNot is an action that is not to be run.
func mustNot(t *testing.T) func() error {
	return func() error {
		t.Helper()
		t.Error("the action was run")
		return nil
	}
}

// TestStaleTokensAreRefused holds what the guard is for, and what its error says.
func TestStaleTokensAreRefused(t *testing.T) {
	var g fence.Guard
	run := 0
	act := func() error { run++; return nil }
	for _, token := range []int64{5, 5, 9, 9, math.MaxInt64 - 1} {
		if err := g.Do(t.Context(), "account", token, act); err != nil {
			t.Fatal(err)
		}
	}
	if run != 5 {
		t.Errorf("%d actions of 5 were run", run)
	}
	err := g.Do(t.Context(), "account", 9, mustNot(t))
	if !errors.Is(err, fence.ErrStale) {
		t.Errorf("a stale token: %v", err)
	}
	stale, ok := errors.AsType[*fence.StaleError](err)
	want := fence.StaleError{Resource: "account", Token: 9, Greatest: math.MaxInt64 - 1}
	if !ok || *stale != want {
		t.Errorf("the error is %+v, want %+v", stale, want)
	}
	if err := g.Check("account", 9); !errors.Is(err, fence.ErrStale) {
		t.Errorf("a stale token at Check: %v", err)
	}
	if err := g.Do(t.Context(), "another", 1, nothing); err != nil {
		t.Errorf("another resource: %v", err)
	}
}

// TestInvalidTokensAreRefused holds that zero, the token of who has none, never
// gets through, and that the error names the field.
func TestInvalidTokensAreRefused(t *testing.T) {
	var g fence.Guard
	for _, token := range []int64{0, -1, math.MinInt64} {
		for name, err := range map[string]error{
			"Do":    g.Do(t.Context(), "account", token, mustNot(t)),
			"Check": g.Check("account", token),
		} {
			if !errors.Is(err, fence.ErrInvalidToken) || !strings.Contains(err.Error(), fmt.Sprintf("field 'token' is \"%d\"", token)) {
				t.Errorf("%s with %d: %v", name, token, err)
			}
		}
	}
	if n := g.Len(); n != 0 {
		t.Errorf("%d resources are remembered", n)
	}
}

// TestTokensOfFailedActionsCount holds that a token is seen when it comes, not
// when its action succeeds.
func TestTokensOfFailedActionsCount(t *testing.T) {
	var g fence.Guard
	failed := errors.New("disk full")
	if err := g.Do(t.Context(), "account", 5, func() error { return failed }); !errors.Is(err, failed) {
		t.Errorf("Do returns %v, not the action's error", err)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		_ = g.Do(t.Context(), "account", 7, func() error { panic("bug") })
	}()
	if err := g.Do(t.Context(), "account", 6, mustNot(t)); !errors.Is(err, fence.ErrStale) {
		t.Errorf("after a panic of token 7: %v", err)
	}
	if err := g.Do(t.Context(), "account", 7, nothing); err != nil {
		t.Errorf("the turn is not free after a panic: %v", err)
	}
}

// TestCheckAndActionAreOne holds that nothing comes between a check and its
// action, and that who waited is compared again.
func TestCheckAndActionAreOne(t *testing.T) {
	synctest.Test(t, testCheckAndActionAreOne)
}

func testCheckAndActionAreOne(t *testing.T) {
	var g fence.Guard
	var order []string
	finish := make(chan struct{})
	var calls sync.WaitGroup
	calls.Go(func() {
		err := g.Do(t.Context(), "account", 1, func() error {
			order = append(order, "1 begins")
			<-finish
			order = append(order, "1 ends")
			return nil
		})
		if err != nil {
			t.Errorf("token 1: %v", err)
		}
	})
	synctest.Wait()
	calls.Go(func() { // its turn comes after token 3 was seen
		if err := g.Do(t.Context(), "account", 2, mustNot(t)); !errors.Is(err, fence.ErrStale) {
			t.Errorf("token 2: %v", err)
		}
	})
	synctest.Wait()
	calls.Go(func() {
		err := g.Do(t.Context(), "account", 3, func() error {
			order = append(order, "3")
			return nil
		})
		if err != nil {
			t.Errorf("token 3: %v", err)
		}
	})
	synctest.Wait()
	if err := g.Do(t.Context(), "another", 1, nothing); err != nil {
		t.Errorf("another resource has to wait: %v", err)
	}
	close(finish)
	calls.Wait()
	if got := strings.Join(order, ", "); got != "1 begins, 1 ends, 3" {
		t.Errorf("the actions were %s", got)
	}
}

// TestEndOfTheWait holds that a context ends the wait for a turn, before the
// action and without it.
func TestEndOfTheWait(t *testing.T) {
	synctest.Test(t, testEndOfTheWait)
}

func testEndOfTheWait(t *testing.T) {
	var g fence.Guard
	over, cancel := context.WithCancel(t.Context())
	finish := make(chan struct{})
	var calls sync.WaitGroup
	calls.Go(func() {
		if err := g.Do(t.Context(), "account", 1, func() error { <-finish; return nil }); err != nil {
			t.Error(err)
		}
	})
	synctest.Wait()
	calls.Go(func() {
		if err := g.Do(over, "account", 2, mustNot(t)); !errors.Is(err, context.Canceled) {
			t.Errorf("a wait that was cancelled: %v", err)
		}
	})
	synctest.Wait()
	cancel()
	synctest.Wait()
	close(finish)
	calls.Wait()
	for range 100 { // were it left to chance, it would go wrong in half of them
		if err := g.Do(over, "account", 2, mustNot(t)); !errors.Is(err, context.Canceled) {
			t.Fatalf("a context that has ended: %v", err)
		}
	}
	if err := g.Do(t.Context(), "account", 2, nothing); err != nil {
		t.Errorf("the turn is not free after that: %v", err)
	}
}

// TestForget holds that what is forgotten costs no memory, and that two actions
// are not at work at once because of it.
func TestForget(t *testing.T) {
	synctest.Test(t, testForget)
}

func testForget(t *testing.T) {
	var g fence.Guard
	g.Forget("never seen")
	for i := range 100 {
		if err := g.Check(fmt.Sprint(i), 9); err != nil {
			t.Fatal(err)
		}
	}
	if n := g.Len(); n != 100 {
		t.Errorf("%d resources, want 100", n)
	}
	for i := range 100 {
		g.Forget(fmt.Sprint(i))
	}
	if n := g.Len(); n != 0 {
		t.Errorf("%d resources are left", n)
	}

	finish := make(chan struct{})
	var ended bool
	var calls sync.WaitGroup
	calls.Go(func() {
		if err := g.Do(t.Context(), "account", 9, func() error { <-finish; ended = true; return nil }); err != nil {
			t.Error(err)
		}
	})
	synctest.Wait()
	g.Forget("account")
	calls.Go(func() {
		err := g.Do(t.Context(), "account", 1, func() error {
			if !ended {
				t.Error("two actions at once")
			}
			return nil
		})
		if err != nil {
			t.Errorf("token 1 after 9 was forgotten: %v", err)
		}
	})
	synctest.Wait()
	g.Forget("account")
	close(finish)
	calls.Wait()
	g.Forget("account")
	if n := g.Len(); n != 0 {
		t.Errorf("%d resources are left after Do", n)
	}
}

// TestAcceptedTokensNeverFall is the property: whatever tokens come from however
// many writers at once, those that are accepted never fall for a resource, and
// nobody is refused without a reason.
func TestAcceptedTokensNeverFall(t *testing.T) {
	const writers, writes, resources = 16, 200, 3
	for range 10 {
		seed := rand.Uint64()
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			var g fence.Guard
			var accepted [resources][]int64 // unguarded: the race detector sees actions that are not one
			var sent [resources][writers]int64
			var all sync.WaitGroup
			for w := range writers {
				all.Go(func() {
					random := rand.New(rand.NewPCG(seed, uint64(w)))
					for i := range writes {
						r, token := random.IntN(resources), int64(i)+1+random.Int64N(50)
						sent[r][w] = max(sent[r][w], token)
						err := g.Do(t.Context(), fmt.Sprint(r), token, func() error {
							runtime.Gosched()
							accepted[r] = append(accepted[r], token)
							return nil
						})
						stale, refused := errors.AsType[*fence.StaleError](err)
						if refused && stale.Greatest > token || err == nil {
							continue
						}
						t.Errorf("token %d of resource %d: %v", token, r, err)
					}
				})
			}
			all.Wait()
			for r, tokens := range accepted {
				for i := 1; i < len(tokens); i++ {
					if tokens[i] < tokens[i-1] {
						t.Fatalf("resource %d accepted %d after %d", r, tokens[i], tokens[i-1])
					}
				}
				greatest := int64(0)
				for _, token := range sent[r] {
					greatest = max(greatest, token)
				}
				if len(tokens) == 0 || tokens[len(tokens)-1] != greatest {
					t.Errorf("resource %d: the greatest token %d was not the last to be accepted", r, greatest)
				}
			}
		})
	}
}

// TestGuardAgreesWithATwin holds a guard of one caller to the plain rule.
func TestGuardAgreesWithATwin(t *testing.T) {
	for range 20 {
		seed := rand.Uint64()
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			var g fence.Guard
			twin := map[string]int64{}
			for range 500 {
				resource, token := fmt.Sprint(random.IntN(4)), random.Int64N(30)-2
				if random.IntN(20) == 0 {
					g.Forget(resource)
					delete(twin, resource)
					continue
				}
				want := error(nil)
				switch {
				case token < 1:
					want = fence.ErrInvalidToken
				case token < twin[resource]:
					want = fence.ErrStale
				default:
					twin[resource] = token
				}
				var err error
				ran := false
				if random.IntN(2) == 0 {
					err = g.Check(resource, token)
				} else {
					err = g.Do(t.Context(), resource, token, func() error { ran = true; return nil })
					if ran != (want == nil) {
						t.Fatalf("token %d of %s: the action was run: %v", token, resource, ran)
					}
				}
				if !errors.Is(err, want) {
					t.Fatalf("token %d of %s: %v, want %v", token, resource, err, want)
				}
				if g.Len() != len(twin) {
					t.Fatalf("%d resources, want %d", g.Len(), len(twin))
				}
			}
		})
	}
}

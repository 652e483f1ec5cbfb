package fence_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/raftlock/raftlock/fence"
)

// TestObjectStoreRecipe holds that a stale write is refused whenever the newer one
// comes, also between the stale one's look and its put, and with the same data.
func TestObjectStoreRecipe(t *testing.T) {
	const base int64 = 1_790_000_000_000_000 // as a cluster's tokens: more than 32 bits
	store := &bucket{objects: map[string]string{}}
	keep := func(data string) string { return data }
	for _, there := range []bool{false, true} {
		looks := 0
		err := update(t.Context(), store, "plan", base+5, func(string) string {
			if looks++; looks == 1 && !there {
				return "first"
			}
			if err := update(t.Context(), store, "plan", base+6, keep); err != nil {
				t.Error(err)
			}
			return "stale"
		})
		if there != errors.Is(err, fence.ErrStale) || !there && err != nil {
			t.Errorf("there=%v: %v", there, err)
		}
	}
	if got := store.objects["plan"]; got != fmt.Sprint(base+6, "\nfirst") {
		t.Errorf("the object is %q", got)
	}
	if err := update(t.Context(), store, "plan", 0, keep); !errors.Is(err, fence.ErrInvalidToken) {
		t.Errorf("no token: %v", err)
	}
	store.objects["foreign"] = ""
	if err := update(t.Context(), store, "foreign", base+5, keep); !errors.Is(err, fence.ErrInvalidToken) {
		t.Errorf("an object without a token: %v", err)
	}
	over, cancel := context.WithCancel(t.Context())
	err := update(over, store, "plan", base+7, func(string) string {
		cancel()
		store.objects["plan"] += "!" // somebody is always faster
		return ""
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a context that has ended: %v", err)
	}
}

// TestObjectStoreRecipeWithManyWriters holds that of what was accepted nothing is
// lost, and that the order of tokens never falls.
func TestObjectStoreRecipeWithManyWriters(t *testing.T) {
	store := &bucket{objects: map[string]string{}}
	var mu sync.Mutex
	accepted := 0
	var writers sync.WaitGroup
	for w := range 8 {
		writers.Go(func() {
			for i := range 20 {
				token := int64(8*i + w + 1)
				err := update(t.Context(), store, "plan", token, func(data string) string { return data + fmt.Sprint(token, " ") })
				if err == nil {
					mu.Lock()
					accepted++
					mu.Unlock()
				} else if !errors.Is(err, fence.ErrStale) {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	_, data, _ := strings.Cut(store.objects["plan"], "\n")
	last, n := int64(0), 0
	for text := range strings.FieldsSeq(data) {
		token, err := fence.ParseToken(text)
		if err != nil || token < last {
			t.Fatalf("%d comes after %d (%v)", token, last, err)
		}
		last = token
		n++
	}
	if n != accepted || n == 0 {
		t.Errorf("%d writes stand, %d were accepted", n, accepted)
	}
}

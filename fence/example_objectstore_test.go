package fence_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/raftlock/raftlock/fence"
)

// bucket is an object store in memory. Like several real ones it makes an object's
// ETag of its content, and nothing else.
type bucket struct {
	mu      sync.Mutex
	objects map[string]string
}

var errPrecondition = errors.New("412 Precondition Failed")

func (b *bucket) etag(key string) string {
	content, ok := b.objects[key]
	if !ok {
		return ""
	}
	return fmt.Sprintf("%x", sha256.Sum256([]byte(content)))
}

// get returns an object and its ETag, both empty when there is none.
func (b *bucket) get(_ context.Context, key string) (content, etag string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.objects[key], b.etag(key), nil
}

// put writes an object if it still has the ETag (If-Match), or if there still is
// none when the ETag is empty (If-None-Match: *).
func (b *bucket) put(_ context.Context, key, content, etag string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.etag(key) != etag {
		return errPrecondition
	}
	b.objects[key] = content
	return nil
}

// update changes an object as the holder of a token. The token is the first line
// of the content, so that it is a part of what the ETag is made of: in the
// metadata alone, two writes of the same data would have one ETag, and a stale
// write could not tell the one from the other. A store whose versions or
// generations change with every write may have it in the metadata.
//
// change is called again when another was faster, so it works on what it is given and
// has no other effect. Turn off the retries that a store's SDK makes of its own accord
// (max attempts 1) for the put: an attempt whose answer is lost may have written, the
// next one meets the new ETag, 412 looks as if another had been faster, and the change
// is made twice. Where they cannot be turned off, change must be idempotent. An error
// other than 412 leaves open whether it was written, as it does without retries.
//
// A write that comes late, because it hung in the network, changes nothing: the
// object has another ETag by then. An object is not deleted but emptied, because
// with it its token would be forgotten.
func update(ctx context.Context, b *bucket, key string, token int64, change func(data string) string) error {
	if token < 1 {
		return fmt.Errorf("%w: %d", fence.ErrInvalidToken, token)
	}
	for {
		content, etag, err := b.get(ctx, key)
		if err != nil {
			return err
		}
		first, data, _ := strings.Cut(content, "\n")
		if etag != "" { // there is one
			seen, err := fence.ParseToken(first)
			if err != nil {
				return fmt.Errorf("first line of %s: %w", key, err)
			} else if token < seen {
				return &fence.StaleError{Resource: key, Token: token, Greatest: seen}
			}
		}
		err = b.put(ctx, key, fmt.Sprintf("%d\n%s", token, change(data)), etag)
		if !errors.Is(err, errPrecondition) {
			return err
		}
		if err := ctx.Err(); err != nil { // another was faster: look again
			return err
		}
	}
}

// An object store that can write on a condition: the token is compared by the
// writer, and the condition keeps what it has compared true.
func Example_objectStore() {
	ctx := context.Background()
	store := &bucket{objects: map[string]string{}}
	add := func(text string) func(string) string {
		return func(data string) string { return data + text }
	}
	fmt.Println(update(ctx, store, "plan", 41, add("A")))
	fmt.Println(update(ctx, store, "plan", 42, add("B")))
	fmt.Println(update(ctx, store, "plan", 41, add("C")))
	fmt.Printf("%q\n", store.objects["plan"])
	// Output:
	// <nil>
	// <nil>
	// fence: stale token: resource "plan" has seen token 42, refused token 41
	// "42\nAB"
}

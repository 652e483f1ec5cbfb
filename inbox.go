package raftlock

import (
	"runtime"
	"sync"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftlock/raftlock/internal/clock"
)

// inbox is the one door into the loop. Everything that happens outside lies
// here until the loop's next turn takes all of it at once.
type inbox struct {
	clock clock.Clock
	// wake has room for one token; a token means that something lies here.
	// It is never closed.
	wake chan struct{}
	room *sync.Cond // signalled when peers' frames have been taken

	mu struct {
		sync.Mutex
		next   arrivals
		frames int // bytes of peers' frames in next
		closed bool
	}
}

// arrivals is what one turn of the loop takes.
type arrivals struct {
	calls    []*call
	messages []*raftpb.Message // the disk's answers
	frames   []received
	requests []func(*replica) // everything rare
}

// received is a frame of a peer, or something to be done between the frames: a
// stream ends when all that came over it has been taken, not before.
type received struct {
	frame         frame
	do            func(*replica)
	from, session uint64
	size          int
}

// maxInboxFrames is how many bytes of peers' frames may lie here before their
// receivers wait, and with them the peers' senders.
const maxInboxFrames = 64 << 20

func newInbox() *inbox {
	in := &inbox{wake: make(chan struct{}, 1)}
	in.room = sync.NewCond(&in.mu)
	return in
}

func (in *inbox) signal() {
	select {
	case in.wake <- struct{}{}:
	default:
	}
}

// call puts a call in. It returns false when the member is closed. The instant
// of arrival is taken under the lock: whatever the loop has not taken yet
// arrived after the instant of that turn.
func (in *inbox) call(c *call) bool {
	in.mu.Lock()
	if in.mu.closed {
		in.mu.Unlock()
		return false
	}
	c.arrived = in.clock.Now()
	c.since = c.arrived
	in.mu.next.calls = append(in.mu.next.calls, c)
	in.mu.Unlock()
	in.signal()
	return true
}

// request puts in something to be done in the loop. False as in call.
func (in *inbox) request(do func(*replica)) bool {
	in.mu.Lock()
	if in.mu.closed {
		in.mu.Unlock()
		return false
	}
	in.mu.next.requests = append(in.mu.next.requests, do)
	in.mu.Unlock()
	in.signal()
	return true
}

// inOrder puts in something to be done in the loop behind the frames that have
// come. False as in call.
func (in *inbox) inOrder(do func(*replica)) bool {
	in.mu.Lock()
	if in.mu.closed {
		in.mu.Unlock()
		return false
	}
	in.mu.next.frames = append(in.mu.next.frames, received{do: do})
	in.mu.Unlock()
	in.signal()
	return true
}

// answers puts in what the disk answers to raft.
func (in *inbox) answers(messages []*raftpb.Message) {
	if len(messages) == 0 {
		return
	}
	in.mu.Lock()
	in.mu.next.messages = append(in.mu.next.messages, messages...)
	in.mu.Unlock()
	in.signal()
}

// receive puts in a peer's frame; it blocks while too much lies here. False as
// in call.
func (in *inbox) receive(f received) bool {
	in.mu.Lock()
	for in.mu.frames > maxInboxFrames && !in.mu.closed {
		in.room.Wait()
	}
	if in.mu.closed {
		in.mu.Unlock()
		return false
	}
	in.mu.frames += f.size
	in.mu.next.frames = append(in.mu.next.frames, f)
	in.mu.Unlock()
	in.signal()
	return true
}

// gather lets the callers that were just answered come back first, so that their
// next calls ride together instead of splitting into cohorts that halve the
// throughput. It yields the processor at least twice, and as long as calls keep
// coming.
func (in *inbox) gather() {
	const most = 16
	runtime.Gosched()
	before := in.waiting()
	for range most {
		runtime.Gosched()
		now := in.waiting()
		if now == before {
			return
		}
		before = now
	}
}

func (in *inbox) waiting() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.mu.next.calls)
}

// take returns all that lies here and the instant of it, and puts the emptied
// slices of an earlier turn in its place.
func (in *inbox) take(empty arrivals) (arrivals, time.Time) {
	in.mu.Lock()
	defer in.mu.Unlock()
	taken := in.mu.next
	in.mu.next = empty
	if in.mu.frames > 0 {
		in.mu.frames = 0
		in.room.Broadcast()
	}
	return taken, in.clock.Now()
}

// close refuses whatever comes from now on and returns what lies here.
func (in *inbox) close() arrivals {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.mu.closed = true
	taken := in.mu.next
	in.mu.next = arrivals{}
	in.room.Broadcast()
	return taken
}

// reset empties a turn's slices for reuse.
func (a *arrivals) reset() arrivals {
	clear(a.calls)
	clear(a.messages)
	clear(a.frames)
	clear(a.requests)
	return arrivals{a.calls[:0], a.messages[:0], a.frames[:0], a.requests[:0]}
}

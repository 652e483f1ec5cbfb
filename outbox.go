package raftlock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// outbox is the way to one peer: a queue that takes without blocking and one
// goroutine that sends what has gathered as one frame. While the stream is down
// or too slow it drops raft's messages, which raft repeats, and reports it.
// Forwarded calls are never dropped in silence: those that were not sent are
// given back, and for the rest the stream is broken, which tells both sides that
// answers may be missing.
type outbox struct {
	name string
	id   uint64
	node *Node
	peer format        // the newest that both read; belongs to run
	wake chan struct{} // room for one token; never closed

	// ctx is that of run; it ends with the peer's membership too.
	ctx    context.Context
	cancel context.CancelFunc

	mu struct {
		sync.Mutex
		up bool
		// parting: the peer is no member any more. What is queued is sent first.
		parting bool
		// greeting: a stream is being opened. The peer has it, and counts on
		// our answers, before we know that it is up.
		greeting bool
		queue    frame
		spoilt   bool          // what was queued during the greeting did not all fit
		bytes    int           // of queue.messages
		room     int           // bytes of queue.forwards
		broken   chan struct{} // of this stream; closed to break it
	}
}

const (
	maxOutboxBytes = 64 << 20 // of raft messages that wait for one peer, and as much of forwards
	maxFrameFill   = 2 << 20  // a frame takes no further message beyond this

	handshakeTimeout = 5 * time.Second
	minRedial        = 20 * time.Millisecond
	maxRedial        = time.Second
)

func newOutbox(n *Node, name string, id uint64) *outbox {
	o := &outbox{name: name, id: id, node: n, wake: make(chan struct{}, 1)}
	o.ctx, o.cancel = context.WithCancel(n.ctx)
	return o
}

// part ends the outbox, as soon as what is queued is sent or cannot be.
func (o *outbox) part() {
	o.mu.Lock()
	o.mu.parting = true
	up := o.mu.up
	o.mu.Unlock()
	if !up {
		o.cancel()
		return
	}
	o.node.clock.AfterFunc(handshakeTimeout, o.cancel) // Send may be blocked
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

var errParted = errors.New("the peer is no member any more")

// send queues messages and forwarded calls; it does not block. It returns the
// numbers of the calls that it could not take.
func (o *outbox) send(messages []*raftpb.Message, forwards []forward) (unsent []uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.mu.up {
		unsent = callsIn(forwards)
		if !o.mu.greeting {
			return unsent
		}
		forwards = slices.DeleteFunc(forwards, func(f forward) bool { return f.kind == forwardCall || f.kind == forwardWish })
	}
	for _, m := range messages {
		if o.mu.bytes > maxOutboxBytes {
			break // raft will send it again
		}
		o.mu.bytes += proto.Size(m)
		o.mu.queue.messages = append(o.mu.queue.messages, m)
	}
	for i := range forwards {
		o.mu.room += forwards[i].size()
	}
	if o.mu.room > maxOutboxBytes {
		o.mu.spoilt = true // the peer must not count on answers that are missing
		o.breakStream()
		return append(unsent, callsIn(forwards)...)
	}
	o.mu.queue.forwards = append(o.mu.queue.forwards, forwards...)
	select {
	case o.wake <- struct{}{}:
	default:
	}
	return unsent
}

// breakStream is called with the lock held.
func (o *outbox) breakStream() {
	if o.mu.broken != nil {
		close(o.mu.broken)
		o.mu.broken = nil
	}
}

// run keeps a stream to the peer up until ctx ends.
func (o *outbox) run(ctx context.Context) {
	pause := minRedial
	var last string
	for ctx.Err() == nil {
		stream, err := o.connect(ctx)
		if err == nil {
			pause, last = minRedial, ""
			err = o.serve(ctx, stream)
		}
		if errors.Is(err, ErrDiskLost) || errors.Is(err, ErrRemoved) {
			o.node.fail(err)
			return
		}
		if errors.Is(err, errParted) {
			return
		}
		if text := err.Error(); text != last && ctx.Err() == nil {
			o.node.logger.Warn("peer is not reachable", "peer", o.name, "error", err)
			last = text
		}
		timer := o.node.clock.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
		pause = min(2*pause, maxRedial)
	}
}

// connect opens a stream and shakes hands.
func (o *outbox) connect(ctx context.Context) (PeerStream, error) {
	o.empty(true)
	stream, answer, err := o.node.greet(ctx, o.name, sendsFrames)
	if err != nil {
		o.empty(false)
		return nil, err
	}
	o.node.met(o.name, answer.ClientAddress)
	o.peer = min(answer.newest(), o.node.cfg.newest)
	return stream, nil
}

// empty drops what is queued while no stream is up.
func (o *outbox) empty(greeting bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.mu.greeting, o.mu.spoilt = greeting, false
	o.mu.queue, o.mu.bytes, o.mu.room = frame{}, 0, 0
}

// serve sends over one stream until it breaks, and says so.
func (o *outbox) serve(ctx context.Context, stream PeerStream) error {
	broken := make(chan struct{})
	o.mu.Lock()
	o.mu.up, o.mu.greeting, o.mu.broken = true, false, broken
	if o.mu.spoilt {
		o.breakStream()
	}
	o.mu.Unlock()
	reads := o.peer
	o.node.inbox.inOrder(func(r *replica) { // behind the end of the stream before
		r.peerReads(o.id, reads)
		r.peerUp(o.id)
	})

	var watch sync.WaitGroup
	gone := make(chan struct{})
	watch.Go(func() { // nothing comes back on this stream but its end
		defer close(gone)
		for {
			if _, err := stream.Recv(); err != nil {
				return
			}
		}
	})
	watch.Go(func() { // Send may be blocked: closing the stream ends it
		select {
		case <-ctx.Done():
		case <-broken:
		case <-gone:
		}
		_ = stream.Close() // its error says no more than that it is closed
	})
	err := o.pump(stream, gone)
	o.mu.Lock()
	unsent := callsIn(o.mu.queue.forwards)
	o.mu.up, o.mu.queue = false, frame{}
	o.breakStream()
	o.mu.Unlock()
	o.node.inbox.inOrder(func(r *replica) { // behind the answers that have come
		for _, id := range unsent {
			r.unsent(id)
		}
		r.peerDown(o.id)
	})
	watch.Wait()
	return err
}

// pump sends what gathers until the stream breaks.
func (o *outbox) pump(stream PeerStream, gone <-chan struct{}) error {
	for {
		select {
		case <-gone:
			return errors.New("stream to the peer is broken")
		case <-o.wake:
		}
		o.mu.Lock()
		queue, parting := o.mu.queue, o.mu.parting
		o.mu.queue, o.mu.bytes, o.mu.room = frame{}, 0, 0
		o.mu.Unlock()
		for !queue.empty() {
			f := queue.cut(maxFrameFill)
			b, err := f.encode(o.peer)
			if err == nil {
				err = stream.Send(b)
			}
			if err != nil {
				return fmt.Errorf("send to peer: %w", err)
			}
		}
		if parting {
			return errParted
		}
	}
}

// cut takes messages off the front of f until they exceed size bytes.
func (f *frame) cut(size int) frame {
	taken, messages := 0, 0
	for messages < len(f.messages) && taken <= size {
		taken += proto.Size(f.messages[messages])
		messages++
	}
	forwards := 0
	for forwards < len(f.forwards) && taken <= size {
		taken += f.forwards[forwards].size()
		forwards++
	}
	front := frame{f.messages[:messages], f.forwards[:forwards]}
	f.messages, f.forwards = f.messages[messages:], f.forwards[forwards:]
	return front
}

// size is about how many bytes a forward takes.
func (m *forward) size() int {
	return commandSize(&m.cmd) + commandSize(&command{metadata: m.result.lock.metadata})
}

// callsIn lists the numbers of the calls among forwards.
func callsIn(forwards []forward) (ids []uint64) {
	for i := range forwards {
		if kind := forwards[i].kind; kind == forwardCall || kind == forwardWish {
			ids = append(ids, forwards[i].id)
		}
	}
	return ids
}

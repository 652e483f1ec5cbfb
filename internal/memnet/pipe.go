package memnet

import "sync"

// A pipe holds at most maxFrames frames and, once it holds one, maxBytes
// bytes: what the buffers of a real connection would hold, and a little more.
const (
	maxFrames = 256
	maxBytes  = 64 << 20
)

// pipe is one direction of a stream: a bounded queue. One goroutine may send
// while another receives, and any may call the rest.
type pipe struct {
	mu struct {
		sync.Mutex
		queue [][]byte
		bytes int // of all frames in queue
		// stalled: frames vanish on the way.
		stalled bool
		// sendErr refuses every further frame. The two errors are apart
		// because the ends may learn of the end at different times.
		sendErr error
		// recvErr ends the receiver once queue is empty; what is sent from
		// then on vanishes.
		recvErr error
	}
	// moved is signalled on every change. At most the one sender and the one
	// receiver wait on it, so that waking both costs little.
	moved sync.Cond
}

func newPipe() *pipe {
	p := &pipe{}
	p.moved.L = &p.mu
	return p
}

func (p *pipe) send(frame []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.full(len(frame)) {
		p.moved.Wait()
	}
	if p.mu.sendErr != nil {
		return p.mu.sendErr
	}
	if p.lossy() {
		return nil
	}
	p.mu.queue = append(p.mu.queue, frame)
	p.mu.bytes += len(frame)
	p.moved.Broadcast()
	return nil
}

// full reports whether a frame of that size has to wait. Caller holds mu.
func (p *pipe) full(size int) bool {
	if p.mu.sendErr != nil || p.lossy() || len(p.mu.queue) == 0 {
		return false
	}
	return len(p.mu.queue) >= maxFrames || p.mu.bytes+size > maxBytes
}

// lossy reports whether nobody will ever receive what is sent now. Caller
// holds mu.
func (p *pipe) lossy() bool { return p.mu.stalled || p.mu.recvErr != nil }

func (p *pipe) recv() ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.mu.queue) == 0 && p.mu.recvErr == nil {
		p.moved.Wait()
	}
	if len(p.mu.queue) == 0 {
		return nil, p.mu.recvErr
	}
	frame := p.mu.queue[0]
	p.mu.queue[0] = nil // the receiver's from now on: let go of it
	p.mu.queue = p.mu.queue[1:]
	p.mu.bytes -= len(frame)
	p.moved.Broadcast()
	return frame, nil
}

// stall loses whatever is sent from now on.
func (p *pipe) stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.stalled = true
	p.moved.Broadcast()
}

// endSend tells the sender that the pipe has ended. The first cause stays.
func (p *pipe) endSend(cause error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.sendErr == nil {
		p.mu.sendErr = cause
	}
	p.moved.Broadcast()
}

// endRecv tells the receiver, behind what is queued. The first cause stays.
func (p *pipe) endRecv(cause error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.endRecvLocked(cause)
}

// drop is the receiver's own end: what is queued is gone too.
func (p *pipe) drop(cause error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.queue, p.mu.bytes = nil, 0
	p.endRecvLocked(cause)
}

func (p *pipe) endRecvLocked(cause error) {
	if p.mu.recvErr == nil {
		p.mu.recvErr = cause
	}
	p.moved.Broadcast()
}

package memnet

import (
	"sync"
	"time"
)

// A pipe holds at most maxFrames frames and, once it holds one, maxBytes
// bytes: what the buffers of a real connection would hold, and a little more.
const (
	maxFrames = 256
	maxBytes  = 64 << 20
)

// parcel is a frame under way.
type parcel struct {
	frame []byte
	due   time.Time // when it arrives; zero is at once
}

// pipe is one direction of a stream: a bounded queue. One goroutine may send
// while another receives, and any may call the rest.
type pipe struct {
	mu struct {
		sync.Mutex
		queue []parcel
		bytes int // of all frames in queue
		// last is when all arrives that is under way, zero if nothing was delayed.
		last  time.Time
		alarm *time.Timer // wakes the receiver; nil until it is needed
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

// send takes a frame that arrives after delay, and after those before it.
func (p *pipe) send(frame []byte, delay time.Duration) error {
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
	p.mu.queue = append(p.mu.queue, parcel{frame, p.after(delay)})
	p.mu.bytes += len(frame)
	p.moved.Broadcast()
	return nil
}

// after is when something arrives that is sent now: not before what was sent
// before it. Zero is at once. Caller holds mu.
func (p *pipe) after(delay time.Duration) time.Time {
	if delay > 0 {
		if due := time.Now().Add(delay); due.After(p.mu.last) {
			p.mu.last = due
		}
	}
	return p.mu.last
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
	for !p.arrived() {
		p.moved.Wait()
	}
	if len(p.mu.queue) == 0 {
		return nil, p.mu.recvErr
	}
	frame := p.mu.queue[0].frame
	p.mu.queue[0] = parcel{} // the receiver's from now on: let go of it
	p.mu.queue = p.mu.queue[1:]
	p.mu.bytes -= len(frame)
	p.moved.Broadcast()
	return frame, nil
}

// arrived reports whether there is something to receive, a frame or the end, and
// sees to it that the receiver is woken when there is. Caller holds mu.
func (p *pipe) arrived() bool {
	due := p.mu.last // of the end
	switch {
	case len(p.mu.queue) > 0:
		due = p.mu.queue[0].due
	case p.mu.recvErr == nil:
		return false
	}
	if due.IsZero() { // no clock is asked where nothing is ever late
		return true
	}
	wait := time.Until(due)
	if wait <= 0 {
		return true
	}
	if p.mu.alarm == nil {
		p.mu.alarm = time.AfterFunc(wait, p.wake)
	} else {
		p.mu.alarm.Reset(wait)
	}
	return false
}

func (p *pipe) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.moved.Broadcast()
}

// hold delays all that is under way, and the end behind it, by at most that.
func (p *pipe) hold(late time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	due := p.after(late)
	for i := range p.mu.queue {
		p.mu.queue[i].due = due
	}
}

// delayEnd delays the end, which is not there yet.
func (p *pipe) delayEnd(delay time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.after(delay)
}

// failed is the error of the next send, nil if that is none.
func (p *pipe) failed() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.sendErr
}

// stall loses whatever is under way, and is sent from now on.
func (p *pipe) stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.stalled = true
	now := time.Now()
	for i := range p.mu.queue {
		if p.mu.queue[i].due.After(now) {
			p.cutAt(i)
			break
		}
	}
	p.moved.Broadcast()
}

// cutAt loses the frames from the i-th on. Caller holds mu.
func (p *pipe) cutAt(i int) {
	for _, lost := range p.mu.queue[i:] {
		p.mu.bytes -= len(lost.frame)
	}
	clear(p.mu.queue[i:])
	p.mu.queue = p.mu.queue[:i]
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
	p.mu.queue, p.mu.bytes, p.mu.last = nil, 0, time.Time{}
	p.endRecvLocked(cause)
}

func (p *pipe) endRecvLocked(cause error) {
	if p.mu.recvErr == nil {
		p.mu.recvErr = cause
	}
	p.moved.Broadcast()
}

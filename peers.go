package raftlock

import (
	"context"
	"errors"
	"fmt"
)

// The meeting of members: greeting a peer, being greeted, receiving its frames.

// greet opens a stream to a member and shakes hands. It blocks at most
// handshakeTimeout. The error is around ErrDiskLost when the peer says so.
func (n *Node) greet(ctx context.Context, name string, why errand) (PeerStream, hello, error) {
	ctx, cancel := n.clock.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	addr, err := n.address(name)
	if err != nil {
		return nil, hello{}, err
	}
	stream, err := n.cfg.Transport.Dial(ctx, addr)
	if err != nil {
		return nil, hello{}, fmt.Errorf("dial %s: %w", name, err)
	}
	mine := n.assembly.greeting(name, why)
	if why != asks {
		mine.Addresses = n.addresses() // the peer may not know who belongs to the cluster
	}
	answer, err := exchange(ctx, stream, &mine)
	if err == nil {
		err = mine.heed(&answer, name)
	}
	if err == nil {
		n.hear(&answer)
	}
	if err != nil {
		_ = stream.Close() // the handshake's error is the one that matters
		return nil, hello{}, fmt.Errorf("handshake with %s: %w", name, err)
	}
	return stream, answer, nil
}

// exchange says hello and takes the answer.
func exchange(ctx context.Context, stream PeerStream, mine *hello) (hello, error) {
	stop := context.AfterFunc(ctx, func() { _ = stream.Close() })
	defer stop()
	b, err := mine.encode()
	if err != nil {
		return hello{}, fmt.Errorf("encode hello: %w", err)
	}
	if err := stream.Send(b); err != nil {
		return hello{}, fmt.Errorf("send hello: %w", err)
	}
	if b, err = stream.Recv(); err != nil {
		return hello{}, fmt.Errorf("receive hello: %w", err)
	}
	return decodeHello(b)
}

// askPeer meets a member without sending frames, as members that are not yet a
// cluster do.
func (n *Node) askPeer(ctx context.Context, name string) (hello, error) {
	stream, answer, err := n.greet(ctx, name, asks)
	if err != nil {
		if n.meetings.isNew(name + " " + err.Error()) {
			n.logger.Info("member is not here yet", "peer", name, "error", err)
		}
		return hello{}, err
	}
	n.met(name, answer.ClientAddress)
	return answer, stream.Close()
}

// met notes where a member serves clients.
func (n *Node) met(name, clientAddress string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.addresses[name] = clientAddress
}

// accept serves one stream of a peer: its hello, then its frames, until it ends.
func (n *Node) accept(stream PeerStream) {
	err := n.guard(func() error {
		theirs, err := n.welcome(stream)
		switch {
		case err != nil:
			return err
		case theirs.Snapshot:
			return n.receiveSnapshot(stream, &theirs)
		case theirs.Frames:
			return n.receiveFrames(stream, theirs)
		}
		return nil
	})
	known := n.assembly.identity().Members != nil // otherwise the others are asked first: see assembly
	if known && (errors.Is(err, ErrDiskLost) || errors.Is(err, ErrRemoved)) {
		n.fail(err)
	} else if err != nil && n.ctx.Err() == nil && n.meetings.isNew(err.Error()) {
		n.logger.Warn("stream of a peer ended", "error", err)
	}
}

// welcome takes a peer's hello and answers it. The error is that of the
// judgement, also when the peer has been told.
func (n *Node) welcome(stream PeerStream) (hello, error) {
	timer := n.clock.AfterFunc(handshakeTimeout, func() { _ = stream.Close() })
	defer timer.Stop()
	b, err := stream.Recv()
	if err != nil {
		return hello{}, fmt.Errorf("receive hello: %w", err)
	}
	theirs, err := decodeHello(b)
	if err != nil {
		return hello{}, err
	}
	answer, judged := n.reply(&theirs)
	if b, err = answer.encode(); err != nil {
		return hello{}, fmt.Errorf("encode hello: %w", err)
	}
	if err := stream.Send(b); err != nil {
		return hello{}, fmt.Errorf("send hello: %w", err)
	}
	if judged != nil {
		_, _ = stream.Recv() // until the peer has read the answer and goes
		return hello{}, fmt.Errorf("handshake with %q: %w", theirs.Name, judged)
	}
	n.met(theirs.Name, theirs.ClientAddress)
	if !theirs.brings() {
		_, _ = stream.Recv() // likewise
	}
	return theirs, nil
}

// reply is the answer to a peer's hello, and the error that its refusal says.
func (n *Node) reply(theirs *hello) (hello, error) {
	n.hear(theirs)
	mine := n.assembly.greeting(theirs.Name, asks) // answer says the errand
	answer, judged := mine.answer(theirs)
	if n.assembly.asleep() || theirs.brings() && judged == nil && !n.isFormed() {
		judged = refused("%s is not started yet", n.cfg.Name)
		answer.Refusal = &refusal{Text: judged.Error()}
		return answer, judged
	}
	if errors.Is(judged, errVacant) {
		admitted := n.admit(theirs)
		mine = n.assembly.greeting(theirs.Name, asks)
		if answer, judged = mine.answer(theirs); judged != nil && admitted != nil {
			judged = fmt.Errorf("%w: %w", judged, admitted)
			answer.Refusal.Text = judged.Error()
		}
	}
	if judged == nil && theirs.MembersAt < answer.MembersAt && n.isFormed() {
		answer.Addresses = n.addresses()
	}
	return answer, judged
}

func (n *Node) isFormed() bool {
	select {
	case <-n.formed:
		return true
	default:
		return false
	}
}

// receiveFrames brings a peer's frames into the loop. What is not a frame of
// that peer ends the stream, never the member.
func (n *Node) receiveFrames(stream PeerStream, theirs hello) error {
	o := n.directory.Load().byName[theirs.Name]
	if o == nil {
		return refused("%q is not a member", theirs.Name)
	}
	id := n.assembly.identity()
	self := id.nodeID()
	defer context.AfterFunc(o.ctx, func() { _ = stream.Close() })()
	session := n.sessions.Add(1)
	n.inbox.inOrder(func(r *replica) {
		r.peerReads(o.id, theirs.newest())
		r.sessionUp(o.id, session)
	})
	defer n.inbox.inOrder(func(r *replica) { r.sessionLost(o.id, session) })
	for {
		b, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("receive from %s: %w", theirs.Name, err)
		}
		f, err := decodeFrame(b, n.cfg.newest)
		if err != nil {
			return fmt.Errorf("receive from %s: %w", theirs.Name, err)
		}
		for _, m := range f.messages {
			if err := checkMessage(m, o.id, self); err != nil {
				return fmt.Errorf("receive from %s: %w", theirs.Name, err)
			}
		}
		if !n.inbox.receive(received{frame: f, from: o.id, session: session, size: len(b)}) {
			return ErrClosed
		}
	}
}

package raftlock

import (
	"fmt"
	"sync"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// appender writes the log: one goroutine, in the order of the loop's append
// messages. What gathers during one fsync becomes the next write. The responses
// that raft attached to a message are delivered when it is durable, never
// before: to the loop, or straight to the peers.
type appender struct {
	storage Storage
	log     *raft.MemoryStorage // what raft reads back
	deliver func([]*raftpb.Message)
	wake    chan struct{} // room for one token; never closed

	mu struct {
		sync.Mutex
		queue       []*raftpb.Message
		given, done uint64 // messages, since the start
	}
}

func newAppender(storage Storage, log *raft.MemoryStorage, deliver func([]*raftpb.Message)) *appender {
	return &appender{storage: storage, log: log, deliver: deliver, wake: make(chan struct{}, 1)}
}

// append queues append messages; it does not block.
func (a *appender) append(messages []*raftpb.Message) {
	a.mu.Lock()
	a.mu.queue = append(a.mu.queue, messages...)
	a.mu.given += uint64(len(messages))
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// run writes until stop is closed, and returns the first error of the disk.
func (a *appender) run(stop <-chan struct{}) error {
	for {
		select {
		case <-stop:
			return nil
		case <-a.wake:
		}
		a.mu.Lock()
		queue := a.mu.queue
		a.mu.queue = nil
		a.mu.Unlock()
		if err := a.write(queue); err != nil {
			return err
		}
		a.mu.Lock()
		a.mu.done += uint64(len(queue))
		a.mu.Unlock()
	}
}

// progress is how many messages were given to the appender, and how many are
// written.
func (a *appender) progress() (given, done uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mu.given, a.mu.done
}

// write makes a run of append messages durable in one go: all entries, the last
// hard state.
func (a *appender) write(queue []*raftpb.Message) error {
	var hard *raftpb.HardState
	var entries []*raftpb.Entry
	var responses []*raftpb.Message
	for _, m := range queue {
		if !raft.IsEmptySnap(m.GetSnapshot()) {
			return fmt.Errorf("%w: a snapshot from the leader, which this version does not take", ErrUnknownFormat)
		}
		if m.Term != nil {
			hard = &raftpb.HardState{Term: m.Term, Vote: m.Vote, Commit: m.Commit}
		}
		entries = mergeEntries(entries, m.GetEntries())
		responses = append(responses, m.GetResponses()...)
	}
	if err := a.storage.Append(hard, entries); err != nil {
		return fmt.Errorf("append to log: %w (what it has acknowledged stands: see to the disk, and start the member again)", err)
	}
	if err := a.log.Append(entries); err != nil {
		return fmt.Errorf("append to log: %w", err)
	}
	if hard != nil {
		if err := a.log.SetHardState(hard); err != nil {
			return fmt.Errorf("append to log: %w", err)
		}
	}
	a.deliver(responses)
	return nil
}

// mergeEntries puts more behind entries; what more replaces goes.
func mergeEntries(entries, more []*raftpb.Entry) []*raftpb.Entry {
	if len(entries) == 0 {
		return more
	}
	if len(more) == 0 {
		return entries
	}
	first := entries[0].GetIndex()
	keep := more[0].GetIndex() - first
	if more[0].GetIndex() <= first {
		keep = 0
	}
	// A full slice expression: the array may be raft's.
	return append(entries[:keep:keep], more...)
}

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
		tasks       []func() error // to be done between two writes
		given, done uint64         // messages, since the start
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

// do queues something else that the disk does between two writes; it does not
// block. An error of it is one of the disk.
func (a *appender) do(task func() error) {
	a.mu.Lock()
	a.mu.tasks = append(a.mu.tasks, task)
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
		queue, tasks := a.mu.queue, a.mu.tasks
		a.mu.queue, a.mu.tasks = nil, nil
		a.mu.Unlock()
		if err := a.writeAll(queue); err != nil {
			return err
		}
		a.mu.Lock()
		a.mu.done += uint64(len(queue))
		a.mu.Unlock()
		for _, task := range tasks {
			if err := task(); err != nil {
				return err
			}
		}
	}
}

// progress is how many messages were given to the appender, and how many are
// written.
func (a *appender) progress() (given, done uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mu.given, a.mu.done
}

// writeAll makes append messages durable: those between two snapshots in one go.
func (a *appender) writeAll(queue []*raftpb.Message) error {
	for len(queue) > 0 {
		end := 0
		for end < len(queue) && raft.IsEmptySnap(queue[end].GetSnapshot()) {
			end++
		}
		if end > 0 {
			if err := a.write(queue[:end]); err != nil {
				return err
			}
		} else {
			if err := a.install(queue[0]); err != nil {
				return err
			}
			end = 1
		}
		queue = queue[end:]
	}
	return nil
}

// install names a snapshot in the log that is on disk already, and goes on with
// what else the message has.
func (a *appender) install(m *raftpb.Message) error {
	meta := m.GetSnapshot().GetMetadata()
	hard := &raftpb.HardState{Term: m.Term, Vote: m.Vote, Commit: meta.Index}
	if err := a.storage.InstallSnapshot(meta, hard); err != nil {
		return fmt.Errorf("install snapshot: %w (what it has acknowledged stands: see to the disk, and start the member again)", err)
	}
	if err := a.log.ApplySnapshot(m.GetSnapshot()); err != nil {
		return fmt.Errorf("install snapshot: %w", err)
	}
	if err := a.log.SetHardState(hard); err != nil {
		return fmt.Errorf("install snapshot: %w", err)
	}
	return a.write([]*raftpb.Message{m})
}

// write makes a run of append messages durable in one go: all entries, the last
// hard state.
func (a *appender) write(queue []*raftpb.Message) error {
	var hard *raftpb.HardState
	var entries []*raftpb.Entry
	var responses []*raftpb.Message
	for _, m := range queue {
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

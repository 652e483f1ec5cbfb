package testcluster

import (
	"bytes"
	"sync"
	"testing"
)

// journalSize is how much of the members' log is kept, in bytes: the newest.
const journalSize = 256 << 10

// journal keeps the members' log for the end of the test, which shows it if it
// has failed: a test that passes says nothing.
type journal struct {
	mu struct {
		sync.Mutex
		lines [][]byte
		bytes int
		lost  int // lines that were dropped
	}
}

// Write takes one line, as slog's handlers write.
func (j *journal) Write(line []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.mu.lines = append(j.mu.lines, bytes.Clone(line))
	j.mu.bytes += len(line)
	for j.mu.bytes > journalSize {
		j.mu.bytes -= len(j.mu.lines[0])
		j.mu.lines[0] = nil
		j.mu.lines = j.mu.lines[1:]
		j.mu.lost++
	}
	return len(line), nil
}

// show tells the test what the members have logged, if it has failed.
func (j *journal) show(tb testing.TB) {
	tb.Helper()
	if !tb.Failed() {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.mu.lost > 0 {
		tb.Logf("testcluster: the members' log, without its first %d lines:\n%s", j.mu.lost, bytes.Join(j.mu.lines, nil))
		return
	}
	tb.Logf("testcluster: the members' log:\n%s", bytes.Join(j.mu.lines, nil))
}

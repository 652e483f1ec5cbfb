package supervise

import (
	"fmt"
	"math"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Now reads the clock.
//
// It is CLOCK_BOOTTIME. CLOCK_MONOTONIC, which package time uses, stands still
// while the machine sleeps, but a lock's time goes on at its cluster; and the
// wall clock can be set.
func Now() Instant {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return math.MaxInt64 // without a clock every end has come
	}
	return Instant(now.Nano())
}

// alarm wakes at an instant. A timer of package time would be late by the time
// that the machine was suspended.
type alarm struct {
	file *os.File
	fd   int           // of file, which must not be asked: that would make it block
	c    chan struct{} // gets a value when the instant has come, or one set before; never closed
	gone chan struct{} // closed when the goroutine has ended
}

func newAlarm() (*alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make a timer: %w", err)
	}
	a := &alarm{file: os.NewFile(uintptr(fd), "timer"), fd: fd, c: make(chan struct{}, 1), gone: make(chan struct{})}
	go a.ring()
	return a, nil
}

// ring runs until the file is closed.
func (a *alarm) ring() {
	defer close(a.gone)
	var count [8]byte
	for {
		if _, err := a.file.Read(count[:]); err != nil {
			return
		}
		select {
		case a.c <- struct{}{}:
		default: // it rings already
		}
	}
}

// set moves the alarm to an instant, which may have passed.
func (a *alarm) set(at Instant) error {
	var when unix.ItimerSpec
	when.Value = unix.NsecToTimespec(max(int64(at), 1)) // 0 would turn it off
	if err := unix.TimerfdSettime(a.fd, unix.TFD_TIMER_ABSTIME, &when, nil); err != nil {
		return fmt.Errorf("set a timer: %w", err)
	}
	return nil
}

func (a *alarm) close() {
	_ = a.file.Close() // nothing was written
	<-a.gone
}

// pace is how often it is looked whether what was told to end has ended.
const pace = 20 * time.Millisecond

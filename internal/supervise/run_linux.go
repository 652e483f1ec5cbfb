package supervise

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Supported says whether Run can work here.
const Supported = true

// Run runs a command until it and what it has started have ended, or ends it
// before the last end that it heard of. It blocks that long.
//
// Errors, all of which mean that the command has not run: ErrUnsupported;
// ErrLate; a *os.PathError with the Op "execute" around the reason why the program
// cannot be executed; what else the system refused.
func Run(spec Spec) (Result, error) {
	if Now() >= spec.End.Add(-spec.Guard-spec.Grace) {
		return Result{}, ErrLate
	}
	s := &supervisor{Spec: spec, end: spec.End}
	if err := s.start(); err != nil {
		return Result{}, err
	}
	return s.run()
}

// supervisor is the state of Run, which one goroutine has.
type supervisor struct {
	Spec
	end    Instant
	family family
	alarm  *alarm
	dog    *watchdog
	said   <-chan string // dog's, nil when that is gone
	child  *child
	tty    *terminal
	handed bool // the command is to have the terminal when we have it

	events   <-chan unix.Signal // child's, nil when that has ended
	stopping bool
	reason   Reason
	killAt   Instant
	over     bool
}

// start makes the three processes, or none.
func (s *supervisor) start() (err error) {
	if err := s.adopt(); err != nil {
		return err
	}
	if s.alarm, err = newAlarm(); err != nil {
		return err
	}
	if s.dog, err = startWatchdog(s.Stderr); err != nil {
		s.alarm.close()
		return err
	}
	s.family.others = append(s.family.others, s.dog.cmd.Process.Pid)
	if s.child, err = startChild(s.Spec); err != nil {
		s.dog.dismiss()
		s.alarm.close()
		return err
	}
	s.family.group = s.child.pid
	s.tty = openTerminal()
	if err := s.release(); err != nil {
		s.abandon()
		return err
	}
	s.said, s.events = s.dog.said, s.child.events
	return nil
}

// adopt has orphans fall to this process, and notes whose they cannot be.
func (s *supervisor) adopt() error {
	if !s.Adopt {
		return nil
	}
	table, err := processes()
	if err != nil {
		return err
	}
	s.family.adopter = os.Getpid()
	for _, p := range table {
		if p.parent == s.family.adopter {
			s.family.others = append(s.family.others, p.pid)
		}
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("adopt orphans: %w", err)
	}
	return nil
}

// release lets the gate become the command, once the watchdog is armed.
func (s *supervisor) release() error {
	first := order{
		Name: s.Name, Grace: s.Grace, Guard: s.Guard, End: s.end,
		Group: s.family.group, Adopter: s.family.adopter, Others: s.family.others,
	}
	if err := s.dog.tell(first); err != nil {
		return err
	}
	if err := s.alarm.set(s.termAt()); err != nil {
		return err
	}
	select {
	case word, ok := <-s.dog.said:
		if !ok {
			return errors.New("the watchdog has ended before it was armed")
		} else if word != saidArmed {
			return fmt.Errorf("the watchdog does not work: it said %q", word)
		}
	case <-s.alarm.c:
		return ErrLate
	}
	if s.tty.ours(s.Stdin, s.Stdout) && s.tty.foreground() == s.tty.own {
		s.handed = true
		if err := s.tty.give(s.child.pid); err != nil {
			return err
		}
	}
	err := s.child.gate.open()
	if errno, ok := errors.AsType[unix.Errno](err); ok {
		return &os.PathError{Op: "execute", Path: s.Path, Err: errno}
	}
	return err
}

// abandon takes back a start: without a word the gate goes away.
func (s *supervisor) abandon() {
	s.child.gate.close()
	for range s.child.events { // until it has ended
	}
	s.dog.dismiss()
	_, _ = s.child.reap() // there is an error already
	s.leaveTerminal(false)
	s.alarm.close()
}

func (s *supervisor) run() (Result, error) {
	defer s.alarm.close()
	for !s.over {
		if err := s.alarm.set(s.next()); err != nil {
			s.begin(Unwatched)
		}
		lost := s.Lost
		if s.reason != ByItself {
			lost = nil
		}
		select {
		case end := <-s.Ends:
			s.extend(end)
		case <-lost:
			s.begin(LockLost)
		case sig := <-s.Signals:
			s.signal(sig)
		case sig, ok := <-s.events:
			if ok {
				s.stopped(sig)
			} else {
				s.events = nil
			}
		case word, ok := <-s.said:
			s.heard(word, ok)
		case <-s.alarm.c:
		}
		s.look()
	}
	return s.finish()
}

// next is when there will be something to do.
func (s *supervisor) next() Instant {
	switch {
	case !s.stopping:
		return s.termAt()
	case Now() < s.killAt:
		return min(s.killAt, Now().Add(5*pace))
	}
	return Now().Add(pace)
}

// termAt is a little after the watchdog's: this is for when there is none.
func (s *supervisor) termAt() Instant { return s.end.Add(-s.Guard/2 - s.Grace) }

func (s *supervisor) extend(end Instant) {
	if end <= s.end {
		return
	}
	s.end = end
	if s.said != nil && s.dog.tell(order{End: end}) != nil {
		s.begin(Unwatched)
	}
}

// heard takes what the watchdog says. What it has begun needs no second SIGTERM.
func (s *supervisor) heard(word string, alive bool) {
	switch {
	case !alive:
		s.said = nil
		s.begin(Unwatched)
	case word == saidEnding:
		s.stop(OutOfTime)
	}
}

// begin ends the command.
func (s *supervisor) begin(reason Reason) {
	if s.reason != ByItself {
		return
	}
	s.stop(reason)
	s.family.terminate(reason != ByItself)
}

// stop notes that the command has been told to end, and until when it may.
func (s *supervisor) stop(reason Reason) {
	if s.reason == ByItself {
		s.reason = reason
	}
	at := min(Now().Add(s.Grace), s.end.Add(-s.Guard/2))
	if !s.stopping || at < s.killAt {
		s.killAt = at
	}
	s.stopping = true
}

// look does what is due.
func (s *supervisor) look() {
	if !s.stopping && Now() >= s.termAt() {
		s.begin(OutOfTime)
	}
	daemons := s.reason != ByItself
	if s.stopping && Now() >= s.killAt {
		s.family.kill(daemons)
	}
	if s.events != nil {
		return
	}
	// The command has ended; what it leaves behind must end too.
	s.over = len(s.family.left(daemons)) == 0
	if !s.over && !s.stopping {
		s.begin(ByItself)
	}
}

// finish lets go of the watchdog first: until the command is reaped, the number
// of its group belongs to nobody else.
func (s *supervisor) finish() (Result, error) {
	if s.said != nil {
		for _, word := range s.dog.dismiss() {
			if word == saidEnding && s.reason == ByItself {
				s.reason = OutOfTime
			}
		}
	} else {
		_ = s.dog.orders.Close() // nobody reads it
	}
	state, err := s.child.reap()
	killed := err == nil && !state.Exited()
	s.leaveTerminal(killed || s.reason != ByItself)
	return Result{State: state, Reason: s.reason}, err
}

// leaveTerminal takes the terminal back from the command, and its settings too
// when that could not do it itself.
func (s *supervisor) leaveTerminal(restore bool) {
	if s.tty == nil {
		return
	}
	defer s.tty.close()
	if s.handed && s.tty.foreground() == s.child.pid {
		_ = s.tty.give(s.tty.own) // it is gone, then
		if restore {
			s.tty.restore()
		}
	}
}

// signal does what a signal to the supervisor is for: most are for the command.
func (s *supervisor) signal(sig os.Signal) {
	number, ok := sig.(unix.Signal)
	switch {
	case !ok:
	case number == unix.SIGCHLD:
		s.reapOrphans()
	case number == unix.SIGCONT:
		s.resume()
	default:
		_ = unix.Kill(-s.family.group, number) // ESRCH: it has ended
	}
}

// stopped takes note that the command was stopped, by ^Z say. The shell that
// started us sees only us, so we stop too; when it continues us, SIGCONT comes.
func (s *supervisor) stopped(by unix.Signal) {
	foreground := s.tty.foreground()
	if foreground == 0 || s.stopping {
		return
	}
	mine := foreground == s.tty.own || foreground == s.child.pid
	if foreground == s.tty.own && (by == unix.SIGTTIN || by == unix.SIGTTOU) {
		s.handed = true // it wants the terminal, and we do not
		s.resume()
		return
	}
	if foreground == s.child.pid && s.tty.give(s.tty.own) != nil {
		return
	}
	table, err := processes()
	if err != nil || orphaned(table) {
		s.resume() // nobody could continue us
		return
	}
	if s.Notice != nil && mine {
		left := s.termAt().Sub(Now()).Truncate(time.Second)
		s.Notice(fmt.Sprintf("stopped, and renewing nothing; if it is not continued within %v, the lock is lost and the command ended", left))
	}
	for _, p := range table { // the rest of a pipeline
		if mine && p.group == s.tty.own && p.pid != os.Getpid() {
			_ = unix.Kill(p.pid, unix.SIGTSTP)
		}
	}
	_ = unix.Kill(os.Getpid(), unix.SIGSTOP)
}

// resume continues the command, with the terminal if that is for it.
func (s *supervisor) resume() {
	if s.handed && s.tty.foreground() == s.tty.own {
		_ = s.tty.give(s.child.pid) // without it, it will be stopped again
	}
	_ = unix.Kill(-s.family.group, unix.SIGCONT)
}

// reapOrphans takes note of the end of those who have fallen to us.
func (s *supervisor) reapOrphans() {
	if s.family.adopter == 0 {
		return
	}
	table, err := processes()
	if err != nil {
		return // another will come
	}
	known := map[int]bool{s.child.pid: true}
	for _, pid := range s.family.others {
		known[pid] = true
	}
	for _, p := range table {
		if p.parent == s.family.adopter && p.ended() && !known[p.pid] {
			_, _ = unix.Wait4(p.pid, nil, unix.WNOHANG, nil)
		}
	}
}

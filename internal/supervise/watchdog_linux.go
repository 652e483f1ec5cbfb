package supervise

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// order is what a supervisor tells its watchdog, one to a line: everything at
// first, later a new End, or Quit.
type order struct {
	Name         string        `json:",omitempty"`
	Grace, Guard time.Duration `json:",omitempty"`
	Group        int           `json:",omitempty"` // the command's
	Adopter      int           `json:",omitempty"`
	Others       []int         `json:",omitempty"`
	End          Instant       `json:",omitempty"`
	Quit         bool          `json:",omitempty"`
}

// What a watchdog says, one word to a line.
const (
	saidArmed  = "armed"  // it knows what to end, and when
	saidEnding = "ending" // it has sent SIGTERM
)

// writeLimit is how long an order may take to be written. A watchdog that does
// not read is as good as dead, once the pipe is full.
const writeLimit = time.Second

// watchdog is a watchdog as its supervisor sees it.
type watchdog struct {
	cmd    *exec.Cmd
	orders *os.File
	said   chan string // closed when the process has ended
}

func startWatchdog(log *os.File) (w *watchdog, err error) {
	theirIn, orders, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make a pipe: %w", err)
	}
	said, theirOut, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make a pipe: %w", err), theirIn.Close(), orders.Close())
	}
	w = &watchdog{cmd: exec.Command(self, watchdogMode), orders: orders, said: make(chan string)}
	w.cmd.Stdin, w.cmd.Stdout, w.cmd.Stderr = theirIn, theirOut, log
	w.cmd.Dir = "/"                                     // keeps no file system busy
	w.cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true} // the terminal's signals pass by
	err = w.cmd.Start()
	_, _ = theirIn.Close(), theirOut.Close() // the child has its own
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start a watchdog: %w", err), orders.Close(), said.Close())
	}
	go w.listen(said)
	return w, nil
}

// listen passes on what the watchdog says until it has ended.
func (w *watchdog) listen(said *os.File) {
	for lines := bufio.NewScanner(said); lines.Scan(); {
		w.said <- lines.Text()
	}
	_, _ = said.Close(), w.cmd.Wait() // that it has ended is all there is to know
	close(w.said)
}

func (w *watchdog) tell(o order) error {
	line, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("encode an order: %w", err)
	}
	if err := w.orders.SetWriteDeadline(time.Now().Add(writeLimit)); err != nil {
		return fmt.Errorf("bound an order: %w", err)
	}
	if _, err := w.orders.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("order the watchdog: %w", err)
	}
	return nil
}

// dismiss ends the watchdog, and returns what it had said meanwhile. It must not
// be told to end the command any more, so what cannot be done with an order is
// done by force.
func (w *watchdog) dismiss() (last []string) {
	limit := time.NewTimer(writeLimit)
	defer limit.Stop()
	if w.tell(order{Quit: true}) != nil {
		_ = w.cmd.Process.Kill() // it may have ended
	}
	for {
		select {
		case word, ok := <-w.said:
			if !ok {
				_ = w.orders.Close()
				return last
			}
			last = append(last, word)
		case <-limit.C:
			_ = w.cmd.Process.Kill()
		}
	}
}

// deaf lists what must not end or stop a watchdog: it goes when its supervisor
// goes. Without SIGPIPE it outlives the reader of its messages.
func deaf() []os.Signal {
	return []os.Signal{
		unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGPIPE, unix.SIGALRM,
		unix.SIGUSR1, unix.SIGUSR2, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU,
	}
}

// watch is the watchdog itself.
func watch(in io.Reader, out, log io.Writer) int {
	// Under its own name, so that who kills all processes of the supervisor's
	// name does not take the watchdog along; it works without, too.
	_ = os.WriteFile("/proc/self/comm", []byte("lock-watchdog"), 0)
	a, err := newAlarm()
	if err != nil {
		complain(log, err.Error())
		return 1
	}
	defer a.close()
	w := &watcher{alarm: a, orders: make(chan order), out: out, log: log}
	go readOrders(in, w.orders)
	err = w.run()
	if w.told != nil {
		select {
		case <-w.told:
		case <-time.After(writeLimit):
		}
	}
	if err != nil {
		complain(log, "watchdog: "+err.Error())
		return 1
	}
	return 0
}

// readOrders reads until the supervisor is gone, or says what is no order, which
// comes to the same.
func readOrders(in io.Reader, to chan<- order) {
	defer close(to)
	for lines := json.NewDecoder(in); ; {
		var o order
		if lines.Decode(&o) != nil {
			return
		}
		to <- o
	}
}

// watcher is the state of a watchdog.
type watcher struct {
	alarm    *alarm
	orders   chan order // nil when the supervisor is gone
	out, log io.Writer

	order
	armed  bool
	ending bool
	killAt Instant
	over   bool          // all that was to end has ended
	told   chan struct{} // closed when the user has been told why; nil before that is begun
}

// run returns when there is nothing to watch any more.
func (w *watcher) run() error {
	for {
		if err := w.alarm.set(w.next()); err != nil {
			return err
		}
		select {
		case o, ok := <-w.orders:
			switch {
			case !ok && !w.armed, o.Quit:
				return nil
			case !ok:
				w.orders = nil
				w.begin("nobody renews the lock " + w.Name + " any more, as raftlock was killed; its command is ended")
			default:
				w.take(o)
			}
		case <-w.alarm.c:
		}
		w.look()
		if w.over && w.orders == nil {
			return nil
		}
	}
}

// next is when there will be something to do.
func (w *watcher) next() Instant {
	switch {
	case !w.armed || w.over:
		return math.MaxInt64
	case !w.ending:
		return w.termAt()
	case Now() < w.killAt:
		return min(w.killAt, Now().Add(5*pace))
	}
	return Now().Add(pace)
}

func (w *watcher) termAt() Instant { return w.End.Add(-w.Guard - w.Grace) }

func (w *watcher) family() family { return family{w.Group, w.Adopter, w.Others} }

// take follows an order. An end that comes when the command is being ended
// changes nothing.
func (w *watcher) take(o order) {
	if w.armed {
		w.End = o.End
		return
	}
	w.order, w.armed = o, o.Group != 0
	w.say(saidArmed)
}

// say tells the supervisor; whether it still listens is not for here.
func (w *watcher) say(word string) { _, _ = io.WriteString(w.out, word+"\n") }

func (w *watcher) begin(why string) {
	if w.ending {
		return
	}
	w.ending, w.killAt = true, min(Now().Add(w.Grace), w.End.Add(-w.Guard))
	w.family().terminate(true)
	w.say(saidEnding)
	// Beside the work: a reader who has stopped reading must not stop it.
	w.told = make(chan struct{})
	go func() {
		defer close(w.told)
		complain(w.log, why)
	}()
}

// look does what is due.
func (w *watcher) look() {
	if !w.armed || w.over {
		return
	}
	if Now() >= w.termAt() {
		w.begin("the lock " + w.Name + " was not renewed in time; its command is ended")
	}
	if !w.ending {
		return
	}
	if Now() >= w.killAt {
		w.family().kill(true)
	}
	w.over = len(w.family().left(true)) == 0
}

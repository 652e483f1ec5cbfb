package e2e

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/raftlock/raftlock"
)

var (
	soakFlag = flag.Duration("e2e.soak", 2*time.Second, "how long TestSoak goes on; from 3m on it judges the curves")
	soakOut  = flag.String("e2e.soak.out", "", "directory for soak.csv and soak.svg of TestSoak; empty: nowhere that lasts")
)

const (
	soakCallers  = 32 // at the leader, and as many over the network
	soakPrograms = 4  // that these are in
	// fullSoak is a run whose members keep soakLog of their logs, as much in
	// memory: a quarter of the default, which a slow machine has full before the
	// warm-up is over, and behind which a small leak does not hide.
	fullSoak = 20 * time.Minute
	soakLog  = 16 << 20
)

// Members work at full rate, and after a while have no more of anything than
// before.
func TestSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("short")
	}
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	s := newSoak(t, *soakFlag)
	defer s.write() // also when the run ends early
	s.run()
	if *soakFlag >= shortestJudged {
		for _, fault := range growth(s.samples, *soakFlag) {
			t.Error(fault)
		}
	}
	s.check()
	s.f.sameTables()
}

// soak is a run of it.
type soak struct {
	t       *testing.T
	f       *fleet
	length  time.Duration
	leader  string // at the begin
	remote  []*crew
	begun   time.Time
	samples []sample
	// snapshots are how many each member was seen to take, and newest its last.
	snapshots map[string]int
	newest    map[string]uint64
}

// newSoak starts members that keep the less of their logs the shorter it is, and
// callers in the leader's process and in this one.
func newSoak(t *testing.T, length time.Duration) *soak {
	f := newFleet(t, "n1", "n2", "n3")
	f.ports = map[string]string{}
	f.choose(f.names(), f.ports)
	log := int(soakLog * min(1, length.Seconds()/fullSoak.Seconds()))
	f.snapshots = raftlock.Snapshots{MinLogBytes: log, KeepLogBytes: log}
	for _, name := range f.names() {
		cfg := f.config(name)
		cfg.Tick = 0 // the default: so much load is no time for quick elections
		f.run(cfg)
	}
	for _, name := range f.names() {
		f.at(name).await(eventReady)
	}
	s := &soak{t: t, f: f, length: length, leader: f.leader(), snapshots: map[string]int{}, newest: map[string]uint64{}}
	f.at(s.leader).must(request{Op: "work", Client: "local", Callers: soakCallers})
	for i := range soakPrograms {
		w := newCrew(dial(t, f.endpoints()), fmt.Sprint("remote-", i), soakCallers/soakPrograms)
		w.callers.Go(func() { w.visitors(f.endpoints(), 10*time.Millisecond) })
		s.remote = append(s.remote, w)
		t.Cleanup(w.end) // once more, if the test ends early
	}
	s.begun = time.Now()
	return s
}

// run measures until the time is over, and ends the callers.
func (s *soak) run() {
	ticker := time.NewTicker(min(s.length/10, 5*time.Second))
	defer ticker.Stop()
	for time.Since(s.begun) < s.length && !s.t.Failed() {
		<-ticker.C
		s.measure()
		s.f.log.forget("") // of so much, nobody reads the rest
	}
	for _, w := range s.remote {
		w.end()
		if err := w.failure(); err != nil {
			s.t.Error(err)
		}
	}
	s.f.at(s.leader).must(request{Op: "rest"})
}

func (s *soak) measure() {
	at := time.Since(s.begun)
	for _, name := range s.f.names() {
		s.samples = append(s.samples, sample{at, name, *s.f.at(name).must(request{Op: "gauge"}).Gauge})
		index := s.f.at(name).must(request{Op: "status"}).Index
		if index > s.newest[name] {
			s.newest[name] = index
			s.snapshots[name]++
		}
	}
	g, err := readGauge("")
	if err != nil {
		s.t.Fatal(err)
	}
	for _, w := range s.remote {
		if err := w.failure(); err != nil {
			s.t.Error(err)
		}
		g.Acks += w.acks.Load()
		g.Outages += w.outages.Load()
	}
	s.samples = append(s.samples, sample{at, "programs", g})
}

// write writes the table and the plot.
func (s *soak) write() {
	dir := *soakOut
	if dir == "" {
		dir = s.t.TempDir()
	}
	err := errors.Join(
		writeFile(filepath.Join(dir, "soak.csv"), func(to io.Writer) error { return writeTable(to, s.samples) }),
		writeFile(filepath.Join(dir, "soak.svg"), func(to io.Writer) error { return writePlot(to, panelsOf(s.samples)) }),
	)
	if err != nil {
		s.t.Error(err)
	}
	table, err := os.ReadFile(filepath.Join(dir, "soak.csv"))
	if lines := strings.Count(string(table), "\n"); err != nil || lines != len(s.samples)+1 {
		s.t.Errorf("soak.csv has %d lines for %d samples: %v", lines, len(s.samples), err)
	}
}

func writeFile(name string, write func(io.Writer) error) error {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(write(file), file.Close())
}

// check holds that the run was one: callers worked everywhere, members took
// snapshots, and all was measured.
func (s *soak) check() {
	for _, column := range []string{"heap_bytes", "resident_bytes", "goroutines", "descriptors", "disk_bytes", "processor_ms", "answered", "unanswered"} {
		processes, points := series(s.samples, quantityOf(column))
		for _, process := range processes {
			list := points[process]
			begin, end := list[0].value, list[len(list)-1].value
			switch {
			case column == "unanswered":
				s.t.Logf("%s: %.0f calls were not answered", process, end)
			case column == "answered":
				if worked := process == s.leader || process == "programs"; worked {
					s.t.Logf("%s: %.0f calls answered, %.0f a second", process, end, end/s.length.Seconds())
					if end <= begin {
						s.t.Errorf("the callers in %s do nothing: %v", process, list)
					}
				}
			case end == 0 && (column != "disk_bytes" || process != "programs"):
				s.t.Errorf("%s of %s is 0", column, process)
			}
		}
	}
	s.tellCost()
	for _, name := range s.f.names() {
		s.t.Logf("%s took snapshots %d times", name, s.snapshots[name])
		if few := s.snapshots[name]; few == 0 || few < 3 && s.length >= shortestJudged {
			s.t.Errorf("%s took %d snapshots", name, few)
		}
	}
}

// tellCost says what a call cost over the run: a machine that others use too makes
// calls slower, what grows inside makes them dearer.
func (s *soak) tellCost() {
	const parts = 6
	_, spent := series(s.samples, quantityOf("processor_ms"))
	_, calls := series(s.samples, quantityOf("answered"))
	var cost strings.Builder
	for i := range parts {
		var ms, answered float64
		for process := range spent {
			last := len(spent[process]) - 1
			from, to := last*i/parts, last*(i+1)/parts
			ms += spent[process][to].value - spent[process][from].value
			answered += calls[process][to].value - calls[process][from].value
		}
		fmt.Fprintf(&cost, " %.0f", 1000*ms/answered)
	}
	s.t.Logf("microseconds of processor time for a call, all processes together, in each sixth of the run:%s", &cost)
}

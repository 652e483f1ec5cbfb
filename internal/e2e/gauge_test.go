package e2e

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"
)

// gauge is what a process has of all that could grow.
type gauge struct {
	Resident    int64 // bytes of the process in memory
	Heap        int64 // bytes that the last garbage collection found in use
	Goroutines  int64
	Descriptors int64
	Disk        int64 // bytes of the data directory
	Processor   int64 // milliseconds of processor time so far
	Acks        int64 // calls of the callers in this process that were answered
	Outages     int64 // attempts of theirs that nobody answered
}

// readGauge reads what this process has; dir may be empty.
func readGauge(dir string) (g gauge, err error) {
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/sched/goroutines:goroutines"}}
	metrics.Read(samples)
	g.Heap, g.Goroutines = int64(samples[0].Value.Uint64()), int64(samples[1].Value.Uint64())
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return g, err
	}
	var total, resident int64
	if _, err := fmt.Sscan(string(statm), &total, &resident); err != nil {
		return g, err
	}
	g.Resident = resident * int64(os.Getpagesize())
	if g.Processor, err = processorTime(); err != nil {
		return g, err
	}
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return g, err
	}
	g.Descriptors = int64(len(open) - 1) // but for the directory itself
	if dir != "" {
		g.Disk, err = bytesIn(dir)
	}
	return g, err
}

// processorTime is how many milliseconds this process has computed, in its own
// code and in the kernel's. It is counted in hundredths of a second.
func processorTime() (int64, error) {
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return 0, err
	}
	// The second field is the name, in brackets, with anything in it.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/self/stat has only %d fields: %s", len(fields), stat)
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return 0, err
	}
	kernel, err := strconv.ParseInt(fields[12], 10, 64)
	return (user + kernel) * 10, err
}

// bytesIn adds up the files below a directory, in which others come and go.
func bytesIn(dir string) (sum int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			var info fs.FileInfo
			if info, err = d.Info(); err == nil {
				sum += info.Size()
			}
		}
		if os.IsNotExist(err) {
			return nil
		}
		return err
	})
	return sum, err
}

// sample is a gauge of a process at a time since the begin.
type sample struct {
	at      time.Duration
	process string
	gauge
}

// quantity is one number of a gauge.
type quantity struct {
	column string
	of     func(g *gauge) *int64
}

var quantities = []quantity{
	{"heap_bytes", func(g *gauge) *int64 { return &g.Heap }},
	{"resident_bytes", func(g *gauge) *int64 { return &g.Resident }},
	{"goroutines", func(g *gauge) *int64 { return &g.Goroutines }},
	{"descriptors", func(g *gauge) *int64 { return &g.Descriptors }},
	{"disk_bytes", func(g *gauge) *int64 { return &g.Disk }},
	{"processor_ms", func(g *gauge) *int64 { return &g.Processor }},
	{"answered", func(g *gauge) *int64 { return &g.Acks }},
	{"unanswered", func(g *gauge) *int64 { return &g.Outages }},
}

func quantityOf(column string) quantity {
	for _, q := range quantities {
		if q.column == column {
			return q
		}
	}
	panic("no quantity " + column)
}

// series are the values of a quantity by process, with the processes in the order
// in which they first came.
func series(samples []sample, q quantity) (processes []string, points map[string][]point) {
	points = map[string][]point{}
	for i := range samples {
		s := &samples[i]
		if points[s.process] == nil {
			processes = append(processes, s.process)
		}
		points[s.process] = append(points[s.process], point{s.at, float64(*q.of(&s.gauge))})
	}
	return processes, points
}

// point is a value at a time.
type point struct {
	at    time.Duration
	value float64
}

// writeTable writes samples as lines of comma-separated values.
func writeTable(to io.Writer, samples []sample) error {
	w := csv.NewWriter(to)
	line := []string{"seconds", "process"}
	for _, q := range quantities {
		line = append(line, q.column)
	}
	_ = w.Write(line) // what fails, Error says
	for i := range samples {
		s := &samples[i]
		line = append(line[:0], strconv.FormatFloat(s.at.Seconds(), 'f', 1, 64), s.process)
		for _, q := range quantities {
			line = append(line, strconv.FormatInt(*q.of(&s.gauge), 10))
		}
		_ = w.Write(line)
	}
	w.Flush()
	return w.Error()
}

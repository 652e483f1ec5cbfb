package e2e

import (
	"encoding/csv"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/metrics"
	"strconv"
	"time"
)

// gauge is what a process has of all that could grow.
type gauge struct {
	Resident    int64 // bytes of the process in memory
	Heap        int64 // bytes that the last garbage collection found in use
	Goroutines  int64
	Descriptors int64
	Disk        int64 // bytes of the data directory
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
	name   string
	column string
	of     func(g *gauge) *int64
}

var quantities = []quantity{
	{"heap in use", "heap_bytes", func(g *gauge) *int64 { return &g.Heap }},
	{"resident memory", "resident_bytes", func(g *gauge) *int64 { return &g.Resident }},
	{"goroutines", "goroutines", func(g *gauge) *int64 { return &g.Goroutines }},
	{"descriptors", "descriptors", func(g *gauge) *int64 { return &g.Descriptors }},
	{"disk", "disk_bytes", func(g *gauge) *int64 { return &g.Disk }},
	{"calls answered", "answered", func(g *gauge) *int64 { return &g.Acks }},
	{"calls not answered", "unanswered", func(g *gauge) *int64 { return &g.Outages }},
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

package e2e

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// fillsUp is how long what is bounded by design may still grow: names and request
// ids are remembered for a minute, and the log may be as long as the snapshots that
// come after it allow.
const fillsUp = 90 * time.Second

// shortestJudged is the shortest run that says anything.
const shortestJudged = 2 * fillsUp

// bound is how much more of a quantity a process may have at the end.
type bound struct {
	column string
	factor float64
	more   float64
}

// The log on disk comes in files of 16 MiB, made one ahead. What the runtime gets
// from the system follows the peaks of the heap, and goes back slowly.
var bounds = []bound{
	{"heap_bytes", 1.1, 6 << 20},
	{"resident_bytes", 1.15, 32 << 20},
	{"goroutines", 1, 40}, // about as many as there are callers
	{"descriptors", 1, 8},
	{"disk_bytes", 1.15, 17 << 20},
}

// growth says what has grown between the first and the last third of the time
// after the warm-up, which is a quarter of the run. It compares the peaks, and
// the means: what lies on the floor of a saw-tooth shows in those.
func growth(samples []sample, run time.Duration) (faults []string) {
	warm := max(run/4, fillsUp)
	third := (run - warm) / 3
	for _, b := range bounds {
		processes, points := series(samples, quantityOf(b.column))
		for _, process := range processes {
			early := between(points[process], warm, warm+third)
			late := between(points[process], run-third, run+time.Hour) // the last may come late
			if len(early) < 3 || len(late) < 3 {
				faults = append(faults, fmt.Sprintf("%s: %s was measured %d and %d times, too seldom to compare", process, b.column, len(early), len(late)))
				continue
			}
			for _, f := range []struct {
				name string
				of   func([]float64) float64
			}{{"peak", slices.Max[[]float64]}, {"mean", mean}} {
				if was, is := f.of(early), f.of(late); is > was*b.factor+b.more {
					faults = append(faults, fmt.Sprintf("%s: the %s of %s was %.0f and is %.0f", process, f.name, b.column, was, is))
				}
			}
		}
	}
	return faults
}

func between(points []point, from, to time.Duration) (values []float64) {
	for _, p := range points {
		if p.at >= from && p.at <= to {
			values = append(values, p.value)
		}
	}
	return values
}

func mean(values []float64) (sum float64) {
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}

// TestGrowthIsSeen holds that the judge of a soak can say no.
func TestGrowthIsSeen(t *testing.T) {
	t.Parallel()
	const run = 20 * time.Minute
	// flat is a saw-tooth that fills up first.
	flat := func(at time.Duration) gauge {
		saw := int64(at/time.Second) % 37
		full := min(int64(at/time.Second), 65)
		return gauge{
			Resident: 300<<20 + full<<20, Heap: full<<20 + saw<<20, Goroutines: 200 + saw, Descriptors: 40 + saw%3,
			Disk: 128<<20 + (saw/19)<<24, Acks: 20_000 * int64(at/time.Second),
		}
	}
	record := func(change func(g *gauge, at time.Duration)) (samples []sample) {
		for at := time.Duration(0); at <= run; at += 5 * time.Second {
			for _, process := range []string{"n1", "n2"} {
				g := flat(at)
				if process == "n2" {
					change(&g, at)
				}
				samples = append(samples, sample{at, process, g})
			}
		}
		return samples
	}
	for name, test := range map[string]struct {
		change func(g *gauge, at time.Duration)
		grows  bool
	}{
		"flat":                       {func(*gauge, time.Duration) {}, false},
		"faster":                     {func(g *gauge, at time.Duration) { g.Acks *= 2 }, false},
		"a leak before the warm-up":  {func(g *gauge, at time.Duration) { g.Heap += int64(min(at, 5*time.Minute)) / 1000 }, false},
		"50 KiB of heap a second":    {func(g *gauge, at time.Duration) { g.Heap += int64(at/time.Second) * 50 << 10 }, true},
		"a higher floor of the heap": {func(g *gauge, at time.Duration) { g.Heap = max(g.Heap, int64(at/time.Second)*130<<10) }, true},
		"200 KiB resident a second":  {func(g *gauge, at time.Duration) { g.Resident += int64(at/time.Second) * 200 << 10 }, true},
		"a goroutine in ten seconds": {func(g *gauge, at time.Duration) { g.Goroutines += int64(at / (10 * time.Second)) }, true},
		"a descriptor in a minute":   {func(g *gauge, at time.Duration) { g.Descriptors += int64(at / time.Minute) }, true},
		"a file in three minutes":    {func(g *gauge, at time.Duration) { g.Disk += int64(at/(3*time.Minute)) << 24 }, true},
	} {
		faults := growth(record(test.change), run)
		if test.grows != (len(faults) > 0) {
			t.Errorf("%s: judged as %q", name, faults)
		}
	}
	if faults := growth(record(func(*gauge, time.Duration) {})[:20], run); len(faults) == 0 {
		t.Error("hardly any samples, and nothing is wrong with them")
	}
}

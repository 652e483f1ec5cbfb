package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// leastKilled is how many of a hundred mutants must be killed.
const leastKilled = 95

// run tries all mutants, and tells what became of each and of all.
func run(ctx context.Context, l list, b *bench) (err error) {
	if b.dir, err = os.MkdirTemp("", "mutants"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	begun := time.Now()
	if err := b.sound(ctx, l); err != nil {
		return err
	}
	fmt.Printf("the tests pass on the code as it is (%v)\n", time.Since(begun).Round(time.Second))
	t := tally{all: len(l)}
	for i := range l {
		m := &l[i]
		start := time.Now()
		v, err := b.try(ctx, m)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		fmt.Printf("%3d/%d %-34s %s (%.1f s)\n", i+1, len(l), m.name, v, time.Since(start).Seconds())
		t.take(m, v)
	}
	return t.report(time.Since(begun))
}

// tally is what became of the mutants.
type tally struct {
	all, killed int
	survivors   []*mutant
	faults      []error // of the list
}

func (t *tally) take(m *mutant, v verdict) {
	switch v {
	case killed, timedOut, bySuite:
		t.killed++
		if m.survives != "" {
			t.faults = append(t.faults, fmt.Errorf("%s: the list says that it survives", m.name))
		}
	case survived:
		t.survivors = append(t.survivors, m)
		if m.survives == "" {
			t.faults = append(t.faults, fmt.Errorf("%s: survives, and the list does not say why: write the test that kills it", m.name))
		}
	default:
		t.faults = append(t.faults, fmt.Errorf("%s: %s", m.name, v))
	}
}

func (t *tally) report(took time.Duration) error {
	percent := 100 * float64(t.killed) / float64(t.all)
	fmt.Printf("\n%d mutants, %d killed (%.1f %%), %d survived; %v\n",
		t.all, t.killed, percent, len(t.survivors), took.Round(time.Second))
	for _, m := range t.survivors {
		fmt.Printf("  %s: %s\n    %s\n", m.name, m.why, m.survives)
	}
	if percent < leastKilled {
		t.faults = append(t.faults, fmt.Errorf("%.1f %% are killed, %d %% are wanted", percent, leastKilled))
	}
	return errors.Join(t.faults...)
}

package history

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func readFile(t *testing.T, name string) *History {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}()
	h, err := Read(f)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return h
}

// Each file of testdata has one fault, planted in its last operation: the rule of
// its name finds it, names it, and no other rule says a word. Without that
// operation the history is correct.
func TestPlantedFaults(t *testing.T) {
	files, err := filepath.Glob("testdata/*.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	missing := map[Rule]bool{}
	for _, rule := range Rules() {
		missing[rule] = true
	}
	for _, name := range files {
		var rule Rule
		for _, r := range Rules() {
			if strings.HasPrefix(filepath.Base(name), strings.ReplaceAll(string(r), " ", "_")) {
				rule = r
			}
		}
		delete(missing, rule)
		h := readFile(t, name)
		report := h.Check(Bounds{})
		if got := slices.Collect(maps.Keys(report.Broken)); len(got) != 1 || got[0] != rule || report.Err() == nil {
			t.Errorf("%s breaks %v: %v", name, got, report.Err())
			continue
		}
		v := report.Violations[0]
		last := len(h.Ops) - 1
		if v.First == v.Second || v.First != last && v.Second != last {
			t.Errorf("%s: names operations %d and %d of %d", name, v.First+1, v.Second+1, len(h.Ops))
		}
		if v.First < 0 || !strings.Contains(v.Text, "operation ") || !strings.Contains(report.Err().Error(), string(rule)) {
			t.Errorf("%s: says %v", name, report.Err())
		}
		before := History{Ops: h.Ops[:last]}
		if report := before.Check(Bounds{}); report.Err() != nil {
			t.Errorf("%s without its last operation: %v", name, report.Err())
		}
	}
	if len(missing) > 0 {
		t.Errorf("no fault is planted for %v", slices.Collect(maps.Keys(missing)))
	}
}

// What a violation says is meant to be read.
func TestWords(t *testing.T) {
	report := readFile(t, "testdata/mutual_exclusion.jsonl").Check(Bounds{})
	const want = `mutual exclusion: ` +
		`operation 1 of client-A, at 0s to 10ms: "A"/"r1" acquires lock "a" with token 5; ` +
		`operation 2 of client-B, at 1s to 1.01s: "B"/"r2" acquires lock "a" with token 6; ` +
		`the first has lock "a" under token 5 until 29.97s at least, and token 6 was granted by 1.01s`
	if _, got, _ := strings.Cut(report.Err().Error(), "\n"); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

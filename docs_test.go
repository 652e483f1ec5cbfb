package raftlock_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// mapLine is one line of the map in doc.go.
type mapLine struct{ file, what string }

var mapPattern = regexp.MustCompile(`(?m)^//\t([a-z_]+\.go) +(.+)$`)

// readMap reads the map of the house.
func readMap(t *testing.T) (lines []mapLine) {
	t.Helper()
	for _, m := range mapPattern.FindAllStringSubmatch(readText(t, "doc.go"), -1) {
		lines = append(lines, mapLine{m[1], m[2]})
	}
	return lines
}

func readText(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestMap holds the map of the house: every file of the root stands in it once,
// and nothing else does.
func TestMap(t *testing.T) {
	var mapped []string
	for _, line := range readMap(t) {
		mapped = append(mapped, line.file)
	}
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var there []string
	for _, name := range names {
		if isProduct(name) {
			there = append(there, name)
		}
	}
	slices.Sort(mapped)
	slices.Sort(there)
	if !slices.Equal(mapped, there) {
		t.Errorf("doc.go maps\n%v\nthere are\n%v", mapped, there)
	}
}

// TestDocExample holds that the example in doc.go is the one that is run.
func TestDocExample(t *testing.T) {
	_, code, ok := strings.Cut(readText(t, "example_test.go"), "\nfunc bill(")
	if !ok {
		t.Fatal("example_test.go has no bill")
	}
	code, _, _ = strings.Cut("func bill("+code, "\n}\n")
	code += "\n}"
	if lines := strings.Count(code, "\n") + 1; lines > 15 {
		t.Errorf("the example has %d lines", lines)
	}
	want := "//\t" + strings.ReplaceAll(code, "\n", "\n//\t") + "\n"
	if !strings.Contains(readText(t, "doc.go"), want) {
		t.Errorf("doc.go does not have the example as it is run:\n%s", want)
	}
}

var fenced = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$")

// TestReadmePrograms holds that the README's programs are compiled and run: they
// are parts of examples.
func TestReadmePrograms(t *testing.T) {
	from := []string{"examples/single/main.go", "examples/embedded/invoicer_test.go"}
	for _, block := range fenced.FindAllStringSubmatch(readText(t, "README.md"), -1) {
		if block[1] != "go" {
			continue
		}
		if len(from) == 0 {
			t.Fatalf("a program in README.md that no example has:\n%s", block[2])
		}
		if !strings.Contains(readText(t, from[0]), block[2]) {
			t.Errorf("this program of README.md is not in %s:\n%s", from[0], block[2])
		}
		from = from[1:]
	}
	if len(from) > 0 {
		t.Errorf("README.md does not show %v", from)
	}
}

// TestReadmeCommands holds the promise of two commands, and that CI runs the
// second; the first one's test is in cmd/raftlock.
func TestReadmeCommands(t *testing.T) {
	readme := readText(t, "README.md")
	first, second := strings.Index(readme, "go run ./cmd/raftlock demo"), strings.Index(readme, "go test ./...")
	if first < 0 || second < first {
		t.Error("README.md does not begin with its two commands")
	}
	if !regexp.MustCompile(`(?m)^for target in .*\btest\b.*; do$`).MatchString(readText(t, ".ci/run")) {
		t.Error(".ci/run does not call the target test")
	}
	if !strings.Contains(readText(t, "Makefile"), "\n\t$(GO) test ./...\n") {
		t.Error("the Makefile does not run go test ./...")
	}
}

var linkPattern = regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)

// TestLinks holds that what the documents point to is there.
func TestLinks(t *testing.T) {
	documents, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(documents, more...) {
		for _, link := range linkPattern.FindAllStringSubmatch(readText(t, name), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(name), link[1])); err != nil {
				t.Errorf("%s points to %s, which is not there", name, link[1])
			}
		}
	}
}

var mentionPattern = regexp.MustCompile("`(Test[A-Za-z0-9]+)(…?)`")

// TestMentions holds that the tests that documents name are there; an ellipsis
// stands for all that begin so.
func TestMentions(t *testing.T) {
	var tests strings.Builder
	for _, dir := range goDirs(t) {
		names, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			tests.WriteString(readText(t, name))
		}
	}
	for _, name := range []string{"README.md", "CONTRIBUTING.md", "docs/design.md", "docs/locktable.md"} {
		for _, m := range mentionPattern.FindAllStringSubmatch(readText(t, name), -1) {
			function := "\nfunc " + m[1]
			if m[2] == "" {
				function += "("
			}
			if !strings.Contains(tests.String(), function) {
				t.Errorf("%s names the test %s, which is not there", name, m[1])
			}
		}
	}
}

var (
	contractTest = regexp.MustCompile("(● )?`(Test[A-Za-z0-9]+)`")
	testDecl     = regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9]+)\(t \*testing\.T\) \{(?: //.*)?\n((?:\t.*\n|\n)*)`)
)

// TestContractNamesTests holds docs/contract.md and docs/guarantees.md: every
// sentence of a table has a test, the tests exist, and those that are marked run at
// every place.
func TestContractNamesTests(t *testing.T) {
	bodies := map[string]string{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		for _, m := range testDecl.FindAllStringSubmatch(readText(t, path), -1) {
			bodies[m[1]] += m[2]
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(readText(t, "docs/contract.md") + readText(t, "docs/guarantees.md")) {
		cells := strings.Split(strings.Trim(line, "|\n "), " | ")
		if len(cells) != 2 || cells[1] == "tests" {
			continue
		}
		named := contractTest.FindAllStringSubmatch(cells[1], -1)
		if len(named) == 0 {
			t.Errorf("no test for: %s", cells[0])
		}
		for _, m := range named {
			body, there := bodies[m[2]]
			if !there {
				t.Errorf("there is no %s, which shows: %s", m[2], cells[0])
			} else if m[1] != "" && !strings.Contains(body, "eachPlace(t,") {
				t.Errorf("%s does not run at every place", m[2])
			}
		}
	}
}

package main

import (
	"bytes"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// mutant is one way to break the code.
type mutant struct {
	name     string
	line     int    // of the list
	why      string // what it would do to those who use the library
	file     string // relative to the root
	old, new string // old is in the file exactly once
	tests    string // regular expression of those that should notice
	pkg      string // of the tests, as the go command names it
	survives string // why no test can notice it; "" for nearly all
}

// list is the mutants in the order of their file.
type list []mutant

// readList reads a list. Of each mutant it has
//
//	== name
//	why: one line
//	file: path
//	tests: package regexp
//	survives: reason (optional)
//	--- old
//	the text as it is, one or more lines
//	--- new
//	the text in its place, perhaps none
//	--- end
//
// Elsewhere empty lines and those that begin with # mean nothing.
func readList(path string) (list, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := &listReader{path: path}
	for line := range strings.Lines(string(text)) {
		r.line++
		if err := r.take(strings.TrimSuffix(line, "\n")); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, r.line, err)
		}
	}
	if r.part != nil {
		return nil, fmt.Errorf("%s: the list ends within a mutant", path)
	}
	return r.list, r.list.whole(path)
}

type listReader struct {
	path string
	line int
	list list
	part *[]string // of the text that is being read; nil outside of it
	old  []string
	new  []string
}

func (r *listReader) take(line string) error {
	switch {
	case line == "--- old":
		r.old, r.new = nil, nil
		r.part = &r.old
	case line == "--- new" && r.part == &r.old:
		r.part = &r.new
	case line == "--- end" && r.part == &r.new:
		m := &r.list[len(r.list)-1]
		m.old, m.new = strings.Join(r.old, "\n"), strings.Join(r.new, "\n")
		r.part = nil
	case r.part != nil:
		*r.part = append(*r.part, line)
	case line == "" || line[0] == '#':
	case strings.HasPrefix(line, "== "):
		r.list = append(r.list, mutant{name: line[3:], line: r.line})
	default:
		return r.field(line)
	}
	return nil
}

func (r *listReader) field(line string) error {
	key, value, ok := strings.Cut(line, ": ")
	if !ok || len(r.list) == 0 {
		return fmt.Errorf("%q is not part of a mutant", line)
	}
	m := &r.list[len(r.list)-1]
	switch key {
	case "why":
		m.why = value
	case "file":
		m.file = value
	case "survives":
		m.survives = value
	case "tests":
		m.pkg, m.tests, _ = strings.Cut(value, " ")
	default:
		return fmt.Errorf("unknown field %q", key)
	}
	return nil
}

// whole sees to it that each mutant says all there is to say.
func (l list) whole(path string) error {
	var errs []error
	seen := map[string]bool{}
	for i := range l {
		m := &l[i]
		_, err := regexp.Compile(m.tests)
		switch {
		case m.name == "" || m.why == "" || m.file == "" || m.old == "" || m.pkg == "" || m.tests == "":
			err = errors.New("name, why, file, tests or old text is missing")
		case seen[m.name]:
			err = errors.New("there are two of this name")
		case m.old == m.new:
			err = errors.New("it changes nothing")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s:%d: %s: %w", path, m.line, m.name, err))
		}
		seen[m.name] = true
	}
	return errors.Join(errs...)
}

// check finds out whether each mutant can be made, and whether there are the tests
// that should notice it.
func (l list) check(root string) error {
	var errs []error
	there := map[string][]string{}
	for i := range l {
		m := &l[i]
		_, err := m.broken(root)
		if _, known := there[m.pkg]; !known && err == nil {
			there[m.pkg], err = testsOf(filepath.Join(root, m.pkg))
		}
		if err == nil {
			err = m.named(there[m.pkg])
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", m.name, err))
		}
	}
	return errors.Join(errs...)
}

var testFunc = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Example)\w*)\(`)

// testsOf lists the tests of a package by reading its files.
func testsOf(dir string) (names []string, err error) {
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	for _, file := range files {
		text, readErr := os.ReadFile(file)
		err = errors.Join(err, readErr)
		for _, match := range testFunc.FindAllSubmatch(text, -1) {
			names = append(names, string(match[1]))
		}
	}
	return names, err
}

// named finds out whether each alternative of the regular expression is a test: one
// that is not any more would be missed by nobody.
func (m *mutant) named(tests []string) error {
	alternatives, end := strings.TrimPrefix(m.tests, "^"), ""
	if strings.HasSuffix(alternatives, "$") {
		alternatives, end = strings.TrimSuffix(alternatives, "$"), "$"
	}
	if strings.HasPrefix(alternatives, "(") && strings.HasSuffix(alternatives, ")") {
		alternatives = alternatives[1 : len(alternatives)-1]
	}
	for one := range strings.SplitSeq(alternatives, "|") {
		match, err := regexp.Compile("^(" + one + ")" + end)
		if err != nil {
			return fmt.Errorf("%q is no list of tests", m.tests)
		}
		if !slices.ContainsFunc(tests, match.MatchString) {
			return fmt.Errorf("package %s has no test %q", m.pkg, one)
		}
	}
	return nil
}

// broken is the file of a mutant with the mutant in it.
func (m *mutant) broken(root string) ([]byte, error) {
	sound, err := os.ReadFile(filepath.Join(root, m.file))
	if err != nil {
		return nil, err
	}
	if n := bytes.Count(sound, []byte(m.old)); n != 1 {
		return nil, fmt.Errorf("the old text is %d times in %s, not once: the code has changed, the list must follow", n, m.file)
	}
	broken := bytes.Replace(sound, []byte(m.old), []byte(m.new), 1)
	if _, err := parser.ParseFile(token.NewFileSet(), m.file, broken, parser.SkipObjectResolution); err != nil {
		return nil, fmt.Errorf("does not parse: %w", err)
	}
	return broken, nil
}

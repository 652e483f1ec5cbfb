package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// verdict is what became of a mutant.
type verdict string

const (
	killed   verdict = "killed"
	timedOut verdict = "killed (by the time-out)"
	bySuite  verdict = "killed (by another test than the list names)"
	survived verdict = "SURVIVED"
	unbuilt  verdict = "DOES NOT COMPILE"
	untested verdict = "NO SUCH TEST"
)

// testLimit is how long the tests of one mutant may take. Those that wait for
// what a mutant never brings about end with it.
const testLimit = time.Minute

// bench breaks the code and runs tests on it.
type bench struct {
	root    string
	suite   bool
	verbose bool
	dir     string // for what is made on the way
}

// try breaks the code and returns what the tests make of it.
func (b *bench) try(ctx context.Context, m *mutant) (verdict, error) {
	broken, err := m.broken(b.root)
	if err != nil {
		return "", err
	}
	overlay, err := b.overlay(m.file, broken)
	if err != nil {
		return "", err
	}
	binary, said, err := b.build(ctx, m.pkg, "-overlay="+overlay)
	if err != nil {
		fmt.Printf("%s", said)
		return unbuilt, ctx.Err()
	}
	v := b.test(ctx, binary, m.pkg, m.tests)
	if v == survived && b.suite && m.survives == "" {
		if b.test(ctx, binary, m.pkg, ".") != survived {
			v = bySuite
		}
	}
	return v, ctx.Err()
}

// overlay makes the file that has the go command read other bytes in the place of
// those of a file.
func (b *bench) overlay(file string, broken []byte) (string, error) {
	root, err := filepath.Abs(b.root)
	if err != nil {
		return "", err
	}
	instead := filepath.Join(b.dir, "broken.go")
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {filepath.Join(root, file): instead}})
	if err != nil {
		return "", err
	}
	path := filepath.Join(b.dir, "overlay.json")
	return path, errors.Join(os.WriteFile(instead, broken, 0o600), os.WriteFile(path, replace, 0o600))
}

// build makes the test binary of a package.
func (b *bench) build(ctx context.Context, pkg string, flags ...string) (binary string, said []byte, err error) {
	binary = filepath.Join(b.dir, "tests")
	cmd := exec.CommandContext(ctx, "go", append(append([]string{"test", "-c", "-vet=off", "-o", binary}, flags...), pkg)...)
	cmd.Dir = b.root
	said, err = cmd.CombinedOutput()
	return binary, said, err
}

// test runs tests of a package.
func (b *bench) test(ctx context.Context, binary, pkg, tests string) verdict {
	cmd := exec.CommandContext(ctx, binary, "-test.short", "-test.failfast",
		"-test.run="+tests, "-test.timeout="+testLimit.String())
	cmd.Dir = filepath.Join(b.root, pkg)
	said, err := cmd.CombinedOutput()
	if b.verbose {
		fmt.Printf("%s", said)
	}
	switch {
	case bytes.Contains(said, []byte("testing: warning: no tests to run")):
		return untested
	case err == nil:
		return survived
	case bytes.Contains(said, []byte("panic: test timed out")):
		return timedOut
	}
	return killed
}

// sound runs the tests of all mutants on the code as it is. If one failed, it
// would kill every mutant.
func (b *bench) sound(ctx context.Context, l list) error {
	var order []string
	tests := map[string][]string{}
	for i := range l {
		m := &l[i]
		if tests[m.pkg] == nil {
			order = append(order, m.pkg)
		}
		tests[m.pkg] = append(tests[m.pkg], m.tests)
	}
	for _, pkg := range order {
		binary, said, err := b.build(ctx, pkg)
		if err != nil {
			return fmt.Errorf("build the tests of %s: %w\n%s", pkg, err, said)
		}
		if v := b.test(ctx, binary, pkg, strings.Join(tests[pkg], "|")); v != survived {
			return fmt.Errorf("the tests of %s do not pass on the code as it is: %s", pkg, v)
		}
	}
	return ctx.Err()
}

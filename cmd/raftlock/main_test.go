package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/raftlock/raftlock/internal/supervise"
)

var rewrite = flag.Bool("rewrite", false, "write what was said to testdata")

// asEnv says what the test's program is run as, instead of the tests.
const asEnv = "RAFTLOCK_TEST_AS"

func TestMain(m *testing.M) {
	_, hidden := supervise.Hidden(os.Args)
	switch as := os.Getenv(asEnv); {
	case hidden, as == "raftlock":
		main()
	case as == "worker":
		os.Exit(worker())
	default:
		hearSignals()
		// The tests wait for processes; they need no processor to themselves.
		if err := flag.Set("test.parallel", "14"); err != nil {
			panic(err)
		}
		goleak.VerifyTestMain(m)
	}
}

// hearSignals lets the programs that the tests start get the signals that were
// ignored when the tests were started, as by nohup or in a script's background:
// what is ignored stays so in a child, what is caught does not.
func hearSignals() {
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGHUP, syscall.SIGQUIT} {
		if signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig)
		}
	}
}

// command runs the program with a temporary directory of its own, which must be
// empty afterwards.
func command(t *testing.T, ctx context.Context, out *watched, args ...string) (code int, errOut string) {
	t.Helper()
	t.Setenv("TMPDIR", t.TempDir())
	var stderr bytes.Buffer
	code = run(ctx, args, out, &stderr)
	left, err := os.ReadDir(os.Getenv("TMPDIR"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	return code, stderr.String()
}

// watched is an output on which something happens at a word.
type watched struct {
	bytes.Buffer
	word string
	then func() error
}

func (w *watched) Write(p []byte) (int, error) {
	if w.word != "" && strings.Contains(string(p), w.word) {
		if err := w.then(); err != nil {
			return 0, err
		}
	}
	return w.Buffer.Write(p)
}

// What differs from run to run.
var (
	hashes    = regexp.MustCompile(`\b[0-9a-f]{16}\.`)
	directory = regexp.MustCompile(`/\S*/raftlock-demo-[0-9]+/`)
	durations = regexp.MustCompile(`\b[0-9.]+ (ms|s)\b`)
	members   = regexp.MustCompile(`\bn[123]\b`)
	tokens    = regexp.MustCompile(`token [0-9]+`)
	indexes   = regexp.MustCompile(`index [0-9]+`)
)

// steady is a demo's output without what differs from run to run: who leads
// decides where everybody else is.
func steady(said string) string {
	for _, sub := range []struct {
		pattern *regexp.Regexp
		by      string
	}{
		{tokens, "token T"}, {hashes, "HASH."}, {directory, "DIR/"},
		{indexes, "index I"}, {durations, "TIME"}, {members, "nX"},
	} {
		said = sub.pattern.ReplaceAllString(said, sub.by)
	}
	return said
}

// The demo says what testdata/demo.txt says, every time. That the promises hold
// is for the demo itself to check.
func TestDemo(t *testing.T) {
	var out watched
	code, errOut := command(t, t.Context(), &out, "demo")
	if code != exitDone || errOut != "" {
		t.Fatalf("exit %d: %s\n%s", code, errOut, out.String())
	}
	golden(t, "demo.txt", steady(out.String()))
}

// golden holds what was said to what a file of testdata says.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("it said:\n%s\nwant:\n%s", got, want)
	}
}

func TestDemoInterrupted(t *testing.T) {
	words := []string{"Four more ask", "1. Start", "dies", "old stops"}
	if testing.Short() {
		words = words[:1]
	}
	for _, word := range words {
		ctx, cancel := context.WithCancel(t.Context())
		out := watched{word: word, then: func() error { cancel(); return nil }}
		code, errOut := command(t, ctx, &out, "demo")
		if code != exitInterrupted || errOut != "raftlock: interrupted\n" {
			t.Errorf("at %q: exit %d: %s", word, code, errOut)
		}
		cancel()
	}
}

func TestDemoWithoutReader(t *testing.T) {
	gone := errors.New("nobody reads")
	out := watched{word: "3. ", then: func() error { return gone }}
	code, errOut := command(t, t.Context(), &out, "demo")
	if code != exitFailed || errOut != "raftlock: nobody reads\n" {
		t.Errorf("exit %d: %s", code, errOut)
	}
}

func TestDemoWithoutDirectory(t *testing.T) {
	t.Setenv("TMPDIR", filepath.Join(t.TempDir(), "missing"))
	var out, errOut bytes.Buffer
	code := run(t.Context(), []string{"demo"}, &out, &errOut)
	if code != exitFailed || !strings.HasPrefix(errOut.String(), "raftlock: make a temporary directory: ") {
		t.Errorf("exit %d: %s", code, errOut.String())
	}
}

func TestVersionAndHelp(t *testing.T) {
	for args, want := range map[string]string{
		"version":    "raftlock " + version(),
		"--version":  version(),
		"help":       "demo ",
		"":           "demo ",
		"help demo":  "five parts",
		"demo extra": "",
		"serv":       "",
	} {
		var out watched
		code, errOut := command(t, t.Context(), &out, strings.Fields(args)...)
		if want == "" {
			if code != exitUsage || errOut == "" {
				t.Errorf("raftlock %s: exit %d: %s", args, code, errOut)
			}
			continue
		}
		if code != exitDone || !strings.Contains(out.String(), want) {
			t.Errorf("raftlock %s: exit %d, %q without %q", args, code, out.String(), want)
		}
	}
}

// A log gets no colours, nor does anybody who does not want any.
func TestColour(t *testing.T) {
	if newStage(&bytes.Buffer{}).colour {
		t.Error("colours in a buffer")
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if newStage(file).colour {
		t.Error("colours in a file")
	}
	painted := &stage{out: &bytes.Buffer{}, colour: true}
	if got := painted.token(7); got != "\x1b[36mtoken 7\x1b[0m" {
		t.Errorf("%q", got)
	}
}

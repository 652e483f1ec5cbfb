package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/raftlock/raftlock/client"
)

// What differs from run to run in what is said of locks and members.
var (
	fencing  = regexp.MustCompile(`\b[0-9]{16}\b`)
	dates    = regexp.MustCompile(`[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9:.]+Z?`)
	spans    = regexp.MustCompile(`\b([0-9]+h)?([0-9]+m)?[0-9.]+m?s\b`)
	fraction = regexp.MustCompile(`(_seconds": )[0-9.e+-]+`)
	ports    = regexp.MustCompile(`127\.0\.0\.1:[0-9]{2,5}`)
	blanks   = regexp.MustCompile(` {3,}`)
	counted  = regexp.MustCompile(`("(term|commit_index|applied_index|snapshot_index|match_index)": )[0-9]+`)
	// term and applied index, in the table
	standing = regexp.MustCompile(`(?m)^(\S+  n[0-9]  \S+  \S+  )[0-9]+  [0-9]+`)
)

func calm(said string) string {
	said = blanks.ReplaceAllString(said, "  ")
	for _, sub := range []struct {
		pattern *regexp.Regexp
		by      string
	}{
		// A fraction may have as many digits as a token.
		{fraction, "${1}SPAN"}, {fencing, "TOKEN"}, {dates, "DATE"}, {spans, "SPAN"},
		{ports, "ADDRESS"}, {counted, "${1}N"}, {standing, "${1}N  N"},
	} {
		said = sub.pattern.ReplaceAllString(said, sub.by)
	}
	return said
}

// session runs commands in process and writes down what they say.
type session struct {
	t         *testing.T
	endpoints string
	said      strings.Builder
}

func (s *session) run(args ...string) (code int, out string) {
	s.t.Helper()
	var stdout, stderr bytes.Buffer
	code = run(s.t.Context(), append(args, "--endpoints", s.endpoints), &stdout, &stderr)
	fmt.Fprintf(&s.said, "$ raftlock %s\n%s%s(exit code %d)\n\n", strings.Join(args, " "), stdout.String(), stderr.String(), code)
	return code, stdout.String()
}

// What the commands that look at a cluster say, and those that release.
func TestLooking(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1, nil)
	locks := f.client()
	acquire := func(name, owner string, metadata map[string]string) *client.Lock {
		t.Helper()
		got, err := locks.Acquire(t.Context(), &client.AcquireRequest{LockID: name, ClientID: owner, TTL: time.Hour, Metadata: metadata})
		if err != nil {
			t.Fatal(err)
		}
		return got.Lock
	}
	invoices := acquire("invoices", "web-1", map[string]string{"purpose": "billing", "build": "7"})
	acquire("invoices-old", "web-2", nil)
	given := acquire("reports", "web-2", nil)
	if _, err := locks.Release(t.Context(), &client.ReleaseRequest{LockID: "reports", ClientID: "web-2", Version: given.Version}); err != nil {
		t.Fatal(err)
	}
	for i, waiter := range []string{"web-3", "web-4"} {
		_, err := locks.EnqueueWaiter(t.Context(), &client.EnqueueWaiterRequest{LockID: "invoices", ClientID: waiter, Timeout: time.Hour, Priority: int32(5 * i)})
		if err != nil {
			t.Fatal(err)
		}
	}
	s := &session{t: t, endpoints: f.endpoints()}
	s.run("ls")
	s.run("ls", "--all")
	s.run("ls", "*-old", "--json")
	s.run("ls", "--contested")
	s.run("ls", "--metadata", "build=7")
	s.run("ls", "--owner", "nobody")
	s.run("ls", "--owner", "nobody", "--json")
	s.run("get", "invoices")
	s.run("get", "invoices", "--waiters")
	s.run("get", "invoices", "--waiters", "--json")
	s.run("get", "reports")
	s.run("get", "reports", "--json")
	s.run("get", "unknown")
	s.run("status")
	s.run("status", "--json")
	s.run("release", "invoices")
	s.run("release", "invoices", "--client-id", "web-1", "--token", "1")
	s.run("release", "invoices", "--client-id", "web-9", "--token", "1")
	s.run("release", "invoices", "--force", "--client-id", "web-9")
	if code, _ := s.run("release", "invoices", "--client-id", "web-1", "--token", fmt.Sprint(invoices.Version)); code != 0 {
		t.Errorf("exit code %d", code)
	}
	s.run("release", "invoices", "--client-id", "web-4", "--token", fmt.Sprint(invoices.Version)) // the next one's
	s.run("release", "invoices", "--force")
	s.run("release", "invoices", "--force")
	s.run("release", "invoices", "--force")
	s.run("release", "unknown", "--force")
	golden(t, "looking.txt", calm(s.said.String()))
}

// The JSON is for programs: it says what the library says.
func TestLookingJSON(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1, nil)
	got, err := f.client().Acquire(t.Context(), &client.AcquireRequest{LockID: "a", ClientID: "me", TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	s := &session{t: t, endpoints: f.endpoints()}
	var list []lockView
	_, out := s.run("ls", "--json")
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 1 {
		t.Fatalf("%v: %s", err, out)
	}
	if v := list[0]; v.Token != got.Lock.Version || !v.Held || v.Left <= 0 || v.Left > 60 || !v.AcquiredAt.Equal(got.Lock.AcquiredAt) {
		t.Errorf("%+v, want %+v", v, got.Lock)
	}
	var members []memberView
	_, out = s.run("status", "--json")
	if err := json.Unmarshal([]byte(out), &members); err != nil || len(members) != 1 || members[0].Locks != 1 || !members[0].Serving {
		t.Errorf("%v: %s", err, out)
	}
}

// Where no cluster is, every command says so with a code of its own, and status
// tells of each endpoint.
func TestNoCluster(t *testing.T) {
	t.Parallel()
	s := &session{t: t, endpoints: "127.0.0.1:1"}
	for _, args := range [][]string{{"ls"}, {"get", "a"}, {"release", "a", "--force"}, {"status"}} {
		if code, _ := s.run(args...); code != exitNoCluster {
			t.Errorf("%v: exit code %d", args, code)
		}
	}
	f := newFleet(t, 1, nil)
	s.endpoints = f.endpoints() + ",127.0.0.1:1"
	if code, _ := s.run("status"); code != exitFailed {
		t.Errorf("with one of two: exit code %d", code)
	}
	golden(t, "nocluster.txt", calm(s.said.String()))
}

// How a cluster is found, and what is refused before anything is sent.
func TestConnection(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"--endpoints=,":                            "names no member",
		"--endpoints=10.0.0.1:7001":                "on another machine",
		"--endpoints=localhost:1,example.com:7001": "example.com:7001 is on another machine",
		"--endpoints=localhost":                    "must be host:port",
		"--insecure --tls":                         "--insecure means no TLS",
		"--cert=x":                                 "belong together",
		"--cert=/no/such --key=/no/such":           "read --cert and --key",
		"--ca=/no/such":                            "read --ca: open /no/such",
		"--ca=connection.go":                       "has no certificate",
		"--timeout=-1s":                            "must not be negative",
		"--timeout=soon":                           "invalid argument",
	} {
		var out, errOut bytes.Buffer
		code := run(t.Context(), append([]string{"ls"}, strings.Fields(args)...), &out, &errOut)
		if code != exitUsage || !strings.Contains(errOut.String(), want) || !strings.Contains(errOut.String(), "Try `raftlock ls --help`.") {
			t.Errorf("ls %s: exit code %d: %s", args, code, errOut.String())
		}
	}
}

// A flag comes from the environment if the command line does not have it.
func TestEnvironment(t *testing.T) {
	f := newFleet(t, 1, nil)
	t.Setenv("RAFTLOCK_ENDPOINTS", f.endpoints())
	t.Setenv("RAFTLOCK_TLS", "")
	for _, c := range []struct {
		key, value, args string
		code             int
		says             string
	}{
		{"RAFTLOCK_TIMEOUT", "5s", "ls", exitDone, ""},
		{"RAFTLOCK_TIMEOUT", "soon", "ls", exitUsage, "environment variable RAFTLOCK_TIMEOUT: invalid argument"},
		{"RAFTLOCK_TIMEOUT", "soon", "ls --timeout 5s", exitDone, ""},
		{"RAFTLOCK_ENDPOINTS", "127.0.0.1:1", "ls", exitNoCluster, "127.0.0.1:1"},
		{"RAFTLOCK_ENDPOINTS", "127.0.0.1:1", "ls --endpoints " + f.endpoints(), exitDone, ""},
	} {
		t.Run(c.key+" "+c.value+" "+c.args, func(t *testing.T) {
			t.Setenv(c.key, c.value)
			var out, errOut bytes.Buffer
			code := run(t.Context(), strings.Fields(c.args), &out, &errOut)
			if code != c.code || !strings.Contains(errOut.String(), c.says) {
				t.Errorf("exit code %d: %s", code, errOut.String())
			}
		})
	}
}

// Every command explains itself, with an example.
func TestHelp(t *testing.T) {
	var all strings.Builder
	for _, cmd := range rootCommand().Commands() {
		if cmd.Name() == "demo" || cmd.Name() == "version" {
			continue
		}
		for _, sub := range append(cmd.Commands(), cmd) {
			path := strings.Fields(sub.CommandPath())[1:]
			var out, errOut bytes.Buffer
			if code := run(t.Context(), append(path, "--help"), &out, &errOut); code != exitDone || errOut.Len() > 0 || sub.Example == "" {
				t.Errorf("%v --help: exit code %d: %s; example %q", path, code, errOut.String(), sub.Example)
			}
			fmt.Fprintf(&all, "$ %s --help\n%s\n", sub.CommandPath(), out.String())
		}
	}
	golden(t, "help.txt", all.String())
}

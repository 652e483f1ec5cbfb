package testcluster_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/testcluster"
)

// recorder is a test that a test looks at.
type recorder struct {
	testing.TB

	mu       sync.Mutex
	failed   bool
	text     strings.Builder
	cleanups []func()
}

func (r *recorder) Helper()          {}
func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }

func (r *recorder) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

func (r *recorder) Logf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(&r.text, format+"\n", args...)
}

func (r *recorder) Errorf(format string, args ...any) {
	r.Logf(format, args...)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = true
}

// end is the end of the test.
func (r *recorder) end() {
	for i := len(r.cleanups) - 1; i >= 0; i-- {
		r.cleanups[i]()
	}
}

func (r *recorder) wants(t *testing.T, failed bool, texts ...string) {
	t.Helper()
	if r.Failed() != failed {
		t.Errorf("failed is %v: %s", r.Failed(), r.text.String())
	}
	for _, text := range texts {
		if !strings.Contains(r.text.String(), text) {
			t.Errorf("the test is not told %q, but\n%s", text, r.text.String())
		}
	}
}

func TestRequireReleasedNamesLockAndOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{TB: t}
		c := testcluster.New(r, 3)
		c.RequireReleased()
		cl := c.Client()
		l := hold(t, cl, "forgotten", "the owner")
		give(t, cl, hold(t, cl, "released", "other"))
		r.end()
		r.wants(t, true, "1 of its locks", `"forgotten" by "the owner"`, fmt.Sprintf("token %d", l.Version))
	})
}

func TestRequireReleasedAcceptsWhatIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{TB: t}
		c := testcluster.New(r, 3)
		c.RequireReleased()
		cl := c.Client()
		l := hold(t, cl, "a", "me")
		r.Cleanup(func() { give(t, cl, l) })
		r.end()
		r.wants(t, false)
		if r.text.Len() > 0 {
			t.Error("a test that passes says ", r.text.String())
		}
	})
}

func TestRequireReleasedWithoutAMajority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{TB: t}
		c := testcluster.New(r, 3)
		c.RequireReleased()
		c.CrashLeader()
		c.CrashLeader()
		r.end()
		r.wants(t, true, "no majority")
	})
}

// The members' log is for tests that fail, and there is an end to it.
func TestLogIsForFailures(t *testing.T) {
	for _, fails := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := &recorder{TB: t}
			c := testcluster.New(r, 3)
			for range 20 {
				c.Restart(c.CrashLeader())
				c.Leader()
			}
			if fails {
				r.Errorf("it fails")
			}
			r.end()
			if told := strings.Contains(r.text.String(), "leader changed"); told != fails {
				t.Errorf("a test of which failed is %v was told the members' log: %v", fails, told)
			}
		})
	}
}

func TestLogIsBounded(t *testing.T) {
	r := &recorder{TB: t}
	j := testcluster.NewJournal()
	line := strings.Repeat("x", 1000) + "\n"
	for i := range 2000 {
		if _, err := fmt.Fprintf(j, "%d %s", i, line); err != nil {
			t.Fatal(err)
		}
	}
	r.failed = true
	j.Show(r)
	r.wants(t, true, "without its first 17", "\n1999 ")
	if r.text.Len() > 300<<10 {
		t.Errorf("the log has %d bytes", r.text.Len())
	}
}

// A test's cluster answers after its end: with an error that says so, and nothing
// worse.
func TestUseAfterTheEnd(t *testing.T) {
	var c *testcluster.Cluster
	var cl, remote *testcluster.Client
	r := &recorder{TB: t}
	t.Run("its test", func(t *testing.T) {
		r.TB = t
		c = testcluster.New(r, 3, testcluster.WithGRPC())
		cl, remote = c.Client(), c.Dial(c.ClientConfig())
		r.end()
	})
	for _, cl := range []*testcluster.Client{cl, remote, c.Client()} {
		if _, err := client.Hold(t.Context(), cl, "a"); !errors.Is(err, client.ErrUnavailable) || !strings.Contains(err.Error(), "the test has ended") {
			t.Error("a client whose test has ended says ", err)
		}
		_ = cl.Close()
	}
	for _, on := range []any{c, cl} {
		v := reflect.ValueOf(on)
		for i := range v.NumMethod() {
			name := v.Type().Method(i).Name
			if _, ok := on.(*testcluster.Client); ok && calls[name] {
				continue
			}
			before := r.text.Len()
			callEmpty(v.Method(i))
			if !silent[name] && !strings.Contains(r.text.String()[before:], name+" is called after the end of the test") {
				t.Errorf("%T.%s says nothing after the end of the test", on, name)
			}
		}
	}
}

// silent are the methods that only this package's tests have, and those that do
// nothing to a cluster.
var silent = map[string]bool{"ClientOn": true, "KeepDisk": true, "Logged": true}

// calls are the methods of a client, which tell by their errors, if at all.
var calls = func() map[string]bool {
	names := map[string]bool{"Clock": true}
	of := reflect.TypeFor[client.Client]()
	for i := range of.NumMethod() {
		names[of.Method(i).Name] = true
	}
	return names
}()

// callEmpty calls a method with the zero of everything.
func callEmpty(method reflect.Value) {
	var args []reflect.Value
	for i := range method.Type().NumIn() {
		args = append(args, reflect.Zero(method.Type().In(i)))
	}
	if method.Type().IsVariadic() {
		method.CallSlice(args)
		return
	}
	method.Call(args)
}

// finished is a test of which nothing runs any more.
type finished struct{ recorder }

func (f *finished) Errorf(string, ...any) { panic("Log in goroutine after Test has completed") }

// Who uses a cluster after all of its test is no worse off, though nobody can be told.
func TestUseAfterTheTest(t *testing.T) {
	f := &finished{recorder{TB: t}}
	c := testcluster.New(f, 1)
	f.end()
	c.Crash(0)
	c.Client().Cut()
	if leader := c.Leader(); leader != -1 {
		t.Errorf("after the test member %d leads", leader)
	}
	if _, err := client.Hold(t.Context(), c.Client(), "a"); !errors.Is(err, client.ErrUnavailable) {
		t.Error(err)
	}
}

// mistakes are tests that use the cluster wrongly, and what they are told. They
// run in a process of their own.
var mistakes = map[string]struct {
	test func(t *testing.T)
	told []string
}{
	"the outer t": {
		func(t *testing.T) {
			synctest.Test(t, func(*testing.T) { testcluster.New(t, 3) })
		},
		[]string{"give it the t that synctest.Test passes to its function"},
	},
	"a goroutine left in the bubble": {
		func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				testcluster.New(t, 3)
				go forgotten(make(chan int))
			})
		},
		[]string{"1 goroutines of its bubble still wait", "testcluster_test.forgotten"},
	},
	"a real socket in the bubble": {
		func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := httptest.NewServer(http.NotFoundHandler())
				defer server.Close()
				for range 100 { // until its goroutine waits for a connection
					if _, err := http.Get(server.URL); err != nil {
						t.Fatal(err)
					}
				}
				testcluster.New(t, 3)
			})
		},
		[]string{"waits for a real socket or pipe, so that virtual time stands still", "Accept"},
	},
	"use by a later cleanup": {
		func(t *testing.T) {
			var c *testcluster.Cluster
			t.Cleanup(func() { c.CrashLeader() })
			c = testcluster.New(t, 3)
		},
		[]string{"CrashLeader is called after the end of the test"},
	},
}

func forgotten(c chan int) { <-c }

const mistakeVariable = "RAFTLOCK_MISTAKE"

func TestMistake(t *testing.T) {
	if m, ok := mistakes[os.Getenv(mistakeVariable)]; ok {
		m.test(t)
		return
	}
	for name, m := range mistakes {
		t.Run(name, func(t *testing.T) {
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			child := exec.CommandContext(t.Context(), self, "-test.run=^TestMistake$", "-test.timeout=30s")
			child.Env = append(os.Environ(), mistakeVariable+"="+name)
			begun := time.Now()
			out, err := child.CombinedOutput()
			if err == nil {
				t.Errorf("the test passes:\n%s", out)
			}
			for _, text := range m.told {
				if !strings.Contains(string(out), text) {
					t.Errorf("after %v it is not told %q, but\n%s", time.Since(begun), text, out)
				}
			}
		})
	}
}

// A member that ends by itself, as one does that panics, is not taken for one of the
// test's own crashes, whatever the test does with it afterwards.
func TestEndThatNothingExplains(t *testing.T) {
	for name, then := range map[string]func(c *testcluster.Cluster, i int){
		"at the end":     func(*testcluster.Cluster, int) {},
		"when restarted": func(c *testcluster.Cluster, i int) { c.MendDisk(i); c.Restart(i) },
		"when crashed":   func(c *testcluster.Cluster, i int) { c.Crash(i) },
		"when disk lost": func(c *testcluster.Cluster, i int) { c.LoseDisk(i) },
	} {
		synctest.Test(t, func(t *testing.T) {
			r := &recorder{TB: t}
			c := testcluster.New(r, 3)
			i := c.Leader()
			c.FailDiskWith(i, errors.New("nobody has heard of this"))
			hold(t, c.ClientOn((i+1)%3), "lock", "owner")
			<-c.Node(i).Done()
			then(c, i)
			r.end()
			t.Log(name)
			r.wants(t, true, "member", "has ended by itself", "nobody has heard of this")
		})
	}
}

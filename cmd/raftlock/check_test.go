package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/history"
	"github.com/raftlock/raftlock/testcluster"
)

// checked runs the command on a file, and returns what it says.
func checked(t *testing.T, args ...string) (code int, said, errOut string) {
	t.Helper()
	var out watched
	code, errOut = command(t, t.Context(), &out, append([]string{"check"}, args...)...)
	return code, out.String(), errOut
}

// written is a file with a history.
func written(t *testing.T, h *history.History) string {
	t.Helper()
	var text bytes.Buffer
	if _, err := h.WriteTo(&text); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "history.jsonl")
	if err := os.WriteFile(name, text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// Each fault that is planted for the rules is told, with its rule.
func TestCheckPlantedFaults(t *testing.T) {
	files, err := filepath.Glob("../../history/testdata/*.jsonl")
	if err != nil || len(files) < len(history.Rules()) {
		t.Fatal(files, err)
	}
	for _, name := range files {
		code, said, errOut := checked(t, name)
		named := ""
		for _, rule := range history.Rules() {
			if strings.HasPrefix(filepath.Base(name), strings.ReplaceAll(string(rule), " ", "_")) {
				named = string(rule) + ": operation "
			}
		}
		if code != exitFailed || named == "" || !strings.HasPrefix(said, named) || !strings.Contains(said, "\nviolated: ") || errOut == "" {
			t.Errorf("%s: exit %d: %s%s", name, code, said, errOut)
		}
	}
}

const historyHeader = `{"format":"raftlock-history","version":1}` + "\n"

func TestCheckMalformed(t *testing.T) {
	name := filepath.Join(t.TempDir(), "h")
	for text, want := range map[string]string{
		"":                                  "line 1",
		"nonsense":                          "line 1",
		historyHeader + `{"call":"dance"}`:  "line 2",
		historyHeader + `{"colour":"blue"}`: "line 2",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if code, said, errOut := checked(t, name); code != exitMalformed || said != "" || !strings.Contains(errOut, want) {
			t.Errorf("%q: exit %d: %s%s", text, code, said, errOut)
		}
	}
	if code, _, errOut := checked(t, name+"not"); code != exitMalformed || !strings.Contains(errOut, "no such file") {
		t.Errorf("exit %d: %s", code, errOut)
	}
	for _, args := range [][]string{{}, {name, name}, {name, "--timeout", "0s"}} {
		if code, _, errOut := checked(t, args...); code != exitUsage {
			t.Errorf("%q: exit %d: %s", args, code, errOut)
		}
	}
}

func TestCheckThin(t *testing.T) {
	once := &history.History{Ops: []history.Op{granted("A", 5, 0, time.Millisecond, time.Second)}}
	for _, h := range []*history.History{{}, once} {
		if code, said, errOut := checked(t, written(t, h)); code != exitThin || !strings.HasPrefix(said, "thin: ") || !strings.Contains(errOut, "too thin") {
			t.Errorf("exit %d: %s%s", code, said, errOut)
		}
	}
}

// What clients of a real cluster see while its leaders fail is explained, from
// standard input too, and as JSON; a search without time says that it had none.
func TestCheckRealCluster(t *testing.T) {
	seed := rand.Uint64()
	var h *history.History
	synctest.Test(t, func(t *testing.T) { h = recordFailovers(t, testcluster.New(t, 3), seed) })
	name := written(t, h)
	code, said, errOut := checked(t, name)
	if code != exitDone || !strings.HasPrefix(said, "kept: ") || errOut != "" {
		t.Fatalf("seed %d: exit %d: %s%s", seed, code, said, errOut)
	}
	t.Log(said)
	if code, said, errOut = checked(t, name, "--timeout", "1ns"); code != exitThin || !strings.HasPrefix(said, "timeout: ") {
		t.Errorf("exit %d: %s%s", code, said, errOut)
	}
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var out bytes.Buffer
	root := rootCommand()
	root.SetArgs([]string{"check", "--json", "-"})
	root.SetIn(file)
	root.SetOut(&out)
	var v finding
	if err := root.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out.Bytes(), &v); err != nil || v.Verdict != "kept" || v.Operations != len(h.Ops) || v.Compared[history.MutualExclusion] == 0 {
		t.Errorf("%v: %s", err, out.String())
	}
}

// recordFailovers has clients lock while leaders crash and are cut off.
func recordFailovers(t *testing.T, c *testcluster.Cluster, seed uint64) *history.History {
	rec := history.New()
	var stop atomic.Bool
	var work sync.WaitGroup
	for i := range 6 {
		work.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(i)))
			cl := rec.Client(c.ClientOn(i%3), fmt.Sprintf("client %d", i))
			for !stop.Load() {
				lockOnce(t.Context(), rng, cl, fmt.Sprintf("id %d", i))
			}
		})
	}
	watcher := rec.Client(c.ClientOn(1), "watcher")
	work.Go(func() {
		for !stop.Load() {
			_, _ = watcher.GetLocks(t.Context(), &client.GetLocksRequest{}) // without a leader it shows nothing
			time.Sleep(20 * time.Millisecond)
		}
	})
	for range 2 {
		time.Sleep(2 * time.Second)
		victim := c.CrashLeader()
		time.Sleep(time.Second)
		c.Restart(victim)
		time.Sleep(time.Second)
		c.Isolate(c.Leader())
		time.Sleep(3 * time.Second)
		c.Heal()
	}
	stop.Store(true)
	work.Wait()
	return rec.History()
}

// lockOnce takes a lock, may renew it, and gives it back or lets it end.
func lockOnce(ctx context.Context, rng *rand.Rand, cl client.Client, me string) {
	req := &client.AcquireRequest{
		LockID: fmt.Sprint("lock", rng.IntN(2)), ClientID: me, TTL: time.Duration(200+rng.IntN(2000)) * time.Millisecond,
		Wait: rng.IntN(3) > 0, WaitTimeout: time.Duration(1+rng.IntN(5)) * time.Second, Priority: int32(rng.IntN(2)),
	}
	if rng.IntN(3) > 0 {
		req.RequestID = fmt.Sprint(rng.Uint64())
	}
	callCtx, cancel := context.WithTimeout(ctx, time.Duration(1+rng.IntN(6000))*time.Millisecond)
	defer cancel()
	res, err := cl.Acquire(callCtx, req)
	if err != nil {
		time.Sleep(time.Duration(rng.IntN(100)) * time.Millisecond)
		return
	}
	for range rng.IntN(3) {
		time.Sleep(time.Duration(rng.IntN(300)) * time.Millisecond)
		renew := &client.RenewRequest{LockID: req.LockID, ClientID: me, Version: res.Lock.Version, NewTTL: time.Second}
		if _, err := cl.Renew(ctx, renew); err != nil {
			return
		}
	}
	if rng.IntN(6) > 0 { // an error is part of what is recorded
		_, _ = cl.Release(ctx, &client.ReleaseRequest{LockID: req.LockID, ClientID: me, Version: res.Lock.Version})
	}
}

func granted(owner string, token int64, from, to, ttl time.Duration) history.Op {
	return history.Op{
		Call: history.Acquire, From: from, To: to, Outcome: history.OK,
		Lock: "a", ClientID: owner, RequestID: fmt.Sprint("r", token), TTL: ttl, Expires: from + ttl, Token: token,
	}
}

// searched is what the search alone finds, in pieces of at least so many deeds.
func searched(t *testing.T, h *history.History, least int) (porcupine.CheckResult, []violationView) {
	t.Helper()
	e := &effort{ctx: t.Context(), deadline: time.Now().Add(time.Minute), room: mostRoom, least: least}
	answer, found := e.search(h)
	if e.large {
		t.Error("there was not enough room")
	}
	return answer, found
}

// The search alone, without the rules: it holds a grant to its guaranteed end, and
// lets it end from there on.
func TestSearch(t *testing.T) {
	const s = time.Second
	op := func(call history.Call, owner string, token int64, outcome history.Outcome, from, to time.Duration) history.Op {
		return history.Op{Call: call, From: from, To: to, Outcome: outcome, Lock: "a", ClientID: owner, Token: token, TTL: 10 * s}
	}
	look := func(owner string, token int64, from, to time.Duration) history.Op {
		return history.Op{
			Call: history.Look, From: from, To: to, Outcome: history.OK, Lock: "a",
			Seen: []history.Sight{{Lock: "a", Owner: owner, Held: owner != "", Token: token}},
		}
	}
	first := granted("A", 5, 0, s/100, 10*s)
	end := (&history.History{Ops: []history.Op{first}}).Guarantees()[0]
	if end > 10*s || end < 9*s {
		t.Fatalf("guaranteed until %v", end)
	}
	refused := op(history.Renew, "A", 5, history.Refused, 2*s, 3*s)
	refused.Code = "LOCK_NOT_HELD"
	for name, c := range map[string]struct {
		kept bool
		ops  []history.Op
	}{
		"seen before it was asked for":    {false, []history.Op{look("A", 5, 0, s), granted("A", 5, 2*s, 3*s, 10*s)}},
		"seen while it was asked for":     {true, []history.Op{look("A", 5, 0, 2*s), granted("A", 5, 2*s, 3*s, 10*s)}},
		"seen after an earlier call":      {true, []history.Op{{Call: history.Acquire, From: 0, To: s, Outcome: history.Unknown, Lock: "a", ClientID: "A", RequestID: "r5"}, look("A", 5, s, 2*s), granted("A", 5, 3*s, 4*s, 10*s)}},
		"a second grant within the first": {false, []history.Op{first, granted("B", 6, 2*s, 3*s, 10*s)}},
		"two grants at the same time":     {false, []history.Op{first, granted("B", 6, 0, s/100, 10*s)}},
		"a second grant before the bound": {false, []history.Op{first, granted("B", 6, 2*s, end-1, 10*s)}},
		"a second grant at the bound":     {true, []history.Op{first, granted("B", 6, 2*s, end, 10*s)}},
		"seen before the bound":           {false, []history.Op{first, granted("B", 6, 2*s, 40*s, 10*s), look("B", 6, 3*s, 4*s)}},
		"seen as free before the bound":   {false, []history.Op{first, look("", 5, 2*s, end-1)}},
		"seen as free at the bound":       {true, []history.Op{first, look("", 5, 2*s, end)}},
		"still there long after":          {true, []history.Op{first, look("A", 5, 60*s, 61*s)}},
		"held again":                      {false, []history.Op{first, look("", 5, 11*s, 12*s), look("A", 5, 13*s, 14*s)}},
		"another's token":                 {false, []history.Op{first, look("B", 5, s, 2*s)}},
		"a renewal refused early":         {false, []history.Op{first, refused}},
		"renewed and granted":             {false, []history.Op{first, op(history.Renew, "A", 5, history.OK, 9*s, 9*s), granted("B", 6, 10*s, 12*s, s)}},
		"a stale renewal":                 {false, []history.Op{first, granted("B", 6, 11*s, 12*s, s), op(history.Renew, "A", 5, history.OK, 13*s, 14*s)}},
		"released and granted":            {true, []history.Op{first, op(history.Release, "A", 5, history.OK, s, 2*s), granted("B", 6, s, 3*s, 10*s)}},
		"perhaps released, and granted":   {true, []history.Op{first, op(history.Release, "A", 5, history.Unknown, s, 2*s), granted("B", 6, 2*s, 3*s, 10*s)}},
		"granted, then perhaps released":  {false, []history.Op{first, granted("B", 6, s, 2*s, 10*s), op(history.Release, "A", 5, history.Unknown, 3*s, 4*s)}},
		"a grant that nobody was told of": {true, []history.Op{op(history.Acquire, "B", 0, history.Unknown, 0, s), look("B", 4, 2*s, 3*s), granted("A", 5, 4*s, 5*s, s)}},
	} {
		answer, found := searched(t, &history.History{Ops: c.ops}, 1)
		if answer != porcupine.Ok || (len(found) == 0) != c.kept {
			t.Errorf("%s: %v %v", name, answer, found)
		}
	}
}

// The search also stands alone against faults that the rules find.
func TestSearchPlantedFaults(t *testing.T) {
	for _, name := range []string{"mutual_exclusion", "no_hold_lost_early", "no_grant_unasked", "no_stale_read", "no_stale_token_accepted", "one_token_per_request_id"} {
		h, err := readHistory(filepath.Join("../../history/testdata", name+".jsonl"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, found := searched(t, h, 1); len(found) != 1 || !strings.Contains(found[0].Text, "goes on to operation ") {
			t.Errorf("%s: %v", name, found)
		}
		h.Ops = h.Ops[:len(h.Ops)-1]
		if answer, found := searched(t, h, 1); answer != porcupine.Ok || len(found) > 0 {
			t.Errorf("%s without its last operation: %v %v", name, answer, found)
		}
	}
}

// countdown is a context that ends when it has been asked so many times.
type countdown struct {
	context.Context
	asked, last atomic.Int64
}

func (c *countdown) Err() error {
	if c.asked.Add(1) > c.last.Load() {
		return context.Canceled
	}
	return nil
}

// The first ^C ends the search, wherever it is, and not only at the next lock.
func TestCheckInterrupted(t *testing.T) {
	const grants, s = 2000, time.Second
	h := &history.History{}
	for i := range time.Duration(grants) {
		g := granted("A", int64(i+1), 20*i*s, 20*i*s+s, 10*s)
		g.RequestID = fmt.Sprint(i)
		h.Ops = append(h.Ops, g)
	}
	for _, after := range []int64{0, 1, grants / 2} {
		ctx := &countdown{Context: t.Context()}
		ctx.last.Store(after)
		c := checking{timeout: time.Hour, room: mostRoom}
		v, err := c.judge(ctx, h)
		if !errors.Is(err, context.Canceled) || v != nil {
			t.Errorf("interrupted after %d steps: %v, %v", after, v, err)
		}
		if n := ctx.asked.Load(); n > 2*after+10 {
			t.Errorf("interrupted after %d steps it takes %d", after, n)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out watched
	code, errOut := command(t, ctx, &out, "check", written(t, h))
	if code != exitInterrupted || out.String() != "" || errOut != "raftlock: interrupted\n" {
		t.Errorf("exit %d: %s%s", code, out.String(), errOut)
	}
}

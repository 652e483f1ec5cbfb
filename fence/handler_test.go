package fence_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/raftlock/raftlock/fence"
)

func byPath(r *http.Request) string { return r.URL.Path }

// send passes a request with tokens to a handler and returns what it answers.
func send(ctx context.Context, h http.Handler, path string, tokens ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(ctx, http.MethodPut, path, nil)
	for _, token := range tokens {
		r.Header.Add(fence.Header, token)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestHandlerAnswers(t *testing.T) {
	var g fence.Guard
	served := 0
	h := g.Handler(byPath, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		served++
		w.WriteHeader(http.StatusNoContent)
	}))
	for _, step := range []struct {
		path   string
		tokens []string
		code   int
		says   string
	}{
		{"/a", []string{"7"}, http.StatusNoContent, ""},
		{"/a", []string{"7"}, http.StatusNoContent, ""},
		{"/a", []string{"6"}, http.StatusPreconditionFailed, "resource \"/a\" has seen token 7, refused token 6"},
		{"/b", []string{"6"}, http.StatusNoContent, ""},
		{"/a", nil, http.StatusBadRequest, "in the header Fencing-Token"},
		{"/a", []string{""}, http.StatusBadRequest, "field 'token' is \"\""},
		{"/a", []string{"0"}, http.StatusBadRequest, "field 'token' is \"0\""},
		{"/a", []string{"8,9"}, http.StatusBadRequest, "field 'token' is \"8,9\""},
		{"/a", []string{"8", "9"}, http.StatusBadRequest, "field 'token' is \"8, 9\""},
		{"/a", []string{"7"}, http.StatusNoContent, ""}, // what was refused was not seen
	} {
		before := served
		w := send(t.Context(), h, step.path, step.tokens...)
		if w.Code != step.code || !strings.Contains(w.Body.String(), step.says) {
			t.Errorf("%s %v: %d %s, want %d", step.path, step.tokens, w.Code, w.Body, step.code)
		}
		if (served > before) != (step.code == http.StatusNoContent) {
			t.Errorf("%s %v: served %d times", step.path, step.tokens, served-before)
		}
	}
}

// TestHandlerServesOneAtATime holds that a request has its resource to itself,
// and that who does not get its turn in time is told that nothing was done.
func TestHandlerServesOneAtATime(t *testing.T) {
	synctest.Test(t, testHandlerServesOneAtATime)
}

func testHandlerServesOneAtATime(t *testing.T) {
	var g fence.Guard
	finish := make(chan struct{})
	served := 0 // unguarded: there is one at a time
	h := g.Handler(byPath, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		served++
		<-finish
	}))
	over, cancel := context.WithCancel(t.Context())
	var requests sync.WaitGroup
	requests.Go(func() { send(t.Context(), h, "/a", "1") })
	synctest.Wait()
	requests.Go(func() {
		if w := send(over, h, "/a", "1"); w.Code != http.StatusServiceUnavailable {
			t.Errorf("a request that was cut off: %d %s", w.Code, w.Body)
		}
	})
	requests.Go(func() { send(t.Context(), h, "/a", "1") })
	synctest.Wait()
	cancel()
	synctest.Wait()
	if served != 1 {
		t.Errorf("%d requests are served at once", served)
	}
	close(finish)
	requests.Wait()
	if served != 2 {
		t.Errorf("%d requests were served, want 2", served)
	}
}

// TestHandlerOverTheNetwork holds the same with net/http's server and client, which
// have a say in what a header is, and after a handler's panic.
func TestHandlerOverTheNetwork(t *testing.T) {
	var g fence.Guard
	server := httptest.NewServer(g.Handler(byPath, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery == "panic" {
			panic(http.ErrAbortHandler)
		}
		fmt.Fprint(w, "done")
	})))
	defer server.Close()
	put := func(query, token string) (int, error) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, server.URL+"/a"+query, nil)
		if err != nil {
			return 0, err
		}
		r.Header.Set("fencing-token", token)
		resp, err := server.Client().Do(r)
		if err != nil {
			return 0, err
		}
		return resp.StatusCode, resp.Body.Close()
	}
	if _, err := put("?panic", "5"); err == nil {
		t.Error("an aborted request was answered")
	}
	var errs []error
	for token, want := range map[string]int{"4": http.StatusPreconditionFailed, "5": http.StatusOK, " 5 ": http.StatusOK, "five": http.StatusBadRequest} {
		code, err := put("", token)
		errs = append(errs, err)
		if code != want {
			t.Errorf("token %q: %d, want %d", token, code, want)
		}
	}
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
}

package fence_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"

	"github.com/raftlock/raftlock/fence"
)

// notes is an HTTP service that keeps texts by path, each with the token that
// wrote it last. A real one keeps both on a disk, in one step.
type notes struct {
	texts  map[string]string
	tokens map[string]int64
}

// ServeHTTP needs no lock of its own for one path: the guard lets one request at a
// time through. This example has one path.
func (n *notes) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet {
		fmt.Fprintln(w, n.texts[r.URL.Path])
		return
	}
	token, err := fence.ParseToken(r.Header.Get(fence.Header))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	n.texts[r.URL.Path], n.tokens[r.URL.Path] = string(text), token
	fmt.Fprintln(w, "written")
}

// The service refuses requests without the token of a lock, and with an old one.
func ExampleGuard_Handler() {
	stored := &notes{texts: map[string]string{}, tokens: map[string]int64{}}
	var guard fence.Guard
	for path, token := range stored.tokens { // what is known from before a restart
		if err := guard.Check(path, token); err != nil {
			fmt.Println(err)
		}
	}
	handler := guard.Handler(func(r *http.Request) string { return r.URL.Path }, stored)

	request := func(method, text string, token int64) {
		r := httptest.NewRequest(method, "/plan", strings.NewReader(text))
		if token != 0 {
			r.Header.Set(fence.Header, strconv.FormatInt(token, 10))
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		fmt.Print(w.Code, " ", w.Body)
	}
	request(http.MethodPut, "plan A", 41)
	request(http.MethodGet, "", 42) // the next holder reads
	request(http.MethodPut, "plan B", 41)
	request(http.MethodPut, "plan C", 42)
	request(http.MethodGet, "", 0)
	// Output:
	// 200 written
	// 200 plan A
	// 412 fence: stale token: resource "/plan" has seen token 42, refused token 41
	// 200 written
	// 400 fence: invalid token: field 'token' is "", want a whole number from 1 to 9223372036854775807 in the header Fencing-Token
}

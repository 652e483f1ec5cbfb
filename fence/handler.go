package fence

import (
	"errors"
	"net/http"
	"strings"
)

// Header is the header of a request that carries its token, in decimal digits.
const Header = "Fencing-Token"

// Handler lets requests through to next as Do lets actions: each with the token
// of its Fencing-Token header and for the resource that the request is for, one at
// a time for each resource. Other requests do not reach next:
//
//	400 Bad Request          no token, several, or one that ParseToken refuses
//	412 Precondition Failed  a stale token: the caller has lost the lock, and must not try again with it
//	503 Service Unavailable  the request's context ended while it waited for its turn
//
// resource is called before anything else, by many goroutines at once. It says
// whom the request is for and must not read the body. What it makes of a path that
// callers choose is remembered; see Guard.Forget.
//
// A request has the resource to itself until next returns, the reading of its body
// included: set the server's ReadTimeout, or a slow sender keeps a newer holder
// waiting. Wrap the methods that read as well as those that write, if what is read
// decides what is written. Next finds the token in the header, with ParseToken, and
// stores it with the data, so that it is known after a restart.
func (g *Guard) Handler(resource func(*http.Request) string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := resource(r)
		token, err := requestToken(r)
		if err == nil {
			err = g.Do(r.Context(), name, token, func() error {
				next.ServeHTTP(w, r)
				return nil
			})
		}
		switch {
		case err == nil:
		case errors.Is(err, ErrStale):
			http.Error(w, err.Error(), http.StatusPreconditionFailed)
		case errors.Is(err, ErrInvalidToken):
			http.Error(w, err.Error()+" in the header "+Header, http.StatusBadRequest)
		default:
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
}

// requestToken refuses several headers, of which another server might obey
// another one.
func requestToken(r *http.Request) (int64, error) {
	values := r.Header.Values(Header)
	if len(values) != 1 {
		return 0, invalidToken(strings.Join(values, ", "))
	}
	return ParseToken(values[0])
}

package peerwire

import (
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/raftlock/raftlock"
)

// The layout on the wire, seen by net/http, which shares no code with gRPC. A
// change here means that members of different releases no longer understand
// each other.

const (
	goldenPath        = "/raftlock.Peer1/Frames"
	goldenContentType = "application/grpc+raftlock"
	// two frames: "abc", and an empty one
	goldenMessages = "0000000003616263" + "0000000000"
)

func cleartext() *http.Protocols {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	return protocols
}

func readHex(t *testing.T, from io.Reader, size int) string {
	t.Helper()
	data := make([]byte, size)
	if _, err := io.ReadFull(from, data); err != nil {
		t.Error(err)
	}
	return hex.EncodeToString(data)
}

func TestGoldenAcceptor(t *testing.T) {
	server, addr := open(t, "", Config{}, defaultLimits)
	received := make(chan string, 2)
	serve(t, server, func(s raftlock.PeerStream) {
		for range 2 {
			frame, err := s.Recv()
			if err != nil {
				t.Error(err)
			}
			received <- string(frame)
			if err := s.Send(frame); err != nil {
				t.Error(err)
			}
		}
	})
	web := &http.Transport{Protocols: cleartext()}
	defer web.CloseIdleConnections()
	body, input := io.Pipe()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+goldenPath, body)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", goldenContentType)
	request.Header.Set("Te", "trailers")
	response, err := web.RoundTrip(request) // returns on the header, before any frame
	if err != nil {
		t.Fatal(err)
	}
	if got := response.Header.Get("Content-Type"); response.StatusCode != http.StatusOK || got != goldenContentType {
		t.Errorf("answered %d, %q", response.StatusCode, got)
	}
	messages, _ := hex.DecodeString(goldenMessages)
	if _, err := input.Write(messages); err != nil {
		t.Fatal(err)
	}
	if first, second := <-received, <-received; first != "abc" || second != "" {
		t.Errorf("the acceptor receives %q and %q", first, second)
	}
	if got := readHex(t, response.Body, len(messages)); got != goldenMessages {
		t.Errorf("the acceptor sends %s, want %s", got, goldenMessages)
	}
	if rest, err := io.ReadAll(response.Body); err != nil || len(rest) != 0 {
		t.Errorf("after the frames: %x, %v", rest, err)
	}
	if got := response.Trailer.Get("Grpc-Status"); got != "0" {
		t.Errorf("ends with status %q, want 0", got)
	}
	_ = input.Close()
}

func TestGoldenDialler(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	web := &http.Server{Protocols: cleartext(), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.URL.Path != goldenPath || r.ProtoMajor != 2 {
			t.Errorf("%s %s %s", r.Method, r.URL.Path, r.Proto)
		}
		if got := r.Header.Get("Content-Type"); got != goldenContentType {
			t.Errorf("content type %q", got)
		}
		w.Header().Set("Content-Type", goldenContentType)
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		if got := readHex(t, r.Body, len(goldenMessages)/2); got != goldenMessages {
			t.Errorf("the dialler sends %s, want %s", got, goldenMessages)
		}
		messages, _ := hex.DecodeString(goldenMessages)
		_, _ = w.Write(messages)
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
	})}
	served := make(chan error, 1)
	go func() { served <- web.Serve(listener) }()
	t.Cleanup(func() {
		_ = web.Close()
		<-served
	})
	client, _ := open(t, "", Config{}, defaultLimits)
	s, err := dial(t, client, listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, frame := range []string{"abc", ""} {
		if err := s.Send([]byte(frame)); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"abc", ""} {
		if frame, err := s.Recv(); err != nil || string(frame) != want {
			t.Errorf("received %q, %v, want %q", frame, err, want)
		}
	}
	if frame, err := s.Recv(); err == nil {
		t.Errorf("received %q after the end", frame)
	}
}

// What no member sends is refused before memory is spent on it.
func TestRogueMessages(t *testing.T) {
	for name, message := range map[string]string{
		"longer than MaxFrame": "0001000001",
		"4 GB":                 "00ffffffff",
		"compressed":           "0100000001" + "61",
		"unknown flag":         "0200000001" + "61",
	} {
		t.Run(name, func(t *testing.T) {
			server, addr := open(t, "", Config{}, defaultLimits)
			received := make(chan error, 1)
			serve(t, server, func(s raftlock.PeerStream) {
				_, err := s.Recv()
				received <- err
			})
			web := &http.Transport{Protocols: cleartext()}
			defer web.CloseIdleConnections()
			body, input := io.Pipe()
			request, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+goldenPath, body)
			request.Header.Set("Content-Type", goldenContentType)
			request.Header.Set("Te", "trailers")
			response, err := web.RoundTrip(request)
			if err != nil {
				t.Fatal(err)
			}
			data, _ := hex.DecodeString(message)
			if _, err := input.Write(data); err != nil {
				t.Fatal(err)
			}
			if err := take(t, "the acceptor's Recv", received); err == nil {
				t.Error("the acceptor takes it")
			} else {
				t.Log(err)
			}
			_, _ = io.Copy(io.Discard, response.Body)
			_ = input.Close()
		})
	}
}

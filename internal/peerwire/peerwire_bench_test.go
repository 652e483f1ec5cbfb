package peerwire

import (
	"fmt"
	"testing"

	"github.com/raftlock/raftlock"
)

// serveBench returns a stream to a fresh transport that runs accept.
func serveBench(b *testing.B, cfg Config, accept func(raftlock.PeerStream)) raftlock.PeerStream {
	b.Helper()
	server, addr := open(b, "", cfg, defaultLimits)
	client, _ := open(b, "", cfg, defaultLimits)
	b.Cleanup(func() {
		for _, t := range []*Transport{client, server} {
			if err := t.Close(); err != nil {
				b.Error(err)
			}
		}
	})
	if err := server.Serve(accept); err != nil {
		b.Fatal(err)
	}
	s, err := client.Dial(b.Context(), addr)
	if err != nil {
		b.Fatal(err)
	}
	return s
}

func countAll(n int, done chan<- error) func(raftlock.PeerStream) {
	return func(s raftlock.PeerStream) {
		for range n {
			if _, err := s.Recv(); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}
}

// configs are plain text and mutual TLS.
func configs(b *testing.B) map[string]Config {
	return map[string]Config{"plain": {}, "mtls": {TLS: newAuthority(b).mutual(b)}}
}

// BenchmarkRoundTrip sends a frame there and back, one at a time.
func BenchmarkRoundTrip(b *testing.B) {
	for name, cfg := range configs(b) {
		for _, size := range []int{200, 16 << 10} {
			b.Run(fmt.Sprintf("%s/%d", name, size), func(b *testing.B) {
				s := serveBench(b, cfg, echoAll)
				b.ReportAllocs()
				frame := make([]byte, size)
				for b.Loop() {
					if err := s.Send(frame); err != nil {
						b.Fatal(err)
					}
					var err error
					if frame, err = s.Recv(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkThroughput sends one way, as fast as the stream takes it, until
// the last frame is received.
func BenchmarkThroughput(b *testing.B) {
	for name, cfg := range configs(b) {
		for _, size := range []int{200, 4 << 10, 64 << 10, 1 << 20} {
			b.Run(fmt.Sprintf("%s/%d", name, size), func(b *testing.B) {
				done := make(chan error, 1)
				s := serveBench(b, cfg, countAll(b.N, done))
				b.SetBytes(int64(size))
				b.ReportAllocs()
				// The stream owns what is sent, but nobody writes to it.
				frame := make([]byte, size)
				b.ResetTimer()
				for range b.N {
					if err := s.Send(frame); err != nil {
						b.Fatal(err)
					}
				}
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}

// BenchmarkDial opens and closes a stream: TCP, TLS, HTTP/2 and the call.
func BenchmarkDial(b *testing.B) {
	for name, cfg := range configs(b) {
		b.Run(name, func(b *testing.B) {
			server, addr := open(b, "", cfg, limits{accepted: 1 << 20, opening: defaultLimits.opening, lingering: defaultLimits.lingering})
			client, _ := open(b, "", cfg, defaultLimits)
			if err := server.Serve(echoAll); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				s, err := client.Dial(b.Context(), addr)
				if err != nil {
					b.Fatal(err)
				}
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
			}
			if err := client.Close(); err != nil {
				b.Error(err)
			}
			if err := server.Close(); err != nil {
				b.Error(err)
			}
		})
	}
}

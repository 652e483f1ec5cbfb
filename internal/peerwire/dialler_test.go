package peerwire

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/raftlock/raftlock"
)

// refused dials and checks that the error names the address and says why.
func refused(t *testing.T, from *Transport, addr string, words ...string) error {
	t.Helper()
	s, err := dial(t, from, addr)
	if err == nil {
		_ = s.Close()
		t.Fatal("the stream is taken")
	}
	if errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("nothing but the context ended it: %v", err)
	}
	for _, word := range append(words, addr) {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q does not say %q", err, word)
		}
	}
	return err
}

func TestDialRefused(t *testing.T) {
	gone, addr := open(t, "", Config{}, defaultLimits)
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	client, _ := open(t, "", Config{}, defaultLimits)
	if err := refused(t, client, addr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%v, want ECONNREFUSED", err)
	}
}

func TestDialResolves(t *testing.T) {
	server, addr := open(t, "", Config{}, defaultLimits)
	serve(t, server, echoAll)
	client, _ := open(t, "", Config{}, defaultLimits)
	_, port, _ := net.SplitHostPort(addr)
	echoes(t, client, net.JoinHostPort("localhost", port))
	for _, addr := range []string{"", "no-port", "127.0.0.1:no-number"} {
		refused(t, client, addr)
	}
}

// mute listens, completes TCP connections, and says nothing.
func mute(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	return listener.Addr().String()
}

func TestDialMuteAcceptor(t *testing.T) {
	for name, config := range map[string]*tls.Config{"plain": nil, "tls": newAuthority(t).oneSided(t)} {
		t.Run(name, func(t *testing.T) {
			addr := mute(t)
			client, _ := open(t, "", Config{TLS: config}, defaultLimits)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			since := time.Now()
			if _, err := client.Dial(ctx, addr); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v, want the context's end", err)
			}
			// gRPC itself gives up after 20 s.
			if took := time.Since(since); took > 10*time.Second {
				t.Errorf("the context's end is noticed after %v", took)
			}

			dialled := make(chan error, 1)
			go func() {
				_, err := client.Dial(context.Background(), addr)
				dialled <- err
			}()
			waitUntil(t, "the dial has its connection", func() bool { return connections(client) > 0 })
			if err := client.Close(); err != nil {
				t.Error(err)
			}
			if err := take(t, "Dial to end with its transport", dialled); !errors.Is(err, net.ErrClosed) {
				t.Errorf("%v, want net.ErrClosed", err)
			}
		})
	}
}

func TestTLS(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	stranger := ours.mutual(t)
	stranger.Certificates = theirs.mutual(t).Certificates
	distrustful := ours.mutual(t)
	distrustful.RootCAs = theirs.pool()
	named := ours.mutual(t)
	named.ServerName = "elsewhere.example"
	for _, c := range []struct {
		name           string
		server, client *tls.Config
		words          []string // none: the stream is taken
	}{
		{"one-sided", ours.oneSided(t), &tls.Config{RootCAs: ours.pool()}, nil},
		{"mutual", ours.mutual(t), ours.mutual(t), nil},
		{"acceptor of another authority", ours.oneSided(t), distrustful, []string{"TLS handshake", "unknown authority"}},
		{"acceptor with another name", ours.mutual(t), named, []string{"TLS handshake", "elsewhere.example"}},
		{"dialler of another authority", ours.mutual(t), stranger, []string{"remote error", "unknown certificate authority"}},
		{"dialler without certificate", ours.mutual(t), &tls.Config{RootCAs: ours.pool()}, []string{"remote error", "certificate required"}},
		{"plain dialler", ours.mutual(t), nil, []string{"does the acceptor expect TLS?"}},
		{"plain acceptor", nil, ours.mutual(t), []string{"TLS handshake", "does not look like a TLS handshake"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			server, addr := open(t, "", Config{TLS: c.server}, defaultLimits)
			serve(t, server, echoAll)
			client, _ := open(t, "", Config{TLS: c.client}, defaultLimits)
			if c.words == nil {
				echoes(t, client, addr)
				return
			}
			t.Log(refused(t, client, addr, c.words...))
		})
	}
}

func TestTLSErrorIsWrapped(t *testing.T) {
	server, addr := open(t, "", Config{TLS: newAuthority(t).oneSided(t)}, defaultLimits)
	serve(t, server, echoAll)
	client, _ := open(t, "", Config{TLS: newAuthority(t).oneSided(t)}, defaultLimits)
	var unknown x509.UnknownAuthorityError
	if err := refused(t, client, addr); !errors.As(err, &unknown) {
		t.Errorf("%v, want an x509.UnknownAuthorityError", err)
	}
}

// The config is not changed by using it: the next address has another name.
func TestTLSConfigIsCloned(t *testing.T) {
	config := newAuthority(t).mutual(t)
	server, addr := open(t, "", Config{TLS: config}, defaultLimits)
	serve(t, server, echoAll)
	echoes(t, server, addr)
	for _, used := range []*tls.Config{config, server.tls} {
		if used.ServerName != "" || used.NextProtos != nil {
			t.Errorf("ServerName %q, NextProtos %v", used.ServerName, used.NextProtos)
		}
	}
}

// What an older or a foreign gRPC server says is passed on.
func TestDialForeignServer(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	client, _ := open(t, "", Config{}, defaultLimits)
	refused(t, client, listener.Addr().String(), "unknown service raftlock.Peer1")
}

// A peer that ends the stream at once took it: the end shows on the stream.
func TestDialAcceptReturnsAtOnce(t *testing.T) {
	server, addr := open(t, "", Config{}, defaultLimits)
	serve(t, server, func(raftlock.PeerStream) {})
	client, _ := open(t, "", Config{}, defaultLimits)
	s, err := dial(t, client, addr)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); !errors.Is(err, errEnded) {
		t.Errorf("%v, want %v", err, errEnded)
	}
}

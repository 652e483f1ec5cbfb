package client

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// certificate makes a certificate of its own authority for a name.
func certificate(t *testing.T, name string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// A member's certificate is checked against the name that the caller wrote, also
// when the name stands for several addresses; and against ServerName if that is
// set.
func TestTLS(t *testing.T) {
	cert, pool := certificate(t, "locks.example")
	for _, c := range []struct {
		name, endpoint, serverName string
		want                       string // in the error; "" for none
	}{
		{"the configured name", "locks.example:7001", "", ""},
		{"another name", "other.example:7001", "", "other.example"},
		{"the server's name", "other.example:7001", "locks.example", ""},
		{"an address", n1, "", "10.0.0.1"},
		{"in the options", "other.example:7001", "options", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFleet(t)
			m := f.member("10.0.0.1:7001", nil)
			m.server.Stop()
			m.start(grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{cert}})))
			cfg := DefaultClientConfig()
			cfg.Endpoints = []string{c.endpoint}
			cfg.RetryPolicy.MaxRetries = 0
			cfg.TLS = &tls.Config{RootCAs: pool, ServerName: c.serverName}
			cfg.DialOptions = []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return f.dial(ctx, address) })}
			if c.serverName == "options" {
				cfg.TLS = nil
				cfg.DialOptions = append(cfg.DialOptions, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: pool, ServerName: "locks.example"})))
			}
			client, err := newRemote(cfg, func(context.Context, string) ([]string, error) {
				return []string{"10.0.0.1", "10.0.0.2"}, nil
			})
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			_, err = client.Acquire(t.Context(), acquireReq())
			if c.want == "" && err != nil {
				t.Error(err)
			}
			if c.want != "" && (!is(err, ErrUnavailable) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "certificate")) {
				t.Errorf("%v", err)
			}
		})
	}
}

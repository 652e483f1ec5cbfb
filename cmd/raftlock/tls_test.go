package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/raftlock/raftlock/embed"
)

// papers are the files of an authority that has signed one certificate, for a
// member and a client alike.
type papers struct{ ca, cert, key string }

func newPapers(t *testing.T, host string) papers {
	t.Helper()
	dir := t.TempDir()
	p := papers{filepath.Join(dir, "ca.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	make := func(template, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		if signer == nil {
			parent, signer = template, key
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert, key
	}
	write := func(file, kind string, der []byte) {
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ca, caKey := make(&x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil, nil)
	cert, key := make(&x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, ca, caKey)
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(p.ca, "CERTIFICATE", ca.Raw)
	write(p.cert, "CERTIFICATE", cert.Raw)
	write(p.key, "EC PRIVATE KEY", der)
	return p
}

func (p papers) server(t *testing.T) *tls.Config {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(p.cert, p.key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	text, err := os.ReadFile(p.ca)
	if err != nil || !pool.AppendCertsFromPEM(text) {
		t.Fatal("no authority", err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
}

// A member that asks for certificates is talked to with all flags of TLS, and
// with less only a refusal is heard.
func TestTLS(t *testing.T) {
	t.Parallel()
	own, other := newPapers(t, "locks.example"), newPapers(t, "locks.example")
	m, err := embed.Start(t.Context(), embed.Config{
		Name: "n1", DataDir: t.TempDir(), ListenClient: "127.0.0.1:0", ClientTLS: own.server(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for _, c := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"all", []string{"--ca", own.ca, "--cert", own.cert, "--key", own.key, "--server-name", "locks.example"}, exitDone, ""},
		{"no server name", []string{"--ca", own.ca, "--cert", own.cert, "--key", own.key}, exitNoCluster, "certificate"},
		{"another authority", []string{"--ca", other.ca, "--cert", own.cert, "--key", own.key, "--server-name", "locks.example"}, exitNoCluster, "unknown authority"},
		{"the system's authorities", []string{"--tls", "--server-name", "locks.example"}, exitNoCluster, "certificate"},
		{"another's certificate", []string{"--ca", own.ca, "--cert", other.cert, "--key", other.key, "--server-name", "locks.example"}, exitNoCluster, ""},
		{"no TLS", nil, exitNoCluster, ""},
	} {
		var out, errOut bytes.Buffer
		code := run(t.Context(), append([]string{"ls", "--endpoints", m.ClientAddr(), "--timeout", "5s"}, c.args...), &out, &errOut)
		if code != c.code || !strings.Contains(errOut.String(), c.says) {
			t.Errorf("%s: exit code %d, want %d: %s", c.name, code, c.code, errOut.String())
		}
	}
}

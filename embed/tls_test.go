package embed_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/raftlock/raftlock/embed"
)

// authority signs the certificates of a test.
type authority struct {
	tb   testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(tb testing.TB) *authority {
	tb.Helper()
	a := &authority{tb: tb, pool: x509.NewCertPool()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Unix(0, 0), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	_, a.cert, a.key = a.sign(template, template, nil)
	a.pool.AddCert(a.cert)
	return a
}

// sign makes a key and a certificate for it; without a signer it signs itself.
func (a *authority) sign(template, parent *x509.Certificate, signer *ecdsa.PrivateKey) ([]byte, *x509.Certificate, *ecdsa.PrivateKey) {
	a.tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.tb.Fatal(err)
	}
	if signer == nil {
		signer = key
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.tb.Fatal(err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		a.tb.Fatal(err)
	}
	return raw, cert, key
}

// mutual is the TLS configuration of a member: it shows a certificate of this
// authority and wants one from its peers.
func (a *authority) mutual(name string) *tls.Config {
	a.tb.Helper()
	raw, _, key := a.sign(&x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Unix(0, 0), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, a.key)
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{raw}, PrivateKey: key}},
		RootCAs:      a.pool, ClientCAs: a.pool, ClientAuth: tls.RequireAndVerifyClientCert,
	}
}

func TestMutualTLS(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	s := newSite(t, names(3)...)
	s.adjust = func(cfg *embed.Config) { cfg.PeerTLS = ca.mutual(cfg.Name) }
	for name, m := range s.start(names(3)...) {
		acquire(t, m, "lock-of-"+name, name)
	}
}

// Who cannot show the right certificate is not let in. Nobody gives up, both
// sides' logs say why, and once it is mended the cluster is there.
func TestPeerWithoutTheRightCertificate(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short")
	}
	ca, stranger := newAuthority(t), newAuthority(t)
	for name, test := range map[string]struct {
		tls        func() *tls.Config
		here, peer string // what the logs say
	}{
		"none": {func() *tls.Config {
			// It shows one when it is dialled, for it must listen, but has none
			// for where it dials.
			both := ca.mutual("n3")
			certificate := both.Certificates[0]
			both.Certificates = nil
			both.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &certificate, nil }
			return both
		}, "client didn't provide a certificate", "certificate required"},
		"of another authority": {func() *tls.Config {
			wrong := stranger.mutual("n3")
			wrong.RootCAs = ca.pool
			return wrong
		}, "certificate signed by unknown authority", "unknown certificate authority"},
		"no TLS": {func() *tls.Config { return nil }, "first record does not look like a TLS handshake", "does the acceptor expect TLS?"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, names(3)...)
			s.adjust = func(cfg *embed.Config) { cfg.PeerTLS = ca.mutual(cfg.Name) }
			members := map[string]*embed.Member{"n1": s.open("n1"), "n2": s.open("n2")}
			good, log := s.adjust, s.log
			s.log = &logBook{}
			s.adjust = func(cfg *embed.Config) { cfg.PeerTLS = test.tls() }
			wrong := s.open("n3")
			eventually(t, "the members' log says why", func() bool { return log.says("peer listener", test.here) })
			eventually(t, "the peer's log says why", func() bool { return s.log.says("peer=n1", test.peer) })
			for name, m := range map[string]*embed.Member{"n1": members["n1"], "n2": members["n2"], "n3": wrong} {
				if isClosed(m.Ready()) || isClosed(m.Done()) {
					t.Errorf("%s: ready %t, err %v", name, isClosed(m.Ready()), m.Err())
				}
			}
			if err := wrong.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
			s.adjust = good
			members["n3"] = s.open("n3")
			for name, m := range members {
				awaitReady(t, name, m)
			}
			acquire(t, members["n3"], "a", "c")
		})
	}
}

// The certificates count for a running cluster as well: one that runs is joined
// by nobody who has none.
func TestRestartWithoutTheRightCertificate(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short")
	}
	ca, stranger := newAuthority(t), newAuthority(t)
	s := newSite(t, names(3)...)
	s.adjust = func(cfg *embed.Config) { cfg.PeerTLS = ca.mutual(cfg.Name) }
	members := s.start(names(3)...)
	if err := members["n3"].Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	cfg := s.config("n3")
	cfg.PeerTLS = stranger.mutual("n3")
	ctx, cancel := context.WithTimeout(context.Background(), 50*tick)
	defer cancel()
	if m, err := embed.Start(ctx, cfg); err == nil {
		_ = m.Close()
		t.Error("it serves")
	}
	acquire(t, members["n1"], "a", "c")
	acquire(t, s.start("n3")["n3"], "b", "c")
}

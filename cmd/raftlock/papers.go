package main

import (
	"crypto/tls"
	"crypto/x509"
	"os"

	"github.com/spf13/cobra"
)

// papersOf are the files with which a member proves who it is to one side, and
// checks who they are.
type papersOf struct{ cert, key, ca string }

func (p *papersOf) register(cmd *cobra.Command, side, whom string) {
	f := cmd.Flags()
	f.StringVar(&p.cert, side+"-cert", "", "`file` of the certificate to show to "+whom+", PEM")
	f.StringVar(&p.key, side+"-key", "", "`file` of that certificate's key, PEM")
	f.StringVar(&p.ca, side+"-ca", "", "`file` of the authorities of certificates that "+whom+" must show, PEM")
}

// config is nil when there are no files. With authorities, only who has a
// certificate of theirs is let in, and members dial only such.
func (p *papersOf) config(side string) (*tls.Config, error) {
	if p.cert == "" && p.key == "" && p.ca == "" {
		return nil, nil
	}
	if p.cert == "" || p.key == "" {
		return nil, misuse("--%s-cert and --%s-key are both needed for TLS", side, side)
	}
	pair, err := tls.LoadX509KeyPair(p.cert, p.key)
	if err != nil {
		return nil, misuse("read --%s-cert and --%s-key: %w", side, side, err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if p.ca == "" {
		if side == "peer" { // who is let in there can take any lock
			return nil, misuse("--peer-ca is required: members let nobody in without a certificate of its authorities")
		}
		return config, nil
	}
	pool, err := authorities("--"+side+"-ca", p.ca)
	if err != nil {
		return nil, err
	}
	config.RootCAs, config.ClientCAs, config.ClientAuth = pool, pool, tls.RequireAndVerifyClientCert
	return config, nil
}

// authorities reads a file of certificates.
func authorities(flag, file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, misuse("read %s: %w", flag, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, misuse("read %s: %s has no certificate in PEM", flag, file)
	}
	return pool, nil
}

package testcluster

import "crypto/tls"

// WithTLS is WithGRPC for clients that use TLS.
func WithTLS(server *tls.Config) Option {
	return func(c *Cluster) {
		WithGRPC()(c)
		c.front.tls = server
	}
}

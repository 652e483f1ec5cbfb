// Package embed opens a member of a lock cluster with everything it needs: a
// data directory with a write-ahead log, a listener for its peers, TLS. One
// call, the same for the first start and for every restart:
//
//	member, err := embed.Start(ctx, embed.Config{
//		Name:           "n1",
//		DataDir:        "/var/lib/myservice/locks",
//		InitialCluster: map[string]string{"n1": "10.0.0.1:7101", "n2": "10.0.0.2:7101", "n3": "10.0.0.3:7101"},
//		PeerTLS:        tlsConfig,
//	})
//	if err != nil { … }
//	defer member.Close()
//	locks := member.Client()
//
// With ListenClient (and ClientTLS) the member serves programs that do not embed, over
// gRPC: the service of package pb, gRPC's health service and reflection. Any member
// takes any call. A host that has a gRPC server already registers the service there
// instead (Member.RegisterService); Member.HealthHandler is for its HTTP server.
//
// A process may run any number of members. The package sets no signal handler,
// writes to no standard stream and keeps no global state, but for two things that
// etcd's write-ahead log does and that cannot be helped: it registers collectors
// in Prometheus' default registry when it is linked in, and the size of its
// segments is a variable of the process, which is set when the first data
// directory is opened.
package embed

package embed

import (
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"

	"github.com/raftlock/raftlock/internal/lockservice"
)

// outlet is where a member serves programs that do not embed: a gRPC server with
// a listener of its own.
type outlet struct {
	addr   string
	server *grpc.Server
	served chan struct{} // closed when the server has ended
}

// stopLimit is what the last answers get to leave.
const stopLimit = 500 * time.Millisecond

// listenClient listens for clients, if the configuration says where, and leaves
// the listener and the address to tell in the configuration. Nothing is accepted
// before there is a node.
func listenClient(cfg *Config) error {
	if cfg.ClientListener == nil && cfg.ListenClient == "" {
		return nil
	}
	if cfg.ClientListener == nil {
		listener, err := net.Listen("tcp", cfg.ListenClient)
		if err != nil {
			return fmt.Errorf("listen for clients: %w", err)
		}
		cfg.ClientListener = listener
	}
	cfg.AdvertiseClient = cfg.advertise(cfg.ClientListener.Addr())
	return nil
}

// openOutlet begins to serve. fail is called when that ends before close.
func openOutlet(cfg *Config, service *lockservice.Service, fail func(error)) *outlet {
	o := &outlet{
		addr:   cfg.ClientListener.Addr().String(),
		server: lockservice.NewServer(service, cfg.ClientTLS, cfg.ServerOptions...),
		served: make(chan struct{}),
	}
	go func() {
		err := o.server.Serve(cfg.ClientListener)
		close(o.served)
		if err != nil {
			fail(fmt.Errorf("serve clients: %w", err))
		}
	}()
	return o
}

// close ends the server. The service is drained: what still runs are answers on
// their way, and streams of others.
func (o *outlet) close() {
	limit := time.AfterFunc(stopLimit, o.server.Stop)
	defer limit.Stop()
	o.server.GracefulStop()
	<-o.served
}

//go:build !linux

package peerwire

import (
	"net"
	"time"
)

// setUserTimeout has no counterpart here: pings notice a lost peer, later.
func setUserTimeout(*net.TCPConn, time.Duration) error { return nil }

package peerwire

import (
	"net"
	"syscall"
	"time"
)

// tcpUserTimeout is TCP_USER_TIMEOUT, the same number on every Linux; package
// syscall lacks the name.
const tcpUserTimeout = 0x12

// setUserTimeout makes the kernel break conn when something that was sent
// stays unacknowledged for d. gRPC would do it too, but sees no TCP
// connection through a link.
func setUserTimeout(conn *net.TCPConn, d time.Duration) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var setErr error
	err = raw.Control(func(fd uintptr) {
		setErr = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(d.Milliseconds()))
	})
	if err != nil {
		return err
	}
	return setErr
}

package peerwire

import (
	"net"
	"syscall"
	"testing"
)

// Both ends ask the kernel to notice a peer that acknowledges nothing.
func TestUserTimeout(t *testing.T) {
	server, addr := open(t, "", Config{}, defaultLimits)
	serve(t, server, echoAll)
	client, _ := open(t, "", Config{}, defaultLimits)
	if _, err := dial(t, client, addr); err != nil {
		t.Fatal(err)
	}
	for _, transport := range []*Transport{server, client} {
		transport.mu.Lock()
		for link := range transport.mu.links {
			if got := userTimeout(t, link.tcp.(*net.TCPConn)); got != int(ackTimeout.Milliseconds()) {
				t.Errorf("TCP_USER_TIMEOUT is %d", got)
			}
		}
		if len(transport.mu.links) != 1 {
			t.Errorf("%d connections", len(transport.mu.links))
		}
		transport.mu.Unlock()
	}
}

func userTimeout(t *testing.T, conn *net.TCPConn) int {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var got int
	if err := raw.Control(func(fd uintptr) {
		got, err = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout)
	}); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return got
}

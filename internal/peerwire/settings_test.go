package peerwire

import (
	"encoding/binary"
	"io"
	"maps"
	"net"
	"testing"
	"time"
)

// HTTP/2 settings, RFC 9113 and 6.5.2 therein.
const (
	maxConcurrentStreams = 3
	initialWindowSize    = 4
	maxHeaderListSize    = 6
)

// readSettings reads the SETTINGS frame with which a side begins.
func readSettings(t *testing.T, conn net.Conn) map[uint16]uint32 {
	t.Helper()
	_ = conn.SetDeadline(time.Now().Add(patience))
	header := make([]byte, 9)
	if _, err := io.ReadFull(conn, header); err != nil {
		t.Fatal(err)
	}
	if header[3] != 4 {
		t.Fatalf("begins with a frame of type %d, want SETTINGS", header[3])
	}
	payload := make([]byte, int(header[1])<<8|int(header[2]))
	if _, err := io.ReadFull(conn, payload); err != nil {
		t.Fatal(err)
	}
	settings := map[uint16]uint32{}
	for ; len(payload) > 0; payload = payload[6:] {
		settings[binary.BigEndian.Uint16(payload)] = binary.BigEndian.Uint32(payload[2:])
	}
	delete(settings, 5) // the frame size: gRPC's affair
	return settings
}

func TestAcceptorSettings(t *testing.T) {
	server, addr := open(t, "", Config{}, defaultLimits)
	serve(t, server, echoAll)
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // nothing is sent
	want := map[uint16]uint32{maxConcurrentStreams: 1, initialWindowSize: window, maxHeaderListSize: maxHeaderList}
	if got := readSettings(t, conn); !maps.Equal(got, want) {
		t.Errorf("announces %v, want %v", got, want)
	}
}

func TestDiallerSettings(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() //nolint:errcheck // one connection only
	client, _ := open(t, "", Config{}, defaultLimits)
	dialled := make(chan struct{})
	go func() {
		defer close(dialled)
		_, _ = client.Dial(t.Context(), listener.Addr().String())
	}()
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, conn, int64(len(preface))); err != nil {
		t.Fatal(err)
	}
	got := readSettings(t, conn)
	want := map[uint16]uint32{initialWindowSize: window, maxHeaderListSize: maxHeaderList}
	if !maps.Equal(got, want) {
		t.Errorf("announces %v, want %v", got, want)
	}
	_ = conn.Close()
	take(t, "the dial to be refused", dialled)
}

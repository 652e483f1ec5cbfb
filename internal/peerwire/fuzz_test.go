package peerwire

import (
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/raftlock/raftlock"
)

// FuzzConnection: whatever bytes come over a connection, as they are or as HTTP/2
// frames behind a good beginning, the transport closes it, keeps nothing of it,
// and serves others.
func FuzzConnection(f *testing.F) {
	settings := "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	f.Add(byte(0), []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	f.Add(byte(0), []byte(preface+settings))
	f.Add(byte(1), []byte("\x00\x00\x04\x01\x05\x00\x00\x00\x01\xff\xff\xff\xff"))
	f.Add(byte(1), []byte("\x00\x00\x01\x00\x00\x00\x00\x00\x07x"))
	f.Add(byte(2), []byte("\x00\x00\x00\x00\x03abc"))
	f.Add(byte(2), []byte("\x01\xff\xff\xff\xff"))
	server, addr := open(f, "", Config{}, defaultLimits)
	serve(f, server, echoAll)
	client, _ := open(f, "", Config{}, defaultLimits)
	f.Fuzz(func(t *testing.T, how byte, said []byte) {
		if len(said) > 1<<16 {
			return
		}
		before := goleak.IgnoreCurrent()
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(patience))
		switch how % 3 {
		case 1:
			said = append([]byte(preface+settings), said...)
		case 2:
			said = append([]byte(preface+settings), inOpenCall(said)...)
		}
		_, _ = conn.Write(said) // it may be closed by now
		_ = conn.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, conn) // until the transport closes it, or has nothing to say
		_ = conn.Close()
		echoes(t, client, addr)
		if err := goleak.Find(before); err != nil {
			t.Fatal(err)
		}
	})
}

// inOpenCall is the bytes as the data of a call to the transport's method.
func inOpenCall(data []byte) []byte {
	header := func(name, value string) []byte { // literal, not indexed, not compressed
		return append(append(append([]byte{0, byte(len(name))}, name...), byte(len(value))), value...)
	}
	var block []byte
	for _, h := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", fullMethod}, {":authority", "x"},
		{"content-type", "application/grpc+" + codecName}, {"te", "trailers"},
	} {
		block = append(block, header(h[0], h[1])...)
	}
	b := http2Frame(1, 4, 1, block) // HEADERS, END_HEADERS
	for len(data) > 0 {
		part := data[:min(len(data), 16384)]
		b, data = append(b, http2Frame(0, 0, 1, part)...), data[len(part):]
	}
	return b
}

func http2Frame(kind, flags byte, stream uint32, payload []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(payload))<<8|uint32(kind))
	return append(binary.BigEndian.AppendUint32(append(b, flags), stream), payload...)
}

// The call of FuzzConnection is one that the transport takes.
func TestOpenCallIsTaken(t *testing.T) {
	server, addr := open(t, "", Config{}, defaultLimits)
	got := make(chan []byte, 1)
	serve(t, server, func(s raftlock.PeerStream) {
		frame, _ := s.Recv()
		got <- frame
	})
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // it was only written to
	if _, err := conn.Write([]byte(preface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00" + string(inOpenCall([]byte("\x00\x00\x00\x00\x03abc"))))); err != nil {
		t.Fatal(err)
	}
	if frame := take(t, "the frame", got); string(frame) != "abc" {
		t.Errorf("received %q", frame)
	}
}

package peerwire

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/raftlock/raftlock"
)

// knock connects to addr, sends data, and reads until the other side closes.
func knock(t *testing.T, kind, addr, data string) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Errorf("%s: %v", kind, err)
		return
	}
	defer conn.Close() //nolint:errcheck // read to its end
	// Less than it takes unanswered pings to end a connection.
	_ = conn.SetDeadline(time.Now().Add(acceptorPingAfter + acceptorPingAnswer - time.Second))
	_, _ = conn.Write([]byte(data))
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%s: the connection is kept", kind)
	}
}

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

func TestGarbage(t *testing.T) {
	t.Parallel() // it mostly waits
	settings := "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	garbage := map[string]string{
		"nothing":             "",
		"noise":               string(bytes.Repeat([]byte{0xa5, 0x5a, 0xff, 0x00}, 1000)),
		"zeros":               strings.Repeat("\x00", 4096),
		"http/1":              "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"half a preface":      preface[:10],
		"noise in http/2":     preface + settings + strings.Repeat("\xff", 4096),
		"broken headers":      preface + settings + "\x00\x00\x04\x01\x05\x00\x00\x00\x01\xff\xff\xff\xff",
		"data without stream": preface + settings + "\x00\x00\x01\x00\x00\x00\x00\x00\x07x",
		"idle http/2":         preface + settings,
		"half a TLS hello":    "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
	}
	short := defaultLimits
	short.opening = 500 * time.Millisecond
	for name, config := range map[string]*tls.Config{"plain": nil, "tls": newAuthority(t).mutual(t)} {
		t.Run(name, func(t *testing.T) {
			server, addr := open(t, "", Config{TLS: config}, short)
			serve(t, server, echoAll)
			var knocks sync.WaitGroup
			for kind, data := range garbage {
				knocks.Go(func() { knock(t, kind, addr, data) })
			}
			knocks.Wait()
			client, _ := open(t, "", Config{TLS: config}, defaultLimits)
			echoes(t, client, addr)
		})
	}
}

// An opened stream outlives the limits of its opening.
func TestOpeningLimitEndsWithTheStreamsStart(t *testing.T) {
	t.Parallel() // it mostly waits
	short := defaultLimits
	short.opening = 500 * time.Millisecond
	server, addr := open(t, "", Config{}, short)
	serve(t, server, echoAll)
	client, _ := open(t, "", Config{}, defaultLimits)
	s, err := dial(t, client, addr)
	if err != nil {
		t.Fatal(err)
	}
	knock(t, "later connection", addr, "") // returns when that one's limit has passed
	if err := s.Send([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); err != nil {
		t.Error(err)
	}
}

func TestAcceptedLimit(t *testing.T) {
	few := defaultLimits
	few.accepted = 2
	server, addr := open(t, "", Config{}, few)
	serve(t, server, echoAll)
	client, _ := open(t, "", Config{}, defaultLimits)
	var streams []raftlock.PeerStream
	for range few.accepted {
		s, err := dial(t, client, addr)
		if err != nil {
			t.Fatal(err)
		}
		streams = append(streams, s)
	}
	refused(t, client, addr)
	_ = streams[0].Close()
	waitUntil(t, "the closed connection is forgotten", func() bool { return connections(server) == 1 })
	echoes(t, client, addr)
}

// A connection does not outlive its stream for long, whatever the dialler
// does: here it only reads.
func TestLinger(t *testing.T) {
	brief := defaultLimits
	brief.lingering = 20 * time.Millisecond
	server, addr := open(t, "", Config{}, brief)
	serve(t, server, func(raftlock.PeerStream) {})
	client, _ := open(t, "", Config{}, defaultLimits)
	if _, err := dial(t, client, addr); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the acceptor has closed the connection", func() bool { return connections(server) == 0 })
}

// lockedBuffer is a bytes.Buffer for concurrent use.
type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

// The acceptor's log says why a peer does not get in, and once is enough.
func TestRefusalIsLogged(t *testing.T) {
	var log lockedBuffer
	ours, theirs := newAuthority(t), newAuthority(t)
	server, addr := open(t, "", Config{TLS: ours.mutual(t), Logger: slog.New(slog.NewTextHandler(&log, nil))}, defaultLimits)
	serve(t, server, echoAll)
	stranger := ours.mutual(t)
	stranger.Certificates = theirs.mutual(t).Certificates
	client, _ := open(t, "", Config{TLS: stranger}, defaultLimits)
	for range 3 {
		refused(t, client, addr)
	}
	waitUntil(t, "the refusal is logged", func() bool { return strings.Contains(log.String(), "unknown authority") })
	if lines := strings.Count(log.String(), "\n"); lines > 2 {
		t.Errorf("%d lines for three refusals:\n%s", lines, log.String())
	}
}

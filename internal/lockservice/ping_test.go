package lockservice_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/raftlock/raftlock/internal/lockservice"
)

// HTTP/2 as far as a connection needs it that carries nothing but pings; gRPC's
// own client does not let itself ping often.
const (
	preface      = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	framePing    = 6
	frameGoAway  = 7
	flagAnswer   = 1
	frameSetting = 4
)

func frame(kind, flags byte, payload []byte) []byte {
	head := make([]byte, 9, 9+len(payload))
	binary.BigEndian.PutUint32(head, uint32(len(payload))<<8|uint32(kind))
	head[4] = flags
	return append(head, payload...)
}

// listen answers the server's pings until the connection ends, and returns what a
// last GOAWAY says.
func listen(conn net.Conn) (goAway string, err error) {
	for {
		head := make([]byte, 9)
		if _, err := io.ReadFull(conn, head); err != nil {
			return goAway, err
		}
		payload := make([]byte, binary.BigEndian.Uint32(head)>>8)
		if _, err := io.ReadFull(conn, payload); err != nil {
			return goAway, err
		}
		switch {
		case head[3] == framePing && head[4]&flagAnswer == 0:
			if _, err := conn.Write(frame(framePing, flagAnswer, payload)); err != nil {
				return goAway, err
			}
		case head[3] == frameGoAway:
			goAway = string(payload[8:])
		}
	}
}

// A client in the field pings every 30 s, calls or not, and must not be sent
// away; who pings every second is.
func TestPings(t *testing.T) {
	for every, abuse := range map[time.Duration]bool{30 * time.Second: false, 6 * time.Second: false, time.Second: true} {
		t.Run(every.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := openDesk(t, lockservice.Config{Client: &fake{}, Cluster: none, Leader: nobody})
				conn, err := d.listener.DialContext(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if _, err := conn.Write(append([]byte(preface), frame(frameSetting, 0, nil)...)); err != nil {
					t.Fatal(err)
				}
				heard := make(chan string, 1)
				go func() {
					goAway, err := listen(conn)
					if err == nil || goAway == "" && !errors.Is(err, io.ErrClosedPipe) && !errors.Is(err, io.EOF) {
						t.Errorf("the connection ends with %v", err)
					}
					heard <- goAway
				}()
				for range 10 {
					time.Sleep(every)
					if _, err := conn.Write(frame(framePing, 0, bytes.Repeat([]byte{1}, 8))); err != nil {
						break // sent away
					}
				}
				time.Sleep(time.Minute)
				_ = conn.Close() // it may be closed
				if got := <-heard; abuse != strings.Contains(got, "too_many_pings") {
					t.Errorf("a ping every %v: the server says %q", every, got)
				}
			})
		})
	}
}

// A client that has vanished is noticed, by its silence.
func TestSilentClientsAreNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := openDesk(t, lockservice.Config{Client: &fake{}, Cluster: none, Leader: nobody})
		conn, err := d.listener.DialContext(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write(append([]byte(preface), frame(frameSetting, 0, nil)...)); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		if _, err := io.Copy(io.Discard, conn); err != nil && !errors.Is(err, io.ErrClosedPipe) {
			t.Fatal(err)
		}
		if took := time.Since(begun); took > 16*time.Second {
			t.Errorf("noticed after %v", took)
		}
	})
}

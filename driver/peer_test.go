package driver_test

import (
	"bytes"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

// Raw peers: what the driver does on the wire, byte by byte, with clients that know nothing of it.

func echoServer(t *testing.T) (*driver.Stream, *recorder) {
	return newServer(t, driver.Config{OnPacket: func(c driver.Conn, p []byte) { _ = c.Send(bytes.ToUpper(p)) }})
}

func TestPacketsByteByByte(t *testing.T) {
	server, _ := echoServer(t)
	nc := dial(t, server)
	require.NoError(t, nc.SetDeadline(time.Now().Add(patience)))
	for _, b := range []byte("\x00\x05hello\x00\x01x\x00\x03end") {
		_, err := nc.Write([]byte{b})
		require.NoError(t, err)
	}
	got := make([]byte, 7+3+5)
	_, err := io.ReadFull(nc, got)
	require.NoError(t, err)
	require.Equal(t, "\x00\x05HELLO\x00\x01X\x00\x03END", string(got))
}

// A peer that closes its writing half, as `printf … | nc` does, still gets its answers, and then FIN.
func TestPeerThatSentFINStillGetsWhatIsQueued(t *testing.T) {
	server, events := newServer(t, driver.Config{
		OutboundBufferSize: 32 << 20,
		OnPacket: func(c driver.Conn, p []byte) {
			for range 16 {
				_ = c.Send(make([]byte, 65000))
			}
		},
	})
	nc := dial(t, server)
	require.NoError(t, nc.SetDeadline(time.Now().Add(patience)))
	for range 10 {
		_, err := nc.Write([]byte("\x00\x01x"))
		require.NoError(t, err)
	}
	require.NoError(t, nc.CloseWrite())
	n, err := io.Copy(io.Discard, nc)
	require.NoError(t, err)
	require.EqualValues(t, 10*16*65002, n)
	require.ErrorIs(t, events.waitDisconnected(t, 1).Reason, driver.ErrPeerClosed)
}

func TestFrameThatCannotBeEndsTheConnectionAfterWhatCameBefore(t *testing.T) {
	for name, bad := range map[string]string{
		"zero length": "\x00\x00",
		"too long":    "\x03\xe9",
	} {
		t.Run(name, func(t *testing.T) {
			server, events := newServer(t, driver.Config{MaxPacketSize: 1000})
			nc := dial(t, server)
			_, err := nc.Write([]byte("\x00\x02ok" + bad))
			require.NoError(t, err)
			require.ErrorIs(t, events.waitDisconnected(t, 1).Reason, driver.ErrProtocol)
			packet, _ := receive(t, server)
			require.Equal(t, "ok", string(packet))
		})
	}
}

func TestResetIsTheSystemsError(t *testing.T) {
	server, events := echoServer(t)
	nc := dial(t, server)
	events.waitEstablished(t, 1)
	require.NoError(t, nc.SetLinger(0))
	require.NoError(t, nc.Close())
	require.ErrorContains(t, events.waitDisconnected(t, 1).Reason, "reset")
}

// The documented raw clients: docs/wire-format.md has these commands.
func TestClientsInOtherLanguages(t *testing.T) {
	server, _ := echoServer(t)
	port := addrOf(server).String()[strings.LastIndexByte(addrOf(server).String(), ':')+1:]
	const python = `
import socket, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
for b in b"\x00\x05hello\x00\x05world":
    s.send(bytes([b]))
out = b""
while len(out) < 14:
    out += s.recv(1)
sys.stdout.buffer.write(out)
`
	for _, test := range []struct {
		name, stdin string
		command     []string
	}{
		{"python3", "", []string{"python3", "-c", python, port}},
		{"socat", "\x00\x05hello\x00\x05world", []string{"socat", "-t", "10", "-", "TCP:127.0.0.1:" + port}},
		{"nc", "\x00\x05hello\x00\x05world", []string{"nc", "-N", "127.0.0.1", port}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := exec.LookPath(test.command[0]); err != nil {
				t.Skipf("%s is not installed; .ci/run installs it", test.command[0])
			}
			cmd := exec.Command(test.command[0], test.command[1:]...)
			cmd.Stdin = strings.NewReader(test.stdin)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			require.NoError(t, err, stderr.String())
			require.Equal(t, "\x00\x05HELLO\x00\x05WORLD", string(out))
		})
	}
}
func TestFramingsOnTheWire(t *testing.T) {
	for _, framing := range framings {
		t.Run(fmt.Sprint(framing), func(t *testing.T) {
			server, _ := newServer(t, driver.Config{Framing: framing, OnPacket: func(c driver.Conn, p []byte) { _ = c.Send(p) }})
			nc := dial(t, server)
			require.NoError(t, nc.SetDeadline(time.Now().Add(patience)))
			var stream []byte
			for _, n := range []int{1, 127, 128, 255, 256, 16383, 16384, 65535} {
				stream = framing.AppendFrame(stream, bytes.Repeat([]byte{byte(n)}, n))
			}
			go nc.Write(stream)
			got := make([]byte, len(stream))
			_, err := io.ReadFull(nc, got)
			require.NoError(t, err)
			require.Equal(t, stream, got)
		})
	}
}

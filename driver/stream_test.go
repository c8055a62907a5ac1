package driver_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

// patience bounds every wait of these tests; nothing passes by waiting for it.
const patience = 20 * time.Second

// eventually waits for a condition.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
		time.Sleep(time.Millisecond)
	}
}

// recorder collects events.
type recorder struct {
	mu           sync.Mutex
	established  []driver.Event
	disconnected []driver.Event
}

func (r *recorder) OnConnectionEstablished(ev driver.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.established = append(r.established, ev)
}

func (r *recorder) OnConnectionDisconnected(ev driver.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.disconnected = append(r.disconnected, ev)
}

func (r *recorder) counts() (established, disconnected int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.established), len(r.disconnected)
}

// waitDisconnected is the nth Disconnected event.
func (r *recorder) waitDisconnected(t testing.TB, n int) driver.Event {
	t.Helper()
	eventually(t, fmt.Sprintf("%d Disconnected events", n), func() bool { _, d := r.counts(); return d >= n })
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.disconnected[n-1]
}

func (r *recorder) waitEstablished(t testing.TB, n int) driver.Event {
	t.Helper()
	eventually(t, fmt.Sprintf("%d Established events", n), func() bool { e, _ := r.counts(); return e >= n })
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.established[n-1]
}

// newDriver is an initialized driver on 127.0.0.1, and its events.
func newDriver(t testing.TB, cfg driver.Config) (*driver.Stream, *recorder) {
	t.Helper()
	if cfg.EventLoops == 0 {
		cfg.EventLoops = 2
	}
	d, err := driver.New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	events := &recorder{}
	d.Events().Subscribe(events)
	require.NoError(t, d.Initialize(driver.Bind{Address: "127.0.0.1"}))
	return d, events
}

// newServer listens too.
func newServer(t testing.TB, cfg driver.Config) (*driver.Stream, *recorder) {
	t.Helper()
	d, events := newDriver(t, cfg)
	require.NoError(t, d.StartListen(0))
	return d, events
}

func addrOf(d driver.Driver) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), d.Port())
}

// dial is a raw connection to the server.
func dial(t testing.TB, d driver.Driver) *net.TCPConn {
	t.Helper()
	nc, err := net.Dial("tcp", addrOf(d).String())
	require.NoError(t, err)
	t.Cleanup(func() { nc.Close() })
	return nc.(*net.TCPConn)
}

// connect has client connect to server, and returns both sides.
func connect(t testing.TB, client, server driver.Driver) (clientConn, serverConn driver.Conn) {
	t.Helper()
	require.NoError(t, client.ConnectTo(addrOf(server)))
	eventually(t, "the connection", func() (ok bool) {
		if clientConn, ok = client.Conn(addrOf(server)); ok {
			serverConn, ok = server.Conn(clientConn.LocalAddr())
		}
		return ok
	})
	return clientConn, serverConn
}

// receive waits for the next packet.
func receive(t testing.TB, d driver.Driver) ([]byte, netip.AddrPort) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	buf := make([]byte, d.MaxSendSize())
	for {
		n, from, err := d.Receive(buf)
		require.NoError(t, err)
		if n > 0 {
			return buf[:n], from
		}
		require.NoError(t, d.WaitForData(ctx))
	}
}

func TestPacketsBothWaysBetweenTwoDrivers(t *testing.T) {
	server, serverEvents := newServer(t, driver.Config{})
	client, clientEvents := newDriver(t, driver.Config{})
	clientConn, serverConn := connect(t, client, server)
	require.True(t, serverConn.Inbound())
	require.False(t, clientConn.Inbound())
	require.NotEqual(t, clientConn.ID(), serverConn.ID())
	require.Equal(t, addrOf(server), clientConn.RemoteAddr())
	require.Equal(t, clientConn.LocalAddr(), serverConn.RemoteAddr())

	require.NoError(t, client.Send(addrOf(server), []byte("hello")))
	packet, from := receive(t, server)
	require.Equal(t, "hello", string(packet))
	require.Equal(t, clientConn.LocalAddr(), from)

	require.NoError(t, server.Send(from, []byte("welcome")))
	packet, from = receive(t, client)
	require.Equal(t, "welcome", string(packet))
	require.Equal(t, addrOf(server), from)

	require.NoError(t, client.DisconnectFrom(addrOf(server)))
	require.ErrorIs(t, clientEvents.waitDisconnected(t, 1).Reason, driver.ErrDisconnected)
	require.ErrorIs(t, serverEvents.waitDisconnected(t, 1).Reason, driver.ErrPeerClosed)
	require.Equal(t, 0, client.NumberOfConnections())
	require.Equal(t, 0, server.NumberOfConnections())
}

func TestEchoOnTheLoop(t *testing.T) {
	server, _ := newServer(t, driver.Config{OnPacket: func(c driver.Conn, p []byte) { _ = c.Send(p) }})
	client, _ := newDriver(t, driver.Config{})
	connect(t, client, server)
	for i := range 1000 {
		want := fmt.Sprintf("packet %d", i)
		require.NoError(t, client.Send(addrOf(server), []byte(want)))
		got, _ := receive(t, client)
		require.Equal(t, want, string(got))
	}
}

func TestConnectToNobodyIsASingleDisconnected(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	nobody := ln.Addr().(*net.TCPAddr).AddrPort()
	require.NoError(t, ln.Close())

	client, events := newDriver(t, driver.Config{})
	require.NoError(t, client.ConnectTo(nobody))
	ev := events.waitDisconnected(t, 1)
	require.Nil(t, ev.Conn)
	require.Equal(t, nobody, ev.Address)
	require.ErrorIs(t, ev.Reason, driver.ErrSocketConnect)
	var e *driver.Error
	require.True(t, errors.As(ev.Reason, &e))
	established, _ := events.counts()
	require.Zero(t, established)
}

// logbook is a Logger's output, for tests that look at it.
type logbook struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logbook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logbook) lines(with string) (found []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.buf.String()) {
		if strings.Contains(line, with) {
			found = append(found, line)
		}
	}
	return found
}

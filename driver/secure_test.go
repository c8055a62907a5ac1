package driver_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"gridstream/driver"
	"gridstream/driver/drivertest"
	"gridstream/driver/stdnet"
)

func TestSecureConformance(t *testing.T) { drivertest.Run(t, newSecured) }

func newSecureDriver(t testing.TB, cfg driver.Config, desc driver.SecureDesc) (*driver.SecureStream, *recorder) {
	t.Helper()
	return newSecureDriverOn(t, driver.Bind{Address: "127.0.0.1"}, cfg, desc)
}

func newSecureDriverOn(t testing.TB, b driver.Bind, cfg driver.Config, desc driver.SecureDesc) (*driver.SecureStream, *recorder) {
	t.Helper()
	if cfg.EventLoops == 0 {
		cfg.EventLoops = 2
	}
	return newSecureOf(t, driver.NewSecure, b, cfg, desc)
}

func newSecureOf(t testing.TB, newDriver func(driver.Config) (*driver.SecureStream, error), b driver.Bind, cfg driver.Config,
	desc driver.SecureDesc) (*driver.SecureStream, *recorder) {
	t.Helper()
	d, err := newDriver(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	events := &recorder{}
	d.Events().Subscribe(events)
	require.NoError(t, d.InitializeSecurity(b, desc))
	return d, events
}

func newSecureServer(t testing.TB, cfg driver.Config, desc driver.SecureDesc) (*driver.SecureStream, *recorder) {
	t.Helper()
	d, events := newSecureDriver(t, cfg, desc)
	require.NoError(t, d.StartListen(0))
	return d, events
}

type newSecureServerFunc func(driver.Config, driver.SecureDesc) (*driver.SecureStream, *recorder)

// bothSecureDrivers runs f with servers of either kind.
func bothSecureDrivers(t *testing.T, f func(t *testing.T, newServer newSecureServerFunc)) {
	for name, newDriver := range map[string]func(driver.Config) (*driver.SecureStream, error){
		"loops": driver.NewSecure, "stdnet": stdnet.NewSecure,
	} {
		t.Run(name, func(t *testing.T) {
			f(t, func(cfg driver.Config, desc driver.SecureDesc) (*driver.SecureStream, *recorder) {
				d, events := newSecureOf(t, newDriver, driver.Bind{Address: "127.0.0.1"}, cfg, desc)
				require.NoError(t, d.StartListen(0))
				return d, events
			})
		})
	}
}

// TestCloseNotifyAndThenAReset: the first reason wins.
func TestCloseNotifyAndThenAReset(t *testing.T) {
	bothSecureDrivers(t, func(t *testing.T, newServer newSecureServerFunc) {
		server, events := newServer(driver.Config{OutboundBufferSize: 32 << 20}, developmentDesc())
		nc := dial(t, server)
		tc := tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
		require.NoError(t, tc.Handshake())
		c := events.waitEstablished(t, 1).Conn
		for range 400 { // more than the kernel has room for
			require.NoError(t, c.Send(make([]byte, 60_000)))
		}
		require.NoError(t, tc.CloseWrite())
		eventually(t, "that it is seen", func() bool { return errors.Is(c.Send([]byte("x")), net.ErrClosed) })
		require.NoError(t, nc.Close()) // with data that is not read: a reset
		require.ErrorIs(t, events.waitDisconnected(t, 1).Reason, driver.ErrPeerClosed)
	})
}

func TestSecurePacketsBothWays(t *testing.T) {
	server, serverEvents := newSecureServer(t, driver.Config{}, developmentDesc())
	client, clientEvents := newSecureDriver(t, driver.Config{}, developmentDesc())
	clientConn, serverConn := connect(t, client, server)
	require.NoError(t, client.Send(addrOf(server), []byte("hello")))
	packet, from := receive(t, server)
	require.Equal(t, "hello", string(packet))
	require.NoError(t, server.Send(from, []byte("welcome")))
	packet, _ = receive(t, client)
	require.Equal(t, "welcome", string(packet))
	for _, c := range []driver.Conn{clientConn, serverConn} {
		state, ok := c.TLS()
		require.True(t, ok)
		require.True(t, state.HandshakeComplete)
	}
	require.NoError(t, client.DisconnectFrom(addrOf(server)))
	require.ErrorIs(t, clientEvents.waitDisconnected(t, 1).Reason, driver.ErrDisconnected)
	require.ErrorIs(t, serverEvents.waitDisconnected(t, 1).Reason, driver.ErrPeerClosed)
}

// The one worker is busy with somebody else's handshake: what a TLS 1.3 client sends last is taken on the loop.
func TestFinishedNeedsNoWorker(t *testing.T) {
	occupied, free := make(chan struct{}), make(chan struct{})
	desc := developmentDesc()
	desc.TLSConfig = func(c *tls.Config) {
		pair := c.Certificates[0]
		c.Certificates = nil
		c.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if hello.ServerName == "slow" {
				close(occupied)
				<-free
			}
			return &pair, nil
		}
	}
	server, events := newSecureServer(t, driver.Config{HandshakeWorkers: 1}, desc)
	handshake := func(nc net.Conn, name string) chan error {
		done := make(chan error, 1)
		go func() { done <- tls.Client(nc, &tls.Config{InsecureSkipVerify: true, ServerName: name}).Handshake() }()
		return done
	}

	held := &heldConn{Conn: dial(t, server), waits: make(chan struct{}), release: make(chan struct{})}
	first := handshake(held, "quick")
	<-held.waits
	second := handshake(dial(t, server), "slow")
	<-occupied
	close(held.release)
	require.NoError(t, <-first)
	events.waitEstablished(t, 1)
	close(free)
	require.NoError(t, <-second)
	events.waitEstablished(t, 2)
}

// heldConn holds back what is written second: of a TLS 1.3 client, what follows the ClientHello.
type heldConn struct {
	net.Conn
	writes         int
	waits, release chan struct{}
}

func (c *heldConn) Write(p []byte) (int, error) {
	if c.writes++; c.writes == 2 {
		close(c.waits)
		<-c.release
	}
	return c.Conn.Write(p)
}

// forgetful is a ClientSessionCache that panics when a session is to be forgotten, as it is where a handshake with it is given up.
type forgetful struct {
	session atomic.Pointer[tls.ClientSessionState]
	asked   chan struct{} // for the session, once it is armed
	answer  chan struct{}
	armed   atomic.Bool
}

func (c *forgetful) Get(string) (*tls.ClientSessionState, bool) {
	if c.armed.Load() {
		c.asked <- struct{}{}
		<-c.answer
	}
	s := c.session.Load()
	return s, s != nil
}

func (c *forgetful) Put(_ string, s *tls.ClientSessionState) {
	if s == nil && c.armed.Load() {
		panic("Put")
	}
	if s != nil {
		c.session.Store(s)
	}
}

// TestPanicWhereAHandshakeIsGivenUp, because the server hung up during the first step or behind it, is one more in Stats, and the connection
// ends as ever.
func TestPanicWhereAHandshakeIsGivenUp(t *testing.T) {
	for _, during := range []bool{true, false} {
		server, events := newSecureServer(t, driver.Config{}, developmentDesc())
		cache := &forgetful{asked: make(chan struct{}, 10), answer: make(chan struct{})}
		desc := developmentDesc()
		desc.TLSConfig = func(c *tls.Config) { c.ClientSessionCache = cache }
		client, clientEvents := newSecureDriver(t, driver.Config{MaxConnections: 2}, desc)
		connect(t, client, server)
		events.waitEstablished(t, 1)
		eventually(t, "a session", func() bool { return cache.session.Load() != nil })
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer ln.Close()
		addr := ln.Addr().(*net.TCPAddr).AddrPort()
		cache.armed.Store(true)
		if !during {
			close(cache.answer)
		}
		for tries := 1; tries <= 3; tries++ { // its place and its address are free again
			require.NoError(t, client.ConnectTo(addr))
			nc, err := ln.Accept()
			require.NoError(t, err)
			<-cache.asked
			if !during {
				_, err := nc.Read(make([]byte, 10)) // a ClientHello
				require.NoError(t, err)
				eventually(t, "the end of the step", func() bool { return client.Stepping() == 0 })
			}
			require.NoError(t, nc.(*net.TCPConn).CloseWrite())
			if during {
				eventually(t, "its end", func() bool { return client.Ended() == 1 })
				cache.answer <- struct{}{}
			}
			clientEvents.waitDisconnected(t, tries)
			require.NoError(t, nc.Close())
			require.EqualValues(t, tries, client.Stats().Panics)
		}
		require.NoError(t, client.Shutdown(context.Background()))
	}
}

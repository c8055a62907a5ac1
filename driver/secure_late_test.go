package driver_test

import (
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

// A client can be done with its side of the handshake, say something and leave while ours waits for a worker: then the connection is
// established late, with no link any more.

// late is a server with clients that are through the handshake when it is told so.
type late struct {
	*driver.SecureStream
	events *recorder
	pair   tls.Certificate
	here   chan struct{}
	gone   chan struct{}
	lets   atomic.Bool // the next one through at once

	mu  sync.Mutex
	got []string
}

func newLate(t *testing.T, cfg driver.Config, onPacket func(c driver.Conn, packet string)) *late {
	return newLateOn(t, driver.Bind{Address: "127.0.0.1"}, cfg, onPacket)
}

func newLateOn(t *testing.T, b driver.Bind, cfg driver.Config, onPacket func(c driver.Conn, packet string)) *late {
	l := &late{here: make(chan struct{}, 100), gone: make(chan struct{})}
	cfg.OnPacket = func(c driver.Conn, p []byte) {
		l.mu.Lock()
		l.got = append(l.got, string(p))
		l.mu.Unlock()
		onPacket(c, string(p))
	}
	desc := developmentDesc()
	desc.AuthenticateClient = true
	desc.TLSConfig = func(c *tls.Config) {
		c.VerifyConnection = func(tls.ConnectionState) error {
			if !l.lets.Swap(false) {
				l.here <- struct{}{}
				<-l.gone
			}
			return nil
		}
	}
	var err error
	l.pair, err = tls.X509KeyPair(desc.CertificatePEM, desc.PrivateKeyPEM)
	require.NoError(t, err)
	l.SecureStream, l.events = newSecureDriverOn(t, b, cfg, desc)
	require.NoError(t, l.StartListen(0))
	return l
}

// client sends records behind its handshake, and leaves.
func (l *late) client(t *testing.T, raw *net.TCPConn, records ...string) {
	before := l.Ended()
	nc := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{l.pair}})
	for _, r := range records {
		_, err := nc.Write([]byte(r))
		require.NoError(t, err)
	}
	require.NoError(t, nc.CloseWrite())
	require.NoError(t, raw.CloseWrite())
	<-l.here
	eventually(t, "its FIN", func() bool { return l.Ended() == before+1 })
}

func (l *late) packets() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.got...)
}

var errKicked = errors.New("kicked")

// TestEstablishedLate: who left is heard, and nothing of it is kept.
func TestEstablishedLate(t *testing.T) {
	const clients = 20
	l := newLate(t, driver.Config{HandshakeWorkers: clients}, func(driver.Conn, string) {})
	for range clients {
		l.client(t, dial(t, l), "\x00\x02hi")
	}
	require.Equal(t, clients, l.Pending())
	close(l.gone)
	l.events.waitDisconnected(t, clients)
	require.Equal(t, slices.Repeat([]string{"hi"}, clients), l.packets())
	require.Zero(t, l.Pending())
}

// TestLateConnectionIsHeardOnItsLoop: no worker waits for the application.
func TestLateConnectionIsHeardOnItsLoop(t *testing.T) {
	var l *late
	stepped := make(chan struct{})
	l = newLate(t, driver.Config{EventLoops: 1, HandshakeWorkers: 1}, func(_ driver.Conn, packet string) {
		select {
		case <-l.here: // the next one's handshake
			close(stepped)
		case <-time.After(patience):
		}
	})
	held := &heldConn{Conn: dial(t, l), waits: make(chan struct{}), release: make(chan struct{})}
	next := make(chan error, 1)
	go func() {
		next <- tls.Client(held, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{l.pair}}).Handshake()
	}()
	<-held.waits // its first step is done
	l.client(t, dial(t, l), "\x00\x02hi")
	close(held.release)
	require.NoError(t, <-next)
	eventually(t, "that its step is due", func() bool { return l.Jobs() == 1 })
	close(l.gone)
	select {
	case <-stepped:
	case <-time.After(patience):
		t.Fatal("the worker does not take the next step")
	}
}

func TestLateConnectionCanBeClosed(t *testing.T) {
	l := newLate(t, driver.Config{}, func(c driver.Conn, _ string) { c.Close(errKicked) })
	l.client(t, dial(t, l), "\x00\x01a\x00\x01b", "\x00\x01c")
	close(l.gone)
	require.ErrorIs(t, l.events.waitDisconnected(t, 1).Reason, errKicked)
	require.Equal(t, []string{"a"}, l.packets())
}

// TestLateConnectionClosesTheDriver: its callback is one like others, and closing waits for it.
func TestLateConnectionClosesTheDriver(t *testing.T) {
	var l *late
	closed := make(chan error, 1)
	l = newLate(t, driver.Config{}, func(driver.Conn, string) { closed <- l.Close() })
	l.client(t, dial(t, l), "\x00\x01a")
	close(l.gone)
	l.events.waitDisconnected(t, 1)
	require.ErrorIs(t, <-closed, driver.ErrInCallback)
}

// TestLateConnectionIsOverWithAPanic: what follows would be taken for packets in the middle of one.
func TestLateConnectionIsOverWithAPanic(t *testing.T) {
	l := newLate(t, driver.Config{}, func(driver.Conn, string) { panic("the application's") })
	l.client(t, dial(t, l), "\x00\x01a\x00\x10 a packet of ", "\x00\x05FORGED")
	close(l.gone)
	require.ErrorIs(t, l.events.waitDisconnected(t, 1).Reason, driver.ErrPanic)
	require.Equal(t, []string{"a"}, l.packets())
}

func TestLateConnectionHasItsLimits(t *testing.T) {
	l := newLate(t, driver.Config{PacketsPerSecond: 5}, func(driver.Conn, string) {})
	l.client(t, dial(t, l), "\x00\x01a\x00\x01b\x00\x01c\x00\x01d\x00\x01e\x00\x01f\x00\x01g")
	close(l.gone)
	require.ErrorIs(t, l.events.waitDisconnected(t, 1).Reason, driver.ErrRateLimited)
	require.Len(t, l.packets(), 5)
}

// TestLateConnectionOfAnAddressThatIsConnected is not established, and has no packets.
func TestLateConnectionOfAnAddressThatIsConnected(t *testing.T) {
	l := newLate(t, driver.Config{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}, func(driver.Conn, string) {})
	behind := func() *net.TCPConn {
		raw := dial(t, l)
		_, err := raw.Write([]byte("PROXY TCP4 203.0.113.1 10.0.0.1 1 2\r\n"))
		require.NoError(t, err)
		return raw
	}
	l.lets.Store(true)
	first := tls.Client(behind(), &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{l.pair}})
	require.NoError(t, first.Handshake())
	l.events.waitEstablished(t, 1)
	l.client(t, behind(), "\x00\x01x")
	close(l.gone)
	eventually(t, "that one is refused", func() bool { return l.Stats().AcceptsRefused == 1 })
	eventually(t, "that nothing is pending", func() bool { return l.Pending() == 0 })
	require.Empty(t, l.packets())
	established, _ := l.events.counts()
	require.Equal(t, 1, established)
}

// TestCloseEndsWhoWaitsForAWorker: who is gone, and whose handshake nobody gets to any more, is no connection, and nothing of it is
// kept. Close may be called on a goroutine that is locked to its thread.
func TestCloseEndsWhoWaitsForAWorker(t *testing.T) {
	l := newLate(t, driver.Config{HandshakeWorkers: 1}, func(driver.Conn, string) {})
	cfg := &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{l.pair}}
	raw := dial(t, l)
	held := &heldConn{Conn: raw, waits: make(chan struct{}), release: make(chan struct{})}
	second := make(chan error, 1)
	go func() { second <- tls.Client(held, cfg).Handshake() }()
	<-held.waits // its first step is done
	require.NoError(t, tls.Client(dial(t, l), cfg).Handshake())
	<-l.here // the worker has the first one
	close(held.release)
	require.NoError(t, <-second)
	require.NoError(t, raw.CloseWrite())
	eventually(t, "the end of who waits", func() bool { return l.Jobs() == 1 && l.Ended() == 1 })

	closed := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with it
		closed <- l.Close()
	}()
	eventually(t, "that the jobs are dropped", func() bool { return l.Jobs() == 0 })
	close(l.gone)
	require.NoError(t, <-closed)
	require.Zero(t, l.Pending())
	require.EqualValues(t, 2, l.Stats().HandshakesFailed)
	established, _ := l.events.counts()
	require.Zero(t, established)
}

// TestNoStepForWhoHasHungUp: a client that leaves behind its ClientHello cannot be done with its side. It costs no signature, and its
// slot is free at once.
func TestNoStepForWhoHasHungUp(t *testing.T) {
	const clients = 20
	here, gone := make(chan struct{}), make(chan struct{})
	var certificates atomic.Int32
	desc := developmentDesc()
	desc.TLSConfig = func(c *tls.Config) {
		if len(c.Certificates) == 0 {
			return
		}
		pair := c.Certificates[0]
		c.Certificates = nil
		c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if certificates.Add(1) == 1 {
				close(here)
				<-gone
			}
			return &pair, nil
		}
	}
	server, _ := newSecureServer(t, driver.Config{HandshakeWorkers: 1}, desc)
	hello := clientHello(t)
	_, err := dial(t, server).Write(hello)
	require.NoError(t, err)
	<-here
	for i := range clients {
		nc := dial(t, server)
		_, err := nc.Write(hello)
		require.NoError(t, err)
		eventually(t, "the ClientHello", func() bool { return server.Stats().BytesReceived == uint64(len(hello)*(i+2)) })
		require.NoError(t, nc.SetLinger(0))
		require.NoError(t, nc.Close())
	}
	eventually(t, "their ends", func() bool { return server.Stats().HandshakesFailed == clients })
	require.Equal(t, 1, server.Pending())
	close(gone)
	eventually(t, "that no step is due", func() bool { return server.Jobs() == 0 })
	require.EqualValues(t, 1, certificates.Load())
}

// TestJobsAreBounded: a connection that is gone keeps its slot as long as its handshake waits for a worker.
func TestJobsAreBounded(t *testing.T) {
	const most = 5
	gone := make(chan struct{})
	desc := developmentDesc()
	desc.TLSConfig = func(c *tls.Config) {
		c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { <-gone; return nil, nil }
	}
	server, _ := newSecureServer(t, driver.Config{
		HandshakeWorkers: 1, MaxConnections: most, HandshakeTimeout: 50 * time.Millisecond, LingerTimeout: 50 * time.Millisecond,
	}, desc)
	hello := clientHello(t)
	for range 3 * most {
		_, err := dial(t, server).Write(hello)
		require.NoError(t, err)
	}
	eventually(t, "the first ones' ends", func() bool { return server.Stats().HandshakesFailed == most })
	require.LessOrEqual(t, server.Jobs(), most)
	close(gone)
	eventually(t, "the others'", func() bool { return server.Stats().HandshakesFailed == 3*most })
}

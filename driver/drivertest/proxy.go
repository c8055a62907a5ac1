package drivertest

import (
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

func proxyProperties() []property {
	return []property{
		{"NamesThePeer", proxyNamesThePeer},
		{"InPieces", proxyInPieces},
		{"ReadAhead", proxyReadAhead},
		{"SpeaksForItself", proxySpeaksForItself},
		{"LimitsPerIP", proxyLimitsPerIP},
		{"LimitsPerIPv6Network", proxyLimitsPerNetwork},
		{"Untrusted", proxyUntrusted},
		{"Nonsense", proxyNonsense},
		{"Silence", proxySilence},
		{"Shutdown", proxyShutdown},
		{"Hijack", proxyHijack},
		{"RateLimit", proxyRateLimit},
		{"LoginTimeout", proxyLoginTimeout},
	}
}

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// proxyHeader is the header of a connection from source.
func proxyHeader(s *suite, version byte, source string) []byte {
	s.Helper()
	b, err := proxyproto.HeaderProxyFromAddrs(version, tcpAddr(source), tcpAddr(netip.AddrPortFrom(
		netip.MustParseAddrPort(source).Addr(), 7777).String())).Format()
	require.NoError(s, err)
	return b
}

func tcpAddr(s string) *net.TCPAddr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s)) }

// dialRaw connects to n without a driver.
func (s *suite) dialRaw(n *node) net.Conn {
	s.Helper()
	nc, err := net.DialTimeout("tcp", n.addr().String(), patience)
	require.NoError(s, err)
	s.Cleanup(func() { nc.Close() })
	require.NoError(s, nc.SetDeadline(time.Now().Add(patience)))
	return nc
}

// secured is nc, within TLS where the drivers are.
func (s *suite) secured(nc net.Conn) net.Conn {
	if s.secure {
		return tls.Client(nc, &tls.Config{InsecureSkipVerify: true}) // what it verifies is not this test's
	}
	return nc
}

// sendRaw sends a header, as it is, and a packet behind it.
func (s *suite) sendRaw(nc net.Conn, header []byte, packet string) {
	s.Helper()
	_, err := nc.Write(header)
	require.NoError(s, err)
	_, err = s.secured(nc).Write(frame([]byte(packet)))
	require.NoError(s, err)
}

func proxyNamesThePeer(s *suite) {
	server := s.server(driver.Config{TrustedProxies: loopback})
	for i, test := range []struct {
		version byte
		source  string
	}{
		{1, "203.0.113.7:1234"},
		{2, "203.0.113.8:1234"},
		{1, "[2001:db8::7]:1234"},
		{2, "[2001:db8::8]:1234"},
	} {
		nc := s.dialRaw(server)
		s.sendRaw(nc, proxyHeader(s, test.version, test.source), "hello")
		server.expect("hello")
		source := netip.MustParseAddrPort(test.source)
		c, ok := server.Conn(source)
		require.True(s, ok, test.source)
		require.Equal(s, source, c.RemoteAddr())
		s.await("Established", func() bool { return server.events.established(c) })
		require.Equal(s, source, server.events.all()[i].Address)
		require.NoError(s, server.Send(source, []byte("welcome")))
	}
	require.EqualValues(s, 4, server.Stats().Accepted)
}

func proxyInPieces(s *suite) {
	server := s.server(driver.Config{TrustedProxies: loopback})
	for version := byte(1); version <= 2; version++ {
		source := netip.AddrPortFrom(netip.MustParseAddr("198.51.100.1"), uint16(version))
		nc := s.dialRaw(server)
		for _, b := range proxyHeader(s, version, source.String()) {
			_, err := nc.Write([]byte{b})
			require.NoError(s, err)
			pace(50 * time.Microsecond)
		}
		s.sendRaw(nc, nil, "whole")
		server.expect("whole")
		require.True(s, server.IsConnectedTo(source))
	}
}

// proxyReadAhead: a listener of the application's own may have read the header, and more.
func proxyReadAhead(s *suite) {
	server := s.client(driver.Config{TrustedProxies: loopback})
	require.NoError(s, server.StartListenOn(peekingListener{s.listener()}))
	source := netip.MustParseAddrPort("203.0.113.7:1234")
	s.sendRaw(s.dialRaw(server), proxyHeader(s, 2, source.String()), "hello")
	server.expect("hello")
	require.True(s, server.IsConnectedTo(source))
}

// proxySpeaksForItself: a health check of the load balancer's own, or a peer whose address it does not know.
func proxySpeaksForItself(s *suite) {
	server := s.server(driver.Config{TrustedProxies: loopback})
	local, err := (&proxyproto.Header{Version: 2, Command: proxyproto.LOCAL, TransportProtocol: proxyproto.UNSPEC}).Format()
	require.NoError(s, err)
	localTCP4 := append(local[:13:13], "\x11\x00\x02??"...) // its addresses are to be ignored, also ones that are none
	for _, header := range [][]byte{local, localTCP4, []byte("PROXY UNKNOWN\r\n")} {
		nc := s.dialRaw(server)
		s.sendRaw(nc, header, "alive?")
		server.expect("alive?")
		require.True(s, server.IsConnectedTo(nc.LocalAddr().(*net.TCPAddr).AddrPort()))
	}
}

func proxyLimitsPerIP(s *suite) {
	server := s.server(driver.Config{TrustedProxies: loopback, MaxConnectionsPerIP: 2})
	var first net.Conn
	for i, source := range []string{"203.0.113.1:1", "203.0.113.1:2", "203.0.113.2:1"} {
		nc := s.dialRaw(server)
		if i == 0 {
			first = nc
		}
		s.sendRaw(nc, proxyHeader(s, 2, source), "hello")
		s.await("the connection", func() bool { return server.NumberOfConnections() == i+1 })
	}
	nc := s.dialRaw(server)
	_, err := nc.Write(proxyHeader(s, 2, "203.0.113.1:3"))
	require.NoError(s, err)
	s.awaitGone(nc)
	require.EqualValues(s, 1, server.Stats().AcceptsRefused)
	require.Zero(s, server.Stats().HandshakesFailed, "there was none")
	require.NoError(s, first.Close())
	s.await("its end", func() bool { return server.Stats().Disconnected == 1 })
	s.sendRaw(s.dialRaw(server), proxyHeader(s, 2, "203.0.113.1:4"), "hello")
	s.await("another", func() bool { return server.IsConnectedTo(netip.MustParseAddrPort("203.0.113.1:4")) })
}

// proxyLimitsPerNetwork: who has one IPv6 address has all of its /64.
func proxyLimitsPerNetwork(s *suite) {
	server := s.server(driver.Config{TrustedProxies: loopback, MaxConnectionsPerIP: 1})
	for i, source := range []string{"[2001:db8::1]:1", "[2001:db8:0:1::1]:1"} {
		s.sendRaw(s.dialRaw(server), proxyHeader(s, 2, source), "hello")
		s.await("the connection", func() bool { return server.NumberOfConnections() == i+1 })
	}
	nc := s.dialRaw(server)
	_, err := nc.Write(proxyHeader(s, 2, "[2001:db8::2]:1"))
	require.NoError(s, err)
	s.awaitGone(nc)
	require.EqualValues(s, 1, server.Stats().AcceptsRefused)
}

// proxyUntrusted: anybody can write a header. It is not looked for, and is then a frame or a record that cannot be.
func proxyUntrusted(s *suite) {
	server := s.server(driver.Config{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, MaxPacketSize: 1000})
	nc := s.dialRaw(server)
	_, err := nc.Write(proxyHeader(s, 1, "203.0.113.7:1234"))
	require.NoError(s, err)
	s.awaitGone(nc)
	require.NoError(s, nc.Close())
	if s.secure {
		s.await("the failed handshake", func() bool { return server.Stats().HandshakesFailed == 1 })
		require.Empty(s, server.events.all())
		return
	}
	s.await("the end", func() bool { return server.Stats().Disconnected == 1 })
	last := server.events.all()[1]
	require.ErrorIs(s, last.Reason, driver.ErrProtocol)
	require.Equal(s, nc.LocalAddr().(*net.TCPAddr).AddrPort(), last.Address)
}

func proxyNonsense(s *suite) {
	server := s.server(driver.Config{TrustedProxies: loopback, MaxConnections: 1})
	long := append(proxyHeader(s, 2, "203.0.113.7:1234")[:14], 0xff, 0xff)
	for i, header := range []string{
		"GET / HTTP/1.1\r\n\r\n",
		"PROXY TCP4 203.0.113.7\r\n",
		"PROXY TCP4 999.0.0.1 10.0.0.1 1 2\r\n",
		"PROXY TCP4 " + string(make([]byte, 200)),
		string(frame([]byte("a packet at once"))),
		string(long),
	} {
		nc := s.dialRaw(server)
		_, err := nc.Write([]byte(header))
		require.NoError(s, err)
		s.awaitGone(nc)
		s.await("that it counts", func() bool { return server.Stats().ProxyHeadersFailed == uint64(i+1) })
	}
	require.Empty(s, server.events.all())
	s.sendRaw(s.dialRaw(server), proxyHeader(s, 1, "203.0.113.7:1234"), "all the same")
	server.expect("all the same")
}

func proxySilence(s *suite) {
	server := s.server(driver.Config{TrustedProxies: loopback, ProxyTimeout: 50 * time.Millisecond})
	for i, header := range []string{"", "PROXY TCP4 203"} {
		nc := s.dialRaw(server)
		_, err := nc.Write([]byte(header))
		require.NoError(s, err)
		s.awaitGone(nc)
		s.await("that it counts", func() bool { return server.Stats().ProxyHeadersFailed == uint64(i+1) })
	}
	require.Empty(s, server.events.all())
}

func proxyShutdown(s *suite) {
	server := s.server(driver.Config{TrustedProxies: loopback, ProxyTimeout: 10 * patience, LingerTimeout: 10 * patience})
	nc := s.dialRaw(server)
	_, err := nc.Write([]byte("PROXY"))
	require.NoError(s, err)
	s.await("the connection", func() bool { return server.Stats().BytesReceived == 5 })
	done := s.background("Shutdown", func() { require.NoError(s, server.Shutdown(s.context())) })
	s.awaitGone(nc)
	require.NoError(s, nc.Close())
	done()
}

// proxyHijack: whoever takes the connection over knows the player, too.
func proxyHijack(s *suite) {
	cfg := driver.Config{TrustedProxies: loopback, MaxConnectionsPerIP: 1}
	server, next := s.server(cfg), s.server(cfg)
	for i, source := range []string{"203.0.113.1:1", "[2001:db8::7]:1"} {
		from := netip.MustParseAddrPort(source)
		s.sendRaw(s.dialRaw(server), proxyHeader(s, 2, source), "hello")
		server.expect("hello")
		c, ok := server.Conn(from)
		require.True(s, ok)
		nc, err := c.Hijack()
		require.NoError(s, err)
		require.Equal(s, from, nc.RemoteAddr().(*net.TCPAddr).AddrPort())
		if s.secure {
			require.NoError(s, nc.Close())
			continue
		}
		adopted, err := next.Adopt(nc)
		require.NoError(s, err)
		require.Equal(s, from, adopted.RemoteAddr())
		s.await("the player", func() bool { return next.NumberOfConnections() == i+1 && next.IsConnectedTo(from) })
	}
	if s.secure {
		return
	}
	nc := driver.WithRemoteAddr(s.dialRaw(server), netip.MustParseAddrPort("203.0.113.1:2"))
	_, err := next.Adopt(nc)
	require.ErrorContains(s, err, "203.0.113.1 has MaxConnectionsPerIP 1")
	require.Equal(s, 2, next.NumberOfConnections())
}

// proxyRateLimit: what comes in one piece with the header counts.
func proxyRateLimit(s *suite) {
	server := s.server(driver.Config{TrustedProxies: loopback, BytesPerSecond: 1000, HandshakeTimeout: time.Hour})
	nc := s.dialRaw(server)
	begins := []byte{0xff, 0xff} // a packet
	if s.secure {
		begins = []byte{22, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff} // a ClientHello
	}
	_, err := nc.Write(slices.Concat(proxyHeader(s, 1, "203.0.113.1:1"), begins, make([]byte, 10_000)))
	require.NoError(s, err)
	s.awaitGone(nc)
	require.Empty(s, server.events.all())
}

// proxyLoginTimeout: the time limit begins with the accept, not again with what follows the header.
func proxyLoginTimeout(s *suite) {
	const login = 2 * time.Second
	server := s.server(driver.Config{TrustedProxies: loopback, LoginTimeout: login})
	nc := s.dialRaw(server)
	begun := time.Now()
	pace(login * 3 / 4)
	_, err := nc.Write(proxyHeader(s, 1, "203.0.113.1:1"))
	require.NoError(s, err)
	s.awaitGone(nc)
	require.Less(s, time.Since(begun), login*3/2)
}

// awaitGone waits until the server ended the connection.
func (s *suite) awaitGone(nc net.Conn) {
	s.Helper()
	_, err := io.Copy(io.Discard, nc)
	if e, ok := err.(net.Error); ok && e.Timeout() {
		s.Fatal("the server keeps the connection")
	}
}

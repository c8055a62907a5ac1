package driver_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"testing"

	"github.com/pires/go-proxyproto"
	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

func TestConfigTrustedProxiesAreNetworks(t *testing.T) {
	_, err := driver.New(driver.Config{TrustedProxies: []netip.Prefix{{}}})
	require.ErrorContains(t, err, "Config.TrustedProxies[0]")
}

func TestConfigTrustedProxiesMayBeMapped(t *testing.T) {
	cfg, err := driver.Config{TrustedProxies: []netip.Prefix{
		netip.MustParsePrefix("::ffff:10.0.0.0/104"), netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("::/0"),
	}}.WithDefaults()
	require.NoError(t, err)
	require.Equal(t, []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("::/0"),
	}, cfg.TrustedProxies)
}

// TestTLSCallbacksSeeThePlayer, not the load balancer.
func TestTLSCallbacksSeeThePlayer(t *testing.T) {
	const player = "203.0.113.1:1"
	bothSecureDrivers(t, func(t *testing.T, newServer newSecureServerFunc) {
		seen := make(chan string, 1)
		desc := developmentDesc()
		desc.TLSConfig = func(c *tls.Config) {
			c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
				seen <- hello.Conn.RemoteAddr().String()
				return nil, nil
			}
		}
		server, _ := newServer(driver.Config{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}, desc)
		nc := dial(t, server)
		_, err := io.WriteString(nc, "PROXY TCP4 203.0.113.1 10.0.0.1 1 2\r\n")
		require.NoError(t, err)
		require.NoError(t, tls.Client(nc, &tls.Config{InsecureSkipVerify: true}).Handshake())
		require.Equal(t, player, <-seen)
	})
}

// FuzzProxyHeader: a header is complete at one length, is the same however it is cut, and what the reference writes is read back.
func FuzzProxyHeader(f *testing.F) {
	from, to := &net.TCPAddr{IP: net.IPv4(203, 0, 113, 7), Port: 1}, &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 2}
	for version := byte(1); version <= 2; version++ {
		b, err := proxyproto.HeaderProxyFromAddrs(version, from, to).Format()
		require.NoError(f, err)
		f.Add(append(b, "rest"...))
		f.Add(b[:len(b)-1])
	}
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Add([]byte("\r\n\r\n\x00\r\nQUIT\n\x20\x11\x00\x00"))
	f.Add([]byte("PROXY TCP4 1.2.3.4 5.6.7.8 99999 1\r\n"))
	f.Add([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xff"))
	f.Add(bytes.Repeat([]byte("PROXY "), 30))
	f.Fuzz(func(t *testing.T, b []byte) {
		size, source, err := driver.ParseProxyHeader(b)
		require.LessOrEqual(t, size, len(b))
		if err != nil {
			require.Zero(t, size)
			return
		}
		for n := range size {
			partial, _, err := driver.ParseProxyHeader(b[:n])
			require.NoError(t, err, "the first %d of %d bytes", n, size)
			require.Zero(t, partial)
		}
		if !source.IsValid() || size == 0 {
			return
		}
		again, err := proxyproto.HeaderProxyFromAddrs(2, net.TCPAddrFromAddrPort(source), net.TCPAddrFromAddrPort(source)).Format()
		require.NoError(t, err)
		size, same, err := driver.ParseProxyHeader(again)
		require.NoError(t, err)
		require.Equal(t, len(again), size)
		require.Equal(t, source, same)
	})
}

// headed writes head in one piece with what it writes first.
type headed struct {
	net.Conn
	head []byte
}

func (h *headed) Write(b []byte) (int, error) {
	n, err := h.Conn.Write(append(h.head, b...))
	n -= len(h.head)
	h.head = nil
	return n, err
}

// TestHandshakeBytesCountOnce, where they come in one piece with the header.
func TestHandshakeBytesCountOnce(t *testing.T) {
	bothSecureDrivers(t, func(t *testing.T, newServer newSecureServerFunc) {
		packets := make(chan struct{}, 1)
		server, _ := newServer(driver.Config{
			TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
			BytesPerSecond: 2500, // some 1,600 come
			OnPacket:       func(driver.Conn, []byte) { packets <- struct{}{} },
		}, developmentDesc())
		tc := tls.Client(&headed{Conn: dial(t, server), head: []byte("PROXY TCP4 203.0.113.1 10.0.0.1 1 2\r\n")}, &tls.Config{InsecureSkipVerify: true})
		_, err := tc.Write([]byte{0, 1, 'x'})
		require.NoError(t, err)
		eventually(t, "the packet", func() bool { return len(packets) == 1 })
		require.Zero(t, server.Stats().Ends.RateLimited)
	})
}

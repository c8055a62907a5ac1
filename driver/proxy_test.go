package driver_test

import (
	"bytes"
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

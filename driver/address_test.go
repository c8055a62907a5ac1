package driver_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

func TestParseAddress(t *testing.T) {
	for s, want := range map[string]string{
		// Go's.
		"127.0.0.1:4433":       "127.0.0.1:4433",
		"127.0.0.1:0":          "127.0.0.1:0",
		"0.0.0.0:65535":        "0.0.0.0:65535",
		"[::1]:4433":           "[::1]:4433",
		"[2001:db8::1]:4433":   "[2001:db8::1]:4433",
		"[fe80::1%eth0]:4433":  "[fe80::1%eth0]:4433",
		"[fe80::1%a|b]:4433":   "[fe80::1%a|b]:4433",
		"[::ffff:10.0.0.1]:80": "10.0.0.1:80",
		// GridMate's.
		"127.0.0.1|4433":       "127.0.0.1:4433",
		"::1|4433":             "[::1]:4433",
		"[::1]|4433":           "[::1]:4433",
		"fe80::1%eth0|4433":    "[fe80::1%eth0]:4433",
		"[fe80::1%eth0]|4433":  "[fe80::1%eth0]:4433",
		"::ffff:10.0.0.1|80":   "10.0.0.1:80",
		"[::ffff:10.0.0.1]|80": "10.0.0.1:80",
	} {
		got, err := driver.ParseAddress(s)
		require.NoError(t, err, s)
		require.Equal(t, netip.MustParseAddrPort(want), got, s)
	}
}

func TestParseAddressErrorNamesTheInput(t *testing.T) {
	for _, s := range []string{
		"", ":", "|", ":80", "|80", "127.0.0.1", "127.0.0.1:", "127.0.0.1|", "::1", "[::1]", "[::1]|",
		"localhost:80", "localhost|80",
		"127.0.0.1:65536", "127.0.0.1|65536", "127.0.0.1|-1", "127.0.0.1|+1", "127.0.0.1| 1", "127.0.0.1:http",
		"256.0.0.1|80", "1.2.3|80", "127.0.0.1:80|80", "127.0.0.1|80:80", "127.0.0.1|80|80",
		"::1:80%eth0", "[127.0.0.1]:80", "[127.0.0.1]|80", "[::1|80", "::1]|80", "fe80::1%|80",
	} {
		got, err := driver.ParseAddress(s)
		require.ErrorContains(t, err, fmt.Sprintf("driver: address %q", s))
		require.False(t, got.IsValid(), s)
	}
}

func TestAddressString(t *testing.T) {
	for want, addr := range map[string]string{
		"127.0.0.1|4433":    "127.0.0.1:4433",
		"::1|0":             "[::1]:0",
		"fe80::1%eth0|4433": "[fe80::1%eth0]:4433",
		"10.0.0.1|65535":    "[::ffff:10.0.0.1]:65535",
	} {
		require.Equal(t, want, driver.AddressString(netip.MustParseAddrPort(addr)))
	}
	_, err := driver.ParseAddress(driver.AddressString(netip.AddrPort{}))
	require.Error(t, err, "the zero AddrPort is no address")
}

// FuzzParseAddress: an address that is read is written in both forms, and either gives the same address again.
func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{
		"127.0.0.1:4433", "127.0.0.1|4433", "[::1]:1", "::1|1", "[::1]|1", "fe80::1%eth0|1", "[fe80::1%a|b]:1",
		"fe80::1%a|b|1", "fe80::1%a]|1", "fe80::1%a:1|1", "::ffff:10.0.0.1|1", "[]|1", "|", "1.2.3.4:|1",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		addr, err := driver.ParseAddress(s)
		if err != nil {
			require.ErrorContains(t, err, fmt.Sprintf("%q", s))
			require.Equal(t, netip.AddrPort{}, addr)
			return
		}
		require.True(t, addr.IsValid())
		require.False(t, addr.Addr().Is4In6())
		for _, form := range []string{addr.String(), driver.AddressString(addr)} {
			again, err := driver.ParseAddress(form)
			require.NoError(t, err)
			require.Equal(t, addr, again, form)
		}
	})
}

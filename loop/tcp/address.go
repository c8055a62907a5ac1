package tcp

import (
	"net"
	"net/netip"
)

// AddrPort is a TCP address without the IPv6 form of an IPv4 address.
func AddrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

package driver

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// ParseAddress reads "ip:port", "[ip6]:port", and GridMate's "ip|port", where brackets around an IPv6 address may be left
// out. It resolves no names. An IPv6 address may have a zone; an IPv4-mapped one becomes the IPv4 address that it stands
// for. The error names s.
func ParseAddress(s string) (netip.AddrPort, error) {
	addr, err := netip.ParseAddrPort(s)
	if err != nil {
		addr, err = parseGridMateAddress(s)
	}
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf(prefix+"address %q is not a numeric ip:port, [ip6]:port or ip|port", s)
	}
	return netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()), nil
}

func parseGridMateAddress(s string) (netip.AddrPort, error) {
	bar := strings.LastIndexByte(s, '|')
	if bar < 0 {
		return netip.AddrPort{}, strconv.ErrSyntax
	}
	ip, port := s[:bar], s[bar+1:]
	if strings.Contains(ip, ":") && ip[0] != '[' {
		ip = "[" + ip + "]"
	}
	return netip.ParseAddrPort(ip + ":" + port)
}

// AddressString is "ip|port", what GridMate's IPPortToAddressString makes: an IPv6 address has no brackets. ParseAddress
// reads it back.
func AddressString(addr netip.AddrPort) string {
	return addr.Addr().Unmap().String() + "|" + strconv.Itoa(int(addr.Port()))
}

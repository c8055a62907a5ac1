package drivertest

import (
	"net"
	"net/netip"

	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

func addressProperties() []property {
	return []property{
		{"UnknownAddress", unknownAddress},
		{"LookUp", lookUp},
		{"IPv6", ipv6},
		{"DualStack", dualStack},
		{"EveryInterface", everyInterface},
		{"OtherFamily", otherFamily},
		{"BindBeforeConnectTo", bindBeforeConnectTo},
	}
}

func unknownAddress(s *suite) {
	l := s.pair(driver.Config{}, driver.Config{})
	for _, addr := range []netip.AddrPort{
		somebody,
		{},
		netip.AddrPortFrom(l.server.addr().Addr(), l.server.Port()+1),
		netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), l.server.Port()),
		netip.MustParseAddrPort("[::1]:80"),
	} {
		err := l.client.Send(addr, []byte("x"))
		require.ErrorIs(s, err, driver.ErrSendAddressNotBound)
		require.Equal(s, driver.ErrSendAddressNotBound, driver.CodeOf(err))
		require.False(s, l.client.IsConnectedTo(addr))
		_, ok := l.client.Conn(addr)
		require.False(s, ok)
		require.ErrorIs(s, l.client.DisconnectFrom(addr), driver.ErrNotConnected)
	}
	l.cc.Close(nil)
	l.client.awaitEnd(l.cc)
	err := l.client.Send(l.server.addr(), []byte("x"))
	require.Equal(s, driver.ErrSendAddressNotBound, driver.CodeOf(err), "an address that was connected")
}

// lookUp: connections are found by their peer's address, among many.
func lookUp(s *suite) {
	server := s.server(driver.Config{})
	byAddr := make(map[netip.AddrPort]uint64)
	for i := range 8 {
		c := s.client(driver.Config{EventLoops: 1})
		cc, sc := s.connect(c, server)
		require.Equal(s, cc.LocalAddr(), sc.RemoteAddr())
		require.Equal(s, cc.RemoteAddr(), sc.LocalAddr())
		require.False(s, cc.Inbound())
		require.True(s, sc.Inbound())
		sc.SetValue(i)
		byAddr[sc.RemoteAddr()] = sc.ID()
	}
	seen := 0
	for c := range server.Conns() {
		seen++
		require.Equal(s, byAddr[c.RemoteAddr()], c.ID())
		found, ok := server.Conn(c.RemoteAddr())
		require.True(s, ok)
		require.Equal(s, c.ID(), found.ID())
		require.Equal(s, c.Value(), found.Value())
	}
	require.Equal(s, len(byAddr), seen)
	for range server.Conns() {
		break // may be left at any time
	}
}

// hasIPv6 reports whether the host has ::1.
func hasIPv6() bool {
	ln, err := net.Listen("tcp6", "[::1]:0")
	if err == nil {
		ln.Close()
	}
	return err == nil
}

func on(ip string, n *node) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(ip), n.Port())
}

func ipv6(s *suite) {
	if !hasIPv6() {
		s.Skip("this host has no ::1")
	}
	server := s.listening(driver.Config{}, driver.Bind{Family: driver.IPv6, Address: "::1"})
	client := s.bound(driver.Config{}, driver.Bind{Family: driver.IPv6})
	cc, sc := s.connectTo(client, server, on("::1", server))
	require.True(s, sc.RemoteAddr().Addr().Is6())
	(&link{client, server, cc, sc}).talks("over IPv6")
	require.NoError(s, server.Send(sc.RemoteAddr(), []byte("by address")))
	client.expect("by address")
	// IPv6 alone: no IPv4 peer gets in.
	v4 := s.client(driver.Config{})
	every := s.listening(driver.Config{}, driver.Bind{Family: driver.IPv6})
	require.NoError(s, v4.ConnectTo(every.addr()))
	require.ErrorIs(s, v4.awaitFailure(every.addr()), driver.ErrSocketConnect)
}

// dualStack: an IPv4 peer is found by its IPv4 address, and by the form that IPv6 has for it.
func dualStack(s *suite) {
	if !hasIPv6() {
		s.Skip("this host has no ::1")
	}
	server := s.listening(driver.Config{}, driver.Bind{Family: driver.DualStack})
	v4, v6 := s.client(driver.Config{}), s.bound(driver.Config{}, driver.Bind{Family: driver.IPv6})
	cc4, sc4 := s.connectTo(v4, server, on(host, server))
	cc6, sc6 := s.connectTo(v6, server, on("::1", server))
	require.True(s, sc4.RemoteAddr().Addr().Is4())
	require.True(s, sc4.LocalAddr().Addr().Is4())
	require.True(s, sc6.RemoteAddr().Addr().Is6())
	(&link{v4, server, cc4, sc4}).talks("over IPv4")
	(&link{v6, server, cc6, sc6}).talks("over IPv6")
	mapped := netip.AddrPortFrom(netip.AddrFrom16(cc4.LocalAddr().Addr().As16()), cc4.LocalAddr().Port())
	require.True(s, mapped.Addr().Is4In6())
	for _, addr := range []netip.AddrPort{cc4.LocalAddr(), mapped} {
		require.True(s, server.IsConnectedTo(addr))
		c, ok := server.Conn(addr)
		require.True(s, ok)
		require.Equal(s, sc4.ID(), c.ID())
		require.NoError(s, server.Send(addr, []byte("found")))
		v4.expect("found")
	}
	require.NoError(s, server.DisconnectFrom(mapped))
	require.ErrorIs(s, server.awaitEnd(sc4), driver.ErrDisconnected)

	// A dual-stack driver also dials both, in any form.
	dialler := s.bound(driver.Config{}, driver.Bind{Family: driver.DualStack})
	other := s.server(driver.Config{})
	mapped = netip.AddrPortFrom(netip.AddrFrom16(other.addr().Addr().As16()), other.Port())
	s.connectTo(dialler, other, mapped)
	require.ErrorIs(s, dialler.ConnectTo(other.addr()), driver.ErrConnected)
	s.connectTo(dialler, server, on("::1", server))
}

func everyInterface(s *suite) {
	server := s.listening(driver.Config{}, driver.Bind{})
	client := s.bound(driver.Config{}, driver.Bind{})
	cc, sc := s.connect(client, server)
	(&link{client, server, cc, sc}).talks("on every interface")
}

func otherFamily(s *suite) {
	v4 := s.client(driver.Config{})
	err := v4.ConnectTo(netip.MustParseAddrPort("[::1]:80"))
	require.Equal(s, driver.ErrSocketConnect, driver.CodeOf(err))
	if !hasIPv6() {
		return
	}
	v6 := s.bound(driver.Config{}, driver.Bind{Family: driver.IPv6, Address: "::1"})
	err = v6.ConnectTo(somebody)
	require.Equal(s, driver.ErrSocketConnect, driver.CodeOf(err))
}

// bindBeforeConnectTo: connections leave from Bind.Address.
func bindBeforeConnectTo(s *suite) {
	ln, err := net.Listen("tcp4", "127.0.0.2:0")
	if err != nil {
		s.Skip("this host has no 127.0.0.2")
	}
	require.NoError(s, ln.Close())
	client := s.bound(driver.Config{}, driver.Bind{Address: "127.0.0.2"})
	server := s.listening(driver.Config{}, driver.Bind{})
	cc, sc := s.connect(client, server)
	require.Equal(s, "127.0.0.2", cc.LocalAddr().Addr().String())
	require.Equal(s, "127.0.0.2", sc.RemoteAddr().Addr().String())
}

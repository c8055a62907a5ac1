package drivertest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

func wrongUseProperties() []property {
	return []property{
		{"BeforeInitialize", beforeInitialize},
		{"AfterClose", afterClose},
		{"AfterShutdown", afterShutdown},
		{"Twice", twice},
		{"TakenPort", takenPort},
		{"ReceiveWithOnPacket", receiveWithOnPacket},
		{"BadConfig", badConfig},
		{"BadBind", badBind},
		{"BadPackets", badPackets},
		{"BadAddresses", badAddresses},
		{"NilListener", func(s *suite) {
			require.Equal(s, driver.ErrSocketListen, driver.CodeOf(s.client(driver.Config{}).StartListenOn(nil)))
		}},
	}
}

var somebody = netip.MustParseAddrPort("127.0.0.1:9")

// operations are those that need the driver's sockets, with the code of their errors.
func operations(n *node) map[string]struct {
	code driver.ResultCode
	call func() error
} {
	type op = struct {
		code driver.ResultCode
		call func() error
	}
	return map[string]op{
		"StartListen":    {driver.ErrSocketListen, func() error { return n.StartListen(0) }},
		"StopListen":     {driver.ErrSocketListen, n.StopListen},
		"ConnectTo":      {driver.ErrSocketConnect, func() error { return n.ConnectTo(somebody) }},
		"DisconnectFrom": {driver.ErrSocketClose, func() error { return n.DisconnectFrom(somebody) }},
		"Send":           {driver.ErrSend, func() error { return n.Send(somebody, []byte("x")) }},
		"Receive":        {driver.ErrReceive, func() error { _, _, err := n.Receive(make([]byte, 10)); return err }},
		"WaitForData":    {driver.ErrReceive, func() error { return n.WaitForData(context.Background()) }},
		"StartListenOn": {driver.ErrSocketListen, func() error {
			ln, err := net.Listen("tcp4", host+":0")
			if err != nil {
				return nil
			}
			defer ln.Close()
			return n.StartListenOn(ln)
		}},
		"Adopt": {driver.ErrSocketAccept, func() error {
			one, other := net.Pipe()
			defer other.Close()
			_, err := n.Adopt(one)
			return err
		}},
	}
}

// allFail calls each operation, which must fail at once with its code and cause.
func (s *suite) allFail(n *node, cause error) {
	s.Helper()
	for name, op := range operations(n) {
		s.must(name, func() {
			err := op.call()
			if assert.Error(s, err, name) {
				assert.ErrorIs(s, err, cause, name)
				assert.Equal(s, op.code, driver.CodeOf(err), name)
				var e *driver.Error
				if assert.ErrorAs(s, err, &e, name) {
					assert.Equal(s, name, e.Op)
				}
				assert.Contains(s, err.Error(), "driver: ", name)
			}
		})
	}
	s.must("what has no error", func() {
		n.Update()
		assert.False(s, n.IsListening())
		assert.False(s, n.IsConnectedTo(somebody))
		assert.Zero(s, n.NumberOfConnections())
		assert.Zero(s, n.Broadcast([]byte("x"), nil))
		_, ok := n.Conn(somebody)
		assert.False(s, ok)
		for c := range n.Conns() {
			assert.Fail(s, "a connection", c.RemoteAddr())
		}
		n.Stats()
		n.Events().Subscribe(&recorder{}).Cancel()
		assert.Positive(s, n.MaxNumConnections())
		assert.Positive(s, n.MaxSendSize())
		assert.Positive(s, n.PacketOverheadSize())
	})
}

func beforeInitialize(s *suite) {
	n := s.bare(driver.Config{})
	require.Zero(s, n.Port())
	s.allFail(n, driver.ErrNotInitialized)
}

func afterClose(s *suite) {
	never := s.bare(driver.Config{})
	require.NoError(s, never.Close())
	used := s.pair(driver.Config{}, driver.Config{})
	require.NoError(s, used.server.Close())
	for _, n := range []*node{never, used.server} {
		s.allFail(n, net.ErrClosed)
		s.allFail(n, driver.ErrDriverClosed)
		require.ErrorIs(s, n.Initialize(driver.Bind{}), net.ErrClosed)
		require.NoError(s, n.Close())
	}
	s.must("a closed driver's connection", func() {
		assert.ErrorIs(s, used.sc.Send([]byte("x")), net.ErrClosed)
		assert.ErrorIs(s, used.sc.SendContext(context.Background(), []byte("x")), net.ErrClosed)
		_, err := used.sc.Hijack()
		assert.ErrorIs(s, err, net.ErrClosed)
		used.sc.Close(nil)
		used.sc.Authenticated()
		used.sc.PauseReading()
		used.sc.ResumeReading()
		used.sc.SetValue(1)
		assert.Equal(s, 1, used.sc.Value())
		used.sc.Stats()
		used.sc.TLS()
	})
	require.Equal(s, used.cc.LocalAddr(), used.sc.RemoteAddr())
}

func afterShutdown(s *suite) {
	l := s.pair(driver.Config{}, driver.Config{})
	require.NoError(s, l.server.Shutdown(s.context()))
	s.allFail(l.server, net.ErrClosed)
	l.client.awaitEnd(l.cc)
}

func twice(s *suite) {
	n := s.server(driver.Config{})
	err := n.Initialize(driver.Bind{Address: host})
	require.ErrorIs(s, err, driver.ErrAlreadyInitialized)
	require.Equal(s, driver.ErrSocketCreate, driver.CodeOf(err))
	err = n.StartListen(0)
	require.ErrorIs(s, err, driver.ErrListening)
	require.Equal(s, driver.ErrSocketListen, driver.CodeOf(err))
	require.NoError(s, n.StopListen())
	err = n.StopListen()
	require.ErrorIs(s, err, driver.ErrNotListening)
	require.Equal(s, driver.ErrSocketListen, driver.CodeOf(err))
	require.NoError(s, n.StartListen(0))

	client := s.client(driver.Config{})
	s.connect(client, n)
	err = client.ConnectTo(n.addr())
	require.ErrorIs(s, err, driver.ErrConnected)
	require.Equal(s, driver.ErrSocketConnect, driver.CodeOf(err))
	require.NoError(s, client.DisconnectFrom(n.addr()))
	s.await("the end", func() bool { return client.Stats().Disconnected == 1 })
	err = client.DisconnectFrom(n.addr())
	require.ErrorIs(s, err, driver.ErrNotConnected)
	require.Equal(s, driver.ErrSocketClose, driver.CodeOf(err))
}

// takenPort: somebody else listens there.
func takenPort(s *suite) {
	ln := s.listener()
	port := uint16(ln.Addr().(*net.TCPAddr).Port)
	n := s.bare(driver.Config{})
	err := n.Initialize(driver.Bind{Address: host, Port: port})
	if err == nil {
		err = n.StartListen(0)
	}
	code := driver.CodeOf(err)
	require.True(s, code == driver.ErrSocketBind || code == driver.ErrSocketListen, "%v", err)
	var number syscall.Errno
	var call *os.SyscallError
	require.True(s, errors.As(err, &number) || errors.As(err, &call), "%v has no system error", err)
	require.Contains(s, err.Error(), fmt.Sprint(port))
	require.False(s, n.IsListening())
	// The driver is as good as new.
	require.NoError(s, ln.Close())
	if err := n.Initialize(driver.Bind{Address: host, Port: port}); err != nil {
		require.ErrorIs(s, err, driver.ErrAlreadyInitialized)
	}
	require.NoError(s, n.StartListen(0))
	s.connect(s.client(driver.Config{}), n)

	other := s.bare(driver.Config{})
	err = other.Initialize(driver.Bind{Address: host, Port: port})
	if err == nil {
		err = other.StartListen(0)
	}
	require.Error(s, err, "two drivers listen on one port")
}

func receiveWithOnPacket(s *suite) {
	n := s.client(driver.Config{OnPacket: func(driver.Conn, []byte) {}})
	s.must("Receive and WaitForData", func() {
		_, _, err := n.Receive(make([]byte, 10))
		assert.Equal(s, driver.ErrReceive, driver.CodeOf(err))
		assert.ErrorContains(s, err, "OnPacket")
		err = n.WaitForData(context.Background())
		assert.Equal(s, driver.ErrReceive, driver.CodeOf(err))
		assert.ErrorContains(s, err, "OnPacket")
	})
}

// badConfig: the constructor's error names the field and the value.
func badConfig(s *suite) {
	for name, cfg := range map[string]driver.Config{
		"MaxConnections":      {MaxConnections: -7},
		"MaxPacketSize":       {MaxPacketSize: -7},
		"InboundBufferSize":   {InboundBufferSize: -7},
		"OutboundBufferSize":  {OutboundBufferSize: -7},
		"EventLoops":          {EventLoops: -7},
		"ConnectTimeout":      {ConnectTimeout: -7},
		"StallTimeout":        {StallTimeout: -7},
		"LingerTimeout":       {LingerTimeout: -7},
		"IdleTimeout":         {IdleTimeout: -7},
		"LoginTimeout":        {LoginTimeout: -7},
		"HandshakeTimeout":    {HandshakeTimeout: -7},
		"MaxConnectionsPerIP": {MaxConnectionsPerIP: -7},
		"PacketsPerSecond":    {PacketsPerSecond: -7},
		"BytesPerSecond":      {BytesPerSecond: -7},
		"HandshakeWorkers":    {HandshakeWorkers: -7},
		"Dispatch":            {Dispatch: -7},
		"SlowConsumer":        {SlowConsumer: -7},
		"NoDelay":             {NoDelay: -7},
	} {
		d, err := s.newServer(cfg)
		if err == nil {
			d.Close()
		}
		require.ErrorContains(s, err, name)
		require.ErrorContains(s, err, "-7")
	}
	_, err := s.newServer(driver.Config{MaxPacketSize: 70000})
	require.ErrorContains(s, err, "MaxPacketSize 70000")
}

func badBind(s *suite) {
	for name, b := range map[string]driver.Bind{
		"no-such-host":      {Address: "no-such-host"},
		"300.0.0.1":         {Address: "300.0.0.1"},
		"Family 9":          {Family: 9},
		"::1":               {Family: driver.IPv4, Address: "::1"},
		"127.0.0.1":         {Family: driver.IPv6, Address: "127.0.0.1"},
		"ReceiveBufferSize": {ReceiveBufferSize: -1},
		"SendBufferSize":    {SendBufferSize: -1},
		"192.0.2.1":         {Address: "192.0.2.1"}, // of no host
	} {
		n := s.bare(driver.Config{})
		err := n.Initialize(b)
		require.ErrorContains(s, err, name)
		require.Equal(s, driver.ErrSocketBind, driver.CodeOf(err), name)
		require.ErrorIs(s, n.StartListen(0), driver.ErrNotInitialized)
		require.NoError(s, n.Initialize(driver.Bind{Address: host}), "after an Initialize that failed")
	}
}

func badPackets(s *suite) {
	l := s.pair(driver.Config{MaxPacketSize: 100}, driver.Config{MaxPacketSize: 100})
	require.Equal(s, 100, l.client.MaxSendSize())
	for _, bad := range []struct {
		packet []byte
		cause  error
	}{{nil, driver.ErrEmptyPacket}, {[]byte{}, driver.ErrEmptyPacket}, {make([]byte, 101), driver.ErrPacketTooLarge}} {
		for name, err := range map[string]error{
			"Driver.Send": l.client.Send(l.server.addr(), bad.packet),
			"Send":        l.cc.Send(bad.packet),
			"SendContext": l.cc.SendContext(s.context(), bad.packet),
		} {
			require.ErrorIs(s, err, bad.cause, name)
			require.Equal(s, driver.ErrSend, driver.CodeOf(err), name)
			var e *driver.Error
			require.ErrorAs(s, err, &e, name)
			require.Equal(s, l.server.addr(), e.Address, name)
		}
		require.Zero(s, l.client.Broadcast(bad.packet, nil))
		g := driver.NewGroup()
		g.Add(l.cc)
		require.Zero(s, g.Broadcast(bad.packet))
	}
	require.NoError(s, l.cc.Send(make([]byte, 100)))
	l.server.expect(string(make([]byte, 100)))
}

func badAddresses(s *suite) {
	n := s.client(driver.Config{})
	for _, addr := range []string{"", "0.0.0.0:80", "127.0.0.1:0", "[::1]:80"} {
		a, _ := netip.ParseAddrPort(addr)
		err := n.ConnectTo(a)
		require.Equal(s, driver.ErrSocketConnect, driver.CodeOf(err), addr)
		err = n.Send(a, []byte("x"))
		require.Equal(s, driver.ErrSendAddressNotBound, driver.CodeOf(err), addr)
		err = n.DisconnectFrom(a)
		require.ErrorIs(s, err, driver.ErrNotConnected, addr)
		require.False(s, n.IsConnectedTo(a))
	}
	require.Empty(s, n.events.all())
}

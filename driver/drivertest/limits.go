package drivertest

import (
	"time"

	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

func limitProperties() []property {
	return []property{
		{"MaxConnectionsForConnectTo", maxForConnectTo},
		{"MaxConnectionsLeavesTheRestWaiting", maxLeavesWaiting},
		{"MaxConnectionsAndStopListen", maxAndStopListen},
		{"MaxConnectionsPerIP", maxPerIP},
		{"WithinTheRates", withinTheRates},
		{"RatesOfOneDoNotTouchAnother", ratesOfOne},
	}
}

func maxForConnectTo(s *suite) {
	client := s.client(driver.Config{MaxConnections: 2})
	servers := []*node{s.server(driver.Config{}), s.server(driver.Config{}), s.server(driver.Config{})}
	first, _ := s.connect(client, servers[0])
	s.connect(client, servers[1])
	err := client.ConnectTo(servers[2].addr())
	require.ErrorIs(s, err, driver.ErrTooManyConnections)
	require.Equal(s, driver.ErrSocketConnect, driver.CodeOf(err))
	first.Close(nil)
	client.awaitEnd(first)
	s.await("room", func() bool { return client.ConnectTo(servers[2].addr()) == nil })
	s.awaitConnected(client, servers[2], servers[2].addr())
}

// maxLeavesWaiting: who waits is not accepted and turned away, but gets in later with what it has sent.
func maxLeavesWaiting(s *suite) {
	server := s.server(driver.Config{MaxConnections: 1})
	first, second := s.client(driver.Config{}), s.client(driver.Config{})
	fc, fs := s.connect(first, server)
	require.NoError(s, second.ConnectTo(server.addr()))
	if !s.secure {
		s.await("the system's side of the connection", func() bool { return second.IsConnectedTo(server.addr()) })
		require.NoError(s, second.Send(server.addr(), []byte("from the backlog")))
	}
	require.Equal(s, 1, server.NumberOfConnections())
	(&link{first, server, fc, fs}).talks("meanwhile")
	require.Empty(s, second.events.failures(server.addr()))
	fc.Close(nil)
	s.await("the second connection", func() bool {
		return server.Stats().Accepted == 2 && second.IsConnectedTo(server.addr())
	})
	if !s.secure {
		server.expect("from the backlog")
	}
}

func maxAndStopListen(s *suite) {
	for range s.amount(30) {
		server := s.server(driver.Config{MaxConnections: 1, EventLoops: 1})
		client, next := s.client(driver.Config{EventLoops: 1}), s.client(driver.Config{EventLoops: 1})
		cc, _ := s.connect(client, server)
		// The acceptor that stops and the one that starts both wait for the place that becomes free meanwhile.
		wait := s.background("Close", func() { cc.Close(nil) })
		require.NoError(s, server.StopListen())
		require.NoError(s, server.StartListen(0))
		wait()
		s.connect(next, server)
		require.NoError(s, next.Close())
		require.NoError(s, client.Close())
		require.NoError(s, server.Close())
	}
}

func maxPerIP(s *suite) {
	server := s.server(driver.Config{MaxConnectionsPerIP: 2})
	var clients []*node
	var conns []driver.Conn
	for range 2 {
		c := s.client(driver.Config{EventLoops: 1})
		cc, _ := s.connect(c, server)
		clients, conns = append(clients, c), append(conns, cc)
	}
	third := s.client(driver.Config{EventLoops: 1})
	require.NoError(s, third.ConnectTo(server.addr()))
	s.await("the third to be turned away", func() bool {
		_, down := third.events.counts()
		return down == 1 && server.Stats().AcceptsRefused == 1
	})
	require.Equal(s, 2, server.NumberOfConnections())
	up, _ := server.events.counts()
	require.Equal(s, 2, up, "an event for a connection that was turned away")
	conns[0].Close(nil)
	clients[0].awaitEnd(conns[0])
	s.await("room", func() bool { return server.NumberOfConnections() == 1 })
	s.await("the third to be let in", func() bool {
		_ = third.ConnectTo(server.addr())
		return server.NumberOfConnections() == 2
	})
	// It is for connections that were accepted, not for those that were dialled.
	dialler := s.client(driver.Config{MaxConnectionsPerIP: 1})
	s.connect(dialler, s.server(driver.Config{}))
	s.connect(dialler, s.server(driver.Config{}))
}

// withinTheRates: a second's worth at once is allowed, and more comes with time.
func withinTheRates(s *suite) {
	for _, onPacket := range []bool{true, false} {
		k := newChecker(1)
		// The bytes on the wire of a secure connection are more than those of its packets.
		cfg, start := receiving(driver.Config{PacketsPerSecond: 100, BytesPerSecond: 100_000}, onPacket, k.take)
		l := s.pair(driver.Config{}, cfg)
		start(l.server)
		n, err := sendAll(s.context(), l.cc, 0, 100, smallPackets)
		require.NoError(s, err)
		k.complete(s, "a second's worth", []int{n})
		time.Sleep(300 * time.Millisecond)
		for i := range 20 {
			require.NoError(s, l.cc.Send(numbered(nil, 0, n+i, 10)))
		}
		k.complete(s, "as time passes", []int{n + 20})
	}
}

func ratesOfOne(s *suite) {
	server := s.server(driver.Config{PacketsPerSecond: 50, OnPacket: func(c driver.Conn, p []byte) { _ = c.Send(p) }})
	flood, quiet := s.client(driver.Config{}), s.client(driver.Config{})
	fc, fs := s.connect(flood, server)
	qc, _ := s.connect(quiet, server)
	_, err := sendAll(s.context(), fc, 0, 1_000_000, smallPackets)
	require.Error(s, err)
	require.ErrorIs(s, server.awaitEnd(fs), driver.ErrRateLimited)
	require.NoError(s, qc.Send([]byte("undisturbed")))
	quiet.expect("undisturbed")
}

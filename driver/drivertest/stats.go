package drivertest

import (
	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

func statsProperties() []property {
	return []property{
		{"AddUp", statsAddUp},
		{"BytesOnTheWire", statsBytes},
		{"Buffered", statsBuffered},
		{"ConnectionsAndEnds", statsConnections},
		{"IDs", ids},
		{"Value", value},
	}
}

// statsAddUp: the driver's counters are the sums of its connections'.
func statsAddUp(s *suite) {
	a := s.audience(5, driver.Config{})
	for i, c := range a.conns {
		for n := range 10 * (i + 1) {
			require.NoError(s, c.Send(numbered(nil, 0, n, 30)))
			cc, ok := a.clients[i].Conn(a.server.addr())
			require.True(s, ok)
			if n%2 == 0 {
				require.NoError(s, cc.Send(numbered(nil, 0, n, 30)))
			}
		}
	}
	a.server.Broadcast([]byte("and all"), nil)
	const sent, received = 10 + 20 + 30 + 40 + 50 + 5, 5 + 10 + 15 + 20 + 25
	s.await("all packets", func() bool {
		at := uint64(0)
		for _, c := range a.clients {
			at += c.Stats().PacketsReceived
		}
		return at == sent && a.server.Stats().PacketsReceived == received
	})
	st := a.server.Stats()
	require.EqualValues(s, sent, st.PacketsSent)
	require.Equal(s, 5, st.Connections)
	require.EqualValues(s, 5, st.Accepted)
	require.Zero(s, st.Dialled)
	sums := func() (sum driver.ConnStats) {
		for _, c := range a.conns {
			cs := c.Stats()
			sum.PacketsReceived += cs.PacketsReceived
			sum.PacketsSent += cs.PacketsSent
			sum.BytesReceived += cs.BytesReceived
			sum.BytesSent += cs.BytesSent
		}
		return sum
	}
	s.await("the sums", func() bool {
		sum, st := sums(), a.server.Stats()
		return sum.PacketsReceived == st.PacketsReceived && sum.PacketsSent == st.PacketsSent &&
			sum.BytesReceived == st.BytesReceived && sum.BytesSent == st.BytesSent
	})
	for i, c := range a.conns {
		cc, _ := a.clients[i].Conn(a.server.addr())
		s.await("both ends to agree", func() bool {
			mine, theirs := c.Stats(), cc.Stats()
			return mine.BytesSent == theirs.BytesReceived && mine.BytesReceived == theirs.BytesSent &&
				mine.PacketsSent == theirs.PacketsReceived
		})
	}
	// They stay when the connections have gone.
	before := sums()
	require.NoError(s, a.server.Close())
	st = a.server.Stats()
	require.Equal(s, before.PacketsSent, st.PacketsSent)
	require.GreaterOrEqual(s, st.BytesSent, before.BytesSent)
	require.EqualValues(s, 5, st.Disconnected)
}

func statsBytes(s *suite) {
	l := s.pair(driver.Config{}, driver.Config{})
	base := l.cc.Stats()
	require.NoError(s, l.cc.Send(make([]byte, 1000)))
	l.server.expect(string(make([]byte, 1000)))
	s.await("the bytes", func() bool {
		sent, got := l.cc.Stats().BytesSent-base.BytesSent, l.sc.Stats().BytesReceived
		if s.secure {
			return sent > 1002 && got > 1002
		}
		return sent == 1002 && got == 1002
	})
}

func statsBuffered(s *suite) {
	l := s.pair(driver.Config{}, driver.Config{InboundBufferSize: 4096})
	require.Zero(s, l.cc.Stats().OutboundBuffered)
	sent := s.fill(l.cc, 0, 0, 500)
	require.NotZero(s, l.cc.Stats().OutboundBuffered)
	require.GreaterOrEqual(s, l.sc.Stats().InboundBuffered, 4096)
	require.NotZero(s, l.server.Stats().ReadsPaused)
	k := newChecker(1)
	l.server.pumping(k.take)
	k.complete(s, "what was buffered", []int{sent})
	s.await("empty buffers", func() bool {
		return l.cc.Stats().OutboundBuffered == 0 && l.sc.Stats().InboundBuffered == 0
	})
}

func statsConnections(s *suite) {
	server, client := s.server(driver.Config{}), s.client(driver.Config{})
	for i := range 5 {
		cc, sc := s.connect(client, server)
		require.Equal(s, 1, client.NumberOfConnections())
		require.EqualValues(s, i+1, client.Stats().Dialled)
		require.EqualValues(s, i+1, server.Stats().Accepted)
		sc.Close(nil)
		client.awaitEnd(cc)
		server.awaitEnd(sc)
		require.EqualValues(s, i+1, client.Stats().Disconnected)
		require.EqualValues(s, i+1, server.Stats().Disconnected)
		require.Zero(s, client.NumberOfConnections())
	}
	require.Zero(s, server.Stats().AcceptErrors)
	require.Zero(s, server.Stats().Panics)
}

// ids: an ID is nobody else's, also not another driver's.
func ids(s *suite) {
	seen := make(map[uint64]bool)
	for range 3 {
		a := s.audience(5, driver.Config{})
		for i, c := range a.conns {
			cc, _ := a.clients[i].Conn(a.server.addr())
			for _, id := range []uint64{c.ID(), cc.ID()} {
				require.False(s, seen[id])
				seen[id] = true
			}
			require.Equal(s, c.ID(), c.ID())
		}
	}
}

func value(s *suite) {
	l := s.pair(driver.Config{}, driver.Config{})
	require.Nil(s, l.sc.Value())
	for _, v := range []any{"a player", 7, nil, &struct{}{}} {
		l.sc.SetValue(v)
		require.Equal(s, v, l.sc.Value())
		c, ok := l.server.Conn(l.sc.RemoteAddr())
		require.True(s, ok)
		require.Equal(s, v, c.Value())
	}
	l.sc.Close(nil)
	l.server.awaitEnd(l.sc)
	require.NotNil(s, l.sc.Value())
	_, secure := l.cc.TLS()
	require.Equal(s, s.secure, secure)
}

package drivertest

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

func lifecycleProperties() []property {
	return []property{
		{"ListenStopListenAgain", listenAgain},
		{"StopListenKeepsConnections", stopListenKeeps},
		{"ListenAgainQuickly", listenAgainQuickly},
		{"CloseFromSeveralGoroutines", closeFromSeveral},
		{"CloseWithoutUse", closeWithoutUse},
		{"CloseWhileConnecting", closeWhileConnecting},
		{"CloseWhileAccepting", closeWhileAccepting},
		{"ShutdownEndsOrderly", shutdownEndsOrderly},
		{"ShutdownAtBothEnds", shutdownAtBothEnds},
		{"ShutdownWithDoneContext", shutdownWithDoneContext},
		{"PortReuseRightAfterClose", portReuse},
		{"PortIsReservedBeforeListening", portReserved},
		{"ManyDrivers", manyDrivers},
	}
}

func listenAgain(s *suite) {
	n := s.bare(driver.Config{})
	require.False(s, n.IsListening())
	require.Zero(s, n.Port())
	require.NoError(s, n.Initialize(driver.Bind{Address: host}))
	require.False(s, n.IsListening())
	port := n.Port()
	require.NotZero(s, port)
	client := s.client(driver.Config{})
	for i := range 3 {
		require.NoError(s, client.ConnectTo(n.addr()))
		s.await("refused while not listening", func() bool { return len(client.events.failures(n.addr())) == i+1 })
		require.NoError(s, n.StartListen(16))
		require.True(s, n.IsListening())
		require.True(s, n.Stats().Listening)
		require.Equal(s, port, n.Port())
		cc, sc := s.connect(client, n)
		require.NoError(s, n.StopListen())
		require.False(s, n.IsListening())
		require.Equal(s, port, n.Port())
		cc.Close(nil)
		client.awaitEnd(cc)
		n.awaitEnd(sc)
	}
}

func stopListenKeeps(s *suite) {
	l := s.pair(driver.Config{}, driver.Config{})
	require.NoError(s, l.server.StopListen())
	l.talks("after StopListen")
	late := s.client(driver.Config{})
	require.NoError(s, late.ConnectTo(l.server.addr()))
	require.ErrorIs(s, late.awaitFailure(l.server.addr()), driver.ErrSocketConnect)
	l.talks("all the same")
	require.Equal(s, 1, l.server.NumberOfConnections())
	require.NoError(s, l.server.StartListen(0))
	s.connect(late, l.server)
	l.talks("and again")
}

// listenAgainQuickly: stopping and starting loses neither the port nor the ability to accept, also at MaxConnections.
func listenAgainQuickly(s *suite) {
	server := s.server(driver.Config{MaxConnections: 2})
	client := s.client(driver.Config{})
	for range s.amount(100) {
		require.NoError(s, server.StopListen())
		require.NoError(s, server.StartListen(0))
		cc, sc := s.connect(client, server)
		cc.Close(nil)
		client.awaitEnd(cc)
		server.awaitEnd(sc)
	}
}

func closeFromSeveral(s *suite) {
	for range s.amount(20) {
		l := s.pair(driver.Config{EventLoops: 1}, driver.Config{EventLoops: 1})
		var all sync.WaitGroup
		for range 8 {
			all.Add(1)
			go func() {
				defer all.Done()
				assert.NoError(s, l.server.Close())
				_, down := l.server.events.counts()
				assert.Equal(s, 1, down, "Close returned before Disconnected")
			}()
		}
		s.must("Close", all.Wait)
		require.NoError(s, l.server.Close())
		require.ErrorIs(s, l.server.awaitEnd(l.sc), driver.ErrShutdown)
		l.client.awaitEnd(l.cc)
		require.NoError(s, l.client.Close())
	}
}

func closeWithoutUse(s *suite) {
	for range 3 {
		s.must("Close before Initialize", func() { assert.NoError(s, s.bare(driver.Config{}).Close()) })
		s.must("Close after Initialize", func() { assert.NoError(s, s.client(driver.Config{}).Close()) })
		s.must("Close after StartListen", func() { assert.NoError(s, s.server(driver.Config{}).Close()) })
		s.must("Shutdown before Initialize", func() { assert.NoError(s, s.bare(driver.Config{}).Shutdown(context.Background())) })
		s.must("Shutdown after StartListen", func() { assert.NoError(s, s.server(driver.Config{}).Shutdown(context.Background())) })
	}
}

// closeWhileConnecting: a ConnectTo under way ends with its event before Close returns.
func closeWhileConnecting(s *suite) {
	for i := range s.amount(50) {
		server := s.server(driver.Config{EventLoops: 1})
		client := s.client(driver.Config{EventLoops: 1})
		require.NoError(s, client.ConnectTo(server.addr()))
		if i%2 == 0 {
			pace(500 * time.Microsecond)
		}
		s.must("Close", func() {
			if i%3 == 0 {
				assert.NoError(s, client.Shutdown(context.Background()))
			} else {
				assert.NoError(s, client.Close())
			}
		})
		up, down := client.events.counts()
		require.Equal(s, 1, down, "Disconnected events when Close has returned")
		require.LessOrEqual(s, up, 1)
		require.NoError(s, server.Close())
	}
}

func closeWhileAccepting(s *suite) {
	for i := range s.amount(50) {
		server := s.server(driver.Config{EventLoops: 1})
		var clients []*node
		for range 4 {
			c := s.client(driver.Config{EventLoops: 1})
			require.NoError(s, c.ConnectTo(server.addr()))
			clients = append(clients, c)
		}
		pace(time.Millisecond)
		s.must("Close", func() {
			if i%2 == 0 {
				assert.NoError(s, server.Shutdown(context.Background()))
			} else {
				assert.NoError(s, server.Close())
			}
		})
		// What a client sends makes a difference: a listener that closes while the last segment of a handshake comes in leaves
		// the client, on Linux, with a connection of which the server's side knows nothing and says nothing until it is asked.
		for _, c := range clients {
			s.await("the end of the client's connection", func() bool {
				_ = c.Send(server.addr(), []byte("are you there?"))
				_, down := c.events.counts()
				return down == 1
			})
			require.NoError(s, c.Close())
		}
	}
}

func shutdownEndsOrderly(s *suite) {
	server := s.server(driver.Config{})
	var clients []*node
	var conns []driver.Conn
	for range 6 {
		c := s.client(driver.Config{EventLoops: 1})
		cc, _ := s.connect(c, server)
		clients, conns = append(clients, c), append(conns, cc)
	}
	require.Equal(s, 6, server.Broadcast([]byte("the server goes down"), nil))
	s.must("Shutdown", func() { assert.NoError(s, server.Shutdown(s.context())) })
	require.False(s, server.IsListening())
	_, down := server.events.counts()
	require.Equal(s, 6, down)
	for i, c := range clients {
		require.ErrorIs(s, c.awaitEnd(conns[i]), driver.ErrPeerClosed)
		c.expect("the server goes down")
	}
	s.must("Shutdown again", func() {
		if err := server.Shutdown(context.Background()); err != nil {
			assert.ErrorIs(s, err, net.ErrClosed)
		}
	})
}

// shutdownAtBothEnds: each delivers what it queued.
func shutdownAtBothEnds(s *suite) {
	for range s.amount(20) {
		up, down := newChecker(1), newChecker(1)
		cfg := func(k *checker) driver.Config {
			c := lingering()
			c.EventLoops, c.OnPacket = 1, func(_ driver.Conn, p []byte) { k.take(p) }
			return c
		}
		l := s.pair(cfg(down), cfg(up))
		for n := range 100 {
			require.NoError(s, l.cc.Send(numbered(nil, 0, n, 100)))
			require.NoError(s, l.sc.Send(numbered(nil, 0, n, 100)))
		}
		// Closing drops what comes in, so that one side is told first.
		down.complete(s, "before Shutdown", []int{100})
		up.complete(s, "before Shutdown", []int{100})
		ctx := s.context()
		wait := s.background("Shutdown", func() { assert.NoError(s, l.client.Shutdown(ctx)) })
		s.must("Shutdown", func() { assert.NoError(s, l.server.Shutdown(ctx)) })
		wait()
	}
}

func shutdownWithDoneContext(s *suite) {
	l := s.pair(driver.Config{}, driver.Config{})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	s.must("Shutdown", func() {
		if err := l.server.Shutdown(ctx); err != nil {
			assert.ErrorIs(s, err, context.Canceled)
		}
	})
	require.ErrorIs(s, l.server.awaitEnd(l.sc), driver.ErrShutdown)
	l.client.awaitEnd(l.cc)
}

// portReuse: a server that is restarted gets its port at once.
func portReuse(s *suite) {
	var port uint16
	client := s.client(driver.Config{})
	for range 5 {
		server := s.listening(driver.Config{}, driver.Bind{Address: host, Port: port})
		if port != 0 {
			require.Equal(s, port, server.Port())
		}
		port = server.Port()
		cc, sc := s.connect(client, server)
		sc.Close(nil) // the side that closes first has the port in TIME_WAIT
		server.awaitEnd(sc)
		client.awaitEnd(cc)
		cc, _ = s.connect(client, server)
		require.NoError(s, server.Close())
		client.awaitEnd(cc)
	}
}

// portReserved: between Initialize and StartListen nobody else gets the port.
func portReserved(s *suite) {
	n := s.client(driver.Config{})
	ln, err := net.Listen("tcp4", n.addr().String())
	if err == nil {
		ln.Close()
	}
	// Some systems let two sockets that do not listen share a port, but then StartListen tells.
	require.NoError(s, n.StartListen(0))
	_, err = net.Listen("tcp4", n.addr().String())
	require.Error(s, err)
}

func manyDrivers(s *suite) {
	server := s.server(driver.Config{})
	for range s.amount(30) {
		c := s.client(driver.Config{EventLoops: 1})
		s.connect(c, server)
	}
	require.Equal(s, s.amount(30), server.NumberOfConnections())
}

package drivertest

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

func shutdownProperties() []property {
	return []property{
		{"Spreads", shutdownSpreads},
		{"SpreadIsWithinTheContext", shutdownSpreadIsWithin},
		{"TellsSubscribers", shutdownTells},
		{"SaysWhatIsLeft", shutdownSaysWhatIsLeft},
		{"InACallback", shutdownInACallback},
		{"DisconnectFromMeanwhile", shutdownDisconnectFrom},
	}
}

// farewell is a subscriber that is told of Shutdown.
type farewell struct {
	driver.SubscriberFuncs
	onShutdown func()
}

func (f farewell) OnShutdown() { f.onShutdown() }

// players connects that many clients to server.
func (s *suite) players(server *node, count int) []*node {
	s.Helper()
	var clients []*node
	for range count {
		c := s.client(driver.Config{EventLoops: 1})
		require.NoError(s, c.ConnectTo(server.addr()))
		clients = append(clients, c)
	}
	s.await("everybody", func() bool { return server.NumberOfConnections() == count })
	return clients
}

// shutdownSpreads: players leave one after the other, and play on until they do.
func shutdownSpreads(s *suite) {
	const spread, count = 300 * time.Millisecond, 10
	server := s.server(driver.Config{ShutdownSpread: spread})
	clients := s.players(server, count)
	var first, last atomic.Int64
	server.Events().Subscribe(driver.SubscriberFuncs{Disconnected: func(driver.Event) {
		now := time.Now().UnixNano()
		first.CompareAndSwap(0, now)
		last.Store(now)
	}})
	begun := time.Now()
	wait := s.background("Shutdown", func() { assert.NoError(s, server.Shutdown(s.context())) })
	s.await("that it begins", func() bool { return !server.IsListening() })
	if _, _, err := server.Receive(make([]byte, server.MaxSendSize())); time.Since(begun) < spread/2 {
		require.NoError(s, err, "Receive while players are there")
	}
	wait()
	require.GreaterOrEqual(s, time.Duration(last.Load()-first.Load()), spread/2, "between the first and the last")
	for _, c := range clients {
		s.await("its end", func() bool { return c.Stats().Disconnected == 1 })
	}
}

// shutdownSpreadIsWithin: the spread is no reason to run out of time.
func shutdownSpreadIsWithin(s *suite) {
	server := s.server(driver.Config{ShutdownSpread: time.Hour})
	s.players(server, 3)
	ctx, cancel := context.WithTimeout(context.Background(), 400*time.Millisecond)
	defer cancel()
	begun := time.Now()
	err := server.Shutdown(ctx)
	if err != nil { // a machine that took the quarter that is left for something else
		require.ErrorIs(s, err, context.DeadlineExceeded)
	}
	require.GreaterOrEqual(s, time.Since(begun), 150*time.Millisecond)
	_, down := server.events.counts()
	require.Equal(s, 3, down)
}

// shutdownTells: a subscriber may say goodbye, and that is delivered.
func shutdownTells(s *suite) {
	server := s.server(driver.Config{})
	clients := s.players(server, 5)
	var told, panicked atomic.Int64
	server.Events().Subscribe(farewell{onShutdown: func() {
		panicked.Add(1)
		panic("a subscriber's")
	}})
	server.Events().Subscribe(farewell{onShutdown: func() {
		told.Add(1)
		assert.False(s, server.IsListening())
		assert.Equal(s, len(clients), server.Broadcast([]byte("back in a minute"), nil))
	}})
	server.Events().Subscribe(farewell{onShutdown: func() { told.Add(100) }}).Cancel()
	require.NoError(s, server.Shutdown(s.context()))
	require.NoError(s, server.Shutdown(s.context()))
	require.EqualValues(s, 1, told.Load())
	require.EqualValues(s, 1, panicked.Load())
	require.EqualValues(s, 1, server.Stats().Panics)
	for _, c := range clients {
		c.expect("back in a minute")
	}
}

func shutdownSaysWhatIsLeft(s *suite) {
	l := s.pair(lingering(), driver.Config{})
	l.sc.PauseReading()
	s.fill(l.cc, 0, 0, 1000)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := l.client.Shutdown(ctx)
	var left *driver.LeftError
	require.ErrorAs(s, err, &left)
	require.Equal(s, 1, left.Connections)
	require.Positive(s, left.QueuedBytes)
	require.ErrorIs(s, err, context.Canceled)
	require.Contains(s, err.Error(), "1 connections with")
	require.ErrorIs(s, l.client.awaitEnd(l.cc), driver.ErrShutdown)
}

// shutdownInACallback: it goes on when the callback has returned and cancelled its context, and delivers.
func shutdownInACallback(s *suite) {
	const packets = 50
	var server *node
	cfg := lingering()
	cfg.OutboundBufferSize = 8 << 20
	cfg.OnPacket = func(c driver.Conn, _ []byte) {
		for n := range packets {
			assert.NoError(s, c.Send(numbered(nil, 0, n, 60_000)))
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		assert.ErrorIs(s, server.Shutdown(ctx), driver.ErrInCallback)
	}
	server = s.server(cfg)
	client := s.client(driver.Config{})
	cc, _ := s.connect(client, server)
	require.NoError(s, cc.Send([]byte("quit")))
	s.await("the end of it", func() bool { return server.NumberOfConnections() == 0 })
	k := newChecker(1)
	client.pumping(k.take)
	k.complete(s, "queued before Shutdown", []int{packets})
	require.ErrorIs(s, client.awaitEnd(cc), driver.ErrPeerClosed)
}

// shutdownDisconnectFrom: as long as players are there they can be sent away.
func shutdownDisconnectFrom(s *suite) {
	server := s.server(driver.Config{ShutdownSpread: time.Hour})
	s.players(server, 3)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	wait := s.background("Shutdown", func() { assert.ErrorIs(s, server.Shutdown(ctx), context.Canceled) })
	s.await("the first", func() bool { return server.Stats().Disconnected == 1 })
	var last driver.Conn
	for c := range server.Conns() {
		last = c
	}
	require.NoError(s, server.DisconnectFrom(last.RemoteAddr()))
	require.ErrorIs(s, server.awaitEnd(last), driver.ErrDisconnected)
	cancel()
	wait()
	require.ErrorIs(s, server.DisconnectFrom(last.RemoteAddr()), net.ErrClosed)
}

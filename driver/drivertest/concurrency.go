package drivertest

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

func concurrencyProperties() []property {
	return []property{
		{"EverythingRacingClose", func(s *suite) { s.everythingRacing(false) }},
		{"EverythingRacingShutdown", func(s *suite) { s.everythingRacing(true) }},
		{"EverythingOnUpdateRacingClose", everythingOnUpdate},
		{"ListenAndStopRacing", listenRacing},
		{"PauseAndResumeFromMany", pauseFromMany},
		{"CloseOfAConnectionFromMany", closeConnFromMany},
		{"ConnectAndDisconnectRacing", connectRacing},
		{"ManySendersOnManyConnections", manySenders},
	}
}

func (s *suite) everythingRacing(shutdown bool) {
	for range s.amount(20) {
		s.race(driver.Config{InboundBufferSize: 4096, EventLoops: 2, LingerTimeout: 100 * time.Millisecond}, shutdown)
	}
}

func everythingOnUpdate(s *suite) {
	for range s.amount(20) {
		s.race(driver.Config{Dispatch: driver.DispatchOnUpdate, MaxConnections: 3, EventLoops: 1, LingerTimeout: 100 * time.Millisecond}, false)
	}
}

// race does everything with a server at once, and then closes it in the middle.
func (s *suite) race(cfg driver.Config, shutdown bool) {
	s.Helper()
	server := s.server(cfg)
	addr := server.addr()
	var clients []*node
	for range 3 {
		clients = append(clients, s.client(driver.Config{EventLoops: 1, InboundBufferSize: 4096, LingerTimeout: 100 * time.Millisecond}))
	}
	group := driver.NewGroup()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var all sync.WaitGroup
	loop := func(f func(n int)) {
		all.Add(1)
		go func() {
			defer all.Done()
			for n := 0; ctx.Err() == nil; n++ {
				f(n)
				pace(100 * time.Microsecond)
			}
		}()
	}
	for _, c := range clients {
		loop(func(n int) {
			_ = c.ConnectTo(addr)
			for range 5 {
				_ = c.Send(addr, make([]byte, 1+n%3000))
			}
			if n%20 == 19 {
				_ = c.DisconnectFrom(addr)
			}
		})
		loop(func(int) { _, _, _ = c.Receive(make([]byte, c.MaxSendSize())) })
	}
	loop(func(int) { server.Broadcast(make([]byte, 500), nil) })
	loop(func(int) { group.Broadcast(make([]byte, 500)) })
	loop(func(int) { _, _, _ = server.Receive(make([]byte, server.MaxSendSize())) })
	loop(func(int) { server.Update() })
	loop(func(int) { server.Stats() })
	loop(func(n int) {
		sub := server.Events().Subscribe(&recorder{})
		pace(100 * time.Microsecond)
		sub.Cancel()
	})
	loop(func(n int) {
		for c := range server.Conns() {
			switch (n + int(c.ID())) % 7 {
			case 0:
				c.PauseReading()
			case 1, 2:
				c.ResumeReading()
			case 3:
				group.Add(c)
			case 4:
				group.Remove(c)
			case 5:
				if n%50 == 0 {
					c.Close(errKicked)
				}
			case 6:
				if n%100 == 0 {
					if nc, err := c.Hijack(); err == nil {
						nc.Close()
					}
				}
			}
		}
	})
	loop(func(n int) {
		if n%10 == 0 {
			if server.StopListen() == nil {
				_ = server.StartListen(0)
			}
		}
	})
	s.await("traffic", func() bool { return server.Stats().PacketsReceived > 50 && server.Stats().PacketsSent > 50 })
	pace(5 * time.Millisecond)
	if shutdown {
		s.must("Shutdown", func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience/2)
			defer cancel()
			assert.NoError(s, server.Shutdown(ctx))
		})
	} else {
		s.must("Close", func() { assert.NoError(s, server.Close()) })
	}
	up, down := server.events.counts()
	cancel()
	s.must("the others", all.Wait)
	nowUp, nowDown := server.events.counts()
	require.Equal(s, [2]int{up, down}, [2]int{nowUp, nowDown}, "events after Close")
	require.Zero(s, group.Len(), "closed connections are members")
	for _, c := range clients {
		s.must("Close", func() { assert.NoError(s, c.Close()) })
	}
}

func listenRacing(s *suite) {
	server, client := s.client(driver.Config{}), s.client(driver.Config{})
	var all sync.WaitGroup
	for i := range 4 {
		all.Add(1)
		go func() {
			defer all.Done()
			for range s.amount(200) {
				if i%2 == 0 {
					if err := server.StartListen(0); err != nil {
						assert.ErrorIs(s, err, driver.ErrListening)
					}
				} else if err := server.StopListen(); err != nil {
					assert.ErrorIs(s, err, driver.ErrNotListening)
				}
				server.IsListening()
				assert.NotZero(s, server.Port())
			}
		}()
	}
	s.must("StartListen and StopListen", all.Wait)
	if !server.IsListening() {
		require.NoError(s, server.StartListen(0))
	}
	s.connect(client, server)
}

func pauseFromMany(s *suite) {
	k := newChecker(orderSenders)
	l := s.pair(driver.Config{}, driver.Config{OnPacket: func(_ driver.Conn, p []byte) { k.take(p) }})
	var stop atomic.Bool
	var all sync.WaitGroup
	for range 4 {
		all.Add(1)
		go func() {
			defer all.Done()
			for !stop.Load() {
				l.sc.PauseReading()
				pace(200 * time.Microsecond)
				l.sc.ResumeReading()
				pace(200 * time.Microsecond)
			}
		}()
	}
	s.sendFromMany(l.cc, k, s.amount(5000), smallPackets)
	stop.Store(true)
	s.must("PauseReading and ResumeReading", all.Wait)
}

func closeConnFromMany(s *suite) {
	for range s.amount(50) {
		l := s.pair(driver.Config{EventLoops: 1}, driver.Config{EventLoops: 1})
		var all sync.WaitGroup
		for i := range 8 {
			all.Add(1)
			go func() {
				defer all.Done()
				switch i % 4 {
				case 0:
					l.sc.Close(errKicked)
				case 1:
					_ = l.server.DisconnectFrom(l.sc.RemoteAddr())
				case 2:
					if err := l.sc.Send([]byte("x")); err != nil {
						assert.ErrorIs(s, err, net.ErrClosed)
					}
				case 3:
					l.cc.Close(nil)
				}
			}()
		}
		s.must("Close", all.Wait)
		l.server.awaitEnd(l.sc)
		l.client.awaitEnd(l.cc)
		require.NoError(s, l.server.Close())
		require.NoError(s, l.client.Close())
	}
}

// connectRacing: of several ConnectTo to one address one is under way at a time.
func connectRacing(s *suite) {
	server, client := s.server(driver.Config{}), s.client(driver.Config{})
	var accepted atomic.Int64
	for range s.amount(50) {
		accepted.Store(0)
		before := client.Stats()
		var all sync.WaitGroup
		for range 6 {
			all.Add(1)
			go func() {
				defer all.Done()
				switch err := client.ConnectTo(server.addr()); {
				case err == nil:
					accepted.Add(1)
				default:
					assert.Equal(s, driver.ErrSocketConnect, driver.CodeOf(err))
				}
			}()
		}
		s.must("ConnectTo", all.Wait)
		s.await("the outcome of each", func() bool {
			st := client.Stats()
			return int64(st.Dialled+st.ConnectsFailed-before.Dialled-before.ConnectsFailed) == accepted.Load() &&
				st.Dialled-before.Dialled == 1 && client.IsConnectedTo(server.addr())
		})
		require.EqualValues(s, 1, accepted.Load(), "ConnectTo to an address that is being connected")
		require.NoError(s, client.DisconnectFrom(server.addr()))
		s.await("the end", func() bool { st := client.Stats(); return st.Disconnected == st.Dialled })
	}
}

// manySenders: what eight goroutines send on many connections, by turns and at once, arrives on each whole, once, and in order per
// goroutine, though their readers pause, and half of them have small buffers.
func manySenders(s *suite) {
	const clients = 12
	each := s.amount(1000)
	server := s.server(driver.Config{OutboundBufferSize: 8 << 10, MaxPacketSize: 4096})
	var conns []driver.Conn
	var checkers []*checker
	var stops []func()
	for i := range clients {
		k := newChecker(orderSenders)
		cfg := driver.Config{EventLoops: 1, OnPacket: func(_ driver.Conn, p []byte) { k.take(p) }}
		bind := driver.Bind{Address: "127.0.0.1"}
		if i%2 == 0 {
			bind = narrow
		}
		cc, sc := s.connect(s.bound(cfg, bind), server)
		conns, checkers = append(conns, sc), append(checkers, k)
		if i%3 == 0 {
			stops = append(stops, s.pausing(cc))
		}
	}
	ctx := s.context()
	var senders sync.WaitGroup
	for sender := range orderSenders {
		senders.Go(func() {
			var buf []byte
			for n := range each {
				buf = numbered(buf[:0], sender, n, mixedPackets(n))
				for i := range conns {
					if err := conns[(i+sender)%clients].SendContext(ctx, buf); err != nil {
						s.Errorf("sender %d, packet %d: %v", sender, n, err)
						return
					}
				}
			}
		})
	}
	for _, k := range checkers {
		k.complete(s, "many senders on many connections", full(each))
	}
	senders.Wait()
	for _, stop := range stops {
		stop()
	}
	require.EqualValues(s, clients*orderSenders*each, server.Stats().PacketsSent)
}
